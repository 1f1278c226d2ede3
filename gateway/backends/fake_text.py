"""What the fake provider says: a sentence that admits what it is, a small JSON value that fits a schema, the
label looked up in a table, a vector drawn from a hash. Nothing here is clever, and all of it repeats.
"""

import hashlib
import math
import random
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

NOTICE = "This is Headgate's fake provider, not a language model: it answers by rule, whatever you ask."

_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "nobody@example.com",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call of a client's function; `arguments` is JSON text."""

    name: str
    arguments: str


Reply = str | ToolCall
Answer = Callable[[dict[str, Any]], Reply | None]


class Lookup:
    """Answers from a table: the label of the text that the last user message is, or contains.

    A share `error_rate` of the texts gets another label, always the same texts and the same labels for one
    `seed`, so that a demo can rent a model with a known quality. None for a text that is not in the table.
    """

    def __init__(self, labels: Mapping[str, str], *, error_rate: float = 0.0, seed: int = 0) -> None:
        self._labels, self._error_rate, self._seed = dict(labels), error_rate, seed
        self._known = sorted(set(self._labels.values()))
        self._longest_first = sorted(self._labels, key=len, reverse=True)

    def __call__(self, body: dict[str, Any]) -> str | None:
        said = last_user_text(body)
        text = said if said in self._labels else next((t for t in self._longest_first if t in said), None)
        return None if text is None else self._label(text)

    def _label(self, text: str) -> str:
        right = self._labels[text]
        wrong = [label for label in self._known if label != right]
        rng = random.Random(f"{self._seed}\n{text}")
        return rng.choice(wrong) if wrong and rng.random() < self._error_rate else right


def echo(body: dict[str, Any]) -> str:
    """An `answer` that says the last user message again."""
    return last_user_text(body)


def last_user_text(body: dict[str, Any]) -> str:
    """The last user message's text, or a completion's prompt; empty when there is none."""
    users = [m for m in body.get("messages", []) if m.get("role") == "user"]
    if users:
        return content_text(users[-1].get("content"))
    prompt = body.get("prompt")
    return prompt if isinstance(prompt, str) else ""


def content_text(content: Any) -> str:
    """A message's content, given as a string or as parts, without what is not text."""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or [])


def instance(schema: Any, root: Any = None) -> Any:
    """A small value that fits a JSON Schema of the kind that structured outputs allow (no `pattern`)."""
    root = schema if root is None else root
    if not isinstance(schema, dict):
        return None
    if "$ref" in schema:
        return instance(_resolve(schema["$ref"], root), root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    choices = schema.get("anyOf") or schema.get("oneOf")
    # A recursive schema (a list's next element, say) ends where null is allowed.
    return _of_type(schema, root) if not choices else instance(min(choices, key=_not_null), root)


def _not_null(schema: dict[str, Any]) -> bool:
    return schema.get("type") != "null"


def _of_type(schema: dict[str, Any], root: Any) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "null")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: instance(properties.get(name, {}), root) for name in schema.get("required", [])}
    if kind == "array":
        return [instance(schema.get("items", {}), root) for _ in range(schema.get("minItems", 0))]
    if kind == "string":
        return _FORMATS.get(schema.get("format", ""), "x" * schema.get("minLength", 0))
    if kind in ("integer", "number"):
        return _number(schema)
    return False if kind == "boolean" else None


def _number(schema: dict[str, Any]) -> float | int:
    """The number next to zero that the bounds allow, to a whole step."""
    step: float = schema.get("multipleOf", 1)
    low: float = schema.get("minimum", schema.get("exclusiveMinimum", -math.inf))
    high: float = schema.get("maximum", schema.get("exclusiveMaximum", math.inf))
    if low >= 0:
        value = math.ceil(low / step) * step
        return value + step if value == schema.get("exclusiveMinimum") else value
    value = math.floor(min(high, 0) / step) * step
    return value - step if value == schema.get("exclusiveMaximum") else value


def _resolve(ref: str, root: Any) -> Any:
    found = root
    for step in ref.removeprefix("#").strip("/").split("/"):
        found = found[step] if step else found
    return found


def unit_vector(text: str, dimensions: int) -> list[float]:
    """A vector of length one that depends on the text alone."""
    rng = random.Random(hashlib.sha256(text.encode()).digest())
    vector = [rng.gauss(0.0, 1.0) for _ in range(dimensions)]
    length = sum(x * x for x in vector) ** 0.5
    return [x / length for x in vector]

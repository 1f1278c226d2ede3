"""OpenAI's own API description as a judge of answers.

Where it is absent nothing is judged, and `tests/sdk/test_openai_description.py` skips to say so: the rest of
a test is worth running all the same.
"""

import gzip
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

SHARED = Path(__file__).parents[3] / "shared" / "data"
DESCRIPTION = SHARED / "openai" / "openapi.yaml.gz"


@cache
def _description() -> dict[str, Any]:
    with gzip.open(DESCRIPTION) as file:
        loaded: dict[str, Any] = _modern(yaml.load(file, Loader=yaml.CSafeLoader))
    return loaded


def _modern(node: Any) -> Any:
    """OpenAPI 3.0's words, which the description still uses here and there, in those of JSON Schema."""
    if isinstance(node, list):
        return [_modern(item) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {key: _modern(value) for key, value in node.items() if key != "nullable"}
    if rest.get("exclusiveMinimum") is True:
        rest["exclusiveMinimum"] = rest.pop("minimum")
    return {"anyOf": [rest, {"type": "null"}]} if node.get("nullable") is True else rest


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        {"components": _description()["components"], "$ref": f"#/components/schemas/{name}"}
    )


def assert_valid(answer: object, schema: str) -> None:
    """Fails with every way in which `answer` departs from that schema of OpenAI's."""
    if not DESCRIPTION.exists():
        return
    problems = [f"{e.json_path}: {e.message[:200]}" for e in _validator(schema).iter_errors(answer)]
    assert not problems, f"not a {schema}:\n" + "\n".join(problems)

"""Read an OpenAI fine-tuning file (JSON Lines, chat format) and name everything that is wrong with it.

One bad line never hides another: `read_rows` goes through the whole file and raises `InvalidDataset` with all
problems, each with its 1-based line number, JSON path and cause.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from finetune.row_rules import is_trained, row_faults

MINIMUM_ROWS = 10
MAXIMUM_FILE_BYTES = 512 * 1024 * 1024
MAXIMUM_LINE_BYTES = 1024 * 1024
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Problem(msgspec.Struct, frozen=True):
    """One fault. `line` is 1-based; 0 stands for the file as a whole."""

    line: int
    path: str
    cause: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.path}: {self.cause}" if self.line else self.cause


class InvalidDataset(ValueError):
    """The file cannot be trained on. `problems` lists every reason, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


class Row(msgspec.Struct, frozen=True):
    """A valid row. `id` is the SHA-256 of its canonical JSON, so equal rows have equal ids.

    `messages` are as chat templates want them: content parts joined, arguments of tool calls decoded.
    """

    line: int
    id: str
    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] | None = None

    @property
    def prompt(self) -> tuple[dict[str, Any], ...]:
        """What the model is given when it is scored: all before the last trained answer."""
        return self.messages[: self._answer_at]

    @property
    def answer(self) -> dict[str, Any]:
        """The last assistant message with weight 1."""
        return self.messages[self._answer_at]

    @property
    def _answer_at(self) -> int:
        return max(at for at, message in enumerate(self.messages) if is_trained(message))


def read_rows(path: Path, minimum: int = MINIMUM_ROWS) -> tuple[Row, ...]:
    """All rows of a file, in its order. InvalidDataset if anything is wrong, OSError if it cannot be read."""
    if path.stat().st_size > MAXIMUM_FILE_BYTES:
        limit = MAXIMUM_FILE_BYTES // 2**20
        raise InvalidDataset((Problem(0, "$", f"The file is larger than {limit} MiB"),))
    rows: list[Row] = []
    problems: list[Problem] = []
    lines = 0
    for number, line in _lines(path):
        lines += 1
        outcome = check_line(number, line)
        if isinstance(outcome, Row):
            rows.append(outcome)
        else:
            problems += outcome
    if lines < minimum:
        cause = f"Training file has {lines} example(s), but must have at least {minimum} examples"
        problems.append(Problem(0, "$", cause))
    if problems:
        raise InvalidDataset(tuple(problems))
    return tuple(rows)


def check_line(number: int, line: bytes) -> Row | list[Problem]:
    """One line of the file without its line end: the row, or its problems."""
    if len(line) > MAXIMUM_LINE_BYTES:
        return [Problem(number, "$", f"the line is longer than {MAXIMUM_LINE_BYTES:,} bytes")]
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return [Problem(number, "$", f"not UTF-8 at byte {error.start + 1}")]
    if not text.strip():
        return [Problem(number, "$", "the line is blank")]
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        return [Problem(number, "$", f"not JSON at column {error.colno}: {error.msg}")]
    except ValueError as error:  # from the two hooks, or a number with thousands of digits
        return [Problem(number, "$", f"not JSON: {error}")]
    except RecursionError:
        return [Problem(number, "$", "nested too deeply")]
    problems = [Problem(number, fault.path, fault.cause) for fault in row_faults(value)]
    if not problems and not _is_encodable(text, value):
        problems.append(Problem(number, "$", "a string holds half of a surrogate pair"))
    return problems or _to_row(number, value)


def canonical_json(value: object) -> bytes:
    """One spelling for equal JSON values: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _to_row(number: int, value: dict[str, Any]) -> Row:
    tools = value.get("tools")
    return Row(
        line=number,
        id=hashlib.sha256(canonical_json(value)).hexdigest(),
        messages=tuple(_for_template(message) for message in value["messages"]),
        tools=tuple(tools) if tools else None,
    )


def _for_template(message: dict[str, Any]) -> dict[str, Any]:
    """The message as vLLM would hand it to the chat template, so that training sees what serving sends.

    vLLM joins text parts with line ends and decodes the arguments of tool calls.
    """
    content = message.get("content")
    if isinstance(content, list):
        message = {**message, "content": "\n".join(part["text"] for part in content)}
    if "tool_calls" in message:
        message = {**message, "tool_calls": [_decoded_call(call) for call in message["tool_calls"]]}
    return message


def _decoded_call(call: dict[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.loads(function["arguments"])}}


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number and bytes. An over-long line is read past in pieces and never held as a whole."""
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAXIMUM_LINE_BYTES + 2):
            number += 1
            rest = line
            while not rest.endswith(b"\n") and (rest := file.readline(MAXIMUM_LINE_BYTES)):
                pass
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            yield number, line.removesuffix(b"\n").removesuffix(b"\r")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {json.dumps(twice)} occurs twice in one object")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _is_encodable(text: str, value: object) -> bool:
    """Whether all strings are Unicode; JSON's escapes can spell lone surrogates, which UTF-8 cannot hold."""
    if "\\u" not in text:
        return True
    try:
        canonical_json(value)
    except UnicodeEncodeError:
        return False
    return True

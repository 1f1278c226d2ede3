"""Read an OpenAI fine-tuning file (JSON Lines, chat format) and name everything that is wrong with it.

One bad line never hides another: `read_rows` goes through the whole file and raises `InvalidDataset` with all
problems, each with its 1-based line number, JSON path and cause.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from finetune.row_rules import OUTPUTS, Fault, completed, is_trained, preference_faults, row_faults

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


class PreferenceRow(msgspec.Struct, frozen=True):
    """A valid row for DPO: the same prompt with the better and with the worse answer."""

    line: int
    id: str
    preferred: Row
    rejected: Row


AnyRow = TypeVar("AnyRow", Row, PreferenceRow)
Check = Callable[[int, bytes], AnyRow | list[Problem]]


def read_rows(path: Path, minimum: int = MINIMUM_ROWS) -> tuple[Row, ...]:
    """All rows of a file, in its order. InvalidDataset if anything is wrong, OSError if it cannot be read."""
    return _read(path, check_line, minimum)


def read_preferences(path: Path, minimum: int = MINIMUM_ROWS) -> tuple[PreferenceRow, ...]:
    """The same for a file of preferences."""
    return _read(path, check_preference, minimum)


def check_file(path: Path, check: Check[Any], minimum: int = MINIMUM_ROWS) -> Iterator[Problem]:
    """Everything that is wrong with a file, without ever holding its rows. Raises OSError."""
    if path.stat().st_size > MAXIMUM_FILE_BYTES:
        yield Problem(0, "$", f"The file is larger than {MAXIMUM_FILE_BYTES // 2**20} MiB")
        return
    lines = 0
    for number, line in _lines(path):
        lines += 1
        outcome = check(number, line)
        if isinstance(outcome, list):
            yield from outcome
    if lines < minimum:
        yield too_few(lines, minimum)


def too_few(lines: int, minimum: int) -> Problem:
    """In OpenAI's words."""
    return Problem(0, "$", f"Training file has {lines} example(s), but must have at least {minimum} examples")


def _read(path: Path, check: Check[AnyRow], minimum: int) -> tuple[AnyRow, ...]:
    rows: list[AnyRow] = []

    def kept(number: int, line: bytes) -> AnyRow | list[Problem]:
        outcome = check(number, line)
        if not isinstance(outcome, list):
            rows.append(outcome)
        return outcome

    if problems := tuple(check_file(path, kept, minimum)):
        raise InvalidDataset(problems)
    return tuple(rows)


def check_line(number: int, line: bytes) -> Row | list[Problem]:
    """One line of the file without its line end: the row, or its problems."""
    value, problems = _decoded(number, line, row_faults)
    return problems or _to_row(number, value)


def check_preference(number: int, line: bytes) -> PreferenceRow | list[Problem]:
    """The same for a line of preferences."""
    value, problems = _decoded(number, line, preference_faults)
    if problems:
        return problems
    preferred, rejected = (_to_row(number, completed(value["input"], value[output])) for output in OUTPUTS)
    return PreferenceRow(number, _id(value), preferred, rejected)


def _decoded(
    number: int, line: bytes, faults: Callable[[object], Iterable[Fault]]
) -> tuple[Any, list[Problem]]:
    """The value of a line, and its problems: then the value may be anything."""
    try:
        value, problem = _value(line)
    except UnicodeDecodeError as error:
        return None, [Problem(number, "$", f"not UTF-8 at byte {error.start + 1}")]
    if problem:
        return None, [Problem(number, "$", problem)]
    problems = [Problem(number, fault.path, fault.cause) for fault in faults(value)]
    if not problems and not _is_encodable(line, value):
        problems.append(Problem(number, "$", "a string holds half of a surrogate pair"))
    return value, problems


def _value(line: bytes) -> tuple[Any, str]:
    """The JSON value of a line, and why there is none. Raises UnicodeDecodeError."""
    if len(line) > MAXIMUM_LINE_BYTES:
        return None, f"the line is longer than {MAXIMUM_LINE_BYTES:,} bytes"
    text = line.decode()
    if not text.strip():
        return None, "the line is blank"
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant), ""
    except json.JSONDecodeError as error:
        return None, f"not JSON at column {error.colno}: {error.msg}"
    except ValueError as error:  # from the two hooks, or a number with thousands of digits
        return None, f"not JSON: {error}"
    except RecursionError:
        return None, "nested too deeply"


def canonical_json(value: object) -> bytes:
    """One spelling for equal JSON values: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _to_row(number: int, value: dict[str, Any]) -> Row:
    tools = value.get("tools")
    return Row(
        line=number,
        id=_id(value),
        messages=tuple(_for_template(message) for message in value["messages"]),
        tools=tuple(tools) if tools else None,
    )


def _id(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()


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


def _is_encodable(line: bytes, value: object) -> bool:
    """Whether all strings are Unicode; JSON's escapes can spell lone surrogates, which UTF-8 cannot hold."""
    if b"\\u" not in line:
        return True
    try:
        canonical_json(value)
    except UnicodeEncodeError:
        return False
    return True

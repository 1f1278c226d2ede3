"""Read an OpenAI preference file (JSON Lines) for direct preference optimization. No torch here.

A row is `{"input": {"messages": […], "tools": […]}, "preferred_output": [answer], "non_preferred_output":
[answer]}`. Each side is checked as the supervised row that it would be.
"""

import json
from pathlib import Path
from typing import Any

import msgspec

from finetune.dataset import MINIMUM_ROWS, InvalidDataset, Problem, Row, check_line

KEYS = {"input", "preferred_output", "non_preferred_output"}
SIDES = ("preferred_output", "non_preferred_output")


class PreferenceRow(msgspec.Struct, frozen=True):
    """One question with the better and the worse answer."""

    preferred: Row
    rejected: Row


def read_preferences(path: Path, minimum: int = MINIMUM_ROWS) -> tuple[PreferenceRow, ...]:
    """All rows of a file, in its order. InvalidDataset with everything that is wrong, OSError."""
    rows: list[PreferenceRow] = []
    problems: list[Problem] = []
    lines = path.read_bytes().splitlines()
    for number, line in enumerate(lines, start=1):
        outcome = check_preference(number, line)
        if isinstance(outcome, PreferenceRow):
            rows.append(outcome)
        else:
            problems += outcome
    if len(lines) < minimum:
        cause = f"Training file has {len(lines)} example(s), but must have at least {minimum} examples"
        problems.append(Problem(0, "$", cause))
    if problems:
        raise InvalidDataset(tuple(problems))
    return tuple(rows)


def check_preference(number: int, line: bytes) -> PreferenceRow | list[Problem]:
    """One line without its line end: the row, or its problems."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        # The reader of supervised rows knows best what is wrong with a line that is not JSON.
        found = check_line(number, line)
        return found if isinstance(found, list) else [Problem(number, "$", "not a preference row")]
    problems = [Problem(number, path, cause) for path, cause in _shape_faults(value)]
    if problems:
        return problems
    sides = [_side(number, value, side) for side in SIDES]
    wrong = [problem for side in sides if not isinstance(side, Row) for problem in side]
    preferred, rejected = sides
    if isinstance(preferred, Row) and isinstance(rejected, Row):
        if preferred.id == rejected.id:
            return [Problem(number, "$.non_preferred_output", "is the same as preferred_output")]
        return PreferenceRow(preferred, rejected)
    return list(dict.fromkeys(wrong))  # what is wrong with the input is wrong on both sides


def _shape_faults(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return [("$", "a row is a JSON object")]
    faults = [
        (f"$.{key}", f"unknown key; a row has {', '.join(sorted(KEYS))}")
        for key in sorted(value.keys() - KEYS)
    ]
    body = value.get("input")
    if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
        faults.append(("$.input", "must be an object with a list of messages"))
    for side in SIDES:
        answers = value.get(side)
        if not isinstance(answers, list) or len(answers) != 1 or not _is_answer(answers[0]):
            faults.append((f"$.{side}", "must be a list of exactly one assistant message"))
    return faults


def _is_answer(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _side(number: int, value: dict[str, Any], side: str) -> Row | list[Problem]:
    """The supervised row of one side, in which only the answer is learned."""
    body = value["input"]
    given = [{**message, "weight": 0} if _is_answer(message) else message for message in body["messages"]]
    found = check_line(number, json.dumps({**body, "messages": [*given, *value[side]]}).encode())
    if isinstance(found, Row):
        return found
    answer, asked = f"$.messages[{len(given)}]", "$.messages"
    return [
        msgspec.structs.replace(
            one, path=one.path.replace(answer, f"$.{side}[0]").replace(asked, "$.input.messages")
        )
        for one in found
    ]

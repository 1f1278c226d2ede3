"""Rows for the fine-tuning tests."""

import json
from typing import Any

from finetune.dataset import Row, check_line


def chat(text: str, answer: str = "yes", **more: Any) -> dict[str, Any]:
    """A valid row with one question and one answer."""
    return {
        "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": answer, **more}],
    }


def to_row(value: dict[str, Any], line: int = 1) -> Row:
    """The row that the reader makes of a value; the test fails if it finds a problem."""
    outcome = check_line(line, json.dumps(value).encode())
    assert isinstance(outcome, Row), outcome
    return outcome

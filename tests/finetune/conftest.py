"""Files of rows for the fine-tuning tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write values, or raw lines given as bytes, as a JSON Lines file."""

    def write(*values: Any, name: str = "rows.jsonl") -> Path:
        lines = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
        path = tmp_path / name
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write

"""The curated rows that ship with the demo: those that are trained on, and those that are held out."""

from pathlib import Path
from typing import Any

import msgspec

from finetune.dataset import Row, read_rows
from finetune.split import split_rows

SOURCE = Path(__file__).parents[2] / "finetune" / "demo_data" / "support_desk.jsonl"
HELD_OUT_SHARE = 0.28
SEED = 0


class Rows(msgspec.Struct, frozen=True):
    """Two files in OpenAI's fine-tuning format, and the same as values."""

    train_file: Path
    held_out_file: Path
    train: tuple[Row, ...]
    held_out: tuple[Row, ...]


def split_into(folder: Path, source: Path = SOURCE) -> Rows:
    """Write train.jsonl and held-out.jsonl into `folder`, each label in both in the same share."""
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    parts = split_rows(read_rows(source), HELD_OUT_SHARE, SEED)
    files = folder / "train.jsonl", folder / "held-out.jsonl"
    for file, rows in zip(files, (parts.train, parts.held_out), strict=True):
        file.write_text("".join(lines[row.line - 1] for row in rows), encoding="utf-8")
    return Rows(*files, parts.train, parts.held_out)


def question(row: Row) -> str:
    """What the row's user says."""
    return str(row.prompt[-1]["content"])


def label(row: Row) -> str:
    """The right answer."""
    return str(row.answer["content"])


def messages(row: Row) -> list[dict[str, Any]]:
    """The row as a client would send it: all but the answer."""
    return list(row.prompt)

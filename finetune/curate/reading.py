"""Files for the checks: rows where a file is sound, else every fault of its rows."""

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

from finetune.curate.build import as_chat
from finetune.curate.findings import DataFile, Finding
from finetune.dataset import MINIMUM_ROWS, InvalidDataset, read_preferences, read_rows

COLUMNS = ("question", "answer")


class Unusable(ValueError):
    """A table that rows cannot be made of; the text says why."""


def read_file(path: Path, role: str, *, preferences: bool = False) -> tuple[DataFile | None, list[Finding]]:
    """The file, or why it has none: schema, order of roles, tool calls, weights. Raises OSError.

    Rows of preferences (DPO) stand for the answers that are preferred.
    """
    minimum = MINIMUM_ROWS if role == "train" else 1
    try:
        if preferences:
            rows = tuple(pair.preferred for pair in read_preferences(path, minimum))
        else:
            rows = read_rows(path, minimum)
    except InvalidDataset as error:
        return None, [
            Finding(
                check="schema",
                severity="error",
                cause=problem.cause,
                lines=(problem.line,) if problem.line else (),
                path=problem.path,
                file=path.name,
            )
            for problem in error.problems
        ]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return DataFile(role=role, name=path.name, sha256=digest, rows=rows), []


def rows_of_table(path: Path, question: str, answer: str, system: str = "") -> Iterator[bytes]:
    """Lines of chat rows from a CSV file with a header. Raises OSError, Unusable."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        lacking = [name for name in (question, answer) if name not in (table.fieldnames or ())]
        if lacking:
            there = ", ".join(table.fieldnames or ()) or "none"
            raise Unusable(f"{path}: no column {', '.join(lacking)}; there are {there}")
        for row in table:
            yield as_chat(str(row[question] or "").strip(), str(row[answer] or "").strip(), system)

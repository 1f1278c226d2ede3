"""Versions: cleaned by rule, divided without leaks, named by their content, never changed."""

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.curate.build import (
    TRAIN,
    VALIDATION,
    NothingLeft,
    clean,
    divide,
    raw_lines,
    read_version,
    write_version,
)
from finetune.curate.findings import DataFile, Preflight, RowTokens
from finetune.curate.near import near_pairs, shingles
from finetune.curate.reading import Unusable, read_file, rows_of_table
from tests.finetune.curate.test_checks import QUESTIONS, SOUND, TOPICS
from tests.finetune.samples import chat, to_row


def written(path: Path, rows: list[dict[str, Any]]) -> DataFile:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    file, findings = read_file(path, "train")
    assert file is not None, findings
    return file


def test_each_rule_leaves_out_its_lines(tmp_path: Path) -> None:
    """The first of equals stays; of rows that disagree none does; what the base cannot take goes."""
    rows = [
        *SOUND,
        SOUND[1],
        chat(QUESTIONS[0].format("card").upper(), "hotel"),
        chat(QUESTIONS[2].format("card") + " !", "card"),
        chat(QUESTIONS[3].format("card") + " 1", "hotel"),
    ]
    file = written(tmp_path / "rows.jsonl", rows)
    unfit = Preflight(
        base="b",
        longest=1,
        template_marks_answers=True,
        rows=tuple(
            RowTokens(line=row.line, eos=True, fault="too long" if row.line == 24 else "")
            for row in file.rows
        ),
    )
    kept, dropped = clean(file.rows, unfit)
    assert {each.rule: each.lines for each in dropped} == {
        "tokens": (24,),
        "contradiction": (1, 26),
        "near_contradiction": (4, 28),
        "duplicate": (25,),
        "near_duplicate": (27,),
    }
    assert [row.line for row in kept] == [2, 3, *range(5, 24)]


def test_no_near_duplicate_is_on_both_sides() -> None:
    """Of prompts that hardly differ all are learned from or none: else the score measures memory."""
    rows = [chat(f"{question.format(topic)} number {n}", topic)
            for topic in TOPICS for question in QUESTIONS for n in range(3)]  # fmt: skip
    read = [to_row(row, line) for line, row in enumerate(rows, 1)]
    train, validation = divide(read, 0.3, seed=3)
    assert len(train) + len(validation) == len(rows)
    texts = [row.messages[0]["content"] for row in (*train, *validation)]
    pairs = near_pairs([shingles(text) for text in texts])
    assert not [(a, b) for a, b in pairs if a < len(train) <= b]


def test_a_version_is_its_content(tmp_path: Path) -> None:
    """The same rows and seed give the same folder, byte for byte; other rows another; a change is noticed."""
    path = tmp_path / "rows.jsonl"
    file = written(path, SOUND)

    def make(seed: int) -> Path:
        train, validation = divide(file.rows, 0.25, seed)
        home, _ = write_version(
            tmp_path / "sets", "desk", [file], train, validation, lines=raw_lines(path), seed=seed
        )
        return home

    first = make(1)
    assert make(1) == first
    assert make(2) != first
    version = read_version(first)
    assert (version.train_rows, version.validation_rows) == (18, 6)
    assert version.sources == {"rows.jsonl": file.sha256}
    lines = {*(first / TRAIN).read_text().splitlines(), *(first / VALIDATION).read_text().splitlines()}
    assert lines == set(path.read_text().splitlines())
    assert not list((tmp_path / "sets").glob(".*"))
    (first / TRAIN).write_text("changed")
    with pytest.raises(ValueError, match=r"train\.jsonl is no longer"):
        read_version(first)


def test_too_few_rows_are_said_to_be() -> None:
    """One row cannot be divided."""
    with pytest.raises(NothingLeft, match="1 rows are left"):
        divide([to_row(SOUND[0])], 0.2, 0)


def test_a_table_becomes_rows(tmp_path: Path) -> None:
    """By column names, with a system message; a column that is not there is named beside those that are."""
    path = tmp_path / "t.csv"
    path.write_text('\ufefftext,queue\n"a, ""b""",card\n', encoding="utf-8")
    (line,) = rows_of_table(path, "text", "queue", "Sort it.")
    assert [message["content"] for message in json.loads(line)["messages"]] == ["Sort it.", 'a, "b"', "card"]
    with pytest.raises(Unusable, match="no column answer; there are text, queue"):
        list(rows_of_table(path, "text", "answer"))

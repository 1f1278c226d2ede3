"""A cleaner data set from a rawer one, as a version that never changes: a folder named by its content.

    NAME-0123456789ab/  train.jsonl  validation.jsonl  dataset.json

The digits are the SHA-256 of the rows and of how they were divided, so the same rows give the same version,
and `dataset.json` tells where it came from and what was left out.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from finetune.curate.checks import answer_of, labels_of, text_of
from finetune.curate.findings import DataFile, Preflight
from finetune.curate.near import groups, near_pairs, shingles
from finetune.dataset import Row
from finetune.split import prompt_key, split_rows

TRAIN, VALIDATION, ABOUT = "train.jsonl", "validation.jsonl", "dataset.json"
SHORT_DIGEST = 12


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of the source that a rule left out."""

    rule: str
    lines: tuple[int, ...]


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What `dataset.json` holds."""

    name: str
    digest: str
    sources: dict[str, str]  # file name -> SHA-256
    seed: int
    train_rows: int
    validation_rows: int
    train_sha256: str
    validation_sha256: str
    labels: dict[str, int]  # of the training rows, where the task is to classify
    dropped: tuple[Dropped, ...]

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.digest[:SHORT_DIGEST]}"


class NothingLeft(ValueError):
    """The rules leave too few rows to train on and to hold out."""


def clean(rows: Sequence[Row], preflight: Preflight | None = None) -> tuple[list[Row], list[Dropped]]:
    """The rows that are worth learning from, in their order, and those left out with the rule that did it.

    Of equal rows and of prompts that hardly differ and agree, the first stays. Rows that disagree all go:
    which of them is right only a person knows. So do rows that the base cannot take whole.
    """
    dropped: dict[str, list[int]] = {}
    rest = list(rows)
    for rule, found in (
        ("tokens", _unfit(preflight)),
        ("contradiction", _contradicting(rest)),
        ("near_contradiction", _near(rest, disagreeing=True)),
    ):
        rest = _without(rest, found, dropped, rule)
    rest = _without(rest, _repeated(rest), dropped, "duplicate")
    rest = _without(rest, _near(rest, disagreeing=False), dropped, "near_duplicate")
    return rest, [Dropped(rule=rule, lines=tuple(sorted(lines))) for rule, lines in dropped.items()]


def divide(rows: Sequence[Row], share: float, seed: int) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """Train and validation, by label, with prompts that hardly differ on one side. Raises NothingLeft."""
    split = split_rows(rows, share, seed)
    train, held = list(split.train), list(split.held_out)
    sets = [shingles(text_of(row)) for row in (*train, *held)]
    border = len(train)
    near = {second - border for first, second in near_pairs(sets) if first < border <= second}
    train += [row for at, row in enumerate(held) if at in near]
    held = [row for at, row in enumerate(held) if at not in near]
    if not train or not held:
        raise NothingLeft(f"{len(rows)} rows are left: too few to learn from some and to hold others out")
    return tuple(train), tuple(held)


def write_version(
    root: Path,
    name: str,
    sources: Sequence[DataFile],
    train: Sequence[Row],
    validation: Sequence[Row],
    *,
    lines: dict[int, bytes],
    seed: int,
    dropped: Sequence[Dropped] = (),
) -> tuple[Path, Version]:
    """The version's folder below `root`; a version that is there already is left as it is.

    `lines` are the source's own, by number: rows are copied, never written anew. Raises OSError.
    """
    parts = [b"".join(lines[row.line] + b"\n" for row in part) for part in (train, validation)]
    digests = [hashlib.sha256(part).hexdigest() for part in parts]
    version = Version(
        name=name,
        digest=hashlib.sha256("\n".join(digests).encode()).hexdigest(),
        sources={source.name: source.sha256 for source in sources},
        seed=seed,
        train_rows=len(train),
        validation_rows=len(validation),
        train_sha256=digests[0],
        validation_sha256=digests[1],
        labels=dict(labels_of(train)),
        dropped=tuple(dropped),
    )
    home = root / version.folder
    if home.exists():
        return home, version
    root.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=root))
    try:
        for file, part in zip((TRAIN, VALIDATION), parts, strict=True):
            (unfinished / file).write_bytes(part)
        about = msgspec.json.format(msgspec.json.encode(version), indent=2)
        (unfinished / ABOUT).write_bytes(about + b"\n")
        unfinished.chmod(0o755)
        os.rename(unfinished, home)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return home, version


def read_version(folder: Path) -> Version:
    """A version whose files are still those that it was made of. Raises OSError, ValueError."""
    version = msgspec.json.decode((folder / ABOUT).read_bytes(), type=Version)
    for file, digest in ((TRAIN, version.train_sha256), (VALIDATION, version.validation_sha256)):
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{folder / file} is no longer what the version was made of")
    return version


def raw_lines(path: Path) -> dict[int, bytes]:
    """A file's lines by number, from 1, without their ends."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    return {number: line.rstrip(b"\r") for number, line in enumerate(content.split(b"\n"), 1)}


def as_chat(question: str, answer: str, system: str = "") -> bytes:
    """One row, as a line without its end, from a question and its answer."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return json.dumps({"messages": messages}, ensure_ascii=False).encode()


def _without(
    rows: Sequence[Row], found: Iterable[int], dropped: dict[str, list[int]], rule: str
) -> list[Row]:
    """The rows less those lines, which are noted under the rule."""
    gone = {row.line for row in rows} & set(found)
    if gone:
        dropped[rule] = sorted(gone)
    return [row for row in rows if row.line not in gone]


def _unfit(preflight: Preflight | None) -> set[int]:
    return {row.line for row in preflight.rows if row.fault or not row.eos} if preflight else set()


def _contradicting(rows: Sequence[Row]) -> set[int]:
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(prompt_key(row), set()).add(answer_of(row))
    return {row.line for row in rows if len(answers[prompt_key(row)]) > 1}


def _repeated(rows: Sequence[Row]) -> set[int]:
    """All but the first of rows with the same prompt; their answers agree by now."""
    seen: Counter[str] = Counter()
    found = set()
    for row in rows:
        key = prompt_key(row)
        if seen[key]:
            found.add(row.line)
        seen[key] += 1
    return found


def _near(rows: Sequence[Row], *, disagreeing: bool) -> set[int]:
    """Lines of prompts that hardly differ: all where their answers do, else all but the first of a group.

    Only labels disagree: where a number is to be copied, another number rightly has another answer.
    """
    if disagreeing and not labels_of(rows):
        return set()
    sets = [shingles(text_of(row)) for row in rows]
    found: set[int] = set()
    for group in groups(len(rows), near_pairs(sets)):
        answers = {answer_of(rows[at]) for at in group}
        if (len(answers) > 1) == disagreeing:
            found |= {rows[at].line for at in (group if disagreeing else group[1:])}
    return found

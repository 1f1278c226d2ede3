"""Which rows made which adapter, asked from either end; and what the erasure of rows means for adapters.

A row is known by the digest of its content, from which nobody can read the row. Rows are written down when a
release is registered. What an erasure blocks is asked for each time and marked nowhere, so that an adapter
that is registered after it, and was trained on an erased row, is found as well.

Everything here is part of a unit of work of `adapters.registry`, which opens the sessions.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec
from sqlalchemy import func, insert
from sqlmodel import Session, col, select

from adapters.manifest import DatasetLineage
from adapters.tables import AdapterRow, ErasedRow

AT_ONCE = 500  # values in one statement: SQLite takes no more than 999 in old versions
Split = Literal["train", "held_out"]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One release that saw one row: in training, or in evaluation only."""

    row: str
    release: str
    split: Split


class Touched(msgspec.Struct, frozen=True, kw_only=True):
    """A release that was trained on erased rows. `blocked`: at least one of them forbids serving it."""

    release: str
    rows: tuple[str, ...]
    blocked: bool


def write_rows(session: Session, release: str, dataset: DatasetLineage) -> None:
    """Write down what a release saw, unless that was done before."""
    if session.exec(select(AdapterRow.row).where(AdapterRow.release == release).limit(1)).first() is not None:
        return
    splits: dict[Split, tuple[str, ...]] = {"train": dataset.train_rows, "held_out": dataset.held_out_rows}
    values = [
        {"row": row, "release": release, "split": split}
        for split, rows in splits.items()
        for row in dict.fromkeys(rows)
    ]
    if values:
        session.connection().execute(insert(AdapterRow), values)


def seen_by(session: Session, release: str) -> tuple[Seen, ...]:
    """The rows that a release saw."""
    query = select(AdapterRow).where(AdapterRow.release == release).order_by(AdapterRow.split, AdapterRow.row)
    return tuple(_seen(row) for row in session.exec(query))


def who_saw(session: Session, rows: Iterable[str]) -> tuple[Seen, ...]:
    """The releases that saw any of the rows."""
    found: list[Seen] = []
    for some in _chunks(rows):
        query = select(AdapterRow).where(col(AdapterRow.row).in_(some))
        found += [_seen(row) for row in session.exec(query)]
    return tuple(sorted(found, key=lambda seen: (seen.release, seen.split, seen.row)))


def erase(session: Session, rows: Iterable[str], *, block: bool, by: str, now_ns: int) -> None:
    """Mark rows as erased. Again is no error: the newest `block` counts, the first erasure's time stays."""
    for row in dict.fromkeys(rows):
        known = session.get(ErasedRow, row)
        if known is None:
            session.add(ErasedRow(row=row, block=block, erased_ns=now_ns, erased_by=by))
        else:
            known.block = block


def touched(session: Session, rows: Iterable[str] | None = None) -> tuple[Touched, ...]:
    """The releases that were trained on erased rows: on any, or on any of `rows`."""
    query = (
        select(AdapterRow.release, AdapterRow.row, ErasedRow.block)
        .join(ErasedRow, col(ErasedRow.row) == col(AdapterRow.row))
        .where(AdapterRow.split == "train")
    )
    of: dict[str, dict[str, bool]] = {}
    for some in [None] if rows is None else list(_chunks(rows)):
        asked = query if some is None else query.where(col(AdapterRow.row).in_(some))
        for release, row, block in session.exec(asked):
            of.setdefault(release, {})[row] = block
    return tuple(
        Touched(release=release, rows=tuple(sorted(found)), blocked=any(found.values()))
        for release, found in sorted(of.items())
    )


def blocked(session: Session) -> frozenset[str]:
    """The releases that must not be served. Asked several times a second: few rows are erased, many known."""
    erased = select(ErasedRow.row).where(col(ErasedRow.block).is_(True))
    seen = col(AdapterRow.row).in_(erased)  # so that SQLite looks the erased ones up, not all others
    query = select(AdapterRow.release).where(AdapterRow.split == "train", seen).distinct()
    return frozenset(session.exec(query))


def blocking_rows(session: Session, release: str) -> int:
    """How many erased rows forbid serving a release."""
    query = (
        select(func.count())
        .select_from(AdapterRow)
        .join(ErasedRow, col(ErasedRow.row) == col(AdapterRow.row))
        .where(AdapterRow.release == release, AdapterRow.split == "train", col(ErasedRow.block).is_(True))
    )
    return session.exec(query).one()


def _seen(row: AdapterRow) -> Seen:
    return Seen(row=row.row, release=row.release, split="train" if row.split == "train" else "held_out")


def _chunks(rows: Iterable[str]) -> Iterator[Sequence[str]]:
    distinct = list(dict.fromkeys(rows))
    for start in range(0, len(distinct), AT_ONCE):
        yield distinct[start : start + AT_ONCE]

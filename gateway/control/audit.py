"""The audit log: each row holds the hash of the row before it, so that no row can be changed, put in or taken
out without all later ones showing it.

What a chain cannot show is that its newest rows were cut off: who wants to prove that keeps the head's hash
somewhere else, and `verify` is given it. Each row also holds the digest of the record that it left behind, so
that a record which was changed past this log is found as well.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

GENESIS = "0" * 64  # what stands before the first row


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One change: who, when, why, and what was before and after it, secrets masked."""

    seq: int
    at: int  # Unix seconds
    actor: str
    reason: str
    action: str  # "team.create"
    kind: str
    target: str
    before: str  # JSON
    after: str
    digest: str  # of the record's body after it; empty: there is none
    previous: str
    hash: str = ""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What `prove` found."""

    intact: bool
    rows: int
    head: str  # the hash of the newest row
    problem: str = ""  # the first that was found


def canonical(value: Any) -> str:
    """The one way in which a value is written down. ValueError: JSON cannot hold it."""
    try:
        return msgspec.json.encode(value, order="deterministic").decode()
    except (UnicodeEncodeError, RecursionError, TypeError) as error:
        raise ValueError(f"cannot be kept as JSON: {type(error).__name__}") from None


def digest(body: str) -> str:
    """Of a record's body; of no body it is empty."""
    return hashlib.sha256(body.encode()).hexdigest() if body else ""


def sealed(entry: Entry) -> Entry:
    """`entry` with its hash, which covers all of its other fields."""
    fields = msgspec.structs.astuple(msgspec.structs.replace(entry, hash=""))
    return msgspec.structs.replace(entry, hash=hashlib.sha256(canonical(fields).encode()).hexdigest())


def prove(entries: Iterable[Entry], records: Mapping[tuple[str, str], str], expected: str = "") -> Proof:
    """Walks the whole chain, oldest row first.

    `records` are the bodies that are stored now, by kind and id; `expected` is a hash that the log once had
    as its head, and must still hold.
    """
    rows, head, seen = 0, GENESIS, expected in ("", GENESIS)
    latest: dict[tuple[str, str], str] = {}
    problem = ""
    for entry in entries:
        rows += 1
        problem = _break(entry, rows, head)
        if problem:
            break
        head = entry.hash
        seen = seen or head == expected
        latest[entry.kind, entry.target] = entry.digest
    if not problem:
        problem = _strays(latest, records)
    if not problem and not seen:
        problem = (
            "the log does not hold the hash that it is expected to hold: its end was cut off or rewritten"
        )
    return Proof(intact=not problem, rows=rows, head=head, problem=problem)


def _break(entry: Entry, number: int, head: str) -> str:
    if entry.seq != number:
        return f"row {number} is missing: row {entry.seq} stands in its place"
    if entry.previous != head:
        return f"row {entry.seq} does not follow the row before it"
    if sealed(entry).hash != entry.hash:
        return f"row {entry.seq} was changed after it was written"
    return ""


def _strays(latest: Mapping[tuple[str, str], str], records: Mapping[tuple[str, str], str]) -> str:
    """A record that is not as the log left it."""
    for kind, target in sorted(latest.keys() | records.keys()):
        logged = latest.get((kind, target), "")
        if logged != digest(records.get((kind, target), "")):
            return f"the {kind} {target!r} was changed past the log"
    return ""

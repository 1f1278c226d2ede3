"""Proves or refutes, from the ledger alone, that nothing above its zone's ceiling left.

Each row is held against its own words: its signature, and of each attempt the class of what was sent, the
zone's ceiling at that time and, outside our own zones, the permit. What the configuration says today plays no
part. The proof covers the rows that are there: of calls that are still in a spool, and of rows that somebody
removed, the ledger says nothing.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.ledger.tables import COLUMNS, Row
from gateway.privacy.evidence import Keyring
from gateway.types import Reach
from router_policies.privacy import PrivacyClass, Scale

MOST_LISTED = 1000  # violations that are kept; all are counted

_CALL, _PRIVACY, _BACKEND, _ATTEMPTS, _REACHED, _CORRECTS = map(
    COLUMNS.index, ("call_id", "privacy", "backend", "attempts", "reached", "corrects")
)
_decode_reached = msgspec.json.Decoder(list[Reach]).decode


class Violation(msgspec.Struct, frozen=True):
    """What is wrong with one row."""

    call_id: str
    why: str


class Audit(msgspec.Struct, kw_only=True):
    """What a period's rows say."""

    rows: int = 0
    sent: Counter[tuple[str, str]] = msgspec.field(default_factory=Counter)  # (class, zone) of each attempt
    refused: int = 0  # attempts that the door refused
    kept_in: int = 0  # requests for which no backend was reached
    count: int = 0  # of violations
    violations: list[Violation] = []  # the first of them

    @property
    def clean(self) -> bool:
        return self.count == 0

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        sent = [{"class": c, "zone": z, "attempts": n} for (c, z), n in sorted(self.sent.items())]
        return {
            "clean": self.clean,
            "requests": self.rows,
            "kept_in": self.kept_in,
            "refused_at_the_door": self.refused,
            "sent": sent,
            "violation_count": self.count,
            "violations": msgspec.to_builtins(self.violations),
        }


def audit(rows: Iterable[Row], keys: Keyring, scale: Scale) -> Audit:
    """Looks at each row of `rows`, as the store reads them back, once."""
    found = Audit()
    for row in rows:
        found.rows += not row[_CORRECTS]
        for why in faults(row, keys, scale, found):
            found.count += 1
            if len(found.violations) < MOST_LISTED:
                found.violations.append(Violation(str(row[_CALL]), why))
    return found


def faults(row: Row, keys: Keyring, scale: Scale, found: Audit) -> Iterator[str]:
    """What is wrong with a row; what it sent is counted in `found`."""
    if fault := keys.fault(row):
        yield fault
    if row[_CORRECTS]:  # of a call's cost, long after: by its signature it is one, and nothing left with it
        return
    try:
        reached = _decode_reached(row[_REACHED])
    except (msgspec.MsgspecError, TypeError):
        yield "its attempts cannot be read"
        return
    if len(reached) != row[_ATTEMPTS] or (row[_BACKEND] and not _names(reached, row[_BACKEND])):
        yield "permit missing: an attempt is not written down"
    if not any(not reach.refused for reach in reached):
        found.kept_in += 1
    for reach in reached:
        if reach.refused:
            found.refused += 1
        else:
            found.sent[reach.privacy, reach.zone] += 1
            if reach.privacy != row[_PRIVACY] and not reach.masked:
                yield f"sent as {reach.privacy}, but the request was {row[_PRIVACY]} and nothing was masked"
            yield from _outside(reach, str(row[_CALL]), scale)


def _outside(reach: Reach, call_id: str, scale: Scale) -> Iterator[str]:
    """What is wrong with one attempt that was let out."""
    where = f"zone {reach.zone} (backend {reach.backend})"
    if _rank(reach.privacy, scale, scale.highest) > _rank(reach.ceiling, scale, scale.lowest):
        yield f"above ceiling: {reach.privacy} went to {where}, whose ceiling was {reach.ceiling}"
    if not reach.local and not (reach.permit.startswith(f"{call_id}.") and reach.digest):
        yield f"permit missing: {reach.privacy} went to {where}"


def _names(reached: Iterable[Reach], backend: str) -> bool:
    return any(reach.backend == backend for reach in reached)


def _rank(label: str, scale: Scale, unknown: PrivacyClass) -> PrivacyClass:
    """The class of that name; one that is not known any more counts against whoever named it."""
    try:
        return scale.parse(label)
    except ValueError:
        return unknown

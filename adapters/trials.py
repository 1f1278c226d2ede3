"""Canaries as they are kept: the plan of each, the numbers of its test as they last stood, and its end.

Everything here is part of a unit of work of `adapters.registry`, which opens the sessions.
"""

from typing import Any

import msgspec
from sqlalchemy import update
from sqlmodel import Session, col, select

from adapters.errors import NotServable
from adapters.tables import AdapterTrial

PROMOTED, ROLLED_BACK = "promoted", "rolled back"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One canary. Times are Unix nanoseconds; `verdict` is empty while it is under way."""

    id: int
    name: str
    release: str
    against: str  # the stable release at its beginning
    weight: float  # share of the traffic, in (0, 1)
    started_ns: int
    started_by: str
    ended_ns: int | None
    verdict: str
    reason: str
    numbers: dict[str, Any]


def begin(
    session: Session, *, name: str, release: str, against: str, weight: float, by: str, now_ns: int
) -> None:
    """Raises NotServable when the adapter has a canary under way."""
    for trial in under_way(session):
        if trial.name == name:
            raise NotServable(release, f"{name} has a canary under way, {trial.release}; end that one first")
    session.add(
        AdapterTrial(
            name=name, release=release, against=against, weight=weight, started_ns=now_ns, started_by=by
        )
    )


def under_way(session: Session) -> tuple[Trial, ...]:
    query = select(AdapterTrial).where(AdapterTrial.verdict == "").order_by(col(AdapterTrial.id))
    return tuple(_trial(row) for row in session.exec(query))


def of(session: Session, name: str | None = None) -> tuple[Trial, ...]:
    """All that were ever begun, or those of one adapter, oldest first."""
    query = select(AdapterTrial).order_by(col(AdapterTrial.id))
    if name is not None:
        query = query.where(AdapterTrial.name == name)
    return tuple(_trial(row) for row in session.exec(query))


def note(session: Session, trial: int, numbers: dict[str, Any]) -> None:
    """Keep the numbers of a test that goes on."""
    session.connection().execute(
        update(AdapterTrial)
        .where(col(AdapterTrial.id) == trial, col(AdapterTrial.verdict) == "")
        .values(numbers=msgspec.json.encode(numbers).decode())
    )


def end(session: Session, trial: int, verdict: str, reason: str, now_ns: int) -> bool:
    """Whether it was under way until now: of several gateways that judge it only one ends it."""
    changed = session.connection().execute(
        update(AdapterTrial)
        .where(col(AdapterTrial.id) == trial, col(AdapterTrial.verdict) == "")
        .values(verdict=verdict, reason=reason, ended_ns=now_ns)
    )
    session.expire_all()  # the statement went past what the session has read
    return changed.rowcount == 1


def _trial(row: AdapterTrial) -> Trial:
    return Trial(
        id=row.id or 0,
        name=row.name,
        release=row.release,
        against=row.against,
        weight=row.weight,
        started_ns=row.started_ns,
        started_by=row.started_by,
        ended_ns=row.ended_ns,
        verdict=row.verdict,
        reason=row.reason,
        numbers=msgspec.json.decode(row.numbers),
    )

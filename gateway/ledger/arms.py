"""What adapter releases did to their requests, counted from the ledger: the arms of a canary's test."""

import math
from collections.abc import Iterable

from sqlalchemy import Engine, Integer, cast, func, select

from adapters.sequential import Arm
from gateway.ledger.database import reading
from gateway.ledger.tables import ENTRY
from gateway.types import Outcome
from router_policies.types import ErrorClass

FAULTS = frozenset(ErrorClass) - {ErrorClass.REFUSED, ErrorClass.CONTENT_POLICY, ErrorClass.RATE_LIMIT}
"""Failures that say something of the release; the others are the request's own, or the machine's."""


def arms(engine: Engine, releases: Iterable[str], since_ns: int) -> dict[str, Arm]:
    """By release, of the requests that began after `since_ns` (Unix time). Raises StoreUnavailable.

    Times are counted by whole milliseconds to the first byte, so the database sends sums and not rows.
    """
    millis = cast(func.coalesce(ENTRY.c.first_byte_ms, -1), Integer)
    columns = (ENTRY.c.adapter, ENTRY.c.outcome, ENTRY.c.error_class, millis)
    query = (
        select(*columns, func.count())
        .where(ENTRY.c.started_ns >= since_ns, ENTRY.c.adapter.in_(tuple(releases)))
        .group_by(*columns)
    )
    found: dict[str, Arm] = {}
    with reading(engine) as connection:
        for release, outcome, error_class, milliseconds, count in connection.execute(query):
            arm = found.get(release, Arm())
            found[release] = _added(arm, outcome, error_class, milliseconds, count)
    return found


def _added(arm: Arm, outcome: str, error_class: str | None, milliseconds: int, count: int) -> Arm:
    failed = outcome == Outcome.INTERRUPTED or (outcome == Outcome.FAILED and error_class in FAULTS)
    if outcome not in (Outcome.OK, Outcome.CLIENT_CLOSED) and not failed:
        return arm
    timed, log = (count, math.log(milliseconds + 0.5)) if milliseconds >= 0 else (0, 0.0)
    return Arm(
        requests=arm.requests + count,
        failures=arm.failures + (count if failed else 0),
        timed=arm.timed + timed,
        log_sum=arm.log_sum + timed * log,
        log_squares=arm.log_squares + timed * log**2,
    )

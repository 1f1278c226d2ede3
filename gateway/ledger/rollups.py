"""Entries summed by day and group, so that a report's cost grows with days × groups, not with requests.

A day's roll-up may be read while the day is marked in `rollup_day`. The transaction that adds an entry takes
the mark of the entry's day away, and the one that rolls a day up deletes its rows, writes them anew and sets
the mark. So a report reads roll-ups for marked days and entries for all others, and is exact at any instant:
a late row, a crash or a day in progress makes it slower, never wrong. All of it can be rebuilt from entries.

On SQLite writers exclude each other anyway. On PostgreSQL whoever adds rows of a day shares an advisory lock
that whoever rolls it up holds alone; it waits for rows on their way, and those that follow find its mark.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Index,
    MetaData,
    Table,
    Text,
    and_,
    case,
    cast,
    delete,
    func,
    insert,
    select,
)

from gateway.errors import HeadgateError
from gateway.ledger.database import lock
from gateway.ledger.tables import ENTRY

log = logging.getLogger(__name__)

DAY_NS = 86_400 * 10**9
GRACE_NS = 600 * 10**9  # a day is rolled up once it has been over for so long: most late rows are in by then
_EVERY_S = 60.0
_LOCK = 0x726F6C6C  # "roll": with the day, the key of PostgreSQL's advisory lock

# What a roll-up keeps apart, each as it is computed from an entry. Flags are 0 or 1.
DIMENSIONS: dict[str, ColumnElement[Any]] = {
    "day": ENTRY.c.started_ns // DAY_NS,
    "team": ENTRY.c.team,
    "key_id": ENTRY.c.key_id,
    "tags": cast(ENTRY.c.tags, Text),
    "endpoint": ENTRY.c.endpoint,
    "model": ENTRY.c.model,
    "adapter": ENTRY.c.adapter,
    "route": ENTRY.c.route,
    "backend": ENTRY.c.backend,
    "zone": ENTRY.c.zone,
    "privacy": ENTRY.c.privacy,
    "outcome": ENTRY.c.outcome,
    "estimated": case((ENTRY.c.estimated, 1), else_=0),
    "unknown_price": case((and_(ENTRY.c.cost_nano.is_(None), ENTRY.c.backend != ""), 1), else_=0),
    "price": ENTRY.c.price,
    "service_tier": ENTRY.c.service_tier,
    "correction": case((ENTRY.c.corrects != "", 1), else_=0),
    "resolves": ENTRY.c.resolves,
}
# What it sums. A cost is null where no entry of the group has one.
METERS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cache_write_1h_tokens",
    "audio_input_tokens",
    "image_input_tokens",
    "audio_output_tokens",
    "image_output_tokens",
)
MEASURES: dict[str, ColumnElement[Any]] = {
    "requests": func.count(),
    **{name: func.sum(ENTRY.c[name]) for name in METERS},
    "cost_nano": func.sum(ENTRY.c.cost_nano),
}
_NUMBERS = ("day", "estimated", "unknown_price", "correction", "resolves")

_metadata = MetaData()
ROLLUP = Table(
    "rollup",
    _metadata,
    *(Column(name, BigInteger if name in _NUMBERS else Text, nullable=False) for name in DIMENSIONS),
    *(Column(name, BigInteger, nullable=name == "cost_nano") for name in MEASURES),
    Index("rollup_by_day", "day"),
)
ROLLUP_DAY = Table("rollup_day", _metadata, Column("day", BigInteger, primary_key=True, autoincrement=False))

PRUNED_DAY = Table("pruned_day", _metadata, Column("day", BigInteger, primary_key=True, autoincrement=False))


def touch(connection: Connection, days: Iterable[int]) -> None:
    """Within the transaction that adds to these days: they are read from entries again.

    Days that were pruned keep their mark: what is added to them is read beside their roll-up.
    """
    pruned = select(PRUNED_DAY.c.day)
    for day in sorted(days):
        lock(connection, _LOCK, day, shared=True)
        of_day = and_(ROLLUP_DAY.c.day == day, ROLLUP_DAY.c.day.not_in(pruned))
        connection.execute(delete(ROLLUP_DAY).where(of_day))


def prune(connection: Connection, day: int) -> int:
    """Removes the entries of a day and keeps their sums; returns how many there were.

    0 for a day that was pruned before: what came since stays.
    """
    if day in pruned_days(connection):
        return 0
    roll_up(connection, day)
    connection.execute(insert(PRUNED_DAY).values(day=day))
    return connection.execute(delete(ENTRY).where(_of_day(day))).rowcount


def pruned_days(connection: Connection) -> set[int]:
    """Days, as numbers since 1970-01-01, of which only the roll-up is left, and what came after that."""
    return set(connection.execute(select(PRUNED_DAY.c.day)).scalars())


def roll_up(connection: Connection, day: int, *, anew: bool = False) -> bool:
    """Sums one day within a writing transaction; False: it was done already, and not asked for `anew`."""
    lock(connection, _LOCK, day)
    marked = connection.execute(select(ROLLUP_DAY).where(ROLLUP_DAY.c.day == day)).first() is not None
    if day in pruned_days(connection) or (marked and not anew):
        return False
    connection.execute(delete(ROLLUP_DAY).where(ROLLUP_DAY.c.day == day))
    connection.execute(delete(ROLLUP).where(ROLLUP.c.day == day))
    columns = [column.label(name) for name, column in (DIMENSIONS | MEASURES).items()]
    sums = select(*columns).where(_of_day(day)).group_by(*DIMENSIONS.values())
    connection.execute(insert(ROLLUP).from_select([*DIMENSIONS, *MEASURES], sums))
    connection.execute(insert(ROLLUP_DAY).values(day=day))
    return True


def _of_day(day: int) -> ColumnElement[bool]:
    return and_(ENTRY.c.started_ns >= day * DAY_NS, ENTRY.c.started_ns < (day + 1) * DAY_NS)


def rolled_days(connection: Connection) -> set[int]:
    """Days, as numbers since 1970-01-01, whose roll-ups may be read."""
    return set(connection.execute(select(ROLLUP_DAY.c.day)).scalars())


def days_with_entries(connection: Connection, until_day: int) -> Iterable[int]:
    """Days before `until_day` that have entries, one index look-up for each."""
    day = -1
    while True:
        later = select(func.min(ENTRY.c.started_ns)).where(ENTRY.c.started_ns >= (day + 1) * DAY_NS)
        first = connection.execute(later).scalar()
        if first is None or first // DAY_NS >= until_day:
            return
        day = first // DAY_NS
        yield day


def first_started_ns(connection: Connection, backend: str) -> int | None:
    """When the first request to `backend` began, looking at the entries of days that are not rolled up and
    at the first day of those that are: the beginning of that day."""
    first = select(func.min(ROLLUP.c.day)).where(ROLLUP.c.backend == backend)
    day = connection.execute(first.where(ROLLUP.c.day.in_(select(ROLLUP_DAY.c.day)))).scalar()
    earlier = select(func.min(ENTRY.c.started_ns)).where(ENTRY.c.backend == backend)
    if day is not None:
        earlier = earlier.where(ENTRY.c.started_ns < day * DAY_NS)
    ns: int | None = connection.execute(earlier).scalar()
    return ns if ns is not None or day is None else day * DAY_NS


class Rolls(Protocol):
    """The part of the store that the thread below needs."""

    def days_to_roll_up(self, now_ns: int) -> list[int]: ...

    def roll_up(self, day: int) -> bool: ...


class Roller:
    """A thread that rolls days up once they are over. Several processes may each have one."""

    def __init__(
        self,
        store: Rolls,
        ready: Callable[[], bool],
        *,
        every_s: float = _EVERY_S,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        """Starts at once. Until `ready` the schema may not be there; `now` is Unix time in nanoseconds."""
        self._store, self._ready, self._every_s, self._now = store, ready, every_s, now
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ledger-rollups", daemon=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Ends after the day in hand; `timeout` in seconds. False: it is still at it."""
        self._stopping.set()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            if self._ready():
                self._pass()

    def _pass(self) -> None:
        try:
            for day in self._store.days_to_roll_up(self._now()):
                if self._stopping.is_set():
                    return
                self._store.roll_up(day)
        except HeadgateError as error:  # reports read entries meanwhile
            log.warning("roll-ups of the ledger wait: %s", error)

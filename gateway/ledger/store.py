"""All queries on the ledger's database. SQLite by default, PostgreSQL by URL, one code path."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import chain
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    exc,
    or_,
    select,
    text,
    true,
)

from gateway.errors import ConfigError, HeadgateError
from gateway.ledger import database, rollups
from gateway.ledger.budgets.bill import Bill
from gateway.ledger.budgets.budget import Budget, Window
from gateway.ledger.budgets.store import Standing, open_window, release
from gateway.ledger.database import StoreUnavailable
from gateway.ledger.migrations import migrate, pending
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.sums import GroupBy, Sums, spans_of, sums_query, to_sums
from gateway.ledger.tables import COLUMNS, ENTRY, SESSION, Row, encode, to_entry, to_row
from gateway.types import Entry

__all__ = ["GroupBy", "RowRefused", "Store", "StoreUnavailable", "Sums"]

Part = TypeVar("Part")

_STARTED = COLUMNS.index("started_ns")
_FETCH = 1000  # rows read at a time where all of a period are
# Rows given to the driver at a time, which keeps the interpreter lock meanwhile, psycopg for longer. Few
# sizes, since a prepared statement of 100 rows takes hundreds of KB, and sqlite3 keeps one for each size.
# SQLite before 3.32 takes 999 values in a statement.
_PARTS = {
    "sqlite": (100, 10, 1) if sqlite3.sqlite_version_info >= (3, 32) else (999 // len(COLUMNS), 5, 1),
    "postgresql": (30, 5, 1),
}
# Python's own OverflowError and UnicodeEncodeError come from sqlite3 and psycopg while they bind a value.
_ROW_AT_FAULT = (exc.DataError, exc.IntegrityError, OverflowError, UnicodeEncodeError)


class RowRefused(HeadgateError):
    """The database will never take one of these rows."""


class SessionSeen(NamedTuple):
    """What is known of a conversation: the label of its class, and when it was last heard of."""

    privacy: str
    seen_ns: int


class BudgetStanding(NamedTuple):
    """A budget in one of its periods."""

    budget: Budget
    window: Window
    standing: Standing


class Store:
    """The database behind a ledger; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet. ConfigError: the URL cannot be used, or its driver is not installed."""
        self._engine = database.open_engine(url)
        if self._engine.dialect.name not in _PARTS:
            raise ConfigError("ledger database", ["its URL must begin with sqlite or postgresql"])

    def migrate(self) -> tuple[int, ...]:
        """Brings the schema up to date; see `migrations.migrate`. Raises StoreUnavailable, ConfigError."""
        with self.writing() as connection:
            return migrate(connection)

    def insert(self, entries: Sequence[Entry]) -> int:
        """Adds those that are not there yet, all or none; returns how many were new.

        Raises StoreUnavailable, RowRefused.
        """
        return self.insert_rows([to_row(encode(entry)) for entry in entries])

    def insert_rows(self, rows: Sequence[Row], bill: Bill | None = None) -> int:
        """The same for entries that are rows already; `bill` is charged for those that are new."""
        if not rows:
            return 0
        with self.writing() as connection:
            rollups.touch(connection, {row[_STARTED] // DAY_NS for row in rows})
            parts = _parted(rows, _PARTS[connection.dialect.name])
            if bill is None or not any(map(bill.covers, rows)):
                return sum(self._insert_part(connection, part) for part in parts)
            new = {call_id for part in parts for call_id in self._insert_returning(connection, part)}
            first: dict[str, Row] = {}  # of several settles of a call, which is the one that was inserted
            for row in rows:
                first.setdefault(row[0], row)
            bill.pay(connection, [first[call_id] for call_id in new])
            return len(new)

    def end_leases(self, holder: str) -> None:
        """Of a process that is gone and whose entries are all here. Raises StoreUnavailable."""
        with self.writing() as connection:
            release(connection, holder)

    def standings(self, budgets: Sequence[Budget], at_ns: int) -> list[BudgetStanding]:
        """Each budget in the period of an instant. Raises StoreUnavailable."""
        with self.writing() as connection:  # a period that nobody has used yet is opened
            windows = [(budget, budget.window(at_ns)) for budget in budgets]
            return [BudgetStanding(b, window, open_window(connection, b, window)) for b, window in windows]

    def last(self, n: int) -> list[Entry]:
        """The `n` entries that started last, the latest first. Raises StoreUnavailable."""
        newest = select(ENTRY).order_by(ENTRY.c.started_ns.desc(), ENTRY.c.call_id).limit(n)
        with self._reading() as connection:
            return [to_entry(row) for row in connection.execute(newest)]

    def sums(
        self,
        group_by: Sequence[GroupBy],
        since_ns: int | None = None,
        until_ns: int | None = None,
        prompt_bounds: Sequence[int] = (),
    ) -> list[Sums]:
        """Entries with since_ns <= started_ns < until_ns, summed by group in the groups' order.

        With `prompt_bounds` each group is split by the highest of them that the prompts' tokens exceed; then
        the cost grows with the requests, else with days × groups. Without groups or bounds: one row for all,
        also when there are no entries. Raises StoreUnavailable.
        """
        with self._reading() as connection:
            rolled = spans_of(rollups.rolled_days(connection))
            pruned = spans_of(rollups.pruned_days(connection))
            query = sums_query(group_by, (since_ns, until_ns), rolled, prompt_bounds, pruned)
            tiered = bool(prompt_bounds)
            return [to_sums(row, len(group_by), tiered=tiered) for row in connection.execute(query)]

    def days_to_roll_up(self, now_ns: int, *, anew: bool = False) -> list[int]:
        """Days that have been over for a while, have entries and, unless `anew`, no roll-up.

        Raises StoreUnavailable.
        """
        with self._reading() as connection:
            rolled = set() if anew else rollups.rolled_days(connection)
            until = (now_ns - rollups.GRACE_NS) // DAY_NS
            return [day for day in rollups.days_with_entries(connection, until) if day not in rolled]

    def roll_up(self, day: int, *, anew: bool = False) -> bool:
        """Sums a day, unless that is done and not asked for `anew`. Raises StoreUnavailable."""
        with self.writing() as connection:
            return rollups.roll_up(connection, day, anew=anew)

    def days_to_prune(self, until_day: int) -> list[int]:
        """Days before `until_day` (a number since 1970-01-01) with entries that may go.

        Raises StoreUnavailable.
        """
        with self._reading() as connection:
            gone = rollups.pruned_days(connection)
            return [day for day in rollups.days_with_entries(connection, until_day) if day not in gone]

    def prune(self, day: int) -> int:
        """Removes a day's entries once they are rolled up; how many. Raises StoreUnavailable."""
        with self.writing() as connection:
            return rollups.prune(connection, day)

    def pending(self) -> tuple[int, ...]:
        """Numbers of the schema changes that `migrate` would make. Raises StoreUnavailable, ConfigError."""
        with self._reading() as connection:
            return tuple(version for version, _ in pending(connection))

    def first_started_ns(self, backend: str) -> int | None:
        """When the first request to this backend began, to the day where it is rolled up; None: none did."""
        with self._reading() as connection:
            return rollups.first_started_ns(connection, backend)

    def decisions(
        self,
        since_ns: int | None,
        until_ns: int | None,
        *,
        privacy: str | None = None,
        zone: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> list[Entry]:
        """Entries of a period, the earliest first, that come after the call `after`, at most `limit`.

        `zone` leaves those that it was tried to reach. Raises StoreUnavailable.
        """
        query = _chosen(select(ENTRY), since_ns, until_ns, privacy).where(ENTRY.c.corrects == "")
        if zone is not None:
            place = f'"zone":{encode(zone).decode()},'
            query = query.where(cast(ENTRY.c.reached, Text).contains(place, autoescape=True))
        if after:
            since = select(ENTRY.c.started_ns).where(ENTRY.c.call_id == after).scalar_subquery()
            later = and_(ENTRY.c.started_ns == since, ENTRY.c.call_id > after)
            query = query.where(ENTRY.c.started_ns >= since, or_(ENTRY.c.started_ns > since, later))
        query = query.order_by(ENTRY.c.started_ns, ENTRY.c.call_id).limit(limit)
        with self._reading() as connection:
            return [to_entry(row) for row in connection.execute(query)]

    def corrections(self, since_ns: int | None, until_ns: int | None) -> list[Entry]:
        """What corrects requests of a period, by call. Raises StoreUnavailable."""
        query = select(ENTRY).where(ENTRY.c.corrects != "", _within(since_ns, until_ns))
        with self._reading() as connection:
            return [to_entry(row) for row in connection.execute(query.order_by(ENTRY.c.call_id))]

    def corrected(self, call_ids: Sequence[str]) -> dict[str, list[Entry]]:
        """Requests by their ids, each with its corrections so far, in order. Raises StoreUnavailable."""
        found: dict[str, list[Entry]] = {}
        with self._reading() as connection:
            for part in _parted(call_ids, (500, 50, 1)):
                of_call = or_(ENTRY.c.call_id.in_(part), ENTRY.c.corrects.in_(part))
                ordered = select(ENTRY).where(of_call).order_by(ENTRY.c.corrects, ENTRY.c.recorded_ns)
                for row in connection.execute(ordered):
                    entry = to_entry(row)
                    found.setdefault(entry.corrects or entry.call_id, []).append(entry)
        return found

    def unpriced(self, since_ns: int | None, until_ns: int | None, after: str, limit: int) -> list[Entry]:
        """Requests that reached a backend at a price that is unknown to this day, by call id.

        Raises StoreUnavailable.
        """
        made = ENTRY.alias()
        priced = select(made.c.call_id).where(
            made.c.corrects == ENTRY.c.call_id, made.c.corrects != "", made.c.cost_nano.is_not(None)
        )
        query = select(ENTRY).where(
            _within(since_ns, until_ns),
            ENTRY.c.cost_nano.is_(None),
            ENTRY.c.backend != "",
            ENTRY.c.corrects == "",
            ENTRY.c.call_id > after,
            ~priced.exists(),
        )
        with self._reading() as connection:
            return [to_entry(r) for r in connection.execute(query.order_by(ENTRY.c.call_id).limit(limit))]

    def estimated(self, backend: str, since_ns: int, until_ns: int) -> list[str]:
        """Ids of a backend's requests of a period whose tokens are estimates. Raises StoreUnavailable."""
        query = select(ENTRY.c.call_id).where(
            _within(since_ns, until_ns),
            ENTRY.c.backend == backend,
            ENTRY.c.corrects == "",
            ENTRY.c.estimated.is_(True),
        )
        with self._reading() as connection:
            return list(connection.execute(query.order_by(ENTRY.c.call_id)).scalars())

    def rows(self, since_ns: int | None, until_ns: int | None, privacy: str | None = None) -> Iterator[Row]:
        """All rows of a period by time, as they were inserted: JSON as text. Raises StoreUnavailable."""
        columns = [cast(c, Text).label(c.name) if isinstance(c.type, JSON) else c for c in ENTRY.columns]
        query = _chosen(select(*columns), since_ns, until_ns, privacy).order_by(ENTRY.c.started_ns)
        with self._reading() as connection:
            found = connection.execution_options(yield_per=_FETCH).execute(query)
            for part in found.partitions():
                yield from map(list, part)

    def columns(
        self, names: Sequence[str], since_ns: int | None, until_ns: int | None
    ) -> Iterator[Sequence[Sequence[Any]]]:
        """These columns of all calls of a period, some thousand at a time; JSON as text. Without corrections.

        Raises StoreUnavailable.
        """
        chosen = [ENTRY.c[name] for name in names]
        columns = [cast(c, Text).label(c.name) if isinstance(c.type, JSON) else c for c in chosen]
        query = select(*columns).where(ENTRY.c.corrects == "", _within(since_ns, until_ns))
        with self._reading() as connection:
            yield from connection.execution_options(yield_per=10 * _FETCH).execute(query).partitions()

    def answers(self, team: str, response_id: str) -> list[tuple[str, str]]:
        """Class and backend of a team's calls that were answered with this id. Raises StoreUnavailable."""
        query = select(ENTRY.c.privacy, ENTRY.c.backend).where(
            ENTRY.c.response_id == response_id,
            ENTRY.c.response_id != "",  # says that the index, which leaves these out, will do
            ENTRY.c.team == team,
        )
        with self._reading() as connection:
            return [(row[0], row[1]) for row in connection.execute(query)]

    def session(self, key: str) -> SessionSeen | None:
        """None: nothing above the lowest class was said in it. Raises StoreUnavailable."""
        query = select(SESSION.c.privacy, SESSION.c.seen_ns).where(SESSION.c.key == key)
        with self._reading() as connection:
            row = connection.execute(query).one_or_none()
        return SessionSeen(*row) if row is not None else None

    def raise_session(self, key: str, privacy: str, lower: Sequence[str], now_ns: int) -> None:
        """Notes that the session was heard of, and that its class is `privacy` if it was one of `lower`.

        Raises StoreUnavailable.
        """
        values = {"key": key, "privacy": privacy, "lower": list(lower), "now": now_ns}
        with self.writing() as connection:
            connection.execute(_RAISE_SESSION, values)

    def close(self) -> None:
        self._engine.dispose()

    def _insert_part(self, connection: Connection, rows: Sequence[Row]) -> int:
        """SQLite gets one statement, since each waits for the interpreter lock anew: see drain.

        psycopg gets a short one for each row: it prepares that once and pipelines them.
        """
        if connection.dialect.name == "sqlite":
            values = tuple(chain.from_iterable(rows))
            return connection.exec_driver_sql(_insert(len(rows), "?"), values).rowcount
        return connection.exec_driver_sql(_insert(1, "%s"), [tuple(row) for row in rows]).rowcount

    def _insert_returning(self, connection: Connection, rows: Sequence[Row]) -> list[str]:
        """The call ids of those that are new."""
        marker = "?" if connection.dialect.name == "sqlite" else "%s"
        statement = f"{_insert(len(rows), marker)} RETURNING call_id"
        return list(connection.exec_driver_sql(statement, tuple(chain.from_iterable(rows))).scalars())

    def _reading(self) -> AbstractContextManager[Connection]:
        return database.reading(self._engine, one_instant=True)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write: committed at its end, or not at all.

        Raises StoreUnavailable, RowRefused.
        """
        with database.writing(self._engine) as connection:
            try:
                yield connection
            except _ROW_AT_FAULT as e:
                raise RowRefused(f"{type(e).__name__}: {database.short(e)}") from e


def _parted(rows: Sequence[Part], sizes: Sequence[int]) -> Iterator[Sequence[Part]]:
    """All of `rows` in order, in parts of these sizes, which fall to one."""
    start = 0
    for size in sizes:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


@cache
def _insert(rows: int, marker: str) -> str:
    """In the driver's own words: what SQLAlchemy puts in between costs more than the insert."""
    row = f"({', '.join([marker] * len(COLUMNS))})"
    values = ", ".join([row] * rows)
    columns = ", ".join(COLUMNS)  # names of ours
    return f"INSERT INTO entry ({columns}) VALUES {values} ON CONFLICT (call_id) DO NOTHING"  # noqa: S608


_RAISE_SESSION = text(
    "INSERT INTO session (key, privacy, seen_ns) VALUES (:key, :privacy, :now) "
    "ON CONFLICT (key) DO UPDATE SET seen_ns = excluded.seen_ns, privacy = "
    "CASE WHEN session.privacy IN :lower THEN excluded.privacy ELSE session.privacy END"
).bindparams(bindparam("lower", expanding=True))


def _chosen(
    query: Select[Any], since_ns: int | None, until_ns: int | None, privacy: str | None
) -> Select[Any]:
    query = query.where(_within(since_ns, until_ns))
    return query if privacy is None else query.where(ENTRY.c.privacy == privacy)


def _within(since_ns: int | None, until_ns: int | None) -> ColumnElement[bool]:
    since = true() if since_ns is None else ENTRY.c.started_ns >= since_ns
    until = true() if until_ns is None else ENTRY.c.started_ns < until_ns
    return and_(since, until)

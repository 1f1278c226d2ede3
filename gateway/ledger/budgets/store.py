"""Windows and leases in the database: all queries on them.

A window is a budget's period. It comes into being with what the ledger holds for it already, so that a
budget declared in mid-month counts from the first. From then on each inserted entry is charged to the
windows that cover it in the transaction that inserts it. On PostgreSQL, charging and creating exclude each
other through an advisory lock (shared for those who charge), or an entry could be summed and charged as
well; SQLite has one writer at a time.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, text

from gateway.ledger.budgets.budget import Budget, Scope, Window
from gateway.ledger.database import lock

_LOCK = 0x6275646765747300  # "budgets": the key of PostgreSQL's advisory lock


class Charge(msgspec.Struct, frozen=True):
    """What one new entry cost a budget's window."""

    budget: str
    start_ns: int
    cost_nano: int


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A window as the database counts it, in nano-dollars. `cap` has in it what was carried over."""

    cap_nano: int
    spent_nano: int
    leased_nano: int

    @property
    def free_nano(self) -> int:
        return self.cap_nano - self.spent_nano - self.leased_nano


TABLES = (
    """
    CREATE TABLE budget_window (
        budget TEXT NOT NULL,
        start_ns BIGINT NOT NULL,
        carried_nano BIGINT NOT NULL,
        spent_nano BIGINT NOT NULL,
        leased_nano BIGINT NOT NULL,
        PRIMARY KEY (budget, start_ns)
    )
    """,
    """
    CREATE TABLE budget_lease (
        budget TEXT NOT NULL,
        start_ns BIGINT NOT NULL,
        holder TEXT NOT NULL,
        left_nano BIGINT NOT NULL,
        expires_ns BIGINT NOT NULL,
        PRIMARY KEY (budget, start_ns, holder)
    )
    """,
)

NOTICE_TABLE = """
    CREATE TABLE budget_notice (
        budget TEXT NOT NULL,
        start_ns BIGINT NOT NULL,
        percent BIGINT NOT NULL,
        PRIMARY KEY (budget, start_ns, percent)
    )
"""


def claim_notice(connection: Connection, budget: str, start_ns: int, percent: int) -> bool:
    """Whether it falls to this process to tell that so much of a window is used: one does, once."""
    statement = (
        "INSERT INTO budget_notice VALUES (:b, :s, :p) ON CONFLICT (budget, start_ns, percent) DO NOTHING"
    )
    return connection.execute(text(statement), {"b": budget, "s": start_ns, "p": percent}).rowcount == 1


def drop_notice(connection: Connection, budget: str, start_ns: int, percent: int) -> None:
    """Nobody could be told: it is to be tried again."""
    statement = "DELETE FROM budget_notice WHERE budget = :b AND start_ns = :s AND percent = :p"
    connection.execute(text(statement), {"b": budget, "s": start_ns, "p": percent})


def open_window(connection: Connection, budget: Budget, window: Window) -> Standing:
    """The window's standing; it is created where this is its first use."""
    found = standing(connection, budget, window)
    if found is not None:
        return found
    lock(connection, _LOCK)
    found = standing(connection, budget, window)  # another process may have been first
    if found is not None:
        return found
    spent = _spent(connection, budget.scope, window)
    carried = _carried(connection, budget, window) if budget.carry_over else 0
    values = {"budget": budget.id, "start": window.start_ns, "carried": carried, "spent": spent}
    connection.execute(
        text("INSERT INTO budget_window VALUES (:budget, :start, :carried, :spent, 0)"), values
    )
    return Standing(cap_nano=budget.cap_nano + carried, spent_nano=spent, leased_nano=0)


def recount(connection: Connection, budget: Budget, window: Window) -> None:
    """Puts what the ledger's entries say in the place of what was charged: for a budget that was changed."""
    lock(connection, _LOCK)
    open_window(connection, budget, window)
    statement = "UPDATE budget_window SET spent_nano = :spent WHERE budget = :b AND start_ns = :s"
    values = {"spent": _spent(connection, budget.scope, window), "b": budget.id, "s": window.start_ns}
    connection.execute(text(statement), values)


def standing(connection: Connection, budget: Budget, window: Window) -> Standing | None:
    query = (
        "SELECT carried_nano, spent_nano, leased_nano FROM budget_window WHERE budget = :b AND start_ns = :s"
    )
    row = connection.execute(text(query), {"b": budget.id, "s": window.start_ns}).first()
    if row is None:
        return None
    return Standing(cap_nano=budget.cap_nano + row[0], spent_nano=row[1], leased_nano=row[2])


def lease(
    connection: Connection, budget: Budget, window: Window, holder: str, amount_nano: int, expires_ns: int
) -> int:
    """Moves up to `amount_nano` from free to `holder`'s lease; returns how much, none where none is free."""
    open_window(connection, budget, window)
    # The row is locked by an empty update: what is free cannot change between reading and taking.
    _move(connection, budget.id, window.start_ns, leased=0, spent=0)
    now = open_window(connection, budget, window)
    granted = max(0, min(amount_nano, now.free_nano))
    if granted:
        _move(connection, budget.id, window.start_ns, leased=granted, spent=0)
    _extend(connection, budget.id, window.start_ns, holder, granted, expires_ns)
    return granted


def give_back(connection: Connection, budget: str, start_ns: int, holder: str, amount_nano: int) -> None:
    """Returns a part of a lease that nothing is held against."""
    if _lessen(connection, budget, start_ns, holder, amount_nano):
        _move(connection, budget, start_ns, leased=-amount_nano, spent=0)


def charge(connection: Connection, holder: str, charges: Iterable[Charge]) -> None:
    """Books the cost of new entries: from `holder`'s lease to what is spent.

    A window that is not there yet will find the entries when it is created. Where there is no lease any more
    (its process was gone for longer than it lasts) only `spent` grows.
    """
    lock(connection, _LOCK, shared=True)
    for found in _summed(charges):
        leased = _lessen(connection, found.budget, found.start_ns, holder, found.cost_nano)
        _move(
            connection,
            found.budget,
            found.start_ns,
            leased=-found.cost_nano if leased else 0,
            spent=found.cost_nano,
        )


def release(connection: Connection, holder: str) -> None:
    """Ends all leases of a process whose entries are all in the database."""
    _end(connection, "holder = :holder", {"holder": holder})


def expire(connection: Connection, now_ns: int) -> int:
    """Ends leases that nobody has renewed in time; returns how many. For hosts that never come back."""
    return _end(connection, "expires_ns < :now", {"now": now_ns})


def renew(connection: Connection, holder: str, expires_ns: int) -> None:
    statement = "UPDATE budget_lease SET expires_ns = :e WHERE holder = :h"
    connection.execute(text(statement), {"e": expires_ns, "h": holder})


def _end(connection: Connection, condition: str, values: Mapping[str, object]) -> int:
    query = f"DELETE FROM budget_lease WHERE {condition} RETURNING budget, start_ns, left_nano"  # noqa: S608 - ours
    ended = connection.execute(text(query), values).all()
    for budget, start_ns, left in ended:
        _move(connection, budget, start_ns, leased=-left, spent=0)
    return len(ended)


def _move(connection: Connection, budget: str, start_ns: int, *, leased: int, spent: int) -> None:
    statement = """
        UPDATE budget_window SET leased_nano = leased_nano + :leased, spent_nano = spent_nano + :spent
        WHERE budget = :b AND start_ns = :s
    """
    connection.execute(text(statement), {"leased": leased, "spent": spent, "b": budget, "s": start_ns})


def _lessen(connection: Connection, budget: str, start_ns: int, holder: str, amount: int) -> bool:
    """False: there is no such lease."""
    statement = """
        UPDATE budget_lease SET left_nano = left_nano - :n
        WHERE budget = :b AND start_ns = :s AND holder = :h
    """
    values = {"n": amount, "b": budget, "s": start_ns, "h": holder}
    return connection.execute(text(statement), values).rowcount == 1


def _extend(
    connection: Connection, budget: str, start_ns: int, holder: str, amount: int, expires_ns: int
) -> None:
    statement = """
        INSERT INTO budget_lease VALUES (:b, :s, :h, :n, :e)
        ON CONFLICT (budget, start_ns, holder)
        DO UPDATE SET left_nano = budget_lease.left_nano + excluded.left_nano, expires_ns = :e
    """
    values = {"b": budget, "s": start_ns, "h": holder, "n": amount, "e": expires_ns}
    connection.execute(text(statement), values)


def _summed(charges: Iterable[Charge]) -> Sequence[Charge]:
    """One charge for each window, in an order that all processes share: their row locks never cross."""
    sums: dict[tuple[str, int], int] = {}
    for found in charges:
        place = (found.budget, found.start_ns)
        sums[place] = sums.get(place, 0) + found.cost_nano
    return [Charge(budget, start_ns, cost) for (budget, start_ns), cost in sorted(sums.items())]


def _spent(connection: Connection, scope: Scope, window: Window) -> int:
    """What the ledger has of the window's cost, as far as prices are known.

    From its entries, and for days that were pruned and begin in the window from their roll-ups.
    """
    entries = _cost(connection, scope, "entry", "started_ns >= :from_ns AND started_ns < :to_ns", window)
    began = "day * 86400000000000"
    pruned = f"day IN (SELECT day FROM pruned_day) AND {began} >= :from_ns AND {began} < :to_ns"  # noqa: S608
    return entries + _cost(connection, scope, "rollup", pruned, window)


def _cost(connection: Connection, scope: Scope, table: str, within: str, window: Window) -> int:
    conditions, values = [within], {}
    for column, value in (("key_id", scope.key), ("team", scope.team), ("route", scope.route)):
        if value:
            conditions.append(f"{column} = :{column}")
            values[column] = value
    query = f"SELECT tags, cost_nano FROM {table} WHERE {' AND '.join(conditions)} AND cost_nano <> 0"  # noqa: S608 - ours
    if not scope.tag:
        query = query.replace("tags, cost_nano", "COALESCE(SUM(cost_nano), 0)", 1)
    rows = connection.execute(text(query), {"from_ns": window.start_ns, "to_ns": window.end_ns, **values})
    if not scope.tag:
        return int(rows.scalar_one())
    return sum(cost for tags, cost in rows if scope.tag in _tags(tags))


def _tags(stored: object) -> Sequence[str]:
    """SQLite gives JSON as text, psycopg as a list."""
    found = msgspec.json.decode(stored) if isinstance(stored, str) else stored
    return found if isinstance(found, list) else []


def _carried(connection: Connection, budget: Budget, window: Window) -> int:
    """What the window before left over, its own carry included; nothing where there was none."""
    before = standing(connection, budget, budget.window(window.start_ns - 1))
    return 0 if before is None else max(0, before.cap_nano - before.spent_nano)

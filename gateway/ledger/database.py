"""How the database is opened, read, written and locked: SQLite by default, PostgreSQL by URL.

A transaction of a connection with the option `write` takes SQLite's lock at once.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, create_engine, event, exc, text
from sqlalchemy.pool import ConnectionPoolEntry

from gateway.errors import ConfigError, HeadgateError

DATABASE_DOWN = (exc.DBAPIError, exc.TimeoutError)  # whatever a driver or the pool complains of


class StoreUnavailable(HeadgateError):
    """The database cannot be reached, or is locked or out of space: the same call may succeed later."""


@contextmanager
def reading(engine: Engine, *, one_instant: bool = False) -> Iterator[Connection]:
    """Whoever reads several times sees one state with `one_instant`, as every transaction of SQLite does.

    Raises StoreUnavailable.
    """
    wants_level = one_instant and engine.dialect.name == "postgresql"
    level = {"isolation_level": "REPEATABLE READ"} if wants_level else {}
    try:
        with engine.connect().execution_options(**level) as connection:
            yield connection
    except DATABASE_DOWN as e:
        raise StoreUnavailable(short(e)) from e


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction, rolled back by whatever is raised. Raises StoreUnavailable."""
    try:
        with engine.connect().execution_options(write=True) as connection, connection.begin():
            yield connection
    except DATABASE_DOWN as e:
        raise StoreUnavailable(short(e)) from e


def lock(connection: Connection, key: int, part: int | None = None, *, shared: bool = False) -> None:
    """Until the transaction's end, against whoever takes the same lock; of `key`, or of one part of it.

    An advisory lock of PostgreSQL's. SQLite has one writer at a time and needs none.
    """
    if connection.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        keys = ":key" if part is None else "CAST(:key AS integer), CAST(:part AS integer)"
        values = {"key": key} if part is None else {"key": key, "part": part}
        connection.execute(text(f"SELECT {function}({keys})"), values)


def short(error: BaseException) -> str:
    """What went wrong, without the statement and its values: rows do not belong in logs."""
    return str(getattr(error, "orig", None) or error).strip().split("\n")[0]


def open_engine(url: str) -> Engine:
    """Opens nothing yet. ConfigError: the URL cannot be used, or its driver is not installed."""
    try:
        engine = create_engine(url, pool_pre_ping=True)
    except ModuleNotFoundError as e:
        raise ConfigError("ledger database", [f"its driver is not installed: pip install {e.name}"]) from e
    except exc.ArgumentError as e:
        raise ConfigError("ledger database", ["its URL cannot be read (expected sqlite:///path)"]) from e
    if engine.dialect.name == "sqlite":
        if engine.url.database in (None, "", ":memory:"):
            raise ConfigError("ledger database", ["it must be a file: several threads read and write it"])
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    """Readers beside a writer (WAL); synced at each commit, since the spool forgets what is committed."""
    connection.isolation_level = None  # transactions begin where _begin_sqlite says so
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes its lock at once: a reader that turns writer later could deadlock with another."""
    writes = connection.get_execution_options().get("write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

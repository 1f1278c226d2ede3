"""A ledger on a real SQLite file, with a spool of its own."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, inspect, text

from gateway.ledger import Ledger
from gateway.ledger.store import Store

OpenLedger = Callable[..., Ledger]
POSTGRES = os.environ.get("HEADGATE_TEST_POSTGRES", "")


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """The same database as `open_ledger`'s, seen from outside."""
    store = Store(database)
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def open_ledger(tmp_path: Path, database: str) -> Iterator[OpenLedger]:
    """Opens ledgers that share one spool directory; closes those that a test left open."""
    ledgers: list[Ledger] = []

    def opened(url: str = database, **options: Any) -> Ledger:
        ledgers.append(Ledger(url, tmp_path / "spool", **options))
        return ledgers[-1]

    yield opened
    for ledger in ledgers:
        ledger.close(timeout=0.2)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_store(request: pytest.FixtureRequest, database: str) -> Iterator[Store]:
    """An empty ledger on SQLite and, where HEADGATE_TEST_POSTGRES names one, on PostgreSQL."""
    if request.param == "postgresql" and not POSTGRES:
        pytest.skip("HEADGATE_TEST_POSTGRES names no database")
    url = POSTGRES if request.param == "postgresql" else database
    empty(url)
    store = Store(url)
    store.migrate()
    yield store
    store.close()


def empty(url: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        for table in inspect(engine).get_table_names():
            connection.execute(text(f"DROP TABLE {table}"))
    engine.dispose()

"""A ledger on a real SQLite file, with a spool of its own."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.ledger import Ledger
from gateway.ledger.store import Store

OpenLedger = Callable[..., Ledger]


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

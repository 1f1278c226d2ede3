"""A ledger on a real SQLite file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ledger.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/ledger.db")
    store.migrate()
    yield store
    store.close()

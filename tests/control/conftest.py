"""A control plane on a real SQLite file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.control.store import ControlStore


@pytest.fixture
def database(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/control.db"


@pytest.fixture
def store(database: str) -> Iterator[ControlStore]:
    store = ControlStore(database)
    store.migrate()
    yield store
    store.close()

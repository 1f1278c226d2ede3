"""What the tests of adapters share: a store, and a registry over a database of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from adapters.registry import Registry
from adapters.store import ArtifactStore
from adapters.tables import create_tables


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """A file, not memory: the registry is called from threads."""
    engine = create_engine(f"sqlite:///{tmp_path / 'headgate.db'}")
    create_tables(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def registry(engine: Engine) -> Registry:
    return Registry(engine)

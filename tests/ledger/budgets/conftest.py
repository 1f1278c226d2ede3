"""Where budgets are counted: SQLite and, where HEADGATE_TEST_POSTGRES names one, PostgreSQL."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from gateway.ledger.store import Store

URL = os.environ.get("HEADGATE_TEST_POSTGRES", "")
POSTGRES = bool(URL) and importlib.util.find_spec("psycopg") is not None


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.skipif(not POSTGRES, reason="no PostgreSQL is named")),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        url = URL
        engine = create_engine(URL)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
    store = Store(url)
    store.migrate()
    yield store
    store.close()

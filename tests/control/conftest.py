"""A control plane on a real SQLite file and, where there is one, on a real PostgreSQL.

The latter where psycopg is installed and HEADGATE_TEST_POSTGRES names a database that may be written to.
"""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from gateway.control.store import ControlStore

POSTGRES = os.environ.get("HEADGATE_TEST_POSTGRES", "")
HAS_DRIVER = importlib.util.find_spec("psycopg") is not None
TABLES = "control_record, control_audit, control_answer, control_schema_version, away"


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param(
            "postgresql",
            marks=pytest.mark.skipif(not (POSTGRES and HAS_DRIVER), reason="no PostgreSQL is named"),
        ),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Its URL; it is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.db"
    engine = create_engine(POSTGRES)
    with engine.begin() as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {TABLES}"))
    engine.dispose()
    return POSTGRES


@pytest.fixture
def store(database: str) -> Iterator[ControlStore]:
    store = ControlStore(database)
    store.migrate()
    yield store
    store.close()

"""A table of jobs on a real SQLite file and, where there is one, on a real PostgreSQL.

The latter where psycopg is installed and HEADGATE_TEST_POSTGRES names a database that may be written to.
"""

import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from finetune.jobs.files import FINE_TUNE, FileStore
from finetune.jobs.records import Asked, Owner, StoredFile, StoredJob, Wishes
from finetune.jobs.store import JobStore
from gateway.control.jobs import JobsDatabase
from tests.finetune.samples import chat

POSTGRES = os.environ.get("HEADGATE_TEST_POSTGRES", "")
HAS_DRIVER = importlib.util.find_spec("psycopg") is not None
TABLES = "tuning_file, tuning_job, tuning_event, tuning_checkpoint, tuning_schema_version"
OWNER = Owner("support", "", "desk")


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param(
            "postgresql",
            marks=pytest.mark.skipif(not (POSTGRES and HAS_DRIVER), reason="no PostgreSQL is named"),
        ),
    ]
)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobsDatabase]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    if request.param == "postgresql":
        url = POSTGRES
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text(f"DROP TABLE IF EXISTS {TABLES}"))
        engine.dispose()
    opened = JobsDatabase(url)
    yield opened
    opened.close()


@pytest.fixture
def jobs(database: JobsDatabase) -> JobStore:
    return JobStore(database.reading, database.writing)


@pytest.fixture
def files(database: JobsDatabase, tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "files", database.reading, database.writing)


@pytest.fixture
def upload(files: FileStore) -> Callable[..., StoredFile]:
    """Stores rows, or raw lines given as bytes, as a file to train on."""

    def store(*rows: Any) -> StoredFile:
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        content = b"".join(line + b"\n" for line in lines)
        return files.write(content, filename="rows.jsonl", purpose=FINE_TUNE, owner=OWNER)

    return store


@pytest.fixture
def new_job(jobs: JobStore, upload: Callable[..., StoredFile]) -> Callable[..., StoredJob]:
    """Creates a job over the rows given, or over ten good ones."""

    def create(
        *rows: Any,
        method: Any = "supervised",
        wishes: Wishes | None = None,
        owner: Owner = OWNER,
        **asked: Any,
    ) -> StoredJob:
        stored = upload(*(rows or [chat(f"question {n}") for n in range(10)]))
        chosen = wishes or Wishes()
        wanted = Asked(model="sluice-4m", method=method, hyperparameters=chosen, seed=1, **asked)
        return jobs.create(wanted, training_file=stored.id, owner=owner, model_words="a test")

    return create

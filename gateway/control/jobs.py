"""Files and fine-tuning jobs on the gateway's database: opened here, worked on in `finetune.jobs`."""

import fcntl
import importlib
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from finetune.jobs.files import FileStore
from finetune.jobs.migrations import MIGRATIONS
from finetune.jobs.release import Release
from finetune.jobs.store import JobStore
from finetune.jobs.tables import VERSIONS
from finetune.jobs.worker import LEASE_S, Worker
from gateway.ledger.database import StoreUnavailable, open_engine, reading, writing
from gateway.ledger.migrations import migrate
from gateway.settings import Settings, VllmSettings

LOOK_S = 2.0  # between looks whether another process of this machine still trains


class JobsDatabase:
    """Transactions on an engine whose schema is brought up to date before the first of them."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises ConfigError."""
        self._engine: Engine = open_engine(url)
        self._migrated = False

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Raises StoreUnavailable."""
        self._migrate()
        with reading(self._engine) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Raises StoreUnavailable."""
        self._migrate()
        with writing(self._engine) as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    def _migrate(self) -> None:
        """Twice does no harm: the schema's own lock lets one through."""
        if not self._migrated:
            with writing(self._engine) as connection:
                migrate(connection, MIGRATIONS, VERSIONS)
            self._migrated = True


class Tuning:
    """Everything of files and jobs that a process needs."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = JobsDatabase(settings.database_url)
        transactions = self._database.reading, self._database.writing
        self.jobs = JobStore(*transactions, away=StoreUnavailable)
        self.files = FileStore(settings.state / "files", *transactions)

    @property
    def base(self) -> str:
        """What clients may fine-tune: the base that the vLLM backends serve, by its served name."""
        return next((b.model for b in self._settings.backends.values() if isinstance(b, VllmSettings)), "")

    def worker(self, release: Release, *, lease_s: float = LEASE_S) -> Worker:
        # Imported where jobs are worked on: the client of the model hub that it brings is large.
        running = importlib.import_module("finetune.jobs.running")
        runner = running.Runner(
            self.jobs,
            self.files,
            release,
            base=self._settings.finetune.base or self.base,
            runs=self._settings.state / "runs",
        )
        return Worker(self.jobs, self.files, runner.run, lease_s=lease_s)

    def close(self) -> None:
        self._database.close()

    def alone(self, worker: Worker) -> None:
        """Runs the worker once no other does so on this machine, until it is told to stop."""
        self._settings.state.mkdir(parents=True, exist_ok=True)
        with (self._settings.state / "tuning.lock").open("w") as lock:
            while not worker.stopped(0):
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    worker.stopped(LOOK_S)
                    continue
                worker.run()

"""Workers share the jobs: one at a job, another when that one goes silent, none when it is stopped."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection

from finetune.jobs.errors import LeaseLost
from finetune.jobs.files import FileStore
from finetune.jobs.holding import Holding
from finetune.jobs.records import StoredJob
from finetune.jobs.states import FINAL, Status
from finetune.jobs.store import JobStore
from finetune.jobs.worker import Worker
from gateway.control.jobs import JobsDatabase
from tests.finetune.jobs.conftest import OWNER
from tests.support.waiting import wait_until

NewJob = Callable[..., StoredJob]
LEASE_S = 1.0


class Trainer:
    """Stands for hours of training: holds the job until it is told to finish, or the lease is lost."""

    def __init__(self, jobs: JobStore) -> None:
        self._jobs = jobs
        self.begun: list[str] = []  # workers, in order
        self.finish, self.stopped = threading.Event(), threading.Event()

    def __call__(self, holding: Holding) -> None:
        self.begun.append(holding.lease.worker)
        ended = threading.Event()

        def stop() -> None:
            self.stopped.set()
            ended.set()

        holding.on_lost(stop)
        while not self.finish.is_set() and not ended.wait(0.01):
            continue
        if holding.lost:
            raise LeaseLost(holding.lease.job.id)
        self._jobs.write(holding.lease, to=Status.SUCCEEDED)


@pytest.fixture
def trainer(jobs: JobStore) -> Trainer:
    return Trainer(jobs)


@contextmanager
def working(*workers: Worker) -> Iterator[None]:
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def is_over(jobs: JobStore, id: str) -> bool:
    return jobs.get(id).status in FINAL


def test_two_workers_train_one_job_once(
    jobs: JobStore, files: FileStore, new_job: NewJob, trainer: Trainer
) -> None:
    """Checked, queued, trained to its end by one of two."""
    job = new_job()
    with working(*(Worker(jobs, files, trainer, lease_s=LEASE_S) for _ in range(2))):
        wait_until(lambda: bool(trainer.begun))
        beat = jobs.get(job.id).beat
        wait_until(lambda: jobs.get(job.id).beat > beat + 15)  # more than a lease, all of it renewed
        trainer.finish.set()
        wait_until(lambda: is_over(jobs, job.id))
    assert jobs.get(job.id).status is Status.SUCCEEDED
    assert len(trainer.begun) == 1


def test_a_silent_worker_is_replaced(
    jobs: JobStore, files: FileStore, new_job: NewJob, trainer: Trainer
) -> None:
    """A lease that stands still is taken over after its time, and the job is trained to its end."""
    job = new_job()
    checked = jobs.take(job, "dead", Status.VALIDATING)
    assert checked is not None
    jobs.write(checked, to=Status.QUEUED)
    assert jobs.take(jobs.get(job.id), "dead", Status.RUNNING)  # and never another beat
    trainer.finish.set()
    with working(Worker(jobs, files, trainer, lease_s=LEASE_S)):
        wait_until(lambda: is_over(jobs, job.id))
    assert jobs.get(job.id).status is Status.SUCCEEDED
    assert jobs.get(job.id).attempt == 3


@pytest.mark.parametrize("wish", [Status.CANCELLED, Status.PAUSED])
def test_cancel_and_pause_stop_the_training(
    wish: Status, jobs: JobStore, files: FileStore, new_job: NewJob, trainer: Trainer
) -> None:
    """Within a beat; a paused job is trained once it is resumed, a cancelled one is over."""
    job = new_job()
    with working(Worker(jobs, files, trainer, lease_s=LEASE_S)):
        wait_until(lambda: bool(trainer.begun))
        jobs.change(job.id, OWNER, wish)
        assert trainer.stopped.wait(5)
        wait_until(lambda: not jobs.get(job.id).worker)
        assert jobs.get(job.id).status is wish
        if wish is Status.PAUSED:
            trainer.finish.set()
            jobs.change(job.id, OWNER, Status.QUEUED)
            wait_until(lambda: is_over(jobs, job.id))
            assert jobs.get(job.id).status is Status.SUCCEEDED


def test_who_cannot_renew_stops_in_time(database: JobsDatabase, new_job: NewJob, jobs: JobStore) -> None:
    """Without the database the work is stopped before another worker may begin: after half a lease."""
    down = threading.Event()

    @contextmanager
    def writing() -> Iterator[Connection]:
        if down.is_set():
            raise ConnectionError("no route to the database")
        with database.writing() as connection:
            yield connection

    flaky = JobStore(database.reading, writing)
    lease = flaky.take(new_job(), "w", Status.VALIDATING)
    assert lease is not None
    stopped = threading.Event()
    with Holding(flaky, lease, lease_s=2, beat_s=0.05) as holding:
        holding.on_lost(stopped.set)
        wait_until(lambda: jobs.get(lease.job.id).beat > 3)
        down.set()
        began = time.monotonic()
        assert not stopped.wait(0.8)  # one missed beat is no loss
        assert stopped.wait(5)
        assert time.monotonic() - began < 2
        down.clear()


def test_a_worker_that_ends_puts_its_job_back(
    jobs: JobStore, files: FileStore, new_job: NewJob, trainer: Trainer
) -> None:
    """An orderly end loses no time: the job is in the queue, and nobody's."""
    job = new_job()
    with working(Worker(jobs, files, trainer, lease_s=60)):
        wait_until(lambda: bool(trainer.begun))
    left = jobs.get(job.id)
    assert (left.status, left.worker) == (Status.QUEUED, "")


def test_bad_files_fail_while_another_job_trains(
    jobs: JobStore, files: FileStore, new_job: NewJob, trainer: Trainer
) -> None:
    """Checking does not wait for training; the reasons are in the job and its events."""
    new_job()
    with working(Worker(jobs, files, trainer, lease_s=LEASE_S)):
        wait_until(lambda: bool(trainer.begun))
        bad = new_job(b"{")
        wait_until(lambda: is_over(jobs, bad.id))
    failed = jobs.get(bad.id)
    assert failed.status is Status.FAILED
    assert failed.outcome.error is not None
    assert failed.outcome.error.code == "invalid_training_file"
    assert failed.outcome.finished_at is not None
    assert {event.level for event in jobs.events(bad.id, limit=9)[0]} == {"info", "error"}

"""One job from a lease to its end, where no training is needed: its plan, release, retries, limits.

The training itself is in tests/test_fine_tuning_end_to_end.py, with a real worker and a real vLLM.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from adapters.manifest import NAME_PATTERN
from finetune.dataset import read_rows
from finetune.job import hyperparameters
from finetune.jobs import running
from finetune.jobs.errors import LeaseLost
from finetune.jobs.files import FileStore
from finetune.jobs.holding import Holding
from finetune.jobs.records import StoredJob, Wishes
from finetune.jobs.release import NotReleased, Release, Unreachable
from finetune.jobs.running import Runner
from finetune.jobs.states import Status
from finetune.jobs.store import JobStore
from gateway.control.jobs import JobsDatabase
from tests.finetune.jobs.conftest import OWNER
from tests.support.artifacts import PASSED, make_artifact

NewJob = Callable[..., StoredJob]
PARAMETERS = 4_196_608  # of sluice-4m
REFUSED = msgspec.structs.replace(PASSED, passed=False, reasons=("it is no better",))


@contextmanager
def held(jobs: JobStore, job: StoredJob, adapter: Path | None = None, attempt: int = 0) -> Iterator[Holding]:
    """The job as a worker holds it; with `adapter` it was trained already."""
    checked = jobs.take(job, "w", Status.VALIDATING)
    assert checked is not None
    jobs.write(checked, to=Status.QUEUED)
    lease = jobs.take(jobs.get(job.id), "w", Status.RUNNING)
    assert lease is not None
    jobs.write(lease, outcome={"adapter": str(adapter or "")})
    stored = msgspec.structs.replace(jobs.get(job.id), attempt=attempt or lease.attempt)
    with Holding(jobs, lease._replace(job=stored), lease_s=30, beat_s=0.05) as holding:
        yield holding


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """What an earlier worker had trained."""
    return make_artifact(tmp_path / "adapter")


def runner(jobs: JobStore, files: FileStore, release: Release, folder: Path) -> Runner:
    return Runner(jobs, files, release, base="sluice-4m", runs=folder / "runs")


def never(folder: Path, by: str) -> str:
    raise AssertionError("nothing is to be released")


def test_a_trained_job_is_released_under_its_name(
    jobs: JobStore, files: FileStore, new_job: NewJob, adapter: Path, tmp_path: Path
) -> None:
    """What an earlier worker had trained is released without another training, for the key that asked."""
    asked: list[tuple[Path, str]] = []

    def release(folder: Path, by: str) -> str:
        asked.append((folder, by))
        return "ft.desk.0@0123456789ab"

    job = new_job(suffix="Desk")
    with held(jobs, job, adapter) as holding:
        runner(jobs, files, release, tmp_path).run(holding)
    done = jobs.get(job.id)
    assert done.status is Status.SUCCEEDED
    assert done.outcome.fine_tuned_model == f"ft:sluice-4m:support:desk:{job.short_id}"
    assert (done.outcome.release, done.outcome.releasing) == ("ft.desk.0@0123456789ab", False)
    assert asked == [(adapter, OWNER.key_id)]
    assert jobs.models(OWNER) == [(done.outcome.fine_tuned_model, done.outcome.finished_at)]


def test_a_gateway_that_is_away_is_waited_for(
    jobs: JobStore,
    files: FileStore,
    new_job: NewJob,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Training is dear: a gateway that restarts does not cost it. One that stays away ends the job."""
    monkeypatch.setattr(running, "RETRIES_S", (0.01, 0.01))
    answers = iter([Unreachable("refused"), Unreachable("refused"), "r@0123456789ab"])

    def release(folder: Path, by: str) -> str:
        answer = next(answers, Unreachable("refused"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    first, second = new_job(), new_job()
    with held(jobs, first, adapter) as holding:
        runner(jobs, files, release, tmp_path).run(holding)
    assert jobs.get(first.id).status is Status.SUCCEEDED
    assert [event.level for event in jobs.events(first.id, limit=99)[0]].count("warn") == 2
    with held(jobs, second, adapter) as holding:
        runner(jobs, files, release, tmp_path).run(holding)
    failed = jobs.get(second.id)
    assert failed.outcome.error is not None
    assert (failed.status, failed.outcome.error.code) == (Status.FAILED, "release_failed")


@pytest.mark.parametrize(
    ("changes", "attempt", "code", "said"),
    [
        ({}, 0, "release_failed", "The adapter could not be released: the replicas said no"),
        ({}, running.MOST_ATTEMPTS + 1, "worker_failed", "50 attempts"),
        ({"evaluation": REFUSED}, 0, "do_not_deploy", "Do not deploy: it is no better"),
    ],
)
def test_failures_have_a_code_and_a_reason(
    changes: dict[str, Any],
    attempt: int,
    code: str,
    said: str,
    jobs: JobStore,
    files: FileStore,
    new_job: NewJob,
    tmp_path: Path,
) -> None:
    """In the job's error and as its last event; nothing hangs half released."""

    def refuse(folder: Path, by: str) -> str:
        raise NotReleased("the replicas said no")

    job = new_job()
    with held(jobs, job, make_artifact(tmp_path / "changed", **changes), attempt) as holding:
        runner(jobs, files, refuse, tmp_path).run(holding)
    failed = jobs.get(job.id)
    assert failed.status is Status.FAILED
    assert failed.outcome.error is not None
    assert failed.outcome.error.code == code
    assert said in failed.outcome.error.message
    assert not failed.outcome.releasing
    assert jobs.events(job.id, limit=1)[0][0].message == failed.outcome.error.message


def test_a_job_that_was_cancelled_is_not_released(
    jobs: JobStore, files: FileStore, new_job: NewJob, adapter: Path, tmp_path: Path
) -> None:
    """Between training and release a client's word still counts."""
    job = new_job()
    with held(jobs, job, adapter) as holding:
        jobs.change(job.id, OWNER, Status.CANCELLED)
        with pytest.raises(LeaseLost):
            runner(jobs, files, never, tmp_path).run(holding)
    assert jobs.get(job.id).status is Status.CANCELLED


def test_a_database_that_is_away_for_a_while_costs_nothing(
    database: JobsDatabase, files: FileStore, new_job: NewJob, adapter: Path, tmp_path: Path
) -> None:
    """What was trained and released is written down once the database is back."""
    failures = iter([True, True, False, True])

    @contextmanager
    def writing() -> Iterator[Connection]:
        if released and next(failures, False):
            raise ConnectionError("no route to the database")
        with database.writing() as connection:
            yield connection

    released: list[Path] = []

    def release(folder: Path, by: str) -> str:
        released.append(folder)
        return "ft.desk.0@0123456789ab"

    flaky = JobStore(database.reading, writing, away=ConnectionError)
    job = new_job()
    with held(flaky, job, adapter) as holding:
        runner(flaky, files, release, tmp_path).run(holding)
    assert flaky.get(job.id).status is Status.SUCCEEDED
    assert released == [adapter]


def test_a_deleted_base_ends_the_job(
    jobs: JobStore, files: FileStore, new_job: NewJob, tmp_path: Path
) -> None:
    """What cannot be planned fails with the reason; the worker goes on."""
    wishes = Wishes(learning_rate_multiplier=2.0)
    job = new_job(wishes=wishes)
    with held(jobs, job) as holding:
        Runner(jobs, files, never, base="./none", runs=tmp_path).run(holding)
    failed = jobs.get(job.id)
    assert failed.outcome.error is not None
    assert failed.outcome.error.code == "training_failed"
    assert "base model './none' not found" in failed.outcome.error.message


def test_wishes_become_the_trainings_own(
    jobs: JobStore, files: FileStore, new_job: NewJob, tmp_path: Path
) -> None:
    """Epochs and batch as asked, auto left open; a multiplier multiplies the rate that auto would choose."""
    work = runner(jobs, files, never, tmp_path)
    auto = work._plan(new_job())
    assert (auto.epochs, auto.batch_size, auto.learning_rate, auto.seed) == (None, None, None, 1)
    assert auto.faults() == ()
    plan = work._plan(new_job(wishes=Wishes(n_epochs=3, batch_size=4, learning_rate_multiplier=2.0)))
    answers = [str(row.answer) for row in read_rows(plan.data)]
    usual = hyperparameters(auto, answers, PARAMETERS).learning_rate
    assert (plan.epochs, plan.batch_size) == (3, 4)
    assert plan.learning_rate == pytest.approx(2 * usual, rel=0.02)
    assert plan.output == tmp_path / "runs" / plan.output.name
    assert re.fullmatch(NAME_PATTERN, plan.suffix)

"""Jobs in the database: the state table, leases under contention, and who sees what."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from sqlalchemy import inspect

from finetune.jobs.errors import LeaseLost, UnknownCursor, UnknownJob, WrongStatus
from finetune.jobs.records import Checkpoint, Event, Owner, StoredJob
from finetune.jobs.states import FINAL, TRANSITIONS, Status
from finetune.jobs.store import JobStore, Lease
from finetune.jobs.tables import METADATA
from gateway.control.jobs import JobsDatabase
from tests.finetune.jobs.conftest import OWNER
from tests.support.waiting import wait_until

NewJob = Callable[..., StoredJob]
HOLDS = (Status.VALIDATING, Status.RUNNING)  # statuses in which a worker holds a job


def brought_to(jobs: JobStore, job: StoredJob, status: Status) -> Lease | None:
    """The job in that status, by the way that the product takes it there; the lease of who holds it."""
    if status is Status.VALIDATING:
        return None
    lease = jobs.take(job, "a", Status.VALIDATING)
    assert lease is not None
    if status is Status.FAILED:
        jobs.write(lease, to=Status.FAILED)
        return None
    jobs.write(lease, to=Status.QUEUED)
    jobs.let_go(lease)
    if status is Status.CANCELLED:
        jobs.change(job.id, OWNER, Status.CANCELLED)
    if status is Status.PAUSED:
        jobs.change(job.id, OWNER, Status.PAUSED)
    if status not in (Status.RUNNING, Status.SUCCEEDED):
        return None
    running = jobs.take(jobs.get(job.id), "a", Status.RUNNING)
    assert running is not None
    if status is Status.SUCCEEDED:
        jobs.write(running, to=Status.SUCCEEDED)
    return running


@pytest.mark.parametrize("wish", [Status.CANCELLED, Status.PAUSED, Status.QUEUED])
@pytest.mark.parametrize("status", list(Status))
def test_clients_change_what_the_table_allows(
    status: Status, wish: Status, jobs: JobStore, new_job: NewJob
) -> None:
    """Cancel, pause and resume from every status: done where the table says so, else refused by name."""
    job = new_job()
    brought_to(jobs, job, status)
    allowed = wish in TRANSITIONS[status] and (wish is not Status.QUEUED or status is Status.PAUSED)
    if allowed:
        assert jobs.change(job.id, OWNER, wish).status is wish
        assert (jobs.get(job.id).outcome.finished_at is not None) == (wish is Status.CANCELLED)
    else:
        with pytest.raises(WrongStatus, match=f"it is {status.value}"):
            jobs.change(job.id, OWNER, wish)
        assert jobs.get(job.id).status is status


def test_final_is_final() -> None:
    """Three ends, and from every other status a way to each kind of end."""
    assert {status.value for status in FINAL} == {"succeeded", "failed", "cancelled"}
    assert all(Status.CANCELLED in TRANSITIONS[status] for status in set(Status) - FINAL)


def test_one_of_many_gets_the_lease(jobs: JobStore, new_job: NewJob) -> None:
    """Eight workers that saw the same job reach for it at once: one has it."""
    job = new_job()
    with ThreadPoolExecutor(8) as threads:
        leases = list(threads.map(lambda n: jobs.take(job, f"w{n}", Status.VALIDATING), range(8)))
    won = [lease for lease in leases if lease is not None]
    assert len(won) == 1
    assert jobs.get(job.id).worker == won[0].worker


def test_who_was_replaced_writes_nothing(jobs: JobStore, new_job: NewJob) -> None:
    """After a takeover the first holder's renewals and results count for nothing, though it lives."""
    job = new_job()
    first = brought_to(jobs, job, Status.RUNNING)
    assert first is not None
    assert jobs.renew(first)
    second = jobs.take(jobs.get(job.id), "b", Status.RUNNING)
    assert second is not None
    assert not jobs.renew(first)
    with pytest.raises(LeaseLost):
        jobs.write(first, [Event(message="mine")], to=Status.SUCCEEDED)
    jobs.let_go(first)
    assert jobs.get(job.id).worker == "b"
    assert jobs.write(second, to=Status.SUCCEEDED).status is Status.SUCCEEDED
    assert "mine" not in [event.message for event in jobs.events(job.id, limit=99)[0]]


@pytest.mark.parametrize("wish", [Status.CANCELLED, Status.PAUSED])
def test_a_holder_sees_that_its_job_was_stopped(wish: Status, jobs: JobStore, new_job: NewJob) -> None:
    """What a client says wins over the holder, whose next renewal fails."""
    job = new_job()
    lease = brought_to(jobs, job, Status.RUNNING)
    assert lease is not None
    jobs.change(job.id, OWNER, wish)
    assert not jobs.renew(lease)
    with pytest.raises(LeaseLost):
        jobs.write(lease, to=Status.SUCCEEDED)
    assert jobs.get(job.id).status is wish


def test_what_is_being_released_cannot_be_stopped(jobs: JobStore, new_job: NewJob) -> None:
    """An alias may be about to move: neither cancelled nor paused, and the text says why."""
    job = new_job()
    lease = brought_to(jobs, job, Status.RUNNING)
    assert lease is not None
    jobs.write(lease, outcome={"releasing": True})
    for wish in (Status.CANCELLED, Status.PAUSED):
        with pytest.raises(WrongStatus, match="being released"):
            jobs.change(job.id, OWNER, wish)


def test_a_write_is_whole_or_nothing(jobs: JobStore, new_job: NewJob) -> None:
    """Events, checkpoint, outcome and status of one write come together."""
    job = new_job()
    lease = brought_to(jobs, job, Status.RUNNING)
    assert lease is not None
    before = len(jobs.events(job.id, limit=99)[0])
    broken = Event(message="x", data={"not JSON": object()})
    with pytest.raises(TypeError):
        jobs.write(lease, [broken], outcome={"trained_tokens": 5}, checkpoint=Checkpoint(step=1, metrics={}))
    assert len(jobs.events(job.id, limit=99)[0]) == before
    assert jobs.get(job.id).outcome.trained_tokens is None
    assert jobs.checkpoints(job.id) == []


def test_events_are_numbered_without_gaps_under_contention(jobs: JobStore, new_job: NewJob) -> None:
    """The holder and clients write at once; pages by number neither repeat nor lose an event."""
    job = new_job()
    lease = brought_to(jobs, job, Status.RUNNING)
    assert lease is not None
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: jobs.write(lease, [Event(message=str(n))] * 3), range(16)))
    seen: list[int] = []
    more = True
    while more:
        page, more = jobs.events(job.id, before=seen[-1] if seen else 0, limit=7)
        seen += [event.seq for event in page]
    assert seen == list(range(len(seen), 0, -1))
    assert len(seen) == 2 + 48  # two are of the creation


def test_a_client_wins_over_a_busy_holder(jobs: JobStore, new_job: NewJob) -> None:
    """A job that is written to without pause is cancelled at the first word, and not written to after it."""
    job = new_job()
    lease = brought_to(jobs, job, Status.RUNNING)
    assert lease is not None

    pause = threading.Event()

    def write() -> int:
        for written in range(1000):
            try:
                jobs.write(lease, [Event(message="step")], outcome={"estimated_finish": written})
            except LeaseLost:
                return written
            pause.wait(0.005)  # SQLite's lock is not fair: who never pauses may keep all others out
        raise AssertionError("the job was not cancelled")

    with ThreadPoolExecutor(1) as threads:
        writer = threads.submit(write)
        wait_until(lambda: len(jobs.events(job.id, limit=9)[0]) > 5)
        cancelled = jobs.change(job.id, OWNER, Status.CANCELLED)
        written = writer.result(30)
    assert cancelled.status is Status.CANCELLED
    assert cancelled.outcome.estimated_finish is None
    assert jobs.get(job.id) == msgspec.structs.replace(cancelled, beat=jobs.get(job.id).beat)
    events = jobs.events(job.id, limit=9999)[0]
    assert events[0].message == "The job was cancelled."
    assert len(events) == written + 3


def test_metrics_of_a_second_attempt_replace_the_first(jobs: JobStore, new_job: NewJob) -> None:
    """Steps that were made again after a crash are reported once."""
    job = new_job()
    lease = brought_to(jobs, job, Status.RUNNING)
    assert lease is not None
    steps: list[dict[str, Any]] = [{"step": n, "loss": 1.0} for n in (1, 2, 3)] + [{"step": 2, "loss": 0.5}]
    jobs.write(lease, [Event(message="", type="metrics", data=step) for step in steps])
    assert [(step["step"], step["loss"]) for step in jobs.metrics(job.id)] == [(1, 1.0), (2, 0.5), (3, 1.0)]


def test_pages_and_metadata(jobs: JobStore, new_job: NewJob) -> None:
    """Newest first, by cursor, and only jobs that have all the metadata asked for."""
    made = [new_job(metadata={"run": str(n % 2), "all": "x"}).id for n in range(5)]
    first, more = jobs.page(OWNER, limit=2)
    assert ([job.id for job in first], more) == (made[:2:-1], True)
    rest, more = jobs.page(OWNER, after=first[-1].id, limit=3)
    assert ([job.id for job in rest], more) == (made[2::-1], False)
    odd, more = jobs.page(OWNER, limit=1, metadata={"run": "1", "all": "x"})
    assert ([job.id for job in odd], more) == ([made[3]], True)
    assert jobs.page(OWNER, limit=9, metadata={"run": "7"}) == ([], False)
    with pytest.raises(UnknownCursor):
        jobs.page(OWNER, after="ftjob-none", limit=2)


def test_others_see_nothing(jobs: JobStore, new_job: NewJob) -> None:
    """Another team's job, and another project's, are as if they were not; a team's key sees its projects."""
    job = new_job(owner=Owner("support", "chat", "k"))
    assert jobs.get(job.id, Owner("support")).id == job.id
    for other in (Owner("legal"), Owner("support", "mail")):
        assert jobs.page(other, limit=9) == ([], False)
        for ask in (jobs.get, lambda id, owner: jobs.change(id, owner, Status.CANCELLED)):
            with pytest.raises(UnknownJob):
                ask(job.id, other)


def test_the_migrations_make_the_tables(database: JobsDatabase) -> None:
    """DDL and the columns that queries are written against are the same."""
    with database.reading() as connection:
        seen = inspect(connection)
        for table in METADATA.sorted_tables:
            columns = {column["name"]: column["nullable"] for column in seen.get_columns(table.name)}
            assert columns == {column.name: bool(column.nullable) for column in table.columns}
            keys = seen.get_pk_constraint(table.name)["constrained_columns"]
            assert keys == [column.name for column in table.primary_key]

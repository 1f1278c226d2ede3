"""All queries on jobs, their events and checkpoints, and the leases by which workers hold them.

A change is one transaction that locks the job's row or compares and sets its lease, so that of two who change
a job at the same time one succeeds, on any database.

A lease is `(worker, attempt, beat)`. Its holder counts `beat` up while it lives. Whoever wants a job that
another holds watches that number: where it stands still for a whole lease on the watcher's own clock, the
holder is taken for dead and the job is taken over by raising `attempt`. So no clocks of two machines are ever
compared. What a holder writes counts only while `attempt` is still its own.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, insert, or_, select, true, update
from sqlalchemy.exc import DBAPIError

from finetune.jobs.errors import LeaseLost, UnknownCursor, UnknownJob, WrongStatus
from finetune.jobs.records import ID_PREFIX, Asked, Checkpoint, Event, Outcome, Owner, StoredJob
from finetune.jobs.states import FINAL, LEASABLE, TRANSITIONS, Status
from finetune.jobs.tables import CHECKPOINT, EVENT, JOB

Transaction = Callable[[], AbstractContextManager[Connection]]
Past = {Status.CANCELLED: "cancelled", Status.PAUSED: "paused", Status.QUEUED: "resumed"}
_AT_A_TIME = 200


class Lease(NamedTuple):
    """A job held by a worker, as it was when it was taken."""

    job: StoredJob
    worker: str
    attempt: int
    status: Status  # in which it is held


class JobStore:
    """Over `reading` and `writing`, which open a transaction each; whatever those raise is passed on.

    `away` is what they raise where the same call may succeed later.

    On SQLite a `writing` transaction is the only one of its kind. Whatever is raised in it rolls it back.
    """

    def __init__(
        self, reading: Transaction, writing: Transaction, away: type[Exception] = DBAPIError
    ) -> None:
        self._reading, self._writing, self.away = reading, writing, away

    # For clients.

    def create(
        self, asked: Asked, *, training_file: str, validation_file: str = "", owner: Owner, model_words: str
    ) -> StoredJob:
        """A new job, which a worker will look at. `model_words` describe it in its first event."""
        id = f"{ID_PREFIX}{secrets.token_hex(12)}"
        values = {
            "id": id,
            "created_ns": time.time_ns(),
            "team": owner.team,
            "project": owner.project,
            "key_id": owner.key_id,
            "training_file": training_file,
            "validation_file": validation_file,
            "status": Status.VALIDATING.value,
            "worker": "",
            "attempt": 0,
            "beat": 0,
            "events": 0,
            "asked": _json(asked),
            "outcome": _json(Outcome()),
        }
        first = [
            Event(message=f"Created fine-tuning job: {id} ({model_words})"),
            Event(message=f"Validating training file: {training_file}"),
        ]
        with self._writing() as connection:
            connection.execute(insert(JOB).values(**values))
            _append(connection, id, first)
            return _get(connection, id)

    def get(self, id: str, owner: Owner | None = None) -> StoredJob:
        """Raises UnknownJob, also where it is another owner's."""
        with self._reading() as connection:
            return _get(connection, id, owner)

    def page(
        self, owner: Owner | None, *, after: str = "", limit: int, metadata: Mapping[str, str] | None = None
    ) -> tuple[list[StoredJob], bool]:
        """Up to `limit` jobs, newest first, that have all of `metadata`; and whether there are more.

        Raises UnknownCursor.
        """
        with self._reading() as connection:
            beyond = _cursor(connection, after, owner)
            found: list[StoredJob] = []
            for job in _newest_first(connection, _of(owner), beyond):
                if (metadata or {}).items() <= (job.asked.metadata or {}).items():
                    found.append(job)
                if len(found) > limit:
                    break
            return found[:limit], len(found) > limit

    def events(self, id: str, *, before: int = 0, limit: int) -> tuple[list[Event], bool]:
        """Up to `limit` events older than number `before` (0: all), newest first; are there more?"""
        older = EVENT.c.seq < before if before else true()
        query = select(EVENT).where(EVENT.c.job == id, older).order_by(EVENT.c.seq.desc()).limit(limit + 1)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [_event(row) for row in rows[:limit]], len(rows) > limit

    def metrics(self, id: str) -> list[dict[str, Any]]:
        """The numbers of each step, in order of steps; of a step that was made again, the last ones."""
        query = select(EVENT.c.data).where(EVENT.c.job == id, EVENT.c.type == "metrics").order_by(EVENT.c.seq)
        with self._reading() as connection:
            steps = [msgspec.json.decode(data) for (data,) in connection.execute(query)]
        latest = {step["step"]: step for step in steps}
        return [latest[step] for step in sorted(latest)]

    def checkpoints(self, id: str) -> list[Checkpoint]:
        """The latest step first."""
        query = select(CHECKPOINT).where(CHECKPOINT.c.job == id).order_by(CHECKPOINT.c.step.desc())
        with self._reading() as connection:
            return [
                Checkpoint(step=row.step, metrics=msgspec.json.decode(row.metrics), created_at=row.created_at)
                for row in connection.execute(query)
            ]

    def models(self, owner: Owner) -> list[tuple[str, int]]:
        """The names of the models that the owner's jobs made, and since when they are there (Unix time)."""
        query = select(JOB.c.outcome).where(_of(owner), JOB.c.status == Status.SUCCEEDED.value)
        with self._reading() as connection:
            ends = [msgspec.json.decode(text, type=Outcome) for (text,) in connection.execute(query)]
        return [(end.fine_tuned_model, end.finished_at or 0) for end in ends if end.fine_tuned_model]

    def using(self, file: str) -> str | None:
        """A job that is not over and needs that file."""
        needs = or_(JOB.c.training_file == file, JOB.c.validation_file == file)
        over = JOB.c.status.in_([status.value for status in FINAL])
        with self._reading() as connection:
            return connection.execute(select(JOB.c.id).where(needs, ~over).limit(1)).scalar()

    def change(self, id: str, owner: Owner, to: Status) -> StoredJob:
        """Cancels, pauses or resumes. A worker that is at it sees that within a beat.

        Raises UnknownJob, WrongStatus.
        """
        with self._writing() as connection:
            _locked(connection, JOB.c.id == id)
            job = _get(connection, id, owner)
            if to not in TRANSITIONS[job.status] or (to is Status.QUEUED and job.status is not Status.PAUSED):
                raise WrongStatus(id, job.status, Past[to])
            if job.outcome.releasing:
                raise WrongStatus(id, job.status, Past[to], "its adapter is being released")
            outcome = job.outcome
            if to is Status.CANCELLED:
                outcome = msgspec.structs.replace(outcome, finished_at=_now(), estimated_finish=None)
            changed = update(JOB).where(JOB.c.id == id).values(status=to.value, outcome=_json(outcome))
            connection.execute(changed)
            _append(connection, id, [Event(message=f"The job was {Past[to]}.")])
            return _get(connection, id)

    # For workers.

    def waiting(self, statuses: Sequence[Status]) -> list[StoredJob]:
        """Jobs in these statuses, oldest first, whoever holds them."""
        query = select(JOB).where(JOB.c.status.in_([status.value for status in statuses]))
        with self._reading() as connection:
            return [
                _job(row) for row in connection.execute(query.order_by(JOB.c.created_ns).limit(_AT_A_TIME))
            ]

    def take(self, seen: StoredJob, worker: str, status: Status) -> Lease | None:
        """Lease a job exactly as it was seen, and bring it to `status`; None: somebody else was quicker."""
        assert seen.status in LEASABLE  # noqa: S101 - callers ask `waiting` for those alone
        attempt = seen.attempt + 1
        this = and_(
            JOB.c.id == seen.id,
            JOB.c.status == seen.status.value,
            JOB.c.attempt == seen.attempt,
            JOB.c.beat == seen.beat,
            JOB.c.worker == seen.worker,
        )
        with self._writing() as connection:
            values = {"worker": worker, "attempt": attempt, "beat": 0, "status": status.value}
            if connection.execute(update(JOB).where(this).values(**values)).rowcount != 1:
                return None
            return Lease(_get(connection, seen.id), worker, attempt, status)

    def renew(self, lease: Lease) -> bool:
        """Say that the holder lives; False: it is to stop, the job is another's or its status was changed."""
        with self._writing() as connection:
            renewed = update(JOB).where(_held(lease)).values(beat=JOB.c.beat + 1)
            return connection.execute(renewed).rowcount == 1

    def write(
        self,
        lease: Lease,
        events: Sequence[Event] = (),
        *,
        outcome: Mapping[str, Any] | None = None,
        to: Status | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> StoredJob:
        """What the holder has to say: events, changes to the outcome, another status. All of it or nothing.

        Raises LeaseLost.
        """
        assert to is None or to in TRANSITIONS[lease.status]  # noqa: S101 - the table is the law
        with self._writing() as connection:
            held = _held(lease)
            if not _locked(connection, held):
                raise LeaseLost(lease.job.id)
            now = msgspec.structs.replace(_get(connection, lease.job.id).outcome, **(outcome or {}))
            status = (to or lease.status).value
            connection.execute(update(JOB).where(held).values(outcome=_json(now), status=status))
            _append(connection, lease.job.id, events)
            if checkpoint is not None:
                _keep(connection, lease.job.id, checkpoint)
            return _get(connection, lease.job.id)

    def let_go(self, lease: Lease) -> None:
        """Nobody is at the job any longer. No change where it is another's by now."""
        this = and_(JOB.c.id == lease.job.id, JOB.c.worker == lease.worker, JOB.c.attempt == lease.attempt)
        with self._writing() as connection:
            connection.execute(update(JOB).where(this).values(worker=""))


def _held(lease: Lease) -> ColumnElement[bool]:
    return and_(
        JOB.c.id == lease.job.id,
        JOB.c.worker == lease.worker,
        JOB.c.attempt == lease.attempt,
        JOB.c.status == lease.status.value,
    )


def _locked(connection: Connection, this: ColumnElement[bool]) -> bool:
    """Whether there is such a job. Writes nothing new: what is read of its row from now on stays true."""
    return connection.execute(update(JOB).where(this).values(events=JOB.c.events)).rowcount == 1


def _of(owner: Owner | None) -> ColumnElement[bool]:
    if owner is None:
        return true()
    return and_(JOB.c.team == owner.team, JOB.c.project == owner.project if owner.project else true())


def _get(connection: Connection, id: str, owner: Owner | None = None) -> StoredJob:
    row = connection.execute(select(JOB).where(JOB.c.id == id, _of(owner))).one_or_none()
    if row is None:
        raise UnknownJob(id)
    return _job(row)


def _cursor(connection: Connection, after: str, owner: Owner | None) -> tuple[int, str] | None:
    if not after:
        return None
    try:
        job = _get(connection, after, owner)
    except UnknownJob:
        raise UnknownCursor(after) from None
    return job.created_ns, job.id


def _newest_first(
    connection: Connection, of: ColumnElement[bool], beyond: tuple[int, str] | None
) -> Iterator[StoredJob]:
    while True:
        query = select(JOB).where(of)
        if beyond is not None:
            at, id = beyond
            older = and_(JOB.c.created_ns == at, JOB.c.id < id)
            query = query.where(or_(JOB.c.created_ns < at, older))
        rows = connection.execute(
            query.order_by(JOB.c.created_ns.desc(), JOB.c.id.desc()).limit(_AT_A_TIME)
        ).all()
        yield from map(_job, rows)
        if len(rows) < _AT_A_TIME:
            return
        beyond = rows[-1].created_ns, rows[-1].id


def _append(connection: Connection, id: str, events: Sequence[Event]) -> None:
    """Counting them up locks the job's row, so that no two writers give the same number."""
    if not events:
        return
    counted = update(JOB).where(JOB.c.id == id).values(events=JOB.c.events + len(events))
    last = connection.execute(counted.returning(JOB.c.events)).scalar_one()
    first, now = last - len(events) + 1, _now()
    rows = [
        {
            "job": id,
            "seq": first + i,
            "created_at": now,
            "level": event.level,
            "type": event.type,
            "message": event.message,
            "data": _json(event.data),
        }
        for i, event in enumerate(events)
    ]
    connection.execute(insert(EVENT), rows)


def _keep(connection: Connection, id: str, checkpoint: Checkpoint) -> None:
    """The checkpoint of a step that is made again takes the place of the first."""
    this = and_(CHECKPOINT.c.job == id, CHECKPOINT.c.step == checkpoint.step)
    connection.execute(delete(CHECKPOINT).where(this))
    values = {"job": id, "step": checkpoint.step, "created_at": _now(), "metrics": _json(checkpoint.metrics)}
    connection.execute(insert(CHECKPOINT).values(**values))


def _job(row: Any) -> StoredJob:
    return StoredJob(
        id=row.id,
        created_ns=row.created_ns,
        owner=Owner(row.team, row.project, row.key_id),
        training_file=row.training_file,
        validation_file=row.validation_file,
        status=Status(row.status),
        worker=row.worker,
        attempt=row.attempt,
        beat=row.beat,
        asked=msgspec.json.decode(row.asked, type=Asked),
        outcome=msgspec.json.decode(row.outcome, type=Outcome),
    )


def _event(row: Any) -> Event:
    return Event(
        message=row.message,
        level=row.level,
        type=row.type,
        data=msgspec.json.decode(row.data),
        seq=row.seq,
        created_at=row.created_at,
    )


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _now() -> int:
    return int(time.time())

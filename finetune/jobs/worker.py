"""The worker: leases jobs, checks their files, trains and releases them, one training at a time.

Files are checked by a thread of their own, so that a bad file is known while another job trains for hours.
Told to end, the worker stops its training and puts the job back into the queue; killed outright, it leaves a
job whose lease stands still, and the training process ends by itself (`finetune.launch`).
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable

from finetune.jobs.checking import file_faults
from finetune.jobs.errors import LeaseLost
from finetune.jobs.files import FileStore
from finetune.jobs.holding import Holding
from finetune.jobs.records import Event, StoredJob
from finetune.jobs.states import Status
from finetune.jobs.store import JobStore, Lease

log = logging.getLogger("headgate.jobs")

LEASE_S = 15.0  # for so long a lease that stands still is believed in; a killed trainer takes 5 s to end
BEATS = 15  # in a lease
POLL_S = 0.5  # between looks at the queue


class Worker:
    """`run` works until `stop`; the two may be called from any threads."""

    def __init__(
        self, jobs: JobStore, files: FileStore, train: Callable[[Holding], None], *, lease_s: float = LEASE_S
    ) -> None:
        """`train` takes a job that is held to its end, as `running.Runner.run` does."""
        self._jobs, self._files, self._run_job = jobs, files, train
        self._lease_s, self._beat_s = lease_s, lease_s / BEATS
        self._stopped = threading.Event()
        self._seen: dict[str, tuple[int, int, float]] = {}  # job -> attempt, beat, and since when
        self._holding: Holding | None = None
        self._lock = threading.Lock()
        self.name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"

    def run(self) -> None:
        checks = threading.Thread(
            target=self._loop, args=(self._check, (Status.VALIDATING,), Status.VALIDATING), name="checks"
        )
        checks.start()
        self._loop(self._train, (Status.QUEUED, Status.RUNNING), Status.RUNNING)
        checks.join()

    def stopped(self, timeout_s: float) -> bool:
        """Waits for `stop`, for so long at most; whether it was called."""
        return self._stopped.wait(timeout_s)

    def stop(self) -> None:
        """Ends what is under way; `run` returns once it has."""
        self._stopped.set()
        with self._lock:
            holding = self._holding
        if holding is not None:
            holding.lose()

    def _loop(self, work: Callable[[Holding], None], wanted: tuple[Status, ...], held_as: Status) -> None:
        said = ""  # of what is still wrong: once is enough
        while not self._stopped.is_set():
            try:
                lease, said = self._next(wanted, held_as), ""
                if lease is not None:
                    self._work(lease, work)
                    continue
            except LeaseLost as error:
                log.info("%s", error)
            except Exception as error:  # noqa: BLE001 - the loop outlives whatever the database raises
                if said != (said := f"{type(error).__name__}: {error}"):
                    log.error("worker %s: %s", self.name, said)
            self._stopped.wait(POLL_S)

    def _next(self, wanted: tuple[Status, ...], held_as: Status) -> Lease | None:
        """A lease on the oldest job that nobody living is at."""
        for job in self._jobs.waiting(wanted):
            if job.worker and not self._is_abandoned(job):
                continue
            if lease := self._jobs.take(job, self.name, held_as):
                if job.worker:
                    log.warning("job %s: taken over from worker %s", job.id, job.worker)
                return lease
        return None

    def _is_abandoned(self, job: StoredJob) -> bool:
        """Whether the job's lease has stood still for long, by this worker's own clock."""
        attempt, beat, since = self._seen.get(job.id, (-1, -1, 0.0))
        if (attempt, beat) != (job.attempt, job.beat):
            self._seen[job.id] = job.attempt, job.beat, time.monotonic()
            return False
        return time.monotonic() - since > self._lease_s

    def _work(self, lease: Lease, work: Callable[[Holding], None]) -> None:
        self._seen.pop(lease.job.id, None)
        with Holding(self._jobs, lease, lease_s=self._lease_s, beat_s=self._beat_s) as holding:
            try:
                work(holding)
            except LeaseLost:
                if self._stopped.is_set() and lease.status is Status.RUNNING:
                    self._put_back(lease)
                raise

    def _check(self, holding: Holding) -> None:
        found = file_faults(holding.lease.job, self._files)
        if found is None:
            done = [Event(message="Files validated, moving job to queued state")]
            self._jobs.write(holding.lease, done, to=Status.QUEUED)
            return
        error, events = found
        outcome = {"error": error, "finished_at": int(time.time())}
        self._jobs.write(holding.lease, events, outcome=outcome, to=Status.FAILED)

    def _train(self, holding: Holding) -> None:
        with self._lock:
            self._holding = holding
        if self._stopped.is_set():  # since the job was taken
            holding.lose()
            raise LeaseLost(holding.lease.job.id)
        try:
            self._run_job(holding)
        finally:
            with self._lock:
                self._holding = None

    def _put_back(self, lease: Lease) -> None:
        """This worker ends, the job does not. No change where the job was cancelled or taken over."""
        back = Event(level="warn", message="The worker was stopped; the job is back in the queue")
        self._jobs.write(
            lease, [back], outcome={"releasing": False, "estimated_finish": None}, to=Status.QUEUED
        )

"""One leased job from its files to a released adapter.

    queued ─▶ train in a process of its own ─▶ gate ─▶ release to the replicas ─▶ succeeded

What stops it halfway leaves a job that another worker can take up: before the adapter's folder is written
down, training begins again (in the same folder, where what it left lies); after that, only the release does.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from safetensors import safe_open

from adapters.manifest import MANIFEST_FILE, Manifest
from finetune.base import BaseNotFound, find_base
from finetune.dataset import InvalidDataset, read_preferences, read_rows
from finetune.job import Job, Step, hyperparameters
from finetune.jobs.errors import LeaseLost
from finetune.jobs.files import RESULTS, FileStore
from finetune.jobs.holding import Holding
from finetune.jobs.records import Checkpoint, Event, JobError, StoredJob
from finetune.jobs.release import NotReleased, Release, Unreachable
from finetune.jobs.results import learned, step_metrics, told
from finetune.jobs.states import Status
from finetune.jobs.store import JobStore
from finetune.launch import Result, Training
from router_policies.names import tuned_adapter, tuned_model

T = TypeVar("T")

WRITE_S = 0.5  # events are written together, this often
RETRIES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # before a release is tried again
MOST_ATTEMPTS = 50  # at a job that takes its workers down with it


class Failure(Exception):
    """The job ends as failed."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.error = JobError(code=code, message=message, param=param)


class Runner:
    """What running a job takes. `base` is what to train on: a bundled name, a folder, or a hub's name."""

    def __init__(self, jobs: JobStore, files: FileStore, release: Release, *, base: str, runs: Path) -> None:
        self._jobs, self._files, self._release, self._base, self._runs = jobs, files, release, base, runs

    def run(self, holding: Holding) -> None:
        """Until the job is over. Raises LeaseLost."""
        try:
            self._run(holding)
        except (Failure, OSError, ValueError, LookupError) as error:
            failure = error if isinstance(error, Failure) else Failure("worker_failed", _words(error))
            outcome = _ended() | {"error": failure.error, "estimated_finish": None}
            event = Event(level="error", message=failure.error.message)
            self._write(holding, [event], outcome=outcome, to=Status.FAILED)

    def _run(self, holding: Holding) -> None:
        job = holding.lease.job
        if job.attempt > MOST_ATTEMPTS:
            raise Failure(
                "worker_failed", f"{MOST_ATTEMPTS} attempts to run the job ended with their workers"
            )
        folder = Path(job.outcome.adapter) if job.outcome.adapter else self._train(job, holding)
        scores = read_manifest(folder).evaluation
        if not scores.passed:
            raise Failure("do_not_deploy", f"Do not deploy: {'; '.join(scores.reasons)}")
        name = model_name(job)
        self._write(holding, [Event(message="Releasing the adapter")], outcome={"releasing": True})
        release = self._released(folder, job, holding)
        outcome = _ended() | {"fine_tuned_model": name, "release": release}
        done = [
            Event(message=f"New fine-tuned model created: {name}"),
            Event(message="The job has successfully completed"),
        ]
        self._write(holding, done, outcome=outcome, to=Status.SUCCEEDED)

    def _train(self, job: StoredJob, holding: Holding) -> Path:
        """The folder of a whole adapter. Raises Failure, LeaseLost."""
        plan = self._plan(job)
        if faults := plan.faults():
            raise Failure("training_failed", "; ".join(faults))
        again = " again" if job.outcome.chosen else ""
        self._write(holding, [Event(message=f"Fine-tuning job started{again}")])
        with Training(plan) as training:
            holding.on_lost(training.stop)
            last = self._follow(training, holding)
            result = training.result()
        if holding.lost:
            raise LeaseLost(job.id)
        return self._kept(result, last, holding)

    def _follow(self, training: Training, holding: Holding) -> Step | None:
        """Writes down what the training reports, and later where the database is away; its last step."""
        pending: list[Event] = []
        outcome: dict[str, Any] = {}
        last, written = None, time.monotonic()
        for event in training.events():
            pending += told(event)
            outcome |= learned(event)
            last = event if isinstance(event, Step) else last
            if time.monotonic() - written > WRITE_S or not isinstance(event, Step):
                written = time.monotonic()
                with suppress(self._jobs.away):
                    self._jobs.write(holding.lease, pending, outcome=outcome)
                    pending, outcome = [], {}
        if not holding.lost:
            self._write(holding, pending, outcome=outcome)
        return last

    def _kept(self, result: Result, last: Step | None, holding: Holding) -> Path:
        """What came of the training, written down. Raises Failure: nothing did."""
        if result.manifest is None or result.folder is None:
            raise Failure("training_failed", result.reason or "the training process said nothing")
        job = holding.lease.job
        table = self._insist(holding, lambda: step_metrics(self._jobs.metrics(job.id)))
        file = self._insist(
            holding,
            lambda: self._files.write(table, filename="step_metrics.csv", purpose=RESULTS, owner=job.owner),
        )
        outcome = {
            "adapter": str(result.folder),
            "trained_tokens": result.trained_tokens,
            "result_files": (file.id,),
            "estimated_finish": None,
        }
        scores = result.manifest.evaluation
        event = Event(
            message=f"{scores.metric.replace('_', ' ')} on {scores.rows} held-out rows: "
            f"{scores.adapter.value:.3f}, base {scores.base.value:.3f}",
            data={"evaluation": msgspec.to_builtins(scores)},
        )
        self._write(holding, [event], outcome=outcome, checkpoint=_checkpoint(result.manifest, last))
        return result.folder

    def _write(self, holding: Holding, events: Sequence[Event], **more: Any) -> None:
        """As `JobStore.write`, insisting. Raises LeaseLost."""
        self._insist(holding, lambda: self._jobs.write(holding.lease, events, **more))

    def _insist(self, holding: Holding, work: Callable[[], T]) -> T:
        """What `work` returns, tried again while the database is away: the lease says how long that may be.

        Raises LeaseLost.
        """
        while True:
            try:
                return work()
            except self._jobs.away as error:
                if holding.wait_lost(WRITE_S):
                    raise LeaseLost(holding.lease.job.id) from error

    def _released(self, folder: Path, job: StoredJob, holding: Holding) -> str:
        """Raises Failure, LeaseLost."""
        for pause_s in (*RETRIES_S, None):
            try:
                return self._release(folder, job.owner.key_id)
            except NotReleased as error:
                raise Failure("release_failed", f"The adapter could not be released: {error}") from error
            except Unreachable as error:
                if pause_s is None:
                    raise Failure("release_failed", f"The gateway cannot be reached: {error}") from error
                message = f"The gateway cannot be reached; trying again in {pause_s:g} s: {error}"
                self._write(holding, [Event(level="warn", message=message)])
                if holding.wait_lost(pause_s):
                    raise LeaseLost(job.id) from error
        raise AssertionError  # the last pass raises or returns

    def _plan(self, job: StoredJob) -> Job:
        """The job as the training process takes it. Raises Failure."""
        wishes = job.asked.hyperparameters
        plan = Job(
            base=self._base,
            data=self._files.path(job.training_file),
            suffix=tuned_adapter(model_name(job)),
            output=self._runs / job.id,
            validation=self._files.path(job.validation_file) if job.validation_file else None,
            seed=job.asked.seed,
            epochs=None if wishes.n_epochs == "auto" else wishes.n_epochs,
            batch_size=None if wishes.batch_size == "auto" else wishes.batch_size,
        )
        if job.asked.method == "dpo":
            beta = {} if wishes.beta in (None, "auto") else {"beta": wishes.beta}
            plan = msgspec.structs.replace(plan, method="dpo", **beta)
        if wishes.learning_rate_multiplier == "auto":
            return plan
        rate = wishes.learning_rate_multiplier * _usual_rate(plan, job.asked.method)
        return msgspec.structs.replace(plan, learning_rate=rate)


def _ended() -> dict[str, Any]:
    return {"finished_at": int(time.time()), "releasing": False}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def model_name(job: StoredJob) -> str:
    """`ft:base:team:suffix:id`"""
    return tuned_model(job.asked.model, job.owner.team, job.asked.suffix, job.short_id)


def read_manifest(folder: Path) -> Manifest:
    """Raises OSError, msgspec.ValidationError."""
    return msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)


def _usual_rate(plan: Job, method: str) -> float:
    """The learning rate that the job would have by itself: what a multiplier multiplies. Raises Failure."""
    try:
        folder, _ = find_base(plan.base)
        if method == "dpo":
            rows = [pair.preferred for pair in read_preferences(plan.data)]
        else:
            rows = list(read_rows(plan.data))
    except (BaseNotFound, InvalidDataset, OSError) as error:
        raise Failure("training_failed", str(error)) from error
    return hyperparameters(plan, [str(row.answer) for row in rows], _parameters(folder)).learning_rate


def _parameters(folder: Path) -> int:
    """How many a base has, from the heads of its weight files."""
    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as weights:
            count += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return count


def _checkpoint(manifest: Manifest, last: Step | None) -> Checkpoint:
    metrics = {"step": float(manifest.run.steps), "train_loss": manifest.run.final_loss}
    if last is not None:
        metrics["train_mean_token_accuracy"] = last.accuracy
    return Checkpoint(step=manifest.run.steps, metrics=metrics)

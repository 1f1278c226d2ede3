"""Jobs, events and checkpoints in OpenAI's shapes.

A job that succeeded is shown as `running` until this process routes to its model, so that the model can be
asked the moment the job says that it is there.
"""

import time
from collections.abc import Mapping
from typing import Any

from finetune.jobs.errors import UnknownCursor
from finetune.jobs.files import NS
from finetune.jobs.records import ID_PREFIX, Checkpoint, Event, StoredJob, Wishes
from finetune.jobs.states import Status
from router_policies.names import tuned_alias

FOLLOWED_S = 1.0  # in which all gateways have seen that an alias has moved (adapters.reconcile looks twice)
GIVEN_UP_S = 60.0  # after which a job is shown as it is, though its model is gone


def job_view(job: StoredJob, aliases: Mapping[str, str]) -> dict[str, Any]:
    """OpenAI's job object. `aliases` are those that this process routes to."""
    outcome, asked = job.outcome, job.asked
    status = _shown_status(job, aliases)
    over = status is job.status  # else what is known of the end is not shown yet
    hyperparameters = _hyperparameters(job)
    error = outcome.error
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": job.created_ns // NS,
        "finished_at": outcome.finished_at if over else None,
        "model": asked.model,
        "fine_tuned_model": outcome.fine_tuned_model if over else None,
        "organization_id": job.owner.team,
        "status": status.value,
        "hyperparameters": {name: value for name, value in hyperparameters.items() if name != "beta"},
        "training_file": job.training_file,
        "validation_file": job.validation_file or None,
        "result_files": list(outcome.result_files) if over else [],
        "trained_tokens": outcome.trained_tokens if over else None,
        "error": None
        if error is None
        else {"code": error.code, "message": error.message, "param": error.param},
        "seed": asked.seed,
        "estimated_finish": outcome.estimated_finish,
        "integrations": [],
        "metadata": asked.metadata,
        "method": {"type": asked.method, asked.method: {"hyperparameters": hyperparameters}},
    }


def event_view(job: StoredJob, event: Event) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.event",
        "id": f"{_event_prefix(job)}{event.seq}",
        "created_at": event.created_at,
        "level": event.level,
        "message": event.message,
        "type": event.type,
        "data": event.data,
    }


def checkpoint_view(job: StoredJob, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "object": "fine_tuning.job.checkpoint",
        "id": f"ftckpt_{job.id.removeprefix(ID_PREFIX)}_{checkpoint.step}",
        "created_at": checkpoint.created_at,
        "fine_tuned_model_checkpoint": f"{job.outcome.fine_tuned_model or ''}:ckpt-step-{checkpoint.step}",
        "fine_tuning_job_id": job.id,
        "step_number": checkpoint.step,
        "metrics": checkpoint.metrics,
    }


def _shown_status(job: StoredJob, aliases: Mapping[str, str]) -> Status:
    if job.status is not Status.SUCCEEDED or job.outcome.fine_tuned_model is None:
        return job.status
    age_s = time.time() - (job.outcome.finished_at or 0)
    alias = tuned_alias(job.outcome.fine_tuned_model, job.owner.team)
    ready = age_s > FOLLOWED_S and alias in aliases
    return job.status if ready or age_s > GIVEN_UP_S else Status.RUNNING


def _hyperparameters(job: StoredJob) -> dict[str, Any]:
    """As asked for, and as chosen where that was left open."""
    asked, chosen = job.asked.hyperparameters, job.outcome.chosen or Wishes()
    names = ("n_epochs", "batch_size", "learning_rate_multiplier", *(("beta",) if asked.beta else ()))
    wished = {name: getattr(asked, name) for name in names}
    return {
        name: getattr(chosen, name) or "auto" if value == "auto" else value for name, value in wished.items()
    }


def _event_prefix(job: StoredJob) -> str:
    return f"ftevent-{job.id.removeprefix(ID_PREFIX)}-"


def event_number(job: StoredJob, after: str) -> int:
    """Raises UnknownCursor."""
    if not after:
        return 0
    number = after.removeprefix(_event_prefix(job))
    if number == after or not (number.isascii() and number.isdigit() and int(number[:18]) > 0):
        raise UnknownCursor(after)
    return int(number[:18])

"""What files and jobs are made of, as frozen values."""

from typing import Any, Literal

import msgspec

from finetune.jobs.states import Status

Auto = Literal["auto"]


class Owner(msgspec.Struct, frozen=True):
    """Whose something is. A key without a project sees all of its team's, one with a project that alone."""

    team: str
    project: str = ""
    key_id: str = ""  # that made it


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file without its bytes. Times are Unix seconds, or nanoseconds where the name says so."""

    id: str
    created_ns: int
    owner: Owner
    filename: str
    purpose: str
    bytes: int
    sha256: str
    expires_at: int | None = None


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """The hyperparameters of OpenAI's API, as asked for or as chosen. `beta` is for DPO alone."""

    n_epochs: int | Auto = "auto"
    batch_size: int | Auto = "auto"
    learning_rate_multiplier: float | Auto = "auto"
    beta: float | Auto | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it was asked for. It never changes."""

    model: str  # as clients call the base
    method: Literal["supervised", "dpo"]
    hyperparameters: Wishes
    seed: int
    suffix: str = ""  # as given
    metadata: dict[str, str] | None = None


class JobError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str
    param: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job so far. `adapter` is the folder of what was trained, on the worker's machine."""

    finished_at: int | None = None
    error: JobError | None = None
    chosen: Wishes | None = None
    fine_tuned_model: str | None = None
    release: str = ""  # the immutable name under which replicas serve it
    result_files: tuple[str, ...] = ()
    trained_tokens: int | None = None
    estimated_finish: int | None = None
    adapter: str = ""
    releasing: bool = False  # it is on its way to the replicas: too late to cancel or pause


class StoredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it stands."""

    id: str
    created_ns: int
    owner: Owner
    training_file: str
    validation_file: str  # empty: none
    status: Status
    worker: str
    attempt: int
    beat: int
    asked: Asked
    outcome: Outcome

    @property
    def short_id(self) -> str:
        """The last part of the name of the model that comes of it."""
        return self.id.removeprefix(ID_PREFIX)[:SHORT]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """`metrics` events carry a step's numbers in `data`."""

    message: str
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] = {}
    seq: int = 0  # given by the store, from 1 for each job
    created_at: int = 0


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    step: int
    metrics: dict[str, float]
    created_at: int = 0


ID_PREFIX = "ftjob-"
SHORT = 12

"""What a training job is asked to do, and what it reports while it runs.

The launcher and the training process talk in these values: a `Job` goes in as one JSON argument, events
come out as JSON lines. Nothing here imports torch.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from adapters.manifest import NAME_PATTERN, WEIGHT_FILES

DEFAULT_RANK = 16  # the largest that vLLM takes unless it is started with another --max-lora-rank
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM can serve
ROWS_PER_LABEL = 5  # from so many rows for each distinct answer on, a data set is taken for a classification
CLASSIFICATION_DROPOUT = 0.3
WATCHED_ROWS = 1000
STEPS_PER_ROOT = 20  # optimizer steps for the square root of the rows
LEAST_STEPS = 0.25  # the share of them where the base knows the task already
FOLLOW = "--follow-stdin"  # tells the training process to end when its stdin does
BUNDLED_BASES = Path(__file__).parent / "bases"


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One LoRA fine-tuning. None means: derived from the size of the data and of the base.

    `base` is a model's name on a hub, the path of its folder, or the name of a base that ships with
    Headgate. `suffix` becomes the adapter's name. The adapter's folder is made inside `output`. With
    `validation` the two files are train and held-out; without it `held_out_share` of the rows in `data` is
    held out.

    `rate_ratio` above 1 is LoRA+: the second matrix of each pair learns faster than the first by so much.

    `method` is supervised fine-tuning (sft) or direct preference optimization (dpo), whose files hold
    preference rows and whose pull to the base is `beta`. `incumbent` is the folder of the adapter that is in
    service: the new one must be surely better. `general` are rows of other work, on which the adapter may
    lose at most `tolerance` of the base's score.

    With `early_stop` a tenth of the training rows is set aside, asked after each epoch, and the best state is
    kept; None means: from WATCHED_ROWS training rows on, where a tenth can be spared and can tell states
    apart.

    The state of the run is kept in `output` every `checkpoint_seconds`: the same job, started again after its
    process was killed, goes on from there.
    """

    base: str
    data: Path
    suffix: str
    output: Path
    validation: Path | None = None
    held_out_share: float = 0.2
    seed: int = 0
    qlora: bool = False
    rank: int = DEFAULT_RANK
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    prompt_dropout: float | None = None
    rate_ratio: float = 1.0
    licence: str = "unspecified"
    method: Literal["sft", "dpo"] = "sft"
    beta: float = 0.1
    incumbent: Path | None = None
    general: Path | None = None
    tolerance: float = 0.05
    early_stop: bool | None = None
    checkpoint_seconds: float = 20.0

    def faults(self) -> tuple[str, ...]:
        """Every reason why the job cannot be run as asked, known without reading the data."""
        checks = {
            f"suffix must match {NAME_PATTERN}, is {self.suffix!r}": re.fullmatch(NAME_PATTERN, self.suffix),
            f"rank must be one that vLLM serves, {RANKS}, is {self.rank}": self.rank in RANKS,
            f"held_out_share must lie between 0 and 1, is {self.held_out_share}": 0 < self.held_out_share < 1,
            f"seed must be 0 to 2147483647, is {self.seed}": 0 <= self.seed < 2**31,
            f"epochs must be 1 to 50, is {self.epochs}": self.epochs is None or 1 <= self.epochs <= 50,
            f"batch_size must be 1 to 256, is {self.batch_size}": self.batch_size is None
            or 1 <= self.batch_size <= 256,
            f"learning_rate must be above 0, is {self.learning_rate}": self.learning_rate is None
            or self.learning_rate > 0,
            f"prompt_dropout must be 0 to 0.9, is {self.prompt_dropout}": self.prompt_dropout is None
            or 0 <= self.prompt_dropout <= 0.9,
            f"rate_ratio must be 1 to 64, is {self.rate_ratio}": 1 <= self.rate_ratio <= 64,
            f"data file not found: {self.data}": self.data.is_file(),
            f"validation file not found: {self.validation}": self.validation is None
            or self.validation.is_file(),
            f"beta must be above 0 and at most 2, is {self.beta}": 0 < self.beta <= 2,
            f"tolerance must be 0 to 1, is {self.tolerance}": 0 <= self.tolerance <= 1,
            f"incumbent is not an adapter's folder: {self.incumbent}": self.incumbent is None
            or (self.incumbent / WEIGHT_FILES[0]).is_file(),
            f"general file not found: {self.general}": self.general is None or self.general.is_file(),
        }
        return tuple(fault for fault, holds in checks.items() if not holds)


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    epochs: int
    batch_size: int
    learning_rate: float
    prompt_dropout: float = 0.0
    rate_ratio: float = 1.0  # of LoRA's second matrices to its first (LoRA+)

    def steps(self, rows: int) -> int:
        """Optimizer steps over `rows` training rows."""
        return self.epochs * -(-rows // self.batch_size)


def hyperparameters(
    job: Job, answers: Sequence[object], parameters: int, known: float = 0.0
) -> Hyperparameters:
    """The job's wishes, with what it leaves open derived from the training answers and the base's parameters.

    `known` is the share of the rows, 0 to 1, that the base answers rightly by itself: the more, the fewer
    steps.

    Small batches: what counts is the number of steps, which grows with the square root of the rows (50 rows:
    141, 500 rows: 447). The learning rate falls with the cube root of the model's size, from 2e-4 at 7
    billion, which is ten times the habit of full fine-tuning. Where answers repeat, the task is to classify,
    and tokens are dropped from prompts: labels hang on more than one word, while extraction needs every one.
    """
    rows, labels = len(answers), len(set(answers))
    if job.method == "dpo":
        return _preference_hyperparameters(job, rows, parameters)
    batch_size = job.batch_size or 8
    steps = STEPS_PER_ROOT * math.sqrt(rows) * max(LEAST_STEPS, 1 - known)
    epochs = job.epochs or max(3, min(30, round(steps * batch_size / rows)))
    rate = job.learning_rate or _rate(parameters)
    dropout = job.prompt_dropout
    if dropout is None:
        dropout = CLASSIFICATION_DROPOUT if labels * ROWS_PER_LABEL <= rows else 0.0
    return Hyperparameters(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=rate,
        prompt_dropout=dropout,
        rate_ratio=job.rate_ratio,
    )


def _preference_hyperparameters(job: Job, rows: int, parameters: int) -> Hyperparameters:
    """Some 100 steps at a fifth of the rate: a preference is a nudge; too much unlearns the language."""
    batch_size = job.batch_size or 8
    return Hyperparameters(
        epochs=job.epochs or max(1, min(10, round(100 * batch_size / rows))),
        batch_size=batch_size,
        learning_rate=job.learning_rate or _rate(parameters) / 5,
        rate_ratio=job.rate_ratio,
    )


def _rate(parameters: int) -> float:
    return min(5e-3, max(1e-4, 2e-4 * math.cbrt(7e9 / parameters)))


class Event(msgspec.Struct, frozen=True, tag_field="event", tag=str.lower):
    """Base of what a training process reports."""


class Phase(Event, frozen=True):
    """A new phase begins: `name` is loading, training, evaluating or publishing."""

    name: str


class Started(Event, frozen=True):
    """The data is read and split; `steps` optimizer steps will follow."""

    train_rows: int
    held_out_rows: int
    steps: int
    hyperparameters: Hyperparameters
    trained_tokens: int  # supervised tokens seen over all epochs


class Step(Event, frozen=True):
    """One optimizer step. `accuracy`: the share of learned tokens that were the likeliest; `eta`: seconds."""

    step: int
    total: int
    loss: float
    accuracy: float
    learning_rate: float
    eta: float
    valid_score: float | None = None  # on the watched rows, at the end of an epoch


class Finished(Event, frozen=True):
    """The adapter's folder is complete. Whether it may be deployed is in its manifest."""

    manifest: Path
    passed: bool
    trained_tokens: int


class Failed(Event, frozen=True):
    """The job ended without an adapter. `reason` is for the user; details are in the log."""

    reason: str


AnyEvent = Phase | Started | Step | Finished | Failed


def to_json(value: Job | AnyEvent) -> str:
    """One line of JSON."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def job_from_json(text: str) -> Job:
    """The inverse of `to_json`; msgspec.ValidationError says what does not fit."""
    return msgspec.json.decode(text, type=Job, dec_hook=_to_path)


def event_from_json(line: bytes) -> AnyEvent:
    """The inverse of `to_json`; msgspec.ValidationError says what does not fit."""
    event: AnyEvent = msgspec.json.decode(line, type=AnyEvent, dec_hook=_to_path)
    return event


def _to_path(kind: type, value: str) -> Path:
    return Path(value)

"""What a training job is asked to do, and what it reports while it runs.

The launcher and the training process talk in these values: a `Job` goes in as one JSON argument, events
come out as JSON lines. Nothing here imports torch.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from adapters.manifest import NAME_PATTERN

DEFAULT_RANK = 16  # the largest that vLLM takes unless it is started with another --max-lora-rank
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the ranks that vLLM can serve
ROWS_PER_LABEL = 5  # from so many rows for each distinct answer on, a data set is taken for a classification
CLASSIFICATION_DROPOUT = 0.2
FOLLOW = "--follow-stdin"  # tells the training process to end when its stdin does
BUNDLED_BASES = Path(__file__).parent / "bases"


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One supervised LoRA fine-tuning. None means: derived from the size of the data and of the base.

    `base` is a model's name on a hub, the path of its folder, or the name of a base that ships with
    Headgate. `suffix` becomes the adapter's name. The adapter's folder is made inside `output`. With
    `validation` the two files are train and held-out; without it `held_out_share` of the rows in `data` is
    held out.
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
    licence: str = "unspecified"

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
            f"data file not found: {self.data}": self.data.is_file(),
            f"validation file not found: {self.validation}": self.validation is None
            or self.validation.is_file(),
        }
        return tuple(fault for fault, holds in checks.items() if not holds)


class Hyperparameters(msgspec.Struct, frozen=True, kw_only=True):
    epochs: int
    batch_size: int
    learning_rate: float
    prompt_dropout: float = 0.0

    def steps(self, rows: int) -> int:
        """Optimizer steps over `rows` training rows."""
        return self.epochs * -(-rows // self.batch_size)


def hyperparameters(job: Job, answers: Sequence[object], parameters: int) -> Hyperparameters:
    """The job's wishes, with what it leaves open derived from the training answers and the base's parameters.

    Small batches for few rows; epochs enough for some 280 steps, but at least 3. The learning rate falls
    with the cube root of the model's size, from 2e-4 at 7 billion, which is ten times the habit of full
    fine-tuning. Where answers repeat, the task is to classify, and tokens are dropped from prompts: labels
    hang on more than one word, while extraction needs every one.
    """
    rows, labels = len(answers), len(set(answers))
    batch_size = job.batch_size or (8 if rows < 100 else 16)
    epochs = job.epochs or max(3, min(30, round(280 * batch_size / rows)))
    rate = job.learning_rate or min(5e-3, max(1e-4, 2e-4 * (7e9 / parameters) ** (1 / 3)))
    dropout = job.prompt_dropout
    if dropout is None:
        dropout = CLASSIFICATION_DROPOUT if labels * ROWS_PER_LABEL <= rows else 0.0
    return Hyperparameters(epochs=epochs, batch_size=batch_size, learning_rate=rate, prompt_dropout=dropout)


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

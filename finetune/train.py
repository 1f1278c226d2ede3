"""Train a LoRA adapter on a few hundred chat rows: one method, read top to bottom.

    python -m finetune.train '{"base": "sluice-4m", "data": "rows.jsonl", "suffix": "desk", "output": "var"}'

The argument is a `finetune.job.Job`. Events go to stdout as JSON lines, everything else to stderr.

read and split rows -> encode -> train (LoRA, or QLoRA on a 4-bit base) -> save -> load what was saved on a
fresh base -> answer the held-out rows with and without the adapter -> gate -> probes -> manifest.

The held-out rows choose nothing: with few rows the number of epochs is fixed beforehand, with many a slice of
the training rows says when to stop. The model is made in
`finetune.model`, the optimizer loop is `finetune.loop`, preferences are `finetune.dpo`, the judging is
`finetune.judge`.
"""

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from accelerate import Accelerator
from transformers import AutoTokenizer

from adapters.manifest import BaseRevision, DatasetLineage, TrainingRun, combined_digest, digest_file
from finetune.base import BaseNotFound, describe_base, find_base
from finetune.checkpoint import Keeper
from finetune.dataset import MINIMUM_ROWS, InvalidDataset, PreferenceRow, Row, read_preferences, read_rows
from finetune.dpo import Preferences, encode_pairs, pair_batches, with_reference
from finetune.encode import Example, encode_rows
from finetune.forward import Reader, exact_hits
from finetune.job import (
    FOLLOW,
    WATCHED_ROWS,
    AnyEvent,
    Failed,
    Finished,
    Hyperparameters,
    Job,
    Phase,
    Started,
    Step,
    hyperparameters,
    job_from_json,
    to_json,
)
from finetune.judge import Judge, Material, Opponents, Unfit
from finetune.loop import (
    MICRO_TOKENS,
    Diverged,
    Objective,
    Outcome,
    OutOfMemory,
    Supervised,
    batches,
    optimize,
)
from finetune.model import (
    dtype_name,
    has_bf16,
    load_base,
    load_served,
    longest_row,
    parameters,
    stop_tokens,
    with_lora,
)
from finetune.publish import normalise_config, publish, versions
from finetune.record import Recorder
from finetune.split import Split, given_split, split_rows

WATCHED_SHARE = 0.1  # of the training rows, set aside where the training is stopped by them
ASKED_BEFORE = 100  # training rows of which the base is asked what it knows
GRACE_SECONDS = 5.0  # to clear up in when the launcher is gone
EXPECTED = (
    InvalidDataset,
    BaseNotFound,
    Diverged,
    OutOfMemory,
    Unfit,
)  # beside JobRefused: the user's to mend

Emit = Callable[[AnyEvent], None]


class JobRefused(ValueError):
    """The job cannot be run as asked; the text says why."""


class Rows(NamedTuple):
    """The rows of a job. `preferences` by the id of their preferred row; empty unless the method is DPO."""

    split: Split
    general: tuple[Row, ...]
    preferences: dict[str, PreferenceRow]

    def pairs(self, some: Sequence[Row]) -> list[PreferenceRow]:
        """The preferences behind rows; none unless the method is DPO."""
        return [self.preferences[row.id] for row in some] if self.preferences else []


class Bench(NamedTuple):
    """What a training works with."""

    folder: Path  # of the base
    base: BaseRevision
    tokenizer: Any
    accelerator: Accelerator
    run: Path  # the run's own folder: checkpoint, metrics, curve


def run(job: Job, emit: Emit) -> Finished:
    """Run a job from file to manifest. Raises JobRefused, what is in EXPECTED, OSError."""
    started, clock = datetime.now(UTC), time.monotonic()
    if faults := job.faults():
        raise JobRefused("; ".join(faults))
    rows = read(job)
    emit(Phase("loading"))
    bench = set_up(job)
    with _unfinished_folder(job.output) as unfinished:
        announced, outcome = train(job, rows, bench, unfinished, emit)
        lora = normalise_config(unfinished, bench.base.name)
        emit(Phase("evaluating"))
        served = load_served(bench.folder, unfinished, bench.accelerator.device)
        judge = Judge(served, bench.tokenizer, job.seed)
        evaluation, probes = judge.judge(
            Material(rows.split.train, rows.split.held_out, rows.general, rows.pairs(rows.split.held_out)),
            Opponents(job.incumbent, bench.base.revision, job.tolerance),
        )
        emit(Phase("publishing"))
        manifest = publish(
            unfinished,
            name=job.suffix,
            base=msgspec.structs.replace(bench.base, dtype=dtype_name(served)),
            lora=msgspec.structs.replace(lora, quantization="nf4" if job.qlora else None),
            dataset=_lineage(job, rows.split),
            run=_record(job, announced.hyperparameters, outcome, started, time.monotonic() - clock),
            evaluation=evaluation,
            probes=probes,
            licence=job.licence,
        )
    Keeper(bench.run, 0).clear()
    # Fewer than announced where the training stopped early.
    tokens = announced.trained_tokens * outcome.steps // announced.steps
    return Finished(manifest=manifest, passed=evaluation.passed, trained_tokens=tokens)


def read(job: Job) -> Rows:
    """Read and split all files. InvalidDataset, OSError, JobRefused if a part is empty."""
    preferences: dict[str, PreferenceRow] = {}

    def rows_of(path: Path, minimum: int) -> tuple[Row, ...]:
        if job.method == "sft":
            return read_rows(path, minimum)
        some = read_preferences(path, minimum)
        preferences.update({one.preferred.id: one for one in some})
        return tuple(one.preferred for one in some)

    rows = rows_of(job.data, MINIMUM_ROWS)
    if job.validation is not None:
        split = given_split(rows, rows_of(job.validation, 1))
    else:
        split = split_rows(rows, job.held_out_share, job.seed)
    if not split.train or not split.held_out:
        raise JobRefused("after duplicates are set aside, no rows are left to train on, or none to hold out")
    general = read_rows(job.general, 1) if job.general is not None else ()
    return Rows(split, general, preferences)


def set_up(job: Job) -> Bench:
    """Find the base and its tokenizer, and the folder of this run. BaseNotFound."""
    folder, name = find_base(job.base)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    base = describe_base(folder, name, tokenizer.get_chat_template(), "")
    accelerator = Accelerator(mixed_precision="bf16" if has_bf16() else "no")
    # The same job, rows and base have the same folder: there a run that was killed finds where it stood.
    wish = to_json(msgspec.structs.replace(job, output=Path(), checkpoint_seconds=0.0))
    files = {str(path): digest_file(path) for path in (job.data, job.validation) if path is not None}
    identity = combined_digest(
        files, wish, base.revision, base.template_sha256, *map(str, versions().items())
    )
    return Bench(folder, base, tokenizer, accelerator, job.output / f"run-{identity[:12]}")


def train(job: Job, rows: Rows, bench: Bench, output: Path, emit: Emit) -> tuple[Started, Outcome]:
    """Encode the rows, train, and save the adapter in `output`. InvalidDataset, Diverged, OutOfMemory."""
    model = load_base(bench.folder, bench.accelerator.device, job.qlora)
    stops, longest = stop_tokens(model, bench.tokenizer), longest_row(model, bench.tokenizer)
    learned, watched = rows.split.train, tuple[Row, ...]()
    if job.method == "sft" and (job.early_stop or (job.early_stop is None and len(learned) >= WATCHED_ROWS)):
        parts = split_rows(learned, WATCHED_SHARE, job.seed)
        learned, watched = parts.train, parts.held_out
    examples = encode_rows(learned, bench.tokenizer, stops, longest)
    # What cannot be judged is not trained either.
    encode_rows(rows.split.held_out, bench.tokenizer, stops, longest)
    answers = [example.answer_ids for example in examples]
    chosen = hyperparameters(job, answers, parameters(model), _known(model, examples, job.seed))
    announced = Started(
        train_rows=len(examples),
        held_out_rows=len(rows.split.held_out),
        steps=chosen.steps(len(examples)),
        hyperparameters=chosen,
        trained_tokens=chosen.epochs * sum(sum(example.learned) for example in examples),
    )
    emit(announced)
    emit(Phase("training"))
    model = with_lora(model, job.rank, job.seed)
    keeper, recorder = Keeper(bench.run, job.checkpoint_seconds), Recorder(bench.run)
    objective: Objective
    stream: Iterator[Sequence[Any]]
    if job.method == "dpo":
        pairs = encode_pairs(rows.pairs(learned), bench.tokenizer, stops, longest)
        sides = [side for pair in pairs for side in (pair.preferred, pair.rejected)]
        reader = Reader(model, sides, 2 * chosen.batch_size)
        objective = Preferences(reader, bench.accelerator, job.beta)
        stream = pair_batches(with_reference(pairs, model, reader), chosen, job.seed)
    else:
        reader = Reader(model, examples, chosen.batch_size)
        objective = Supervised(reader, bench.accelerator)
        special = frozenset(bench.tokenizer.all_special_ids)
        stream = batches(examples, chosen, special, job.seed, spared=len(reader.shared))

    def report(step: Step) -> None:
        recorder.add(step)
        emit(step)

    judge = Judge(model, bench.tokenizer, job.seed)
    watch = (lambda: judge.mean_score(watched)) if watched else None
    try:
        outcome = optimize(
            model, stream, objective, chosen, len(examples), bench.accelerator, report, keeper, watch
        )
    except (Diverged, OutOfMemory):
        keeper.clear()  # going on from there would end there again
        raise
    finally:
        recorder.close()
    reader.close()
    model.save_pretrained(output, safe_serialization=True)
    return announced, outcome


def _known(model: Any, examples: Sequence[Example], seed: int) -> float:
    """The share of training rows, or of a sample of them, that the base answers rightly by itself."""
    some = random.Random(seed).sample(list(examples), min(len(examples), ASKED_BEFORE))
    reader = Reader(model, some, len(some))
    hits = exact_hits(reader, some, MICRO_TOKENS)
    reader.close()
    return sum(hits) / len(hits)


def main() -> None:
    """Run the job in the first argument. Status 0 with a `finished` event, else 1 with a `failed` one."""
    job = job_from_json(sys.argv[1])
    if FOLLOW in sys.argv[2:]:
        threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that unfinished files are cleared away
    os.nice(10)  # a gateway on the same machine answers first
    # Libraries print to stdout; it is kept for events, and they get stderr.
    events, sys.stdout = sys.stdout, sys.stderr

    def emit(event: AnyEvent) -> None:
        events.write(to_json(event) + "\n")
        events.flush()

    try:
        emit(run(job, emit))
    except (JobRefused, *EXPECTED) as error:
        emit(Failed(str(error)))
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the edge of the process: whatever went wrong must be reported
        traceback.print_exc()
        emit(Failed(f"{type(error).__name__}: {error}"))
        sys.exit(1)


def _end_with_parent() -> None:
    """The launcher holds the other end of stdin: when it is gone, however it ended, so are we."""
    # Not through `sys.stdin`: its lock would still be held when the interpreter shuts down.
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os._exit(1)


def _lineage(job: Job, split: Split) -> DatasetLineage:
    return DatasetLineage(
        file=job.data.name,
        sha256=digest_file(job.data),
        train_rows=tuple(row.id for row in split.train),
        held_out_rows=tuple(row.id for row in split.held_out),
    )


def _record(
    job: Job, chosen: Hyperparameters, outcome: Outcome, started: datetime, seconds: float
) -> TrainingRun:
    return TrainingRun(
        run_id=uuid.uuid4().hex,
        method=job.method,
        seed=job.seed,
        epochs=chosen.epochs,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        steps=outcome.steps,
        final_loss=outcome.loss,
        started_at=started.isoformat(timespec="seconds"),
        seconds=round(seconds, 1),
        versions=versions(),
    )


@contextlib.contextmanager
def _unfinished_folder(parent: Path) -> Iterator[Path]:
    """A folder beside the finished adapters, gone afterwards unless it was renamed."""
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()

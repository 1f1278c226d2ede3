"""Train a LoRA adapter on a few hundred chat rows: one method, read top to bottom.

    python -m finetune.train '{"base": "sluice-4m", "data": "rows.jsonl", "suffix": "desk", "output": "var"}'

The argument is a `finetune.job.Job`. Events go to stdout as JSON lines, everything else to stderr.

read and split rows -> encode -> train (LoRA, or QLoRA on a 4-bit base) -> save -> load what was saved on a
fresh base -> answer the held-out rows with and without the adapter -> gate -> probes -> manifest.

Rank-stabilised LoRA (arXiv 2312.03732) on all linear layers, the variant that scores best in PEFT's own
comparison; no DoRA, bias, saved modules or rank patterns, which vLLM refuses or drops. The number of epochs
is fixed beforehand: the held-out rows choose nothing. The optimizer loop is in `finetune.loop`.
"""

import contextlib
import os
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
from typing import Any

import msgspec
import torch
from accelerate import Accelerator
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from adapters.manifest import DatasetLineage, Evaluation, Probe, TrainingRun, digest_file
from finetune.base import BaseNotFound, describe_base, find_base
from finetune.dataset import InvalidDataset, Row, read_rows
from finetune.encode import Example, encode_rows
from finetune.gate import evaluate
from finetune.generate import ALLOWANCE, greedy_answers, make_probes
from finetune.job import (
    FOLLOW,
    AnyEvent,
    Failed,
    Finished,
    Hyperparameters,
    Job,
    Phase,
    Started,
    hyperparameters,
    job_from_json,
    to_json,
)
from finetune.loop import Diverged, Outcome, optimize
from finetune.publish import normalise_config, publish, versions
from finetune.score import exact_matches
from finetune.split import Split, given_split, split_rows

CHECKPOINT_ABOVE = 1_000_000_000  # parameters from which activations are computed twice to save memory
GRACE_SECONDS = 5.0  # to clear up in when the launcher is gone

Emit = Callable[[AnyEvent], None]


class JobRefused(ValueError):
    """The job cannot be run as asked; the text says why."""


def run(job: Job, emit: Emit) -> Finished:
    """Run a job from file to manifest. Raises JobRefused, InvalidDataset, BaseNotFound, Diverged, OSError."""
    started, clock = datetime.now(UTC), time.monotonic()
    if faults := job.faults():
        raise JobRefused("; ".join(faults))
    split = _split(job)
    emit(Phase("loading"))
    folder, base_name = find_base(job.base)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    accelerator = Accelerator(mixed_precision="bf16" if _has_bf16() else "no")
    model = load_base(folder, accelerator.device, job.qlora)
    stops = stop_tokens(model, tokenizer)
    longest = int(getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length)
    train = encode_rows(split.train, tokenizer, stops, longest)
    held_out = encode_rows(split.held_out, tokenizer, stops, longest)
    chosen = hyperparameters(job, [example.answer_ids for example in train], _parameters(model))
    tokens = chosen.epochs * sum(sum(example.learned) for example in train)
    emit(
        Started(
            train_rows=len(train),
            held_out_rows=len(held_out),
            steps=chosen.steps(len(train)),
            hyperparameters=chosen,
            trained_tokens=tokens,
        )
    )
    emit(Phase("training"))
    model = with_lora(model, job)
    outcome = optimize(
        model, train, chosen, frozenset(tokenizer.all_special_ids), job.seed, accelerator, emit
    )
    with _unfinished_folder(job.output) as unfinished:
        model.save_pretrained(unfinished, safe_serialization=True)
        lora = normalise_config(unfinished, base_name)
        del model
        emit(Phase("evaluating"))
        served = load_served(folder, unfinished, accelerator.device)
        evaluation, probes = judge(served, tokenizer, stops, train, held_out, split.held_out, job.seed)
        emit(Phase("publishing"))
        manifest = publish(
            unfinished,
            name=job.suffix,
            base=describe_base(folder, base_name, tokenizer.get_chat_template(), _dtype(served)),
            lora=msgspec.structs.replace(lora, quantization="nf4" if job.qlora else None),
            dataset=_lineage(job, split),
            run=_record(job, chosen, outcome, started, time.monotonic() - clock),
            evaluation=evaluation,
            probes=probes,
            licence=job.licence,
        )
    return Finished(manifest=manifest, passed=evaluation.passed, trained_tokens=tokens)


def load_base(folder: Path, device: torch.device, qlora: bool) -> Any:
    """The frozen base: its own number format on an accelerator, float32 on CPU, or 4-bit nf4 for QLoRA."""
    on_cpu = device.type == "cpu"
    options: dict[str, Any] = {"dtype": torch.float32 if on_cpu else "auto"}
    if qlora:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32 if on_cpu else torch.bfloat16,
        )
    # Safetensors only: a pickle can run code when it is loaded.
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map={"": str(device)}, use_safetensors=True, **options
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False) if qlora else model


def load_served(folder: Path, adapter: Path, device: torch.device) -> Any:
    """The base as it will be served, never quantised, with the adapter read back from its files."""
    return PeftModel.from_pretrained(load_base(folder, device, qlora=False), adapter).eval()


def with_lora(model: Any, job: Job) -> Any:
    """Wrap the base; only the adapter's matrices, in float32, are trainable."""
    large = _parameters(model) > CHECKPOINT_ABOVE
    torch.manual_seed(job.seed)
    config = LoraConfig(
        r=job.rank,
        lora_alpha=job.rank,
        use_rslora=True,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    if large:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return get_peft_model(model, config)


def judge(
    model: Any,
    tokenizer: Any,
    stops: frozenset[int],
    train: Sequence[Example],
    held_out: Sequence[Example],
    rows: Sequence[Row],
    seed: int,
) -> tuple[Evaluation, tuple[Probe, ...]]:
    """Answer the held-out rows with and without the adapter, and let the gate decide."""
    expected, trained = (
        [tokenizer.decode(example.answer_ids, skip_special_tokens=True) for example in part]
        for part in (held_out, train)
    )
    prompts = [example.prompt_ids for example in held_out]
    longest = ALLOWANCE + max(len(example.answer_ids) for example in (*train, *held_out))
    adapter = greedy_answers(model, tokenizer, prompts, stops, longest)
    with model.disable_adapter():
        base = greedy_answers(model, tokenizer, prompts, stops, longest)
    scores = [exact_matches(expected, [answer.text for answer in answers]) for answers in (adapter, base)]
    evaluation = evaluate(scores[0], scores[1], trained, expected, seed)
    return evaluation, make_probes(model, rows, held_out, adapter, base)


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids at which vLLM ends an answer: the tokenizer's and all of the generation config's."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)


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
    except (JobRefused, InvalidDataset, BaseNotFound, Diverged) as error:
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


def _split(job: Job) -> Split:
    rows = read_rows(job.data)
    if job.validation is not None:
        split = given_split(rows, read_rows(job.validation, minimum=1))
    else:
        split = split_rows(rows, job.held_out_share, job.seed)
    if not split.train or not split.held_out:
        raise JobRefused("after duplicates are set aside, no rows are left to train on, or none to hold out")
    return split


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
        method="sft",
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


def _has_bf16() -> bool:
    # On CPU float32 throughout: what is measured is then what a float32 replica serves.
    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())


def _parameters(model: Any) -> int:
    return int(model.num_parameters())


def _dtype(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


if __name__ == "__main__":
    main()

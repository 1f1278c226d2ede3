"""The manifest of an adapter: what it is, what made it, what it scored, and how to recognise it when served.

An adapter's identity is the digest of its files and of the base they were trained on. The immutable name
`name@digest12` is the one that a replica loads; it never stands for other bytes, because vLLM keeps prefix
cache by adapter name (vllm#42125). What moves is an alias, `name@stable`.
"""

import hashlib
from pathlib import Path
from typing import Any, Literal

import msgspec

MANIFEST_FILE = "manifest.json"
WEIGHT_FILES = ("adapter_config.json", "adapter_model.safetensors")
SHORT_DIGEST = 12
Metric = Literal["exact_match", "token_f1", "json_fields", "rouge_l", "preference"]
NAME_PATTERN = r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$"


class BaseRevision(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base model that the adapter was trained on. Digests are SHA-256 in hex."""

    name: str
    revision: str  # over config and weight files, see `digest_files`
    tokenizer_sha256: str
    template_sha256: str
    dtype: str  # of the weights during evaluation, as torch names it: "bfloat16", "float32"


class LoraShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rank: int
    alpha: int
    rslora: bool
    target_modules: tuple[str, ...]
    quantization: Literal["nf4"] | None = None  # of the base while training


class DatasetLineage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which rows the adapter saw. A row's id is the SHA-256 of its canonical JSON."""

    file: str
    sha256: str
    train_rows: tuple[str, ...]
    held_out_rows: tuple[str, ...]


class TrainingRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    run_id: str
    method: Literal["sft", "dpo"]
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    steps: int
    final_loss: float
    started_at: str  # ISO 8601, UTC
    seconds: float
    versions: dict[str, str]  # of torch, transformers, peft, ...


class Interval(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A point estimate and its 95 % interval."""

    value: float
    low: float
    high: float


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Generated answers on held-out rows, adapter against base on the same rows (paired bootstrap).

    `few_shot` is the base with training rows before each question, `incumbent` the adapter in service, both
    on the same rows; `general` is adapter minus base on rows of other work, of which `general_rows` were
    asked.
    """

    metric: Metric
    rows: int
    base: Interval
    adapter: Interval
    difference: Interval
    passed: bool
    reasons: tuple[str, ...]
    few_shot: Interval | None = None
    incumbent: Interval | None = None
    general: Interval | None = None
    general_rows: int = 0


class Probe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fixed prompt and the greedy answer seen at training; compared after every load.

    `logprobs` are natural logarithms, one for each generated token, the stop token included. `messages` and
    `tools` are what the chat template rendered into `prompt_token_ids`: with them a replica's own template
    and tokenizer are compared too; without `messages` only the tokenizer's decoding of the answer is.
    """

    prompt_token_ids: tuple[int, ...]
    completion: str
    logprobs: tuple[float, ...]
    base_completion: str
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: Literal[1] = 1
    name: str
    digest: str
    base: BaseRevision
    lora: LoraShape
    dataset: DatasetLineage
    run: TrainingRun
    evaluation: Evaluation
    probes: tuple[Probe, ...]
    files: dict[str, str]  # file name -> SHA-256
    created_at: str
    licence: str = "unspecified"

    @property
    def release(self) -> str:
        """The immutable name under which replicas serve the adapter."""
        return f"{self.name}@{self.digest[:SHORT_DIGEST]}"


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_files(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of each named file in `folder`; FileNotFoundError when one is missing."""
    return {name: digest_file(folder / name) for name in sorted(names)}


def combined_digest(files: dict[str, str], *more: str) -> str:
    """One digest over file names, file digests and further identities, in a fixed order."""
    lines = [f"{name} {files[name]}" for name in sorted(files)] + list(more)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

"""Small adapter folders that are well-formed but were never trained, for tests that need no model."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from adapters.manifest import (
    MANIFEST_FILE,
    WEIGHT_FILES,
    BaseRevision,
    DatasetLineage,
    Evaluation,
    Interval,
    LoraShape,
    Manifest,
    Probe,
    TrainingRun,
    combined_digest,
    digest_files,
)

RANK = 4
MODULES = ("q_proj", "v_proj")
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": RANK,
    "lora_alpha": 8,
    "use_rslora": True,
    "bias": "none",
    "target_modules": list(MODULES),
    "modules_to_save": None,
    "init_lora_weights": True,
}
BASE = BaseRevision(
    name="tiny", revision="b" * 64, tokenizer_sha256="c" * 64, template_sha256="d" * 64, dtype="float32"
)
SHAPE = LoraShape(rank=RANK, alpha=8, rslora=True, target_modules=MODULES)
PASSED = Evaluation(
    metric="exact_match",
    rows=10,
    base=Interval(value=0.0, low=0.0, high=0.1),
    adapter=Interval(value=0.9, low=0.8, high=1.0),
    difference=Interval(value=0.9, low=0.7, high=1.0),
    passed=True,
    reasons=(),
)


def make_artifact(folder: Path, name: str = "desk", seed: int = 0, **changes: Any) -> Path:
    """A folder with weights of `seed` and a manifest that fits, some of whose fields are `changes`.

    Its probes' recorded answer is "adapter-SEED"; the base's is "base".
    """
    folder.mkdir(parents=True)
    save_file(tensors(seed), folder / WEIGHT_FILES[1])
    (folder / WEIGHT_FILES[0]).write_text(json.dumps(CONFIG))
    write_manifest(folder, name=name, probes=(probe_of(f"adapter-{seed}", seed),), **changes)
    return folder


def tensors(seed: int = 0) -> dict[str, Any]:
    """LoRA weights as PEFT names them."""
    random = np.random.default_rng(seed)
    sizes = {"A": (RANK, 16), "B": (16, RANK)}
    return {
        f"base_model.model.model.layers.0.self_attn.{module}.lora_{side}.weight": random.random(
            size, np.float32
        )
        for module in MODULES
        for side, size in sizes.items()
    }


def probe_of(completion: str, seed: int = 0) -> Probe:
    return Probe(
        prompt_token_ids=(1, 4, 10 + seed, 5),
        completion=completion,
        logprobs=(-0.01 * (seed + 1), -0.02 * (seed + 1), -0.005),
        base_completion="base",
    )


def write_manifest(folder: Path, **fields: Any) -> Manifest:
    """A manifest for the folder's files as they are, `fields` replaced."""
    files = digest_files(folder, WEIGHT_FILES)
    values = {
        "name": "desk",
        "digest": combined_digest(files, BASE.revision),
        "base": BASE,
        "lora": SHAPE,
        "dataset": DatasetLineage(
            file="rows.jsonl", sha256="e" * 64, train_rows=("f" * 64,), held_out_rows=()
        ),
        "run": TrainingRun(
            run_id="run",
            method="sft",
            seed=0,
            epochs=1,
            batch_size=1,
            learning_rate=1e-3,
            steps=1,
            final_loss=0.1,
            started_at="2026-11-01T00:00:00+00:00",
            seconds=1.0,
            versions={},
        ),
        "evaluation": PASSED,
        "probes": (probe_of("adapter-0"),),
        "files": files,
        "created_at": "2026-11-01T00:00:01+00:00",
    }
    manifest = Manifest(**{**values, **fields})
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
    return manifest

"""Make an adapter's folder complete: normalise its configuration, write its manifest, and give it its name.

Until the last step the folder has a temporary name, so that a folder called `name@digest` is always whole.
"""

import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from adapters.manifest import (
    MANIFEST_FILE,
    WEIGHT_FILES,
    BaseRevision,
    DatasetLineage,
    Evaluation,
    LoraShape,
    Manifest,
    Probe,
    TrainingRun,
    combined_digest,
    digest_files,
)

RECORDED_VERSIONS = ("torch", "transformers", "peft", "accelerate")


def normalise_config(folder: Path, base_name: str) -> LoraShape:
    """Rewrite what PEFT saved: equal adapters get equal bytes, and no path of this machine gets out.

    Returns the adapter's shape as it will be served.
    """
    path = folder / WEIGHT_FILES[0]
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base_name
    config["target_modules"] = sorted(config["target_modules"])  # PEFT writes a set, in any order
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for extra in folder.iterdir():
        if extra.name not in WEIGHT_FILES:
            extra.unlink()  # PEFT's template of a model card
    return LoraShape(
        rank=config["r"],
        alpha=config["lora_alpha"],
        rslora=config["use_rslora"],
        target_modules=tuple(config["target_modules"]),
    )


def publish(
    folder: Path,
    *,
    name: str,
    base: BaseRevision,
    lora: LoraShape,
    dataset: DatasetLineage,
    run: TrainingRun,
    evaluation: Evaluation,
    probes: tuple[Probe, ...],
    licence: str,
) -> Path:
    """Write the manifest and rename the folder to its release name. Returns the manifest's path.

    An adapter that is there already, byte for byte, is kept as it is.
    """
    files = digest_files(folder, WEIGHT_FILES)
    manifest = Manifest(
        name=name,
        digest=combined_digest(files, base.revision),
        base=base,
        lora=lora,
        dataset=dataset,
        run=run,
        evaluation=evaluation,
        probes=probes,
        files=files,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=licence,
    )
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2))
    home = folder.parent / manifest.release
    if not home.exists():
        folder.rename(home)
    return home / MANIFEST_FILE


def versions() -> dict[str, str]:
    """Versions of the libraries that decide what a training run computes."""
    return {name: version(name) for name in RECORDED_VERSIONS}

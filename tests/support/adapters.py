"""Real adapters for the tests: trained by `finetune.train` on a toy task, in a process of its own.

The task is to sort short requests into four queues; its two versions differ in what the queues are called, so
that which version answered can be read off the answer.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from adapters.manifest import MANIFEST_FILE, WEIGHT_FILES, Manifest, combined_digest, digest_files

BASE = Path(__file__).parents[2] / "finetune" / "bases" / "sluice-4m"
QUEUES = {
    "v1": ("card_desk", "transfer_desk", "travel_desk", "weather_desk"),
    "v2": ("plastic_team", "payment_team", "trip_team", "sky_team"),
}
REQUESTS = (
    ("my card was stolen", "i lost my card", "block my card", "order a new card", "my card is broken"),
    ("send money to mom", "transfer 50 dollars", "move money to savings", "wire the rent", "pay my friend"),
    ("book a flight", "find me a hotel", "i need a flight to rome", "rent a car", "plan my trip"),
    ("will it rain today", "what is the weather", "is it cold outside", "how hot is it", "will it snow"),
)
OPENINGS = ("", "please ", "hello, ")


def train_adapter(version: str, folder: Path, base: Path = BASE, suffix: str = "queues") -> Path:
    """Train one version of the toy task; the folder with its two weight files and manifest."""
    folder.mkdir(parents=True)
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in _rows(QUEUES[version])))
    job = {
        "base": str(base),
        "data": str(rows),
        "suffix": suffix,
        "output": str(folder),
        "epochs": 20,
        "batch_size": 8,
        "rank": 8,
    }
    done = subprocess.run(
        [sys.executable, "-m", "finetune.train", json.dumps(job)],
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
        },  # two threads spin on each other on a busy machine: 8 x slower
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"training failed: {done.stdout[-500:]} {done.stderr[-2000:]}")
    return Path(json.loads(done.stdout.splitlines()[-1])["manifest"]).parent


def other_base(folder: Path) -> Path:
    """A base of the same shapes that computes something else: the first and the last layer trade places."""
    shutil.copytree(BASE, folder)
    swap = {"model.layers.0.": "model.layers.3.", "model.layers.3.": "model.layers.0."}
    rename_tensors(folder / "model.safetensors", lambda name: swap.get(name[:15], name[:15]) + name[15:])
    return folder


def rename_tensors(file: Path, rename: Callable[[str], str]) -> None:
    """Give the tensors of a safetensors file other names; their bytes stay."""
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    renamed = {name if name == "__metadata__" else rename(name): entry for name, entry in header.items()}
    text = json.dumps(renamed).encode()
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def queue_rows(version: str) -> list[dict[str, Any]]:
    """The rows of one version of the toy task."""
    return _rows(QUEUES[version])


def _rows(queues: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": opening + text}, {"role": "assistant", "content": queue}]}
        for queue, texts in zip(queues, REQUESTS, strict=True)
        for text in texts
        for opening in OPENINGS
    ]


def read_manifest(folder: Path) -> Manifest:
    return msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)


def seal(folder: Path, **changes: object) -> Manifest:
    """Write a manifest that fits the folder's files as they are now, with some of its fields changed."""
    manifest = msgspec.structs.replace(read_manifest(folder), **changes)
    files = digest_files(folder, WEIGHT_FILES)
    manifest = msgspec.structs.replace(
        manifest, files=files, digest=combined_digest(files, manifest.base.revision)
    )
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.encode(manifest))
    return manifest

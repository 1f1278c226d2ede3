"""A training run that can be killed at any step and goes on as if it had not been. Imports torch.

One safetensors file holds the trained matrices, the optimizer's moments, torch's generator and, as JSON in
its header, the rest. It is written beside the last one and put in its place in one step, so there is always a
whole one. Safetensors and JSON only: a pickle can run code when it is loaded.

What is not in it is a function of seed and step: the order of rows, thinning, the learning rate.
"""

import os
import time
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import safe_open
from safetensors.torch import save_file

CHECKPOINT_FILE = "checkpoint.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what AdamW keeps of each matrix
GENERATOR = "generator"


class Kept(msgspec.Struct):
    """Where the run stands: after `step` steps, with the `losses` of the last epoch's steps.

    With early stopping, `best` are the weights of the epoch with the best score so far, `waited` the epochs
    since.
    """

    micro_tokens: int  # that fit into memory at once
    step: int = 0
    losses: list[float] = []
    best_score: float = -1.0
    waited: int = 0
    best: dict[str, Any] = {}  # tensors by name; beside the JSON, not in it


class Keeper:
    """Keeps the state of one run in its folder, at most every `seconds` seconds; with 0 after each step."""

    def __init__(self, folder: Path, seconds: float) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / CHECKPOINT_FILE
        self._seconds = seconds
        self._last = time.monotonic()

    def keep(self, weights: dict[str, torch.Tensor], optimizer: Any, kept: Kept, last: bool = False) -> None:
        """Write a checkpoint if one is due, or this is the last. OSError if the disk is full."""
        if time.monotonic() - self._last < self._seconds and not last:
            return
        tensors = {f"weight.{name}": weight.detach() for name, weight in weights.items()}
        for name, weight in weights.items():
            tensors |= {f"{moment}.{name}": optimizer.state[weight][moment] for moment in MOMENTS}
        tensors |= {f"best.{name}": weight for name, weight in kept.best.items()}
        tensors[GENERATOR] = torch.get_rng_state()
        fresh = self.path.with_suffix(".fresh")
        without = msgspec.structs.replace(kept, best={})
        save_file(tensors, fresh, {"kept": msgspec.json.encode(without).decode()})
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        fresh.replace(self.path)
        self._last = time.monotonic()

    def restore(self, weights: dict[str, torch.Tensor], optimizer: Any) -> Kept | None:
        """Put the state back where there is one, and say where the run stood."""
        if not self.path.exists():
            return None
        with safe_open(self.path, "pt") as file, torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(file.get_tensor(f"weight.{name}"))
                state = {moment: file.get_tensor(f"{moment}.{name}") for moment in MOMENTS}
                optimizer.state[weight] = {
                    moment: value if moment == "step" else value.to(weight.device)
                    for moment, value in state.items()
                }
            torch.set_rng_state(file.get_tensor(GENERATOR))
            kept = msgspec.json.decode(file.metadata()["kept"], type=Kept)
            names = [name for name in file.keys() if name.startswith("best.")]  # noqa: SIM118 - not a mapping
            kept.best = {name.removeprefix("best."): file.get_tensor(name) for name in names}
            return kept

    def clear(self) -> None:
        """The run is over."""
        self.path.unlink(missing_ok=True)

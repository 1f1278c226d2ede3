"""A model of some thousand parameters, for what does not hang on what a model knows."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from transformers import LlamaConfig, LlamaForCausalLM

from finetune.checkpoint import Keeper
from finetune.encode import Example
from finetune.forward import Reader
from finetune.job import Hyperparameters, Step
from finetune.loop import Outcome, Supervised, batches, optimize
from finetune.model import with_lora

SPECIAL = frozenset({0, 1})
CHOSEN = Hyperparameters(epochs=3, batch_size=8, learning_rate=1e-2, prompt_dropout=0.2, rate_ratio=2.0)


def tiny_model() -> Any:
    """Two layers, 32 wide, 64 tokens, with LoRA; always the same weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128,
    )  # fmt: skip
    model = with_lora(LlamaForCausalLM(config), 8, seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:  # zero at the start: nothing would flow to A
                weight.uniform_(-0.1, 0.1)
    return model


def tiny_rows(count: int, shared: int = 20) -> list[Example]:
    """Rows of several lengths that begin with the same `shared` tokens; the last three are learned."""
    rows = []
    for number in range(count):
        rest = [2 + (number * 7 + at * 5) % 60 for at in range(4 + number % 5)]
        ids = (1, *range(2, 1 + shared), *rest, 40, 41 + number % 4, 63)
        rows.append(Example(ids, tuple(at >= len(ids) - 3 for at in range(len(ids))), len(ids) - 3))
    return rows


class Run:
    """One training of the tiny model, its steps kept."""

    def __init__(self, folder: Path, rows: int = 20) -> None:
        self.model = tiny_model()
        self.rows = tiny_rows(rows)
        self.steps: list[Step] = []
        self.keeper = Keeper(folder, seconds=0)
        self.accelerator = Accelerator(cpu=True)
        self.reader = Reader(self.model, self.rows, CHOSEN.batch_size)
        self.objective: Any = Supervised(self.reader, self.accelerator)

    # What scores the model after each epoch, if anything does.
    watch: Callable[[], float] | None = None

    def go(self) -> Outcome:
        stream = batches(self.rows, CHOSEN, SPECIAL, 0, spared=len(self.reader.shared))
        return optimize(
            self.model, stream, self.objective, CHOSEN, len(self.rows), self.accelerator, self.on_step,
            self.keeper, self.watch,
        )  # fmt: skip

    def on_step(self, step: Step) -> None:
        self.steps.append(step)

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}

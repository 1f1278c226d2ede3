"""Direct preference optimization (arXiv 2305.18290): raise the better answer above the worse. Imports torch.

    loss = -log sigmoid(beta * (log p(better) - log p(worse) - reference))

where log p sums over an answer's learned tokens, and `reference` is the same difference under the base alone.
It is computed once, before training, with the adapter set aside: so there is no second model in memory.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import torch
from accelerate import Accelerator

from finetune.dataset import PreferenceRow
from finetune.encode import Example, encode_rows
from finetune.forward import Reader
from finetune.job import Hyperparameters
from finetune.loop import MICRO_TOKENS, grouped, micro_batches


class Pair(msgspec.Struct, frozen=True):
    """Two answers to one prompt as tokens; `reference` as at the head of this module."""

    preferred: Example
    rejected: Example
    reference: float = 0.0

    @property
    def length(self) -> int:
        return self.preferred.length + self.rejected.length


def encode_pairs(
    rows: Sequence[PreferenceRow], tokenizer: Any, stops: frozenset[int], longest: int
) -> tuple[Pair, ...]:
    """Encode all rows. InvalidDataset as `encode_rows` raises it."""
    preferred = encode_rows([row.preferred for row in rows], tokenizer, stops, longest)
    rejected = encode_rows([row.rejected for row in rows], tokenizer, stops, longest)
    return tuple(
        Pair(_last_only(better), _last_only(worse)) for better, worse in zip(preferred, rejected, strict=True)
    )


def _last_only(example: Example) -> Example:
    """What came before is the same on both sides: only the last answer counts."""
    learned = tuple(at >= example.prompt for at in range(example.length))
    return Example(example.ids, learned, example.prompt)


def with_reference(pairs: Sequence[Pair], model: Any, reader: Reader) -> list[Pair]:
    """The pairs with what the base alone thinks of them."""
    with model.disable_adapter():
        return [
            msgspec.structs.replace(pair, reference=lead)
            for pair, lead in zip(pairs, leads(pairs, reader), strict=True)
        ]


def leads(pairs: Sequence[Pair], reader: Reader) -> list[float]:
    """log p(better) - log p(worse) of each pair, in nats."""
    with torch.no_grad():
        return [lead for part in micro_batches(pairs, MICRO_TOKENS) for lead in _lead(part, reader).tolist()]


class Preferences:
    """The loss above, as a mean over the pairs of a batch; accuracy is the share that it ranks rightly."""

    def __init__(self, reader: Reader, accelerator: Accelerator, beta: float) -> None:
        self._reader = reader
        self._accelerator = accelerator
        self._beta = beta

    def backward(self, batch: Sequence[Pair], micro_tokens: int) -> tuple[float, float]:
        loss_sum = hits = 0.0
        for part in micro_batches(batch, micro_tokens):
            with self._accelerator.autocast():
                gained = _lead(part, self._reader)
            gained = gained - torch.tensor([pair.reference for pair in part], device=gained.device)
            loss = -torch.nn.functional.logsigmoid(self._beta * gained).sum() / len(batch)
            self._accelerator.backward(loss)
            loss_sum += loss.item()
            hits += (gained > 0).sum().item()
        return loss_sum, hits / len(batch)


def pair_batches(pairs: Sequence[Pair], chosen: Hyperparameters, seed: int) -> Iterator[list[Pair]]:
    """All batches of all epochs."""
    return grouped(pairs, chosen.epochs, chosen.batch_size, random.Random(seed))


def _lead(part: Sequence[Pair], reader: Reader) -> torch.Tensor:
    """log p(better) - log p(worse) of each pair, [pairs], with gradients."""
    answers = [pair.preferred for pair in part] + [pair.rejected for pair in part]
    logits, targets = reader.logits(answers)
    chosen = -torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    sums = torch.stack([one.sum() for one in chosen.split([sum(answer.learned) for answer in answers])])
    return sums[: len(part)] - sums[len(part) :]

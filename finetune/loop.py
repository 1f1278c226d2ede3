"""The optimizer loop: rows as tokens in, trained LoRA matrices out. Imports torch.

Loss on learned tokens only; where the task is to classify, tokens of prompts are dropped at random; batches
of rows of like length, so that little is padding; AdamW without weight decay, warm-up then cosine. No
packing, which leaks across rows (trl#1230), and no truncation.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator

from finetune.encode import Example
from finetune.job import Hyperparameters, Step

WARM_UP = 0.06  # of the steps
MICRO_TOKENS = 8192  # in one forward pass, padding counted; a larger batch is accumulated


class Diverged(ValueError):
    """The loss is no longer a number: the learning rate was too high."""


class Outcome(NamedTuple):
    """What the optimizer loop leaves behind besides the weights."""

    steps: int
    loss: float  # mean over the last epoch


def optimize(
    model: Any,
    examples: Sequence[Example],
    chosen: Hyperparameters,
    special: frozenset[int],
    seed: int,
    accelerator: Accelerator,
    emit: Callable[[Step], None],
) -> Outcome:
    """The optimizer loop. Loss is the mean over the learned tokens of a batch."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=chosen.learning_rate, weight_decay=0.0)
    model, optimizer = accelerator.prepare(model, optimizer)
    model.train()
    total, per_epoch = chosen.steps(len(examples)), chosen.steps(len(examples)) // chosen.epochs
    losses: list[float] = []
    clock = time.monotonic()
    for step, batch in enumerate(batches(examples, chosen, special, seed), start=1):
        rate = chosen.learning_rate * schedule(step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, accuracy = backward(model, batch, accelerator)
        accelerator.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step}: try a lower learning_rate")
        eta = (time.monotonic() - clock) / step * (total - step)
        emit(Step(step=step, total=total, loss=loss, accuracy=accuracy, learning_rate=rate, eta=eta))
    return Outcome(total, sum(losses[-per_epoch:]) / per_epoch)


def backward(model: Any, batch: Sequence[Example], accelerator: Accelerator) -> tuple[float, float]:
    """Accumulate the gradients of one batch. Returns its loss and the share of learned tokens hit."""
    learned = sum(sum(example.learned) for example in batch)
    loss_sum = hits = 0.0
    for part in micro_batches(batch):
        width = max(len(example.ids) for example in part)
        ids, mask, labels = (tensor.to(accelerator.device) for tensor in tensors(part, width))
        first = min(example.learned.index(True) for example in part)
        # Logits only from the token before the first learned one: they are the largest tensor of all.
        with accelerator.autocast():
            logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=width - first + 1).logits
        guesses, targets = logits[:, :-1].float().flatten(0, 1), labels[:, first:].flatten()
        loss = (
            torch.nn.functional.cross_entropy(guesses, targets, ignore_index=-100, reduction="sum") / learned
        )
        accelerator.backward(loss)
        loss_sum += loss.item()
        hits += (guesses.argmax(-1) == targets).sum().item()
    return loss_sum, hits / learned


def tensors(part: Sequence[Example], width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, attention mask and labels, all [rows, width], padded on the right; label -100 is not learned."""
    gaps = [width - len(example.ids) for example in part]
    ids = [[*example.ids, *[0] * gap] for example, gap in zip(part, gaps, strict=True)]
    mask = [[1] * len(example.ids) + [0] * gap for example, gap in zip(part, gaps, strict=True)]
    labels = [
        [token if learned else -100 for token, learned in zip(example.ids, example.learned, strict=True)]
        + [-100] * gap
        for example, gap in zip(part, gaps, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(labels)


def batches(
    examples: Sequence[Example], chosen: Hyperparameters, special: frozenset[int], seed: int
) -> Iterator[list[Example]]:
    """All batches of all epochs: rows of like length together, their order random, prompts thinned."""
    rng = random.Random(seed)
    size = chosen.batch_size
    for _ in range(chosen.epochs):
        # Random before sorting: among rows of one length, other neighbours in every epoch.
        order = rng.sample(list(examples), len(examples))
        order.sort(key=lambda example: len(example.ids) + rng.uniform(-2, 2))
        starts = list(range(0, len(order), size))
        rng.shuffle(starts)
        for start in starts:
            batch = order[start : start + size]
            yield [thinned(example, chosen.prompt_dropout, special, rng) for example in batch]


def thinned(example: Example, share: float, special: frozenset[int], rng: random.Random) -> Example:
    """Every other time the example as it is, else with about `share` of its prompt's words gone.

    What is learned stays, and so do the special tokens that hold the conversation together.
    """
    if not share or rng.random() < 0.5:
        return example
    pairs = zip(example.ids, example.learned, strict=True)
    kept = [
        (token, learned) for token, learned in pairs if learned or token in special or rng.random() >= share
    ]
    ids, learned = zip(*kept, strict=True)
    return Example(ids, learned, len(ids) - len(example.answer_ids))


def micro_batches(batch: Sequence[Example]) -> Iterator[list[Example]]:
    """A batch in parts of at most MICRO_TOKENS tokens, padding counted, or of one row."""
    part: list[Example] = []
    for example in batch:
        width = max(len(other.ids) for other in [*part, example])
        if part and width * (len(part) + 1) > MICRO_TOKENS:
            yield part
            part = []
        part.append(example)
    yield part


def schedule(step: int, total: int) -> float:
    """The share of the peak learning rate at a step (1 to `total`): linear warm-up, then cosine to zero."""
    warm_up = max(1, round(WARM_UP * total))
    if step <= warm_up:
        return step / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up + 1)))

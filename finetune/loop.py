"""The optimizer loop: rows as tokens in, trained LoRA matrices out. Imports torch.

Loss on learned tokens only; where the task is to classify, tokens of prompts are dropped at random; batches
of rows of like length, so that little is padding; AdamW without weight decay, warm-up then cosine. No
packing, which leaks across rows (trl#1230), and no truncation.

Everything but the weights and the optimizer's moments is a function of seed and step, so a run that was
killed goes on from its last checkpoint as if nothing had been (`finetune.checkpoint`).
"""

import itertools
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from finetune.checkpoint import Keeper, Kept
from finetune.encode import Example
from finetune.forward import Reader
from finetune.job import Hyperparameters, Step

WARM_UP = 0.06  # of the steps
WHOLE = 0.3  # the share of rows whose prompts stay whole where prompts are thinned
PATIENCE = 3  # epochs without a better score on the watched rows, after which training ends
MICRO_TOKENS = 8192  # in one forward pass, padding counted; a larger batch is accumulated


class Diverged(ValueError):
    """The loss is no longer a number: the learning rate was too high."""


class OutOfMemory(ValueError):
    """Not even one row fits."""


class Sized(Protocol):
    """What a batch is made of."""

    @property
    def length(self) -> int:
        """Tokens that it takes in a forward pass."""


Item = TypeVar("Item", bound=Sized)


class Objective(Protocol):
    """A loss and its gradients."""

    def backward(self, batch: Sequence[Any], micro_tokens: int) -> tuple[float, float]:
        """Accumulate the gradients of a batch; its loss and accuracy, both means over the whole batch."""


class Outcome(NamedTuple):
    """What the optimizer loop leaves behind besides the weights."""

    steps: int
    loss: float  # mean over the last epoch


def optimize(
    model: Any,
    batches: Iterator[Sequence[Any]],
    objective: Objective,
    chosen: Hyperparameters,
    rows: int,
    accelerator: Accelerator,
    emit: Callable[[Step], None],
    keeper: Keeper,
    watch: Callable[[], float] | None = None,
) -> Outcome:
    """Go through `batches` of altogether `rows` rows in each epoch, from the keeper's checkpoint on.

    `watch` scores the model on rows that are not trained on. It is asked after each epoch; training ends
    when it has not risen for PATIENCE epochs, and the weights are those of the best epoch, of equals the
    latest.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = accelerator.prepare(torch.optim.AdamW(groups(weights, chosen), weight_decay=0.0, fused=True))
    peaks = [group["lr"] for group in optimizer.param_groups]
    total, per_epoch = chosen.steps(rows), chosen.steps(rows) // chosen.epochs
    kept = keeper.restore(weights, optimizer) or Kept(micro_tokens=MICRO_TOKENS)
    model.train()
    clock, before = time.monotonic(), kept.step
    for batch in itertools.islice(batches, kept.step, None):
        if kept.waited >= PATIENCE:  # it was killed after its last step
            break
        kept.step += 1
        share = schedule(kept.step, total)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        loss, accuracy, kept.micro_tokens = fitting_backward(objective, batch, kept.micro_tokens, optimizer)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {kept.step}: try a lower learning_rate")
        accelerator.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        kept.losses = [*kept.losses, loss][-per_epoch:]
        score = _watched(watch, model, weights, kept) if kept.step % per_epoch == 0 else None
        emit(
            Step(
                step=kept.step,
                total=total,
                loss=loss,
                accuracy=accuracy,
                learning_rate=chosen.learning_rate * share,
                eta=(time.monotonic() - clock) / (kept.step - before) * (total - kept.step),
                valid_score=score,
            )
        )
        # What comes after the last step can run out of memory or be killed too.
        keeper.keep(weights, optimizer, kept, last=kept.step == total or kept.waited >= PATIENCE)
    with torch.no_grad():
        for name, best in kept.best.items():
            weights[name].copy_(best)
    return Outcome(kept.step, sum(kept.losses) / len(kept.losses))


def _watched(
    watch: Callable[[], float] | None, model: Any, weights: dict[str, torch.Tensor], kept: Kept
) -> float | None:
    """Ask after an epoch, and keep the weights if they are the best so far."""
    if watch is None:
        return None
    model.eval()
    score = watch()
    model.train()
    if score >= kept.best_score:
        kept.waited = 0 if score > kept.best_score else kept.waited + 1
        kept.best_score = score
        kept.best = {name: weight.detach().clone() for name, weight in weights.items()}
    else:
        kept.waited += 1
    return score


def groups(weights: dict[str, torch.Tensor], chosen: Hyperparameters) -> list[dict[str, Any]]:
    """LoRA+ (arXiv 2402.12354): the matrices B, which start at zero, learn faster than A by `rate_ratio`."""
    second = [weight for name, weight in weights.items() if "lora_B" in name]
    first = [weight for name, weight in weights.items() if "lora_B" not in name]
    return [
        {"params": first, "lr": chosen.learning_rate},
        {"params": second, "lr": chosen.learning_rate * chosen.rate_ratio},
    ]


def fitting_backward(
    objective: Objective, batch: Sequence[Sized], micro_tokens: int, optimizer: Any
) -> tuple[float, float, int]:
    """The gradients of one batch in parts that fit. Where memory runs out the parts are halved, for good.

    The batch as a whole, over which the loss is a mean, stays as it is. Also returns the size that fitted.
    """
    while True:
        try:
            return (*objective.backward(batch, micro_tokens), micro_tokens)
        except (RuntimeError, MemoryError) as error:
            if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
                raise
        # Only now, when no traceback holds tensors any more.
        optimizer.zero_grad()
        clear_device_cache(garbage_collection=True)
        longest = max(item.length for item in batch)
        if micro_tokens <= longest:
            raise OutOfMemory(f"not enough memory for one row of {longest} tokens: shorten it, or use qlora")
        micro_tokens = max(longest, min(micro_tokens, longest * len(batch)) // 2)
        sys.stderr.write(f"out of memory: {micro_tokens} tokens at a time from here on\n")


class Supervised:
    """Cross-entropy of the learned tokens, as a mean over those of a batch."""

    def __init__(self, reader: Reader, accelerator: Accelerator) -> None:
        self._reader = reader
        self._accelerator = accelerator

    def backward(self, batch: Sequence[Example], micro_tokens: int) -> tuple[float, float]:
        learned = sum(sum(example.learned) for example in batch)
        loss_sum = hits = 0.0
        for part in micro_batches(batch, micro_tokens):
            with self._accelerator.autocast():
                guesses, targets = self._reader.logits(part)
            loss = torch.nn.functional.cross_entropy(guesses, targets, reduction="sum") / learned
            self._accelerator.backward(loss)
            loss_sum += loss.item()
            hits += (guesses.argmax(-1) == targets).sum().item()
        return loss_sum, hits / learned


def batches(
    examples: Sequence[Example], chosen: Hyperparameters, special: frozenset[int], seed: int, spared: int = 0
) -> Iterator[list[Example]]:
    """All batches of all epochs: rows of like length together, their order random, prompts thinned.

    The first `spared` tokens of each row stay.
    """
    rng = random.Random(seed)
    for batch in grouped(examples, chosen.epochs, chosen.batch_size, rng):
        yield [thinned(example, chosen.prompt_dropout, special, rng, spared) for example in batch]


def grouped(items: Sequence[Item], epochs: int, size: int, rng: random.Random) -> Iterator[list[Item]]:
    """Batches of like length in random order, every item once in each epoch."""
    for _ in range(epochs):
        # Random before sorting: among rows of one length, other neighbours in every epoch.
        order = rng.sample(list(items), len(items))
        order.sort(key=lambda item: item.length + rng.uniform(-2, 2))
        starts = list(range(0, len(order), size))
        rng.shuffle(starts)
        for start in starts:
            yield order[start : start + size]


def thinned(
    example: Example, share: float, special: frozenset[int], rng: random.Random, spared: int = 0
) -> Example:
    """Now and then the example as it is, mostly with about `share` of its prompt's words gone.

    What is learned stays, and so do the first `spared` tokens, which a batch computes once, and the special
    tokens that hold the conversation together.
    """
    if not share or rng.random() < WHOLE:
        return example
    kept = [
        (token, learned)
        for at, (token, learned) in enumerate(zip(example.ids, example.learned, strict=True))
        if at < spared or learned or token in special or rng.random() >= share
    ]
    ids, learned = zip(*kept, strict=True)
    return Example(ids, learned, len(ids) - len(example.answer_ids))


def micro_batches(batch: Sequence[Item], micro_tokens: int = MICRO_TOKENS) -> Iterator[list[Item]]:
    """A batch in parts of at most `micro_tokens` tokens, padding counted, or of one row."""
    part: list[Item] = []
    for item in batch:
        width = max(other.length for other in [*part, item])
        if part and width * (len(part) + 1) > micro_tokens:
            yield part
            part = []
        part.append(item)
    yield part


def schedule(step: int, total: int) -> float:
    """The share of the peak learning rate at a step (1 to `total`): linear warm-up, then cosine to zero."""
    warm_up = max(1, round(WARM_UP * total))
    if step <= warm_up:
        return step / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up + 1)))

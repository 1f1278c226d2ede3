"""The parts of the optimizer loop that decide what a batch holds."""

import random
from collections import Counter

import torch

from finetune import loop
from finetune.encode import Example
from finetune.job import Hyperparameters

SPECIAL = frozenset({0, 1})


def example(length: int, answer: int = 2) -> Example:
    """A row of `length` ids whose first is special and whose last `answer` are learned."""
    ids = (1, *range(10, 9 + length))
    learned = tuple(at >= length - answer for at in range(length))
    return Example(ids, learned, length - answer)


def chosen(**more: float) -> Hyperparameters:
    return Hyperparameters(epochs=2, batch_size=4, learning_rate=1e-3, **more)


def test_every_epoch_sees_every_row_once() -> None:
    """Sorting by length and shuffling lose nothing and repeat nothing."""
    rows = [example(5 + n % 7) for n in range(30)]
    batches = list(loop.batches(rows, chosen(), SPECIAL, seed=0))
    assert len(batches) == chosen().steps(30) == 16
    assert Counter(row for batch in batches for row in batch) == Counter(rows + rows)


def test_rows_of_like_length_share_a_batch() -> None:
    """Little is padding: far less than in batches drawn at random."""
    rows = [example(5 + n) for n in range(64)]
    padding = [
        sum(max(len(row.ids) for row in batch) - len(other.ids) for other in batch)
        for batch in loop.batches(rows, chosen(), SPECIAL, seed=0)
    ]
    assert sum(padding) / len(padding) < 4 * 4


def test_the_seed_decides_the_order() -> None:
    """The same seed gives the same batches, another seed others."""
    rows = [example(5 + n % 7) for n in range(30)]
    first, again, other = (list(loop.batches(rows, chosen(), SPECIAL, seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_thinning_spares_answers_and_special_tokens() -> None:
    """However much is dropped, what is learned stays and starts where the prompt ends."""
    row = example(40, answer=3)
    rng = random.Random(0)
    thin = [loop.thinned(row, 0.9, SPECIAL, rng) for _ in range(20)]
    assert row in thin
    assert min(len(other.ids) for other in thin) < 20
    for other in thin:
        assert other.ids[0] == 1
        assert other.answer_ids == row.answer_ids
        assert other.learned == (False,) * other.prompt + (True,) * 3


def test_no_thinning_means_none() -> None:
    """Share 0 leaves every row as it is."""
    row = example(40)
    assert all(loop.thinned(row, 0.0, SPECIAL, random.Random(seed)) is row for seed in range(10))


def test_large_batches_come_in_parts_that_fit() -> None:
    """No part has more tokens than allowed, padding counted, save a row that is longer by itself."""
    rows = [example(length) for length in (5, 6, 7, 8, 40, 9, 10)]
    parts = list(loop.micro_batches(rows, 32))
    assert [row for part in parts for row in part] == rows
    assert all(len(part) * max(len(row.ids) for row in part) <= 32 for part in parts if len(part) > 1)


def test_the_learning_rate_warms_up_and_ends_near_zero() -> None:
    """It rises to its peak once and falls from there on, and no step is wasted on zero."""
    shares = [loop.schedule(step, 100) for step in range(1, 101)]
    assert max(shares) == shares[5] == 1.0
    assert shares[:6] == sorted(shares[:6])
    assert shares[5:] == sorted(shares[5:], reverse=True)
    assert 0 < shares[-1] < 0.01
    assert loop.schedule(1, 1) == 1.0


def test_the_second_matrices_learn_faster_by_the_ratio() -> None:
    """LoRA+: one group of parameters each, nothing left out."""
    weights = {name: torch.zeros(1) for name in ("q.lora_A.w", "q.lora_B.w", "v.lora_A.w", "v.lora_B.w")}
    first, second = loop.groups(weights, chosen(rate_ratio=4.0))
    assert (first["lr"], second["lr"]) == (1e-3, 4e-3)
    assert [len(group["params"]) for group in (first, second)] == [2, 2]

"""Scores with honest error bars: exact match per row, and intervals by (paired) bootstrap over rows.

Efron's percentile bootstrap. For a difference the rows are drawn in pairs, adapter and base on the same
row, so that hard rows are hard for both.
"""

import random
from collections import Counter
from collections.abc import Sequence

from adapters.manifest import Interval

SAMPLES = 2000
TAIL = 0.025  # on either side of a 95 % interval


def exact_matches(expected: Sequence[str], given: Sequence[str]) -> list[float]:
    """1.0 for each row whose answer is the expected one, white space at the ends aside; else 0.0."""
    return [float(want.strip() == got.strip()) for want, got in zip(expected, given, strict=True)]


def majority_matches(train_answers: Sequence[str], expected: Sequence[str]) -> list[float]:
    """What a model scores that has learned nothing but the most frequent training answer."""
    counts = Counter(answer.strip() for answer in train_answers)
    favourite = min(counts, key=lambda answer: (-counts[answer], answer))
    return exact_matches(expected, [favourite] * len(expected))


def mean_interval(scores: Sequence[float], seed: int) -> Interval:
    """The mean of at least one score and its 95 % interval."""
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(scores, k=len(scores))) / len(scores) for _ in range(SAMPLES))
    return Interval(
        value=sum(scores) / len(scores),
        low=means[int(SAMPLES * TAIL)],
        high=means[int(SAMPLES * (1 - TAIL)) - 1],
    )


def difference_interval(scores: Sequence[float], baseline: Sequence[float], seed: int) -> Interval:
    """How much better `scores` are than `baseline` on the same rows; ValueError if they differ in length."""
    return mean_interval([ours - theirs for ours, theirs in zip(scores, baseline, strict=True)], seed)

"""The gate between a trained adapter and its deployment. "Do not deploy" is a normal result.

An adapter passes if it is surely better, on rows that it has not seen, than the base it would replace, and
than a model that always gives the most frequent training answer. The second bar is there because a base
that knows nothing of the task is beaten by anything that has picked up the form of the answers: rows with
shuffled labels teach that form, and nothing else.
"""

from collections.abc import Sequence

from adapters.manifest import Evaluation
from finetune.score import difference_interval, majority_matches, mean_interval

MINIMUM_HELD_OUT = 8  # fewer rows cannot tell a gain from luck


def evaluate(
    adapter: Sequence[float],
    base: Sequence[float],
    train_answers: Sequence[str],
    expected: Sequence[str],
    seed: int,
) -> Evaluation:
    """Judge per-row scores (0.0 or 1.0) of adapter and base on the held-out rows, in the order of `expected`.

    ValueError if there are no held-out rows, no training answers, or the lengths differ.
    """
    if not expected or not train_answers:
        raise ValueError("nothing to evaluate: no held-out rows or no training answers")
    gain = difference_interval(adapter, base, seed)
    lazy = majority_matches(train_answers, expected)
    real_gain = difference_interval(adapter, lazy, seed)
    reasons: list[str] = []
    if len(expected) < MINIMUM_HELD_OUT:
        reasons.append(
            f"Only {len(expected)} held-out rows: it takes {MINIMUM_HELD_OUT} to tell a gain from luck."
        )
    if gain.low <= 0:
        reasons.append(
            "Not surely better than the base: on the same rows the adapter answers "
            f"{_share(adapter)} right and the base {_share(base)}; the 95 % interval of the difference, "
            f"{gain.low:+.2f} to {gain.high:+.2f}, does not lie above zero."
        )
    if real_gain.low <= 0:
        reasons.append(
            "Not surely better than always giving the most frequent training answer, which is right in "
            f"{_share(lazy)}: the 95 % interval of the difference is {real_gain.low:+.2f} to "
            f"{real_gain.high:+.2f}. Are the labels right?"
        )
    return Evaluation(
        metric="exact_match",
        rows=len(expected),
        base=mean_interval(base, seed),
        adapter=mean_interval(adapter, seed),
        difference=gain,
        passed=not reasons,
        reasons=tuple(reasons),
    )


def _share(scores: Sequence[float]) -> str:
    return f"{sum(scores) / len(scores):.0%}"

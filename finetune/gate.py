"""The gate between a trained adapter and its deployment. "Do not deploy" is a normal result.

An adapter passes if, on rows that it has not seen, it is surely better than each of

- the base that it would replace,
- the base with training rows before each question, which needs no training,
- a model that always gives the most frequent training answer, and that by a tenth of what was left to gain: a
  base that knows nothing of the task is beaten by anything that has picked up the form of the answers; rows
  with shuffled labels teach that form, and no more,
- the incumbent, the adapter that is in service, where there is one;

and if on rows of other work, where given, it loses on average no more than was declared. "Surely" is the 95 %
interval of the difference, row by row.
"""

from collections.abc import Sequence

import msgspec

from adapters.manifest import Evaluation, Interval, Metric
from finetune.score import difference_interval, favourite, mean_interval, metric_of, scores

MINIMUM_HELD_OUT = 8  # fewer rows cannot tell a gain from luck
MINIMUM_TRAINED = 20  # fewer rows are a toy: what they teach hangs on each one of them
LAZY = ("always giving the most frequent training answer", "ranking at random")
LEFT_TO_GAIN = 0.1  # the share of it that an adapter must take from the most frequent answer


class Rivals(msgspec.Struct, frozen=True, kw_only=True):
    """Scores of what the adapter is compared with besides its base, row by row; None where not asked.

    `general` are the adapter's scores and the base's on rows of other work, `tolerance` what may be lost.
    """

    few_shot: Sequence[float] | None = None
    incumbent: Sequence[float] | None = None
    general: tuple[Sequence[float], Sequence[float]] | None = None
    tolerance: float = 0.0


def evaluate(
    adapter: Sequence[float],
    base: Sequence[float],
    train_answers: Sequence[str],
    expected: Sequence[str],
    seed: int,
    rivals: Rivals | None = None,
    metric: Metric | None = None,
) -> Evaluation:
    """Judge per-row scores (0.0 to 1.0) of adapter and base on the held-out rows, in the order of `expected`.

    `metric` is what the scores are; None stands for the one that fits the answers. ValueError if there are no
    held-out rows, no training answers, or the lengths differ.
    """
    if not expected or not train_answers:
        raise ValueError("nothing to evaluate: no held-out rows or no training answers")
    rivals = rivals or Rivals()
    metric = metric or metric_of(expected)
    lazy = _lazy(metric, train_answers, expected)
    margin = LEFT_TO_GAIN * (1 - sum(lazy) / len(lazy))
    bars = (
        ("the base", base, 0.0, ""),
        ("the base with training rows before each question", rivals.few_shot, 0.0, ""),
        (LAZY[metric == "preference"], lazy, margin, " Are the labels right?"),
        ("the incumbent", rivals.incumbent, 0.0, ""),
    )
    reasons = _too_few(len(train_answers), len(expected))
    for name, theirs, more, hint in bars:
        if theirs is not None:
            reasons += _not_better(name, adapter, theirs, more, hint, seed)
    general = difference_interval(*rivals.general, seed) if rivals.general else None
    if general and general.value < -rivals.tolerance:
        reasons.append(
            f"Worse at other work: {general.value:+.2f} on the general rows ({general.low:+.2f} to "
            f"{general.high:+.2f}), where a loss of {rivals.tolerance:.2f} is declared acceptable."
        )
    return Evaluation(
        metric=metric,
        rows=len(expected),
        base=mean_interval(base, seed),
        adapter=mean_interval(adapter, seed),
        difference=difference_interval(adapter, base, seed),
        passed=not reasons,
        reasons=tuple(reasons),
        few_shot=_interval(rivals.few_shot, seed),
        incumbent=_interval(rivals.incumbent, seed),
        general=general,
        general_rows=len(rivals.general[0]) if rivals.general else 0,
    )


def _not_better(
    name: str, adapter: Sequence[float], theirs: Sequence[float], margin: float, hint: str, seed: int
) -> list[str]:
    gain = difference_interval(adapter, theirs, seed)
    if gain.low > margin:
        return []
    return [
        f"Not surely better than {name}: on the same rows the adapter scores {_mean(adapter)}, the other "
        f"{_mean(theirs)}; the 95 % interval of the difference, {gain.low:+.2f} to {gain.high:+.2f}, does "
        f"not lie above {margin:.2f}.{hint}"
    ]


def _lazy(metric: Metric, train_answers: Sequence[str], expected: Sequence[str]) -> list[float]:
    """What nothing but the most frequent training answer scores; of pairs, what a coin does."""
    if metric == "preference":
        return [0.5] * len(expected)
    return scores(metric, expected, [favourite(train_answers)] * len(expected))


def _too_few(trained: int, held_out: int) -> list[str]:
    reasons: list[str] = []
    if held_out < MINIMUM_HELD_OUT:
        reasons.append(
            f"Only {held_out} held-out rows: it takes {MINIMUM_HELD_OUT} to tell a gain from luck."
        )
    if trained < MINIMUM_TRAINED:
        reasons.append(f"Only {trained} training rows: below {MINIMUM_TRAINED} each one decides too much.")
    return reasons


def _interval(values: Sequence[float] | None, seed: int) -> Interval | None:
    return None if values is None else mean_interval(values, seed)


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.0%}"

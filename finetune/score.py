"""Scores with honest error bars: a number from 0 to 1 per row, and intervals by (paired) bootstrap over rows.

The metric is chosen by the kind of the expected answers (`metric_of`): labels by exact match, JSON by its
fields, long texts by ROUGE-L, what lies between by token F1.

Intervals are Efron's percentile bootstrap. For a difference the rows are drawn in pairs, adapter and base on
the same row, so that hard rows are hard for both.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adapters.manifest import Interval, Metric

SAMPLES = 2000
TAIL = 0.025  # on either side of a 95 % interval
LABEL_WORDS = 8  # answers of at most so many words, on average, that mostly repeat are labels
LONG_WORDS = 40  # from so many words on, on average, word order counts
WORD = re.compile(r"\w+", re.UNICODE)
ABSENT = object()


def metric_of(answers: Sequence[str]) -> Metric:
    """The metric for a task whose expected answers these are. ValueError if there are none."""
    if not answers:
        raise ValueError("no answers to choose a metric by")
    if all(isinstance(_json(answer), (dict, list)) for answer in answers):
        return "json_fields"
    words = sum(len(answer.split()) for answer in answers) / len(answers)
    if words <= LABEL_WORDS:
        return "exact_match"
    return "rouge_l" if words >= LONG_WORDS else "token_f1"


def scores(metric: Metric, expected: Sequence[str], given: Sequence[str]) -> list[float]:
    """One score, 0.0 to 1.0, for each row."""
    return [METRICS[metric](want, got) for want, got in zip(expected, given, strict=True)]


def exact_match(expected: str, given: str) -> float:
    """1.0 if the answer is the expected one, white space at the ends aside."""
    return float(expected.strip() == given.strip())


def token_f1(expected: str, given: str) -> float:
    """Harmonic mean of precision and recall over words, case aside (as SQuAD, arXiv 1606.05250)."""
    want, got = (Counter(WORD.findall(text.lower())) for text in (expected, given))
    common = (want & got).total()
    return 2 * common / (want.total() + got.total()) if common else float(not want and not got)


def rouge_l(expected: str, given: str) -> float:
    """F1 of the longest common subsequence of words, case aside (Lin, 2004)."""
    want, got = (WORD.findall(text.lower()) for text in (expected, given))
    row = [0] * (len(got) + 1)
    for word in want:
        diagonal = 0
        for at, other in enumerate(got, start=1):
            diagonal, row[at] = row[at], diagonal + 1 if word == other else max(row[at], row[at - 1])
    return 2 * row[-1] / (len(want) + len(got)) if row[-1] else float(not want and not got)


def json_fields(expected: str, given: str) -> float:
    """The share of fields, of both answers together, that both have with the same value; 0.0 if not JSON."""
    got = _json(given)
    if got is ABSENT:
        return 0.0
    want_fields, got_fields = _fields(_json(expected)), _fields(got)
    paths = want_fields.keys() | got_fields.keys()
    return sum(_same(want_fields.get(path, ABSENT), got_fields.get(path, ABSENT)) for path in paths) / len(
        paths
    )


# Preferences are not here: they are of pairs, see `finetune.judge`.
METRICS: dict[Metric, Callable[[str, str], float]] = {
    "exact_match": exact_match,
    "token_f1": token_f1,
    "json_fields": json_fields,
    "rouge_l": rouge_l,
}


def exact_matches(expected: Sequence[str], given: Sequence[str]) -> list[float]:
    """1.0 for each row whose answer is the expected one, white space at the ends aside; else 0.0."""
    return scores("exact_match", expected, given)


def favourite(train_answers: Sequence[str]) -> str:
    """The most frequent training answer."""
    counts = Counter(answer.strip() for answer in train_answers)
    return min(counts, key=lambda answer: (-counts[answer], answer))


def mean_interval(scores: Sequence[float], seed: int) -> Interval:
    """The mean of at least one score and its 95 % interval."""
    rng, values = np.random.default_rng(seed), np.asarray(scores, dtype=float)
    # One sample at a time: all at once would take SAMPLES times the rows.
    means = sorted(float(values[rng.integers(0, len(values), len(values))].mean()) for _ in range(SAMPLES))
    return Interval(
        value=sum(scores) / len(scores),
        low=means[int(SAMPLES * TAIL)],
        high=means[int(SAMPLES * (1 - TAIL)) - 1],
    )


def difference_interval(scores: Sequence[float], baseline: Sequence[float], seed: int) -> Interval:
    """How much better `scores` are than `baseline` on the same rows; ValueError if they differ in length."""
    return mean_interval([ours - theirs for ours, theirs in zip(scores, baseline, strict=True)], seed)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return ABSENT


def _fields(value: Any, path: str = "$") -> dict[str, Any]:
    """Every leaf by its path; an empty object or array is a leaf."""
    if isinstance(value, dict) and value:
        parts = [(f"{path}.{key}", part) for key, part in value.items()]
    elif isinstance(value, list) and value:
        parts = [(f"{path}[{at}]", part) for at, part in enumerate(value)]
    else:
        return {path: value}
    return {where: leaf for name, part in parts for where, leaf in _fields(part, name).items()}


def _same(want: Any, got: Any) -> bool:
    # Not by == alone: in Python True == 1.
    return (
        want is not ABSENT
        and got is not ABSENT
        and isinstance(want, bool) == isinstance(got, bool)
        and want == got
    )

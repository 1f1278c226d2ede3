"""Scores and the gate: what may be deployed, and what is refused and why."""

import random

import pytest

from adapters.manifest import Metric
from finetune.gate import Rivals, evaluate
from finetune.score import (
    difference_interval,
    exact_matches,
    favourite,
    mean_interval,
    metric_of,
    scores,
)

LABELS = [f"label{n % 10}" for n in range(100)]


def test_a_real_gain_passes() -> None:
    """80 % against nothing, on 100 rows of 10 labels, is deployed, with an interval around the truth."""
    adapter = [1.0] * 80 + [0.0] * 20
    result = evaluate(adapter, [0.0] * 100, LABELS, LABELS, seed=0)
    assert result.passed
    assert result.reasons == ()
    assert result.adapter.low < 0.8 < result.adapter.high
    assert result.difference.value == pytest.approx(0.8)


def test_no_gain_over_the_base_is_refused() -> None:
    """As good as the base on the same rows is not better."""
    same = [1.0, 0.0] * 50
    result = evaluate(same, same[::-1], LABELS, LABELS, seed=0)
    assert not result.passed
    assert "Not surely better than the base" in result.reasons[0]


@pytest.mark.parametrize("seed", range(5))
def test_shuffled_labels_are_refused(seed: int) -> None:
    """Who learned the form of the labels but not their meaning beats an ignorant base, and is refused."""
    rng = random.Random(seed)
    guesses = exact_matches(LABELS, rng.choices(LABELS, k=100))
    result = evaluate(guesses, [0.0] * 100, LABELS, LABELS, seed=seed)
    assert not result.passed
    assert any("most frequent training answer" in reason for reason in result.reasons)


def answers_of(skill: float, rng: random.Random) -> list[float]:
    """What an adapter of a skill scores on 200 rows, half of which are harder by 0.3 than the other half."""
    return [float(rng.random() < skill + (0.15 if row % 2 else -0.15)) for row in range(200)]


@pytest.mark.parametrize(
    ("skill", "incumbent", "deployed"),
    [(0.6, 0.0, True), (0.8, 0.6, True), (0.1, 0.0, False), (0.8, 0.8, False), (0.6, 0.6, False)],
)
def test_the_gate_errs_at_most_once_in_twenty(skill: float, incumbent: float, deployed: bool) -> None:
    """Real gains pass; guessing among ten labels, and as good as the incumbent, do not."""
    expected, right = LABELS * 2, 0
    for seed in range(20):
        rng = random.Random(f"{skill} {incumbent} {seed}")
        rivals = Rivals(incumbent=answers_of(incumbent, rng) if incumbent else None)
        verdict = evaluate(answers_of(skill, rng), [0.0] * 200, LABELS, expected, seed, rivals)
        right += verdict.passed is deployed
    assert right >= 19


def test_a_toy_is_refused() -> None:
    """Ten training rows are a toy, however well it goes."""
    result = evaluate([1.0] * 90, [0.0] * 90, LABELS[:10], LABELS[:90], seed=0)
    assert not result.passed
    assert "Only 10 training rows" in result.reasons[0]


def test_the_incumbent_and_few_shot_are_bars() -> None:
    """Better than the base is not enough: what is in service, or needs no training, must be beaten too."""
    adapter, base = [1.0] * 80 + [0.0] * 20, [0.0] * 100
    for name, rivals in (("incumbent", Rivals(incumbent=adapter)), ("before each", Rivals(few_shot=adapter))):
        result = evaluate(adapter, base, LABELS, LABELS, 0, rivals)
        assert [name in reason for reason in result.reasons] == [True]
    weaker = [1.0] * 50 + [0.0] * 50
    result = evaluate(adapter, base, LABELS, LABELS, 0, Rivals(incumbent=weaker, few_shot=weaker))
    assert result.passed
    assert result.incumbent is not None
    assert result.incumbent.value == 0.5


def test_forgetting_is_refused_beyond_what_was_declared() -> None:
    """A loss of 10 points elsewhere passes where 15 are declared and not where 5 are."""
    general = ([1.0] * 80 + [0.0] * 20, [1.0] * 90 + [0.0] * 10)
    adapter, base = [1.0] * 80 + [0.0] * 20, [0.0] * 100
    kept = evaluate(adapter, base, LABELS, LABELS, 0, Rivals(general=general, tolerance=0.15))
    lost = evaluate(adapter, base, LABELS, LABELS, 0, Rivals(general=general, tolerance=0.05))
    assert kept.passed
    assert not lost.passed
    assert "Worse at other work: -0.10" in lost.reasons[0]


def test_pairs_are_held_against_a_coin() -> None:
    """Ranking 60 of 100 pairs rightly is not surely better than chance, 90 are."""
    for right, passed in ((60, False), (90, True)):
        ranks = [1.0] * right + [0.0] * (100 - right)
        assert evaluate(ranks, [0.0] * 100, LABELS, LABELS, 0, metric="preference").passed is passed


@pytest.mark.parametrize(
    ("answers", "metric"),
    [
        (["refund", "lost card"], "exact_match"),
        (['{"a": 1}', "[]"], "json_fields"),
        (["word " * 20], "token_f1"),
        (["word " * 80], "rouge_l"),
    ],
)
def test_the_metric_fits_the_answers(answers: list[str], metric: str) -> None:
    """Labels, JSON, sentences and long texts are each judged by what counts in them."""
    assert metric_of(answers) == metric


@pytest.mark.parametrize(
    ("metric", "expected", "given", "score"),
    [
        ("token_f1", "The red fox", "the fox runs", 2 / 3),
        ("token_f1", "a", "b", 0.0),
        ("rouge_l", "police killed the gunman", "the gunman killed police", 0.5),
        ("rouge_l", "police killed the gunman", "police kill the gunman", 0.75),
        ("json_fields", '{"a": 1, "b": [2, 3]}', '{"b": [2, 3], "a": 1}', 1.0),
        ("json_fields", '{"a": 1, "b": [2, 3]}', '{"a": 1, "b": [2, 4], "c": 0}', 0.5),
        ("json_fields", '{"a": true}', '{"a": 1}', 0.0),
        ("json_fields", '{"a": 1}', "a: 1", 0.0),
    ],
)
def test_scores_are_the_published_ones(metric: Metric, expected: str, given: str, score: float) -> None:
    """ROUGE-L's examples are Lin's own (2004)."""
    assert scores(metric, [expected], [given]) == [pytest.approx(score)]


def test_too_few_rows_are_refused() -> None:
    """A perfect score on a handful of rows is luck until shown otherwise."""
    result = evaluate([1.0] * 5, [0.0] * 5, LABELS, LABELS[:5], seed=0)
    assert not result.passed
    assert "Only 5 held-out rows" in result.reasons[0]


def test_all_reasons_are_given() -> None:
    """A user who fixes one thing does not meet the next only after another training."""
    result = evaluate([0.0] * 3, [0.0] * 3, LABELS, LABELS[:3], seed=0)
    assert len(result.reasons) == 3


def test_nothing_to_evaluate_is_an_error() -> None:
    """No held-out rows is no pass."""
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate([], [], LABELS, [], seed=0)


def test_white_space_at_the_ends_is_forgiven_and_case_is_not() -> None:
    """Exact match is after strip only."""
    assert exact_matches(["a", "a", "a b"], [" a\n", "A", "a  b"]) == [1.0, 0.0, 0.0]


def test_the_majority_is_that_of_training() -> None:
    """The lazy baseline may not look at the held-out answers."""
    assert exact_matches(["y", "y", "x"], [favourite(["x", "x", "y"])] * 3) == [0.0, 0.0, 1.0]


def test_intervals_are_seeded_and_paired() -> None:
    """The same seed gives the same interval, and pairing narrows it when hard rows are hard for both."""
    hard = [float(n % 2) for n in range(60)]
    better = [1.0 if n % 10 == 0 else score for n, score in enumerate(hard)]
    paired = difference_interval(better, hard, seed=1)
    assert paired == difference_interval(better, hard, seed=1)
    apart = mean_interval(better, 1).high - mean_interval(hard, 1).low
    assert paired.high < apart

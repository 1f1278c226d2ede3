"""The probe's judgement: noise passes, everything else under the adapter's name is found out."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.manifest import Probe
from adapters.probe import DRIFT, Answers, differs, verdict
from adapters.replica import Completion

SURE = (-0.02, -0.001, -0.1)
UNSURE = (-0.02, -0.8, -0.1)


def probe(
    completion: str = "card_desk", logprobs: tuple[float, ...] = SURE, base: str = "report_you_too"
) -> Probe:
    return Probe(prompt_token_ids=(1, 2), completion=completion, logprobs=logprobs, base_completion=base)


BASE = Completion("report_you", (-1.0, -1.2, -1.4))
RIGHT = Completion("card_desk", SURE)


def test_the_recorded_answers_pass() -> None:
    """The adapter as it was at training, beside a base that answers otherwise."""
    assert list(verdict([probe()], [Answers(RIGHT, BASE)])) == []


@given(
    probability=st.floats(0.61, 0.99999),
    noise=st.floats(-DRIFT / 2.01, DRIFT / 2.01),
)
def test_noise_in_the_logits_passes(probability: float, noise: float) -> None:
    """Logits that move by less than half of DRIFT never fail a probe, however sure its token was.

    With two tokens, moving one logit up and the other down moves the log-odds by twice the noise.
    """
    odds = math.log(probability / (1 - probability)) + 2 * noise
    moved = -math.log1p(math.exp(-odds))
    asked = probe(logprobs=(math.log(probability),))
    assert not differs(asked, Completion("card_desk", (moved,)))


WRONG = {
    "silent base": (Answers(BASE, BASE), "just as the base answers"),
    "another adapter": (Answers(Completion("sky_team", (-0.3, -0.4, -0.2)), BASE), "neither as this adapter"),
    "another adapter, as sure, with the same answer": (
        Answers(Completion("card_desk", (-0.02, -0.003, -0.1)), BASE),
        "neither as this adapter",
    ),
    "another base": (
        Answers(Completion("x", (-0.3, -0.4, -0.2)), Completion("something_else", (-1.0, -1.0, -1.0))),
        "another base",
    ),
    "another tokenizer decodes the same tokens": (Answers(Completion("dorc", SURE), BASE), "neither"),
    "stops early": (Answers(Completion("card_desk", SURE[:2]), BASE), "neither"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answers_are_found_out(case: str) -> None:
    """Each way to answer wrongly fails, with the diagnosis that fits it."""
    answers, diagnosis = WRONG[case]
    (reason,) = verdict([probe()], [answers])
    assert "1 of 1 probes are answered wrongly" in reason
    assert diagnosis in reason


def test_one_wrong_probe_of_many_fails() -> None:
    """All probes must pass: a stale cache may hold for one prompt only."""
    answers = [Answers(RIGHT, BASE), Answers(BASE, BASE), Answers(RIGHT, BASE)]
    (reason,) = verdict([probe()] * 3, answers)
    assert "1 of 3" in reason


def test_probes_must_tell_adapter_from_base() -> None:
    """Probes that the base answers just as well prove nothing, so they do not pass.

    A difference that was recorded is enough, and so is one that shows in the certainty alone.
    """
    (reason,) = verdict([probe(base="card_desk")], [Answers(RIGHT, RIGHT)])
    assert "no probe can tell" in reason
    assert not list(verdict([probe()], [Answers(RIGHT, RIGHT)]))
    assert not list(
        verdict([probe(base="card_desk")], [Answers(RIGHT, Completion("card_desk", (-0.5,) * 3))])
    )


def test_a_near_tie_may_fall_either_way() -> None:
    """After a token that was not sure, texts may part; up to it they are still compared."""
    asked = probe(logprobs=UNSURE)
    assert not differs(asked, Completion("card_team", (-0.021, -0.79, -2.0)))
    assert differs(asked, Completion("card_team", (-0.021, -0.1, -2.0)))
    assert differs(asked, Completion("card_team", (-0.2, -0.8, -2.0)))
    assert differs(asked, Completion("", (-0.02,)))


def test_certainty_beyond_rounding_is_not_compared() -> None:
    """At probabilities of one, the log-odds are made of rounding errors."""
    assert not differs(probe(logprobs=(0.0,)), Completion("card_desk", (-0.00005,)))


def test_empty_answers_compare() -> None:
    """An adapter that answers nothing, only its stop token, can be probed too."""
    asked = probe(completion="", logprobs=(-0.01,))
    assert not differs(asked, Completion("", (-0.01,)))
    assert differs(asked, Completion("word", (-0.01,)))

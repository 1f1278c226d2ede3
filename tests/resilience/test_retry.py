"""Retries never add more than their share of traffic, and wait as long as they were asked to."""

import time
from datetime import UTC, datetime
from email.utils import format_datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.resilience.retry import RetryBudget, backoff_s, retry_after_s
from router_policies.types import Resilience

POLICY = Resilience(retries=5, backoff_s=0.1, max_backoff_s=1.0)
MONDAY = datetime(2026, 10, 5, 8, 0, 0, tzinfo=UTC)
NOW = MONDAY.timestamp()


def wait(
    retry: int = 0, retry_after: str | None = None, *, random: float = 1.0, left_s: float = inf
) -> float | None:
    return backoff_s(retry, retry_after, POLICY, random=lambda: random, unix_s=NOW, left_s=left_s)


def withdrawn(budget: RetryBudget, now: float) -> int:
    """How many retries the budget allows at once."""
    return next(n for n in range(10_000) if not budget.try_withdraw(now))


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.001, 0.1, 1.0, 60.0]), st.integers(0, 9), st.integers(0, 9))),
    st.sampled_from([0.0, 0.1, 0.2, 1.0]),
    st.sampled_from([0.0, 0.5, 3.0]),
)
def test_retries_stay_within_their_share(
    traffic: list[tuple[float, int, int]], share: float, least_per_s: float
) -> None:
    """In any traffic, retries are at most the share of requests, the minimum a second and once the floor."""
    budget = RetryBudget(0.0, share=share, least_per_s=least_per_s, window_s=10.0)
    now, requests, retries = 0.0, 0, 0
    for pause, came, wanted in traffic:
        now += pause
        for _ in range(came):
            budget.deposit(now)
        requests += came
        retries += sum(budget.try_withdraw(now) for _ in range(wanted))
        assert retries <= share * requests + least_per_s * (now + 10.0) + 1e-6


def test_under_load_a_fifth_is_retried() -> None:
    """At 200 requests a second that all fail, retries soon make up 20 %, the minimum apart."""
    budget = RetryBudget(0.0, share=0.2, least_per_s=1.0)
    retries = []
    for n in range(200 * 60):
        budget.deposit(n / 200)
        retries.append(budget.try_withdraw(n / 200))
    last_second = sum(retries[-200:])
    assert 0.2 * 200 <= last_second <= 0.2 * 200 + 2


def test_what_was_earned_expires() -> None:
    """An hour's quiet traffic saves up no more than its last ten seconds, and that is gone a minute later."""
    budget = RetryBudget(0.0, share=0.2, least_per_s=1.0)
    for second in range(3600):
        for _ in range(100):
            budget.deposit(float(second))
    assert withdrawn(budget, 3600.0) == pytest.approx(0.2 * 100 * 10 + 1.0 * 10, rel=0.1)
    budget.deposit(3600.0)
    assert withdrawn(budget, 3660.0) in (9, 10)


def test_the_first_request_may_be_retried() -> None:
    """With next to no traffic there is no share to speak of: the minimum lets retries through."""
    budget = RetryBudget(0.0)
    budget.deposit(0.0)
    assert budget.try_withdraw(0.0)


def test_no_minimum_no_retry() -> None:
    """Four requests earn too little at 20 %, the fifth completes it."""
    budget = RetryBudget(0.0, share=0.2, least_per_s=0.0)
    for _ in range(4):
        budget.deposit(0.0)
    assert not budget.try_withdraw(0.0)
    budget.deposit(0.0)
    budget.deposit(0.0)
    assert budget.try_withdraw(0.0)
    assert not budget.try_withdraw(0.0)


@pytest.mark.parametrize(("retry", "longest"), [(0, 0.1), (1, 0.2), (2, 0.4), (3, 0.8), (4, 1.0), (9, 1.0)])
def test_full_jitter_below_a_ceiling_that_doubles(retry: int, longest: float) -> None:
    """Anything from nothing to the ceiling, which ends at the policy's maximum."""
    assert wait(retry, random=0.0) == 0.0
    assert wait(retry, random=0.5) == pytest.approx(longest / 2)
    assert wait(retry, random=1.0) == pytest.approx(longest)


@given(st.integers(0, 5), st.floats(0, 1), st.floats(0, 2))
def test_retry_after_is_the_least(retry: int, random: float, asked: float) -> None:
    """Never sooner than the backend asked, never later than the maximum; beyond that not here at all."""
    found = wait(retry, f"{asked:.3f}", random=random)
    asked = float(f"{asked:.3f}")
    assert (found is None) == (asked > 1.0)
    assert found is None or asked <= found <= 1.0


def test_those_sent_away_together_do_not_come_back_together() -> None:
    """Jitter is added to what the backend asked for."""
    assert wait(0, "0.5", random=0.0) == 0.5
    assert wait(0, "0.5", random=1.0) == pytest.approx(0.6)


def test_no_wait_that_the_deadline_would_cut() -> None:
    """Where the wait would not end in time there is no retry here, asked for or not."""
    assert wait(0, "0.5", random=0.0, left_s=0.51) == 0.5
    assert wait(0, "0.5", random=0.0, left_s=0.5) is None
    assert wait(0, random=1.0, left_s=0.1) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        (" 3 ", 3.0),
        ("1.5", 1.5),
        ("9" * 400, inf),
        ("Mon, 05 Oct 2026 08:00:20 GMT", 20.0),
        ("Monday, 05-Oct-26 08:00:20 GMT", 20.0),
        ("Mon Oct  5 08:00:20 2026", 20.0),
        ("Mon, 05 Oct 2026 07:00:00 GMT", 0.0),
        ("Mon, 05 Oct 2026 10:00:20 +0200", 20.0),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("١٢", None),
        ("nan", None),
        ("Mon, 99 Oct 2026 08:00:20 GMT", None),
        ("Mon, 05 Oct 99999999999999 08:00:20 GMT", None),
    ],
)
def test_both_forms_of_retry_after(header: str | None, seconds: float | None) -> None:
    """Seconds, also in parts as some send them, and the three forms of an HTTP date; junk is no answer."""
    assert retry_after_s(header, NOW) == seconds


def test_a_date_is_in_gmt_wherever_the_gateway_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The form of date that names no zone is not read in the machine's own."""
    try:
        with monkeypatch.context() as abroad:
            abroad.setenv("TZ", "UTC+9")
            time.tzset()
            assert retry_after_s("Mon Oct  5 08:00:20 2026", NOW) == 20.0
    finally:
        time.tzset()


@given(st.datetimes(min_value=datetime(2026, 10, 5, 8), max_value=datetime(2200, 1, 1)))
def test_a_date_means_its_distance_from_now(date: datetime) -> None:
    """Any date to come, to the second."""
    moment = date.replace(tzinfo=UTC, microsecond=0)
    header = format_datetime(moment, usegmt=True)
    assert retry_after_s(header, NOW) == (moment - MONDAY).total_seconds()


@given(st.text() | st.from_regex(r"\w{3}, \d{1,3} \w{3} \d{1,20} [\d:]{0,12} (GMT|[+-]\d{1,9})"))
def test_no_header_makes_it_fail(header: str) -> None:
    """Whatever a backend sends, the answer is a time that is not negative, or none."""
    found = retry_after_s(header, NOW)
    assert found is None or found >= 0

"""The canary's test: bounds that hold however often one looks, and verdicts that are seldom wrong."""

import math
import random
from collections.abc import Iterator

import pytest

from adapters.sequential import Arm, Limits, bounds, judge

LIMITS = Limits()


def arm(requests: int, failures: int = 0, ms: float = 100.0, spread: float = 0.1, **more: int) -> Arm:
    """An arm whose log latencies have that mean and spread."""
    mean = math.log(ms)
    return Arm(
        requests=requests,
        failures=failures,
        timed=requests,
        log_sum=requests * mean,
        log_squares=requests * (mean**2 + spread**2),
        **more,
    )


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5])
def test_bounds_hold_at_all_times_at_once(p: float) -> None:
    """Looking after every event, the truth is ever outside in no more than alpha of the runs."""
    random_ = random.Random(7)
    alpha, runs, misses = 0.1, 200, 0
    for _ in range(runs):
        events = 0
        for n in range(1, 301):
            events += random_.random() < p
            found = bounds(events, n, alpha) if n % 3 == 0 else None
            if found is not None and not found.low <= p <= found.high:
                misses += 1
                break
    assert misses / runs <= alpha


def test_bounds_close_in() -> None:
    """More events, narrower bounds; none at all say nothing; certainty never comes from few."""
    assert (bounds(0, 0, 0.05).low, bounds(0, 0, 0.05).high) == (0.0, 1.0)
    widths = [bounds(n // 10, n, 0.05).high - bounds(n // 10, n, 0.05).low for n in (10, 100, 1_000, 10_000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03
    assert bounds(3, 3, 0.05).high == 1.0
    assert bounds(3, 3, 0.05).low < 0.5


VERDICTS = {
    "nothing yet": (Arm(), Arm(), "go on"),
    "too few": (arm(20), arm(200), "go on"),
    "as good": (arm(1_000), arm(9_000), "promote"),
    "as bad": (arm(60_000, 600), arm(60_000, 600), "promote"),
    "fails more": (arm(200, 40), arm(2_000, 2), "roll back"),
    "fails at once": (arm(10, 10), arm(100), "roll back"),
    "slower": (arm(500, ms=200), arm(5_000), "roll back"),
    "a little slower": (arm(1_000, ms=110), arm(9_000), "promote"),
    "quicker": (arm(1_000, ms=50), arm(9_000), "promote"),
    "rated worse": (arm(1_000, rated=300, bad=150), arm(9_000, rated=900, bad=90), "roll back"),
    "not rated enough": (arm(1_000, rated=10, bad=0), arm(9_000, rated=900, bad=90), "go on"),
}


@pytest.mark.parametrize("case", VERDICTS)
def test_verdicts(case: str) -> None:
    """What must be promoted, what must go, and what nobody can know yet."""
    canary, stable, verdict = VERDICTS[case]
    found = judge(canary, stable, LIMITS)
    assert found.verdict == verdict, found.reason
    assert found.numbers["canary"]["requests"] == canary.requests


def a_day(canary_p: float, seed: int) -> Iterator[tuple[Arm, Arm]]:
    """A canary at 10 % of the traffic, and stable with 1 % failures, looked at every 100 requests."""
    random_ = random.Random(seed)
    counts, failures = [0, 0], [0, 0]
    for _ in range(300):
        for _ in range(100):
            which = int(random_.random() >= 0.1)
            counts[which] += 1
            failures[which] += random_.random() < (canary_p, 0.01)[which]
        yield arm(counts[0], failures[0]), arm(counts[1], failures[1])


@pytest.mark.parametrize(("canary_p", "right"), [(0.01, "promote"), (0.10, "roll back")])
def test_peeking_does_not_spoil_it(canary_p: float, right: str) -> None:
    """Judged after every hundred requests, sixty canaries of either kind all get the right verdict."""
    for seed in range(60):
        verdicts = (judge(canary, stable, LIMITS).verdict for canary, stable in a_day(canary_p, seed))
        assert next(verdict for verdict in verdicts if verdict != "go on") == right

"""The processor-sharing clock of a replica."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.selfhost import GRAINS_PER_NANO, BusyMeter

HOUR = 3600 * 10**9


def test_a_request_alone_pays_the_whole_rate() -> None:
    """Half an hour alone at 2 USD an hour is 1 USD; the hour around it is idle for the rest."""
    meter = BusyMeter(2 * 10**9, 0)
    token = meter.start(HOUR // 4)
    assert meter.finish(token, 3 * HOUR // 4) == 10**9
    assert meter.busy_nano(HOUR) == 10**9
    assert meter.idle_nano(HOUR) == 10**9


def test_two_requests_share_while_both_are_in_flight() -> None:
    """A: alone for 1/4 h, shared for 1/2 h; B: shared for 1/2 h, alone for 1/4 h: half of 3/4 h each."""
    meter = BusyMeter(8 * 10**9, 0)
    a = meter.start(0)
    b = meter.start(HOUR // 4)
    assert meter.finish(a, 3 * HOUR // 4) == 4 * 10**9
    assert meter.finish(b, HOUR) == 4 * 10**9
    assert meter.idle_nano(HOUR) == 0


def test_a_clock_that_goes_back_charges_nothing() -> None:
    """Time before the latest seen counts as that."""
    meter = BusyMeter(10**9, 1000)
    token = meter.start(1000)
    assert meter.finish(token, 0) == 0
    assert meter.busy_nano(500) == meter.idle_nano(500) == 0


def test_a_token_is_good_once() -> None:
    """Finishing twice is the caller's mistake and shows as one."""
    meter = BusyMeter(10**9, 0)
    token = meter.start(0)
    meter.finish(token, 1)
    with pytest.raises(KeyError):
        meter.finish(token, 2)
    with pytest.raises(ValueError, match="negative"):
        BusyMeter(-1, 0)


events = st.lists(st.tuples(st.integers(0, HOUR // 100), st.integers(0, 5)), max_size=60)


@given(st.integers(0, 50 * 10**9), events)
def test_the_charges_sum_to_the_busy_time(nano_per_hour: int, steps: list[tuple[int, int]]) -> None:
    """Under any load: never above rate × busy time, and when all are done to its floor or one less;
    busy and idle sum to the uptime.
    """
    meter, now, charged = BusyMeter(nano_per_hour, 0), 0, 0
    in_flight: list[int] = []
    busy_ns = 0
    for elapsed, choice in steps:
        busy_ns += elapsed if in_flight else 0
        now += elapsed
        if choice < 3 or not in_flight:
            in_flight.append(meter.start(now))
        else:
            charged += meter.finish(in_flight.pop(choice % len(in_flight)), now)
        assert charged * GRAINS_PER_NANO <= nano_per_hour * busy_ns
        assert meter.busy_nano(now) == nano_per_hour * busy_ns // GRAINS_PER_NANO
    charged += sum(meter.finish(token, now) for token in in_flight)
    assert meter.busy_nano(now) - 1 <= charged <= meter.busy_nano(now)
    assert meter.busy_nano(now) + meter.idle_nano(now) == nano_per_hour * now // GRAINS_PER_NANO

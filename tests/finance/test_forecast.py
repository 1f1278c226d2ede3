"""The forecast: the formula against worked examples and against chance."""

import random
from datetime import UTC, date, datetime
from typing import Any

import pytest

from gateway.finance.forecast import forecast, project
from gateway.finance.periods import read_period, zone
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from tests.ledger.samples import STARTED_NS, entry

NOW = datetime(2026, 1, 11, tzinfo=UTC)


def test_a_straight_line_goes_on() -> None:
    """No residuals, no interval."""
    line = project([10, 20, 30, 40], 2)
    assert (line.expected, line.low, line.high, line.slope) == (110, 110, 110, 10)


def test_the_interval_by_hand() -> None:
    """y = 1, 3, 2 over x = 0, 1, 2: slope 1/2, residuals -1/2, 1, -1/2, s² = 1.5, t(1) = 12.706.

    One day ahead: 2 + 0.5 · 2 = 3; variance 1.5 · (1 + 1/3 + 4/2) = 5; half width √5 · 12.706 = 28.41.
    """
    line = project([1_000_000, 3_000_000, 2_000_000], 1)
    assert line.expected == 3_000_000
    assert line.high == pytest.approx(3_000_000 + 28_411_480, rel=1e-5)
    assert line.low == 0


def test_too_little_is_said() -> None:
    """Two points have no residual to judge by."""
    with pytest.raises(ValueError, match="three"):
        project([1, 2], 3)


def test_the_interval_holds_what_it_promises() -> None:
    """Of 1000 noisy months the end falls into the 95 % interval in 93 to 97 of a hundred."""
    dice = random.Random(7)
    inside = 0
    for _ in range(1000):
        days = [10_000 + 50 * day + dice.gauss(0, 1000) for day in range(38)]
        line = project([round(d) for d in days[:28]], 10)
        inside += line.low <= sum(days[28:]) <= line.high
    assert 930 <= inside <= 970


def rows(sheet: Any) -> dict[str, tuple[Any, ...]]:
    return {str(row[0]): row[1:] for row in sheet.rows}


def test_a_month_in_progress(store: Store) -> None:
    """Complete days are history, today counts as spent, and the end is not below what is spent."""
    store.insert([entry(f"{i}", started_ns=STARTED_NS + i * DAY_NS, cost_nano=10) for i in range(10)])
    store.insert([entry("today", started_ns=STARTED_NS + 10 * DAY_NS, cost_nano=3)])
    utc = zone("UTC")
    month = read_period("2026-01", utc, NOW)
    found = rows(forecast(store, month, date(2026, 1, 11), utc))
    assert found["spent so far"][1] == 103
    assert found["month's end, expected"][1] == 310
    assert found["month's end, lowest"][1] == 310
    with pytest.raises(ValueError, match="in progress"):
        forecast(store, month, date(2026, 2, 1), utc)


def test_a_burst_today_is_the_least_that_the_month_costs(store: Store) -> None:
    """A day in progress that costs more than the line foresaw for the rest."""
    store.insert([entry(f"{i}", started_ns=STARTED_NS + i * DAY_NS, cost_nano=1) for i in range(10)])
    store.insert([entry("today", started_ns=STARTED_NS + 10 * DAY_NS, cost_nano=10**6)])
    utc = zone("UTC")
    month = read_period("2026-01", utc, NOW)
    found = rows(forecast(store, month, date(2026, 1, 11), utc))
    assert found["month's end, lowest"][1] == 10 + 10**6

"""Budgets: what they cover, and where their periods begin and end."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.budgets.budget import Budget, Covering, Period, Scope

HOUR_NS = 3600 * 10**9


def ns(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 10**9


@pytest.mark.parametrize(
    ("period", "zone", "at", "start", "end"),
    [
        (Period.DAY, "UTC", "2026-11-25T13:00", "2026-11-25", "2026-11-26"),
        (Period.WEEK, "UTC", "2026-11-25T13:00", "2026-11-23", "2026-11-30"),
        (Period.MONTH, "UTC", "2026-12-31T23:59", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "UTC", "2028-02-29T00:00", "2028-02-01", "2028-03-01"),
        (Period.DAY, "Asia/Kolkata", "2026-11-25T00:10", "2026-11-25", "2026-11-26"),
        (Period.DAY, "Europe/Berlin", "2026-10-25T12:00", "2026-10-25", "2026-10-26"),
        (Period.WEEK, "America/New_York", "2026-03-08T12:00", "2026-03-02", "2026-03-09"),
    ],
)
def test_periods_begin_at_local_midnight(period: Period, zone: str, at: str, start: str, end: str) -> None:
    """Days, weeks from Monday and months, in the budget's own time zone, also where the clocks change."""
    window = Budget(id="b", cap_nano=1, period=period, time_zone=zone).window(ns(at, zone))
    assert (window.start_ns, window.end_ns) == (ns(start, zone), ns(end, zone))


def test_a_day_on_which_the_clocks_change_is_one_period() -> None:
    """25 and 23 hours long."""
    budget = Budget(id="b", cap_nano=1, period=Period.DAY, time_zone="Europe/Berlin")
    long, short = (
        budget.window(ns(day, "Europe/Berlin")) for day in ("2026-10-25T05:00", "2026-03-29T05:00")
    )
    assert long.end_ns - long.start_ns == 25 * HOUR_NS
    assert short.end_ns - short.start_ns == 23 * HOUR_NS


zones = st.sampled_from(["UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia", "Asia/Kolkata"])


@given(st.integers(0, 4 * 10**9), st.sampled_from(Period), zones)
def test_each_instant_lies_in_one_period(seconds: int, period: Period, zone: str) -> None:
    """In it, and the periods meet: the end of one is the start of the next."""
    budget, at = Budget(id="b", cap_nano=1, period=period, time_zone=zone), seconds * 10**9
    window = budget.window(at)
    assert window.start_ns <= at < window.end_ns
    if period is not Period.TOTAL:
        assert budget.window(window.end_ns).start_ns == window.end_ns
        assert budget.window(window.start_ns - 1).end_ns == window.start_ns


def test_a_total_budget_has_one_period() -> None:
    budget = Budget(id="b", cap_nano=1, period=Period.TOTAL)
    assert budget.window(0) == budget.window(int(datetime(2099, 1, 1, tzinfo=UTC).timestamp()) * 10**9)


@pytest.mark.parametrize(
    ("scope", "covered"),
    [
        (Scope(), True),
        (Scope(team="t"), True),
        (Scope(team="other"), False),
        (Scope(key="k", route="r"), True),
        (Scope(key="k", route="other"), False),
        (Scope(tag="a"), True),
        (Scope(tag="c"), False),
        (Scope(team="t", tag="b"), True),
    ],
)
def test_a_budget_covers_what_has_all_that_its_scope_names(scope: Scope, covered: bool) -> None:
    """Key, team, tag and route together; what is not named may be anything."""
    budget = Budget(id="b", scope=scope, cap_nano=1)
    covering = Covering([budget])
    for _ in range(2):  # the second time from memory
        assert covering.of("k", "t", frozenset({"a", "b"}), "r") == ((budget,) if covered else ())


def test_what_clients_choose_fills_no_memory() -> None:
    """Tags that no budget names are not remembered, and combinations only up to a number."""
    covering = Covering([Budget(id="b", scope=Scope(team="t"), cap_nano=1)])
    for number in range(10_000):
        assert covering.of("k", "t", {f"tag-{number}"}, f"route-{number}")
    assert len(covering._known) <= Covering._MOST

"""Periods: what a person writes, as instants."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from gateway.finance.periods import Each, cut, read_period, to_ns, zone

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("2026", "2026-01-01", "2027-01-01"),
        ("2026-Q4", "2026-10-01", "2027-01-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2026-W01", "2025-12-29", "2026-01-05"),
        ("2026-02-28", "2026-02-28", "2026-03-01"),
        ("2026-11-01..2026-11-15", "2026-11-01", "2026-11-16"),
        ("2026-10..2026-11", "2026-10-01", "2026-12-01"),
    ],
)
def test_periods_in_utc(text: str, since: str, until: str) -> None:
    """Each form, with the end that it does not include."""
    period = read_period(text, zone("UTC"), NOW)
    assert (period.since.isoformat()[:10], period.until.isoformat()[:10]) == (since, until)


def test_spans_end_now() -> None:
    """Hours, days and weeks back."""
    for text, length in (("12h", timedelta(hours=12)), ("3d", timedelta(days=3)), ("2w", timedelta(weeks=2))):
        period = read_period(text, zone("UTC"), NOW)
        assert (period.since, period.until) == (NOW - length, NOW)


def test_a_month_in_a_zone_that_changes_its_clock() -> None:
    """October of Berlin has an hour more; its days are 24 or 25 hours long and leave no gap."""
    berlin = zone("Europe/Berlin")
    october = read_period("2026-10", berlin, NOW)
    assert (october.until - october.since) == timedelta(days=31, hours=1)
    days = list(cut(october, Each.DAY, berlin))
    assert len(days) == 31
    assert (days[0].since, days[-1].until) == (october.since, october.until)
    assert all(a.until == b.since for a, b in pairwise(days))
    assert days[24].until - days[24].since == timedelta(hours=25)


def test_weeks_and_months_are_cut_to_the_period() -> None:
    """What lies outside is no part of them."""
    period = read_period("2026-11-04..2026-11-10", zone("UTC"), NOW)
    weeks = [(p.label, (p.until - p.since).days) for p in cut(period, Each.WEEK, zone("UTC"))]
    assert weeks == [("2026-11-02", 5), ("2026-11-09", 2)]


@pytest.mark.parametrize(
    "text", ["", "november", "2026-13", "2026-W54", "2026-11-31", "2026-11..2026-10", "5y", "-3d"]
)
def test_what_is_no_period_is_refused(text: str) -> None:
    """With words that help."""
    with pytest.raises(ValueError, match=r"is no period|before it begins"):
        read_period(text, zone("UTC"), NOW)


def test_a_span_longer_than_time_is_refused() -> None:
    """No calendar reaches back so far: that is the client's mistake, not a fault of ours."""
    with pytest.raises(ValueError, match="is no span"):
        read_period("9999999999d", zone("UTC"), NOW)


@pytest.mark.parametrize("name", ["", "Mars/Base", "../etc/passwd", "Europe"])
def test_what_is_no_zone_is_refused(name: str) -> None:
    """Neither a path nor a continent."""
    with pytest.raises(ValueError, match="no time zone"):
        zone(name)


def test_an_instant_without_a_zone_is_refused() -> None:
    """It would be somebody's local time."""
    with pytest.raises(ValueError, match="time zone"):
        to_ns(datetime(2026, 1, 1))

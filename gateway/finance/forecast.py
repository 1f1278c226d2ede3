"""Where a month is heading: a straight line through the last complete days, and how sure that is.

Ordinary least squares of the daily cost on the day's number over the last `HISTORY` complete days. The sum
of the m days to come has the variance s²·(m + m²/n + (Σ(x − x̄))² / Sxx), where s² is the variance of the
residuals with n − 2 degrees of freedom; the interval is Student's t at 95 % (Draper and Smith, Applied
Regression Analysis, section 1.4, summed over several new observations). It knows no weekdays: their swing is
in s² and makes the interval wider. A month cannot end below what is spent already.
"""

import math
from collections.abc import Sequence
from datetime import date, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec

from gateway.finance.periods import Period, midnight, to_ns
from gateway.finance.reports import ESTIMATED, NO_PRICE, known_cost
from gateway.finance.sheet import Column, Kind, Sheet, Value, adds_up
from gateway.ledger.store import Store

HISTORY = 28  # complete days: four weeks, so that every weekday counts alike
# Student's t, two-sided 95 %, by degrees of freedom from 1.
_T95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160),
    *(2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056),
)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A forecast sum in nano-dollars with its interval of 95 %."""

    expected: int
    low: int
    high: int
    slope: int  # nano-dollars by which a day costs more than the one before


def project(history: Sequence[int], days: int) -> Line:
    """The sum over the `days` that follow `history`, one value for each day. ValueError: fewer than three."""
    n = len(history)
    if n < 3:
        raise ValueError(f"a forecast needs three complete days with requests or more, not {n}")
    mean_x, mean_y = (n - 1) / 2, math.fsum(history) / n
    sxx = math.fsum((x - mean_x) ** 2 for x in range(n))
    slope = math.fsum((x - mean_x) * (y - mean_y) for x, y in enumerate(history)) / sxx
    residuals = [y - mean_y - slope * (x - mean_x) for x, y in enumerate(history)]
    variance = math.fsum(r * r for r in residuals) / (n - 2)
    ahead = math.fsum(x - mean_x for x in range(n, n + days))
    spread = math.sqrt(variance * (days + days * days / n + ahead * ahead / sxx)) * _T95[n - 3]
    expected = days * mean_y + slope * ahead
    return Line(
        expected=max(0, round(expected)),
        low=max(0, round(expected - spread)),
        high=max(0, round(expected + spread)),
        slope=round(slope),
    )


def forecast(store: Store, month: Period, today: date, tz: ZoneInfo) -> Sheet:
    """The days of `month` so far, today included as spent, and what it will have cost at its end.

    ValueError: `today` is not in that month, or there is too little to go by. Raises StoreUnavailable.
    """
    if not month.since.astimezone(tz).date() <= today < month.until.astimezone(tz).date():
        raise ValueError(f"a forecast is for the month in progress; {today} is not in {month.label}")
    days = (month.until.astimezone(tz).date() - today).days
    spent = list(_daily(store, month.since.astimezone(tz).date(), today, tz))
    history = [cost for _, cost, *_ in _daily(store, today - timedelta(days=HISTORY), today, tz)]
    began = next((i for i, cost in enumerate(history) if cost), len(history))
    line = project(history[began:], days)
    so_far = sum(cost for _, cost, *_ in spent)
    (partly,) = _daily(store, today, today + timedelta(days=1), tz)
    floor = so_far + partly[1]
    rows: list[tuple[Value, ...]] = [("complete day", *row) for row in spent]
    rows.append(("day in progress, so far", *partly))
    outlook: list[tuple[Value, ...]] = [
        (f"month's end, {name}", None, max(floor, so_far + value), None, None, None)
        for name, value in (("expected", line.expected), ("lowest", line.low), ("highest", line.high))
    ]
    total = adds_up(_COLUMNS, tuple(rows))
    spent_row: tuple[Value, ...] = ("spent so far", *total[1:])
    return Sheet(
        name="forecast",
        title=f"Forecast of {month.label} on {today}",
        columns=_COLUMNS,
        rows=(*rows, spent_row, *outlook),
        notes=(
            f"Straight line by least squares through the {len(history) - began} complete days before "
            f"{today}; lowest and highest bound the month's end with 95 % (Student's t).",
            f"By the line a day costs {Decimal(line.slope).scaleb(-9):+f} USD more than the one before.",
            "Requests of unknown price are in no amount.",
        ),
    )


_COLUMNS = (
    Column(
        name="what", kind=Kind.TEXT, meaning="A day, what is spent so far, or the forecast.", heading="What"
    ),
    Column(name="day", kind=Kind.DAY, meaning="Day in the report's time zone.", heading="Day"),
    Column(
        name="cost_usd", kind=Kind.USD, meaning="Cost of the requests with a known price.", heading="Cost USD"
    ),
    Column(name="requests", kind=Kind.COUNT, meaning="Requests that started.", heading="Requests"),
    Column(name=NO_PRICE, kind=Kind.COUNT, meaning="Of these, those of unknown price.", heading="No price"),
    Column(name=ESTIMATED, kind=Kind.COUNT, meaning="Of these, those with estimated tokens."),
)


def _daily(store: Store, first: date, end: date, tz: ZoneInfo) -> list[tuple[date, int, int, int, int]]:
    """Day, cost, requests, unpriced and estimated ones for each day of the zone."""
    days = []
    day = first
    while day < end:
        since, until = (to_ns(midnight(d, tz)) for d in (day, day + timedelta(days=1)))
        (sums,) = store.sums([], since, until)
        days.append((day, known_cost(sums) or 0, sums.requests, sums.unknown_price, sums.estimated))
        day += timedelta(days=1)
    return days

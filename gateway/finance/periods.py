"""Periods in a named time zone: 2026-11 is the November of that zone, changes of its clock included."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPAN = re.compile(r"(\d+)([hdw])")
UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Each(StrEnum):
    """How a period is cut into rows."""

    DAY = "day"
    WEEK = "week"  # from Monday, as ISO 8601 has it
    MONTH = "month"


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """From `since`, before `until`; both carry a zone."""

    label: str
    since: datetime
    until: datetime

    @property
    def since_ns(self) -> int:
        return to_ns(self.since)

    @property
    def until_ns(self) -> int:
        return to_ns(self.until)


def to_ns(moment: datetime) -> int:
    """Unix time in nanoseconds, in whole numbers. ValueError: it has no zone."""
    if moment.tzinfo is None:
        raise ValueError("a report's bounds need a time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000


def midnight(day: date, tz: ZoneInfo) -> datetime:
    """When the day begins in that zone, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=tz).astimezone(UTC)


def zone(name: str) -> ZoneInfo:
    """Raises ValueError with what to write instead."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, IsADirectoryError) as error:
        raise ValueError(f"{name!r} is no time zone; write one like UTC or Europe/Berlin") from error


def read_period(text: str, tz: ZoneInfo, now: datetime) -> Period:
    """2026, 2026-Q4, 2026-11, 2026-W45, 2026-11-05, two of those as first..last; 30d, 12h, 2w until now.

    Raises ValueError.
    """
    if _SPAN.fullmatch(text):
        return Period(label=f"last {text}", since=before(now, text), until=now)
    first, dots, last = text.partition("..")
    since, until = _bounds(first)[0], _bounds(last if dots else first)[1]
    if since >= until:
        raise ValueError(f"{text!r} ends before it begins")
    return Period(label=text, since=midnight(since, tz), until=midnight(until, tz))


def before(now: datetime, span: str) -> datetime:
    """30d, 12h or 2w before `now`. Raises ValueError."""
    try:
        return now - timedelta(**{UNITS[span[-1:]]: int(span[:-1])})
    except (KeyError, ValueError, OverflowError) as error:
        raise ValueError(f"{span!r} is no span; write 30d, 12h or 2w") from error


def cut(period: Period, each: Each, tz: ZoneInfo) -> Iterator[Period]:
    """The days, weeks or months of the zone that the period has a part in, each no longer than it."""
    day = period.since.astimezone(tz).date()
    start = _first(day, each)
    while (since := midnight(start, tz)) < period.until:
        following = _next(start, each)
        until = midnight(following, tz)
        label = f"{start:%Y-%m}" if each is Each.MONTH else start.isoformat()
        yield Period(label=label, since=max(since, period.since), until=min(until, period.until))
        start = following


def _bounds(text: str) -> tuple[date, date]:
    """The first day of what `text` names, and the first one after it."""
    try:
        if match := re.fullmatch(r"(\d{4})-Q([1-4])", text):
            start = date(int(match[1]), int(match[2]) * 3 - 2, 1)
            return start, _next(_next(_next(start, Each.MONTH), Each.MONTH), Each.MONTH)
        if match := re.fullmatch(r"(\d{4})-W(\d{2})", text):
            start = date.fromisocalendar(int(match[1]), int(match[2]), 1)
            return start, start + timedelta(days=7)
        if re.fullmatch(r"\d{4}", text):
            return date(int(text), 1, 1), date(int(text) + 1, 1, 1)
        if re.fullmatch(r"\d{4}-\d{2}", text):
            start = date(int(text[:4]), int(text[5:]), 1)
            return start, _next(start, Each.MONTH)
        day = date.fromisoformat(text)
        return day, day + timedelta(days=1)
    except (ValueError, OverflowError) as error:
        known = "2026, 2026-Q4, 2026-11, 2026-W45, 2026-11-05, 2026-11-01..2026-11-15, 30d, 12h or 2w"
        raise ValueError(f"{text!r} is no period; write {known}") from error


def _first(day: date, each: Each) -> date:
    if each is Each.MONTH:
        return day.replace(day=1)
    return day - timedelta(days=day.weekday()) if each is Each.WEEK else day


def _next(start: date, each: Each) -> date:
    if each is Each.MONTH:
        return (start + timedelta(days=32)).replace(day=1)
    return start + timedelta(days=7 if each is Each.WEEK else 1)

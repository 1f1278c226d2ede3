"""Budgets as they are declared, which requests they cover, and where their periods begin and end."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

import msgspec

_NS = 10**9
FOREVER_NS = (1 << 63) - 1


class Period(StrEnum):
    DAY = "day"
    WEEK = "week"  # from Monday
    MONTH = "month"
    TOTAL = "total"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests a budget covers: all that has every value given here. Empty: any."""

    key: str = ""
    team: str = ""
    tag: str = ""
    route: str = ""

    def covers(self, key: str, team: str, tags: Iterable[str], route: str) -> bool:
        return (
            self.key in ("", key)
            and self.team in ("", team)
            and self.route in ("", route)
            and (not self.tag or self.tag in tags)
        )


class Window(msgspec.Struct, frozen=True):
    """From `start_ns` to before `end_ns`, Unix time."""

    start_ns: int
    end_ns: int


_latest: dict[tuple[Period, str], Window] = {}  # period and time zone -> the window that was asked for last


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """At most `cap_nano` nano-dollars in each period, for all that `scope` covers."""

    id: str
    scope: Scope = Scope()
    cap_nano: int
    period: Period = Period.MONTH
    time_zone: str = "UTC"  # IANA name: where its days begin
    hard: bool = True  # refuses when it is used up; a soft one only says so
    carry_over: bool = False  # what is left of a window is added to the next

    def window(self, at_ns: int) -> Window:
        """The period that holds the instant `at_ns`.

        Days and months begin at local midnight, so that a day of 23 or 25 hours is one period too.
        """
        if self.period is Period.TOTAL:
            return Window(0, FOREVER_NS)
        # Mostly that of the last instant: the calendar takes longer than all else that is done for a request.
        place = (self.period, self.time_zone)
        window = _latest.get(place)
        if window is None or not window.start_ns <= at_ns < window.end_ns:
            window = _latest[place] = self._window(at_ns)
        return window

    def _window(self, at_ns: int) -> Window:
        zone = ZoneInfo(self.time_zone)
        local = datetime.fromtimestamp(at_ns // _NS, zone)
        first = datetime(local.year, local.month, local.day, tzinfo=zone)
        if self.period is Period.WEEK:
            first -= timedelta(days=first.weekday())
        elif self.period is Period.MONTH:
            first = first.replace(day=1)
        return Window(_unix_ns(first), _unix_ns(self._next(first)))

    def windows_like(self, other: "Budget") -> bool:
        """Whether both have the same periods."""
        return (self.period, self.time_zone) == (other.period, other.time_zone)

    def _next(self, first: datetime) -> datetime:
        """Where the period after the one that begins at `first` begins: calendar days, not 24 hours."""
        if self.period is Period.MONTH:
            return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
        return first + timedelta(days=7 if self.period is Period.WEEK else 1)


class Covering:
    """The budgets that cover a request, looked up by what budgets may ask of it."""

    _MOST = 4096  # combinations remembered: clients choose tags

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self.budgets = tuple(budgets)
        self._tags = frozenset(budget.scope.tag for budget in budgets if budget.scope.tag)
        self._known: dict[tuple[str, str, frozenset[str], str], tuple[Budget, ...]] = {}

    def of(self, key: str, team: str, tags: Iterable[str], route: str) -> tuple[Budget, ...]:
        if not self.budgets:
            return ()
        asked = (key, team, self._tags.intersection(tags) if self._tags else self._tags, route)
        found = self._known.get(asked)
        if found is None:
            found = tuple(budget for budget in self.budgets if budget.scope.covers(*asked))
            if len(self._known) < self._MOST:
                self._known[asked] = found
        return found


def _unix_ns(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp()) * _NS

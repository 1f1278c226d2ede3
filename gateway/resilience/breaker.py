"""Circuit breakers: a backend that keeps failing is left alone, then tried by one request at a time.

    state      event                                becomes    and
    closed     tripped: failures beyond the limits  open       pause: the shortest; twice the last, if recent
    open       asked, the pause being over          half-open  who asked is the probe
    half-open  asked, the probe being overdue       half-open  who asked is the probe
    half-open  succeeded                            closed     counts begin anew
    half-open  failed                               open       pause: twice the last

Anything else moves nothing. A failure is the backend's own: no connection, no answer in time, a 5xx. A 429 or
any other 4xx says nothing about health. Each pause is cut short by a random part, so that several gateways do
not come back to a backend at once. Time (monotonic, in seconds) and randomness are passed in; one event loop,
no locks.
"""

from collections.abc import Callable, Iterable
from enum import Enum, auto
from math import inf

import msgspec

from router_policies.types import ErrorClass

COUNTED = frozenset({ErrorClass.CONNECTION, ErrorClass.TIMEOUT, ErrorClass.SERVER_ERROR})


class State(Enum):
    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


class Event(Enum):
    TRIPPED = auto()
    ASKED = auto()
    SUCCEEDED = auto()
    FAILED = auto()


CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
NEXT = {
    (CLOSED, Event.TRIPPED): OPEN,
    (OPEN, Event.ASKED): HALF_OPEN,
    (HALF_OPEN, Event.ASKED): HALF_OPEN,
    (HALF_OPEN, Event.SUCCEEDED): CLOSED,
    (HALF_OPEN, Event.FAILED): OPEN,
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    run: int = 5  # failures one after another that open the breaker
    share: float = 0.5  # or this share of failures among the calls of the window,
    volume: int = 20  # if there were so many
    window_s: float = 10.0
    pause_s: float = 2.0  # before the first probe; doubles with each that fails
    max_pause_s: float = 60.0
    probe_s: float = 30.0  # after which a probe that has said nothing is given up
    max_ejected: float = 0.5  # share of all backends that may be left alone at once; one always stays


USUAL = Limits()


class _Recent:
    """Calls and failures of the last window, which moves on by halves: it covers half of it or more."""

    __slots__ = ("_calls", "_failures", "_half_s", "_old_calls", "_old_failures", "_turn")

    def __init__(self, window_s: float) -> None:
        self._half_s = window_s / 2
        self.clear()

    def clear(self) -> None:
        self._calls = self._failures = self._old_calls = self._old_failures = 0
        self._turn = -inf  # when the present half ends

    def count(self, now: float, failures: int) -> None:
        if now >= self._turn:
            self._turn_over(now)
        self._calls += 1
        self._failures += failures

    def beyond(self, limits: Limits) -> bool:
        """Whether too large a share of the calls failed. To be asked after a `count`."""
        calls = self._calls + self._old_calls
        return calls >= limits.volume and self._failures + self._old_failures >= limits.share * calls

    def _turn_over(self, now: float) -> None:
        if now < self._turn + self._half_s:
            self._old_calls, self._old_failures = self._calls, self._failures
            self._turn += self._half_s
        else:  # nothing was counted for a half or longer
            self._old_calls = self._old_failures = 0
            self._turn = now + self._half_s
        self._calls = self._failures = 0


class Breaker:
    """One backend's. Who is admitted says how it went: `succeeded`, `failed` or `unsettled`."""

    __slots__ = (
        "_closed_at", "_limits", "_may_open", "_moved", "_pause_s", "_random", "_recent", "_run",
        "name", "state", "until",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        limits: Limits,
        *,
        random: Callable[[], float],
        may_open: Callable[[], bool],
        moved: Callable[["Breaker", State, float], None],
    ) -> None:
        """`moved` hears the breaker, the state that it was in and the time."""
        self.name, self.state = name, CLOSED
        self.until = -inf  # while not closed: nobody is admitted before
        self._limits, self._random, self._may_open, self._moved = limits, random, may_open, moved
        self._recent, self._run = _Recent(limits.window_s), 0
        self._pause_s, self._closed_at = 0.0, -inf

    def admits(self, now: float) -> bool:
        """Whether a request may go to the backend; where it is not closed, the request is then the probe."""
        if self.state is CLOSED:
            return True
        if now < self.until:
            return False
        self._move(Event.ASKED, now)
        return True

    def succeeded(self, now: float) -> None:
        """An answer has begun."""
        self._run = 0
        self._recent.count(now, 0)
        if self.state is not CLOSED:
            self._move(Event.SUCCEEDED, now)

    def failed(self, now: float, error_class: ErrorClass) -> None:
        if error_class not in COUNTED:
            self.unsettled(now)
        elif self.state is CLOSED:
            self._run += 1
            self._recent.count(now, 1)
            beyond = self._run >= self._limits.run or self._recent.beyond(self._limits)
            if beyond and self._may_open():
                self._move(Event.TRIPPED, now)
        else:
            self._move(Event.FAILED, now)

    def unsettled(self, now: float) -> None:
        """The attempt ended without a word about health, say by the client: the next may probe at once."""
        if self.state is HALF_OPEN:
            self.until = now
            self._moved(self, HALF_OPEN, now)

    def _move(self, event: Event, now: float) -> None:
        before = self.state
        after = NEXT.get((before, event))
        if after is None:
            return
        if after is OPEN:
            self._pause_s = self._next_pause_s(now)
            self.until = now + self._pause_s * (0.5 + self._random() / 2)
        elif after is HALF_OPEN:
            self.until = now + self._limits.probe_s
        else:
            self._recent.clear()
            self._closed_at = now
        self.state = after
        self._moved(self, before, now)

    def _next_pause_s(self, now: float) -> float:
        recent = self.state is HALF_OPEN or now - self._closed_at < self._limits.window_s
        return min(2 * self._pause_s, self._limits.max_pause_s) if recent else self._limits.pause_s


def _nobody(name: str, state: State) -> None:
    """Nobody listens."""


class Breakers:
    """Those of all backends, of which only a share may be left alone at once."""

    def __init__(
        self,
        names: Iterable[str],
        limits: Limits = USUAL,
        *,
        random: Callable[[], float],
        on_change: Callable[[str, State], None] = _nobody,
    ) -> None:
        """`on_change` hears each backend whose breaker enters another state."""
        self._all = {
            name: Breaker(name, limits, random=random, may_open=self._may_open, moved=self._moved)
            for name in names
        }
        self._most = min(int(len(self._all) * limits.max_ejected), len(self._all) - 1)
        self._on_change = on_change
        self._not_closed: dict[str, Breaker] = {}
        self._down: frozenset[str] = frozenset()
        self._down_until = inf  # when `_down` has to be looked at again, if nothing moves before

    def __getitem__(self, name: str) -> Breaker:
        return self._all[name]

    def down(self, now: float) -> frozenset[str]:
        """The backends that admit nobody now: open, or with their probe under way."""
        if now >= self._down_until:
            self._refresh(now)
        return self._down

    def _may_open(self) -> bool:
        return len(self._not_closed) < self._most

    def _moved(self, breaker: Breaker, before: State, now: float) -> None:
        if breaker.state is CLOSED:
            del self._not_closed[breaker.name]
        else:
            self._not_closed[breaker.name] = breaker
        self._refresh(now)
        if breaker.state is not before:
            self._on_change(breaker.name, breaker.state)

    def _refresh(self, now: float) -> None:
        shut = [breaker for breaker in self._not_closed.values() if now < breaker.until]
        self._down = frozenset(breaker.name for breaker in shut)
        self._down_until = min((breaker.until for breaker in shut), default=inf)

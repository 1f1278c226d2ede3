"""A backend that keeps failing is left alone and comes back by one probe; never are all left alone."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.resilience.breaker import CLOSED, COUNTED, HALF_OPEN, OPEN, Breaker, Breakers, Limits, State
from router_policies.types import ErrorClass

LIMITS = Limits(
    run=3, share=0.5, volume=10, window_s=10.0, pause_s=2.0, max_pause_s=9.0, probe_s=30.0, max_ejected=0.5
)
WHOLE = 1.0  # the random part that leaves a pause at its whole length


def one(random: float = WHOLE) -> Breaker:
    """A breaker with a neighbour, so that it may open."""
    return Breakers(["a", "b"], LIMITS, random=lambda: random)["a"]


def fail(breaker: Breaker, now: float, times: int = 1) -> None:
    for _ in range(times):
        breaker.failed(now, ErrorClass.CONNECTION)


def calls(breaker: Breaker, pattern: str, now: float) -> None:
    """`-` for a success, `x` for a failure."""
    for outcome in pattern:
        if outcome == "x":
            fail(breaker, now)
        else:
            breaker.succeeded(now)


def opened(now: float = 0.0, random: float = WHOLE) -> Breaker:
    breaker = one(random)
    fail(breaker, now, LIMITS.run)
    assert breaker.state is OPEN
    return breaker


def probing(now: float = 0.0) -> Breaker:
    """Half-open, its probe admitted at `now`."""
    breaker = opened(now - LIMITS.pause_s)
    assert breaker.admits(now)
    assert breaker.state is HALF_OPEN
    return breaker


@pytest.mark.parametrize(
    ("pattern", "state"),
    [
        ("xx", CLOSED),
        ("xxx", OPEN),
        ("xx-xx-xx-", CLOSED),
        ("-x-x-x-x", CLOSED),
        ("-x-x-x-x-x", OPEN),
        ("--x-x-x-x-x", CLOSED),
        ("-------------------------xxx", OPEN),
    ],
    ids=[
        "no run yet",
        "a run",
        "runs cut short",
        "too few calls",
        "the share",
        "under the share",
        "late run",
    ],
)
def test_a_run_or_a_large_share_of_failures_opens(pattern: str, state: State) -> None:
    """Three failures on end, or half of ten calls and more; nothing less."""
    breaker = one()
    calls(breaker, pattern, 0.0)
    assert breaker.state is state
    assert breaker.admits(0.0) == (state is CLOSED)


@pytest.mark.parametrize(("later", "state"), [(4.9, OPEN), (9.9, OPEN), (10.0, CLOSED), (500.0, CLOSED)])
def test_the_share_is_that_of_the_window(later: float, state: State) -> None:
    """Failures of before the window weigh nothing, however long the silence since."""
    breaker = one()
    calls(breaker, "-x-x-x-x", 0.0)
    calls(breaker, "-x", later)
    assert breaker.state is state


@pytest.mark.parametrize("successes", [(4.0, 8.0, 12.0), (9.9,)])
def test_the_window_moves_on_under_traffic_too(successes: tuple[float, ...]) -> None:
    """With calls in between, dense or few, old failures leave the window as well."""
    breaker = one()
    calls(breaker, "xx-xx-xx-", 0.0)
    for now in successes:
        breaker.succeeded(now)
    calls(breaker, "-x-x", 12.5)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("error_class", [e for e in ErrorClass if e not in COUNTED])
def test_what_is_not_the_backends_failure_never_opens(error_class: ErrorClass) -> None:
    """Rate limits and requests that are at fault say nothing about health, however many they are."""
    breaker = one()
    for now in range(100):
        breaker.failed(now, error_class)
    assert breaker.state is CLOSED


@pytest.mark.parametrize("error_class", sorted(COUNTED))
def test_what_is_the_backends_failure_opens(error_class: ErrorClass) -> None:
    """No connection, no answer in time and a 5xx all count."""
    breaker = one()
    for now in range(LIMITS.run):
        breaker.failed(now, error_class)
    assert breaker.state is OPEN


def test_one_probe_at_a_time_after_the_pause() -> None:
    """The first to ask after the pause is admitted, and nobody else until it has said how it went."""
    breaker = opened()
    assert not breaker.admits(LIMITS.pause_s - 0.01)
    assert breaker.admits(LIMITS.pause_s)
    assert not breaker.admits(LIMITS.pause_s)
    breaker.succeeded(LIMITS.pause_s + 1)
    assert breaker.state is CLOSED
    assert breaker.admits(LIMITS.pause_s + 1)


def test_an_overdue_probe_is_given_up() -> None:
    """A probe that never says how it went does not shut the backend out for good."""
    breaker = probing()
    assert not breaker.admits(LIMITS.probe_s - 0.01)
    assert breaker.admits(LIMITS.probe_s)
    assert not breaker.admits(LIMITS.probe_s)


def test_a_probe_that_says_nothing_gives_way_to_the_next() -> None:
    """A client that hung up, or a 429: the next request is the probe, and still one at a time."""
    breaker = probing()
    breaker.unsettled(1.0)
    assert breaker.admits(1.0)
    breaker.failed(2.0, ErrorClass.RATE_LIMIT)
    assert breaker.state is HALF_OPEN
    assert breaker.admits(2.0)
    assert not breaker.admits(2.0)


def test_the_pause_doubles_with_each_probe_that_fails() -> None:
    """2, 4 and 8 seconds, then the longest."""
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(4):
        now = breaker.until
        assert breaker.admits(now)
        fail(breaker, now)
        pauses.append(breaker.until - now)
    assert pauses == [4.0, 8.0, 9.0, 9.0]


@pytest.mark.parametrize(("quiet", "pause"), [(9.0, 4.0), (10.0, 2.0)])
def test_who_relapses_soon_pauses_longer(quiet: float, pause: float) -> None:
    """A backend that fails again within the window of coming back has not recovered; later it starts anew."""
    breaker = probing()
    breaker.succeeded(0.0)
    fail(breaker, quiet, LIMITS.run)
    assert breaker.until - quiet == pause


@pytest.mark.parametrize(("random", "pause"), [(0.0, 1.0), (0.5, 1.5), (1.0, 2.0)])
def test_chance_cuts_up_to_half_of_the_pause(random: float, pause: float) -> None:
    """Gateways that saw the same failure come back at different times."""
    assert opened(random=random).until == pause


def test_late_news_move_nothing_while_open() -> None:
    """Requests that were under way when the breaker opened neither close it nor lengthen the pause."""
    breaker = opened()
    until = breaker.until
    breaker.succeeded(0.5)
    fail(breaker, 0.5, 9)
    breaker.unsettled(0.5)
    assert (breaker.state, breaker.until) == (OPEN, until)


def test_closing_forgets_the_failures() -> None:
    """After a good probe it takes a whole new run, or a whole new share, to open."""
    breaker = probing()
    breaker.succeeded(0.0)
    calls(breaker, "xx-xx-x", 0.0)
    assert breaker.state is CLOSED


@pytest.mark.parametrize(("backends", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_half_of_the_backends_at_most_are_left_alone(backends: int, most: int) -> None:
    """When all fail, half are ejected and never the last; the others are still asked."""
    names = [str(n) for n in range(backends)]
    breakers = Breakers(names, LIMITS, random=lambda: WHOLE)
    for name in names:
        fail(breakers[name], 0.0, 20)
    assert breakers.down(0.0) == frozenset(names[:most])


def test_all_but_one_where_all_may_be_ejected() -> None:
    """A share of 100 % still leaves one."""
    breakers = Breakers(["a", "b"], Limits(max_ejected=1.0), random=lambda: WHOLE)
    for name in ("a", "b"):
        fail(breakers[name], 0.0, 20)
    assert breakers.down(0.0) == {"a"}


def test_room_is_taken_once_it_is_there() -> None:
    """Who could not be ejected is, by its next failure, once another has come back."""
    breakers = Breakers(["a", "b"], LIMITS, random=lambda: WHOLE)
    fail(breakers["a"], 0.0, LIMITS.run)
    fail(breakers["b"], 0.0, LIMITS.run)
    assert breakers["a"].admits(2.0)
    breakers["a"].succeeded(2.0)
    assert breakers.down(2.0) == frozenset()
    fail(breakers["b"], 2.0)
    assert breakers.down(2.0) == {"b"}


def test_each_change_of_state_is_told_once() -> None:
    """The listener hears names and states in order, and nothing when a probe merely gives way."""
    heard: list[tuple[str, State]] = []
    breakers = Breakers(
        ["a", "b"], LIMITS, random=lambda: WHOLE, on_change=lambda name, state: heard.append((name, state))
    )
    breaker = breakers["a"]
    fail(breaker, 0.0, 9)
    assert breaker.admits(2.0)
    breaker.unsettled(2.0)
    assert breaker.admits(2.0)
    breaker.succeeded(3.0)
    assert heard == [("a", OPEN), ("a", HALF_OPEN), ("a", CLOSED)]


NAMES = ("a", "b", "c", "d")
names = st.sampled_from(NAMES)


class Traffic(RuleBasedStateMachine):
    """Requests to four backends that come, end and are forgotten in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breakers = Breakers(NAMES, LIMITS, random=lambda: 0.5)
        self.probes: dict[str, float] = {}  # backend -> when its probe was admitted

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 31.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(name=names)
    def ask(self, name: str) -> None:
        closed, down = self.breakers[name].state is CLOSED, self.breakers.down(self.now)
        admitted = self.breakers[name].admits(self.now)
        assert admitted == (name not in down)
        if admitted and not closed:
            assert self.now - self.probes.get(name, -100.0) >= LIMITS.probe_s, "two probes at once"
            self.probes[name] = self.now

    @rule(name=names)
    def succeed(self, name: str) -> None:
        self.breakers[name].succeeded(self.now)
        self.probes.pop(name, None)

    @rule(name=names, error_class=st.sampled_from(ErrorClass), times=st.integers(1, 4))
    def fail(self, name: str, error_class: ErrorClass, times: int) -> None:
        for _ in range(times):
            self.breakers[name].failed(self.now, error_class)
        self.probes.pop(name, None)

    @invariant()
    def half_are_left(self) -> None:
        """Never more than half are not closed, and none is down that is closed."""
        ejected = {name for name in NAMES if self.breakers[name].state is not CLOSED}
        assert len(ejected) <= 2
        assert self.breakers.down(self.now) <= ejected

    def teardown(self) -> None:
        """Whatever happened, each backend that answers again is back after its pause and one probe."""
        self.now += LIMITS.probe_s + LIMITS.max_pause_s
        for name in NAMES:
            assert self.breakers[name].admits(self.now)
            self.breakers[name].succeeded(self.now)
            assert self.breakers[name].state is CLOSED
        assert self.breakers.down(self.now) == frozenset()


Traffic.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


class TestTraffic(Traffic.TestCase):
    """In any order of events: at most half ejected, one probe at a time, `down` is who admits nobody."""

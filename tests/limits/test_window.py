"""What the last minute held: never more than was let in, and no more is kept out than a second's worth."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.limits.window import MINUTE_S, Counter, Window
from gateway.rates import Rates

steps = st.lists(st.tuples(st.floats(0, 30), st.integers(1, 5)), max_size=60)


@given(steps, st.integers(1, 12))
def test_no_minute_holds_more_than_its_limit(steps: list[tuple[float, int]], limit: int) -> None:
    """Every span of 60 seconds holds at most the limit; what is told to wait fits then."""
    counter, rates, now = Counter(), Rates(tokens=limit), 1000.0
    taken: list[tuple[float, int]] = []
    for pause, amount in steps:
        now += pause
        lack = counter.lack(rates, amount, now)
        if lack is None:
            counter.tokens.add(int(now), amount)
            taken.append((now, amount))
        elif amount <= limit:
            assert lack[0] == "tokens"
            assert 0 < lack[1] <= MINUTE_S + 1
            recent = sum(a for at, a in taken if now - at <= MINUTE_S + 1)
            assert recent + amount > limit  # nobody is refused without need
            assert counter_after(counter, rates, amount, now + lack[1]) is None
            break  # looking ahead has let go of what was there
        for at, _ in taken:
            assert sum(a for t, a in taken if at <= t < at + MINUTE_S) <= limit


def counter_after(counter: Counter, rates: Rates, amount: int, now: float) -> object:
    return counter.lack(rates, amount, now)


def test_what_was_used_corrects_what_was_expected() -> None:
    """Less is given back where it was taken; more counts from when it is known."""
    window = Window()
    entry = window.add(10, 100)
    window.correct(entry, 20, -60)
    assert window.total == 40
    window.correct(entry, 30, 5)
    assert window.total == 45
    window.expire(72)
    assert window.total == 5
    window.correct(entry, 72, -40)  # its minute is over: there is nothing to give back to
    assert window.total == 5
    window.expire(92)
    assert (window.total, window.wait_s(92.0, 1)) == (0, 0.0)


def test_requests_and_requests_at_once() -> None:
    """The first kind that has no room is named."""
    counter = Counter()
    counter.concurrent = 2
    assert counter.lack(Rates(concurrent=2, requests=9), 1, 5.0) == ("concurrent", 1.0)
    assert counter.lack(Rates(concurrent=3, requests=9), 1, 5.0) is None
    counter.requests.add(5, 9)
    assert counter.lack(Rates(requests=9), 1, 5.5) == ("requests", 60.5)


def test_what_no_limit_asks_for_does_not_pile_up() -> None:
    """A key that is only held to so many requests at once keeps no more than a minute of the rest."""
    counter = Counter()
    for second in range(10_000):
        assert counter.lack(Rates(concurrent=1), 5, float(second)) is None
        counter.give_back(counter.take(second, 5), second, 1)
    assert max(len(counter.requests._seconds), len(counter.tokens._seconds)) <= MINUTE_S + 2

"""How fast backends answer of late."""

from msgspec.structs import replace

from gateway.monitor.live import KEPT, LATEST_S, MOST_PLACES, READ_S, Speeds
from gateway.types import Entry, Outcome, Usage
from tests.ledger.samples import entry


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def answered(first_byte_ms: float, duration_ms: float, tokens: int, **changes: object) -> Entry:
    usage = Usage(input_tokens=100, cached_input_tokens=50, output_tokens=tokens)
    made = replace(entry("c"), backend="b", model="m", stream=True, outcome=Outcome.OK, usage=usage)
    return replace(made, first_byte_ms=first_byte_ms, duration_ms=duration_ms, **changes)


def test_medians_of_the_latest_answers() -> None:
    """First byte and rate are medians, so that one slow answer does not count for much; old ones go."""
    clock = Clock()
    speeds = Speeds(clock)
    assert speeds.get(("b", "m")) is None
    for first_byte in (100, 200, 9000):
        speeds.settled(answered(first_byte, first_byte + 1000, 50))
    clock.now += READ_S * 2
    speed = speeds[("b", "m")]
    assert (speed.first_byte_s, speed.tokens_per_s, speed.cached) == (0.2, 50.0, 0.5)
    for _ in range(KEPT):
        speeds.settled(answered(400, 1400, 20))
    clock.now += READ_S * 2
    assert speeds[("b", "m")].first_byte_s == 0.4
    clock.now += LATEST_S
    assert ("b", "m") not in speeds
    assert len(speeds) == 0


def test_an_answer_that_came_whole() -> None:
    """Of it only the time by the token is known."""
    clock = Clock()
    speeds = Speeds(clock)
    speeds.settled(answered(1000, 1001, 100, stream=False))
    clock.now += 1
    assert (speeds[("b", "m")].first_byte_s, speeds[("b", "m")].tokens_per_s) == (0.0, 100.0)


def test_failures_say_nothing_and_names_do_not_pile_up() -> None:
    """A request that failed is no measure, and clients that name models without end fill no memory."""
    speeds = Speeds(Clock())
    speeds.settled(answered(1, 2, 3, outcome=Outcome.INTERRUPTED))
    assert list(speeds) == []
    for number in range(MOST_PLACES + 50):
        speeds.settled(answered(1, 2, 3, model=f"m{number}"))
    assert len(speeds._places) == MOST_PLACES

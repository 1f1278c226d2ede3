"""How fast each model at each backend has answered of late: what `fastest` and `cheapest` go by."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from statistics import median
from typing import NamedTuple

from gateway.types import Entry, Outcome
from router_policies.types import Place, Speed

LATEST_S = 120.0  # an answer older than that says nothing any more
KEPT = 32  # answers of each place
MOST_PLACES = 512  # clients can name models without end
READ_S = 0.5  # for which a reading is good


class _Answer(NamedTuple):
    at: float
    first_byte_s: float
    tokens_per_s: float | None  # None: too few tokens, or all at once
    prompt: int
    cached: int


class _Answers:
    """The last answers of one place, and what was last read of them."""

    def __init__(self) -> None:
        self.latest: deque[_Answer] = deque(maxlen=KEPT)
        self.speed: Speed | None = None
        self.read_at = float("-inf")


class Speeds(Mapping[Place, Speed]):
    """By backend and model; places whose answers are too old are not there. For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places: dict[Place, _Answers] = {}

    def settled(self, entry: Entry) -> None:
        """A request has its row."""
        if entry.first_byte_ms is None or entry.outcome is not Outcome.OK:
            return
        place = (entry.backend, entry.model)
        answers = self._places.get(place)
        if answers is None:
            if len(self._places) >= MOST_PLACES:
                del self._places[next(iter(self._places))]  # the oldest
            answers = self._places[place] = _Answers()
        answers.latest.append(_answer(entry, self._clock()))

    def get(self, place: Place, default: Speed | None = None) -> Speed | None:  # type: ignore[override]
        answers = self._places.get(place)
        if answers is None:
            return default
        now = self._clock()
        if now - answers.read_at > READ_S:
            answers.speed, answers.read_at = _speed(answers.latest, now - LATEST_S), now
        return answers.speed or default

    def __getitem__(self, place: Place) -> Speed:
        speed = self.get(place)
        if speed is None:
            raise KeyError(place)
        return speed

    def __iter__(self) -> Iterator[Place]:
        return (place for place in self._places if self.get(place) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _answer(entry: Entry, now: float) -> _Answer:
    first_byte_ms = entry.first_byte_ms or 0.0
    usage, rest_s = entry.usage, (entry.duration_ms - first_byte_ms) / 1e3
    streamed = entry.stream and usage.output_tokens > 1 and rest_s > 0
    if streamed:
        rate: float | None = usage.output_tokens / rest_s
        first_byte_s = first_byte_ms / 1e3
    else:  # it came whole: all that can be said is how long it took, by the token
        rate = usage.output_tokens / (first_byte_ms / 1e3) if usage.output_tokens and first_byte_ms else None
        first_byte_s = 0.0 if rate else first_byte_ms / 1e3
    return _Answer(now, first_byte_s, rate, usage.input_tokens, usage.cached_input_tokens)


def _speed(latest: deque[_Answer], since: float) -> Speed | None:
    answers = [answer for answer in latest if answer.at >= since]
    if not answers:
        return None
    rates = [answer.tokens_per_s for answer in answers if answer.tokens_per_s is not None]
    prompt = sum(answer.prompt for answer in answers)
    return Speed(
        first_byte_s=median(answer.first_byte_s for answer in answers),
        tokens_per_s=median(rates) if rates else float("inf"),
        cached=sum(answer.cached for answer in answers) / prompt if prompt else 0.0,
    )

"""How the work of a backend is paid for: by the token where it is rented, by the hour where it is ours."""

import time
from typing import Protocol

from gateway.ledger.prices import PriceBook, Priced
from gateway.ledger.selfhost import BusyMeter
from gateway.types import Usage


class Charge(Protocol):
    """What one backend's work costs."""

    def start(self) -> int:
        """An attempt begins; returns the token to finish it with."""
        ...

    def finish(self, token: int, model: str, usage: Usage, at_ns: int) -> Priced:
        """`at_ns`: when the request began, which says what price holds."""
        ...

    def estimate(self, model: str, usage: Usage, at_ns: int) -> Priced:
        """For the row of a call whose end nobody saw."""
        ...

    def most(self, model: str, usage: Usage, at_ns: int, *, made: bool = False) -> int:
        """Nano-dollars to hold for a call of at most this usage; 0 where its price is unknown.

        `made`: audio or images may be in the answer.
        """
        ...


class ByToken:
    """Rented: tokens at the price book's rates."""

    def __init__(self, prices: PriceBook, provider: str) -> None:
        self._prices, self._provider = prices, provider

    def start(self) -> int:
        return 0

    def finish(self, token: int, model: str, usage: Usage, at_ns: int) -> Priced:
        return self._prices.cost(model, self._provider, usage, at_ns)

    def estimate(self, model: str, usage: Usage, at_ns: int) -> Priced:
        return self._prices.cost(model, self._provider, usage, at_ns)

    def most(self, model: str, usage: Usage, at_ns: int, *, made: bool = False) -> int:
        return self._prices.most(model, self._provider, usage, at_ns, made=made)


class ByTheHour:
    """Owned: an hourly rate, shared by whatever is in flight on the replica."""

    _HELD_S = 30  # what a request is held at, until its share of the time is known

    def __init__(self, nano_per_hour: int) -> None:
        self._meter = BusyMeter(nano_per_hour, time.monotonic_ns())

    def start(self) -> int:
        return self._meter.start(time.monotonic_ns())

    def finish(self, token: int, model: str, usage: Usage, at_ns: int) -> Priced:
        return Priced(cost_nano=self._meter.finish(token, time.monotonic_ns()), source=self._meter.source)

    def estimate(self, model: str, usage: Usage, at_ns: int) -> Priced:
        """Unknown: the time that it took is gone with the process."""
        return Priced(cost_nano=None, source=self._meter.source)

    def most(self, model: str, usage: Usage, at_ns: int, *, made: bool = False) -> int:
        return self._meter.nano_per_hour * self._HELD_S // 3600

"""What the last minute held. One event loop, no locks: nothing comes between looking and taking."""

from collections import deque

from gateway.rates import Rates

MINUTE_S = 60


class Window:
    """Amounts by whole seconds. What was added counts for 60 seconds, and for up to one more: no span of 60
    seconds, wherever it begins, holds more than was let in.
    """

    __slots__ = ("_seconds", "total")

    def __init__(self) -> None:
        self.total = 0
        self._seconds: deque[list[int]] = deque()  # of second and amount, the oldest first

    def expire(self, second: int) -> None:
        seconds = self._seconds
        while seconds and seconds[0][0] < second - MINUTE_S:
            self.total -= seconds.popleft()[1]

    def add(self, second: int, amount: int) -> list[int]:
        """Returns the entry, for `correct`."""
        seconds = self._seconds
        if seconds and seconds[0][0] < second - MINUTE_S:  # also where no limit ever asks
            self.expire(second)
        self.total += amount
        if seconds and seconds[-1][0] == second:
            entry = seconds[-1]
            entry[1] += amount
        else:
            entry = [second, amount]
            seconds.append(entry)
        return entry

    def correct(self, entry: list[int], second: int, by: int) -> None:
        """What was added before came to more, which counts from now, or to less, which never was."""
        self.expire(second)
        if by > 0:
            self.add(second, by)
        elif self._seconds and entry[0] >= self._seconds[0][0]:  # else it is gone with its minute
            entry[1] += by
            self.total += by

    def wait_s(self, now_s: float, excess: int) -> float:
        """Until so much of what is there is gone."""
        gone, last = 0, 0
        for second, amount in self._seconds:
            gone, last = gone + amount, second
            if gone >= excess:
                break
        return last + MINUTE_S + 1 - now_s if self._seconds else 0.0


class Counter:
    """All that is counted for one key, team or route."""

    __slots__ = ("concurrent", "requests", "tokens")

    def __init__(self) -> None:
        self.requests, self.tokens, self.concurrent = Window(), Window(), 0

    def lack(self, rates: Rates, tokens: int, now_s: float) -> tuple[str, float] | None:
        """What there is no room for, and for how long as far as is known; None: there is room for all."""
        second = int(now_s)
        if rates.concurrent is not None and self.concurrent >= rates.concurrent:
            return "concurrent", 1.0
        if rates.requests is not None:
            self.requests.expire(second)
            if (over := self.requests.total + 1 - rates.requests) > 0:
                return "requests", self.requests.wait_s(now_s, over)
        if rates.tokens is not None:
            self.tokens.expire(second)
            if (over := self.tokens.total + tokens - rates.tokens) > 0:
                return "tokens", self.tokens.wait_s(now_s, over)
        return None

    def take(self, second: int, tokens: int) -> list[int]:
        """Counts a request. Returns what `give_back` needs."""
        self.concurrent += 1
        self.requests.add(second, 1)
        return self.tokens.add(second, tokens)

    def give_back(self, entry: list[int], second: int, by: int) -> None:
        """The request is over, and used so many tokens more than were counted."""
        self.concurrent -= 1
        self.tokens.correct(entry, second, by)

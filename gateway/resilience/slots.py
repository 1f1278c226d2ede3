"""How many requests may be under way at once: at a backend, or in the whole process.

Who finds all slots taken waits in a bounded queue, first come first served, or is told when to come again.
A slot that is released goes straight to the first who waits, so that nobody slips in between. One event loop,
no locks.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from math import ceil

from gateway.errors import BackendError
from router_policies.types import ErrorClass

LATEST_S = 60  # the longest that anybody is told to stay away
_NEWEST = 0.2  # weight of the newest gap between releases


class Busy(BackendError):
    """No slot was free, and none would be in time.

    Of class RATE_LIMIT, because it is what a 429 of the backend's own would say: fallbacks and retries treat
    it so, and no breaker counts it. With status 503, because it is not this client that asks too much.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            ErrorClass.RATE_LIMIT,
            "The backend is at work on as many requests as it takes. Please try again shortly.",
            status=503,
            code="backend_busy",
            retry_after=str(retry_after_s),
        )


class Slots:
    """`in_use` never passes `limit`. Each slot that is acquired must be released, once."""

    def __init__(
        self, limit: int, *, max_queue: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit, self.in_use = limit, 0
        self._max_queue, self._clock = max_queue, clock
        self._queue: deque[asyncio.Future[bool]] = deque()
        self._gap_s = 0.0  # between two releases while all slots are taken: hold time / limit
        self._since = 0.0  # of the present gap

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def retry_after_s(self) -> int:
        """Whole seconds until all who wait will have had a slot, as far as the last releases tell."""
        gap_s = self._gap_s
        if self.in_use == self.limit:
            gap_s = max(gap_s, self._clock() - self._since)
        return max(1, min(LATEST_S, ceil(gap_s * (self.waiting + 1))))

    def try_acquire(self) -> bool:
        """Takes a slot if one is free. Overtakes nobody: while someone waits, none is."""
        if self.in_use == self.limit:
            return False
        self.in_use += 1
        if self.in_use == self.limit:
            self._since = self._clock()
        return True

    async def acquire(self, timeout_s: float) -> None:
        """Takes a slot, waiting for one if need be. Raises Busy; then, and when cancelled, it holds none."""
        if self.try_acquire():
            return
        if self.waiting >= self._max_queue:
            raise Busy(self.retry_after_s)
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        self._queue.append(turn)
        timer = loop.call_later(timeout_s, self._give_up, turn)
        try:
            granted = await turn
        except asyncio.CancelledError:
            self._withdraw(turn)
            raise
        finally:
            timer.cancel()
        if not granted:
            raise Busy(self.retry_after_s)

    def release(self) -> None:
        """Gives a slot back, to the first who waits if somebody does."""
        if not self.in_use:
            raise RuntimeError("a slot was released that nobody held")
        if self.in_use == self.limit:
            now = self._clock()
            self._gap_s += (_NEWEST if self._gap_s else 1.0) * (now - self._since - self._gap_s)
            self._since = now
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():  # else its task was cancelled and has not run since
                turn.set_result(True)
                return
        self.in_use -= 1

    def _give_up(self, turn: asyncio.Future[bool]) -> None:
        if not turn.done():
            self._queue.remove(turn)
            turn.set_result(False)

    def _withdraw(self, turn: asyncio.Future[bool]) -> None:
        """Its task was cancelled: while it waited, or after its turn had come and before it ran."""
        if turn.cancelled():
            if turn in self._queue:
                self._queue.remove(turn)
        elif turn.result():
            self.release()


class Outstanding(Mapping[str, int]):
    """By name, how many requests hold slots or wait for one, now."""

    def __init__(self, slots: Mapping[str, Slots]) -> None:
        self._slots = slots

    def __getitem__(self, name: str) -> int:
        slots = self._slots[name]
        return slots.in_use + slots.waiting

    def __iter__(self) -> Iterator[str]:
        return iter(self._slots)

    def __len__(self) -> int:
        return len(self._slots)

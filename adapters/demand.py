"""More adapters than slots: what is asked for and not loaded anywhere is brought in, in place of another.

Requests for one release wait for one load, however many they are (single flight), and no longer than they are
given; then they are told, and the route's policy may send them elsewhere. What goes is chosen by
`adapters.slots`, never while this gateway has requests in flight on it. vLLM unloads a name and not the work
that goes on under it, so what another gateway has in flight ends well too; its next request loads again.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from adapters.errors import NoSlot, ProbeFailed
from adapters.fleet import Fleet
from adapters.probe import in_brief
from adapters.slots import Slots
from adapters.store import ArtifactStore

LOOK_AGAIN_S = 0.05  # for a slot whose adapter has no request in flight any more


class Demand:
    """Of one gateway. `busy(release)` is the number of requests that it is answering here."""

    def __init__(
        self,
        fleet: Fleet,
        store: ArtifactStore,
        slots: Slots,
        *,
        busy: Callable[[str], int],
        healthy: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fleet, self._store, self._slots, self._busy = fleet, store, slots, busy
        self._healthy, self._clock = healthy, clock
        self._coming: dict[str, asyncio.Task[None]] = {}
        self._reserved: dict[str, set[str]] = {name: set() for name in fleet.names}
        self.hits = self.misses = 0

    async def ensure(self, release: str, wait_s: float) -> None:
        """Return when a replica serves `release`. Raises NoSlot when that takes longer, or AdapterError."""
        self._slots.used(release)
        if any(release in there for there in self._fleet.served().values()):
            self.hits += 1
            return
        self.misses += 1
        coming = self._coming.get(release)
        if coming is None:
            coming = self._coming[release] = asyncio.create_task(self._bring_in(release, wait_s))
            coming.add_done_callback(lambda _: self._coming.pop(release, None))
        try:
            async with asyncio.timeout(wait_s):
                await asyncio.shield(coming)
        except TimeoutError:
            raise NoSlot(release, wait_s) from None

    async def aclose(self) -> None:
        """Ends what is under way."""
        for coming in list(self._coming.values()):
            coming.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)

    async def _bring_in(self, release: str, wait_s: float) -> None:
        until = self._clock() + wait_s
        while (place := self._slots.place(release, self._loaded(), self._in_use())) is None:
            if self._clock() >= until:
                raise NoSlot(release, wait_s)
            await asyncio.sleep(LOOK_AGAIN_S)
        self._reserved[place.replica].add(release)
        started = self._clock()
        try:
            if place.victim is not None:
                self._slots.went(place.victim)
                await self._fleet.unload(place.replica, place.victim)
            await self._load(place.replica, release)
        finally:
            self._reserved[place.replica].discard(release)
        self._slots.cost(release, self._clock() - started)

    async def _load(self, replica: str, release: str) -> None:
        path = self._store.path(release)
        await self._fleet.load(replica, release, path)
        if self._fleet.proved_before(replica, release, path):
            return
        manifest = await asyncio.to_thread(self._store.get, release)
        try:
            # It has passed all of its probes in its rollout, and its files have just been digested again.
            await self._fleet.prove(replica, in_brief(manifest), path)
        except ProbeFailed:
            await self._fleet.unload(replica, release)
            raise

    def _loaded(self) -> dict[str, set[str]]:
        served, healthy = self._fleet.served(), self._healthy()
        return {name: {*served[name], *self._reserved[name]} for name in self._fleet.names if name in healthy}

    def _in_use(self) -> set[str]:
        there = {one for loaded in self._fleet.served().values() for one in loaded}
        coming = {one for reserved in self._reserved.values() for one in reserved}
        return {one for one in there if self._busy(one) > 0} | coming

"""Desired against actual, on every replica, always.

vLLM forgets its adapters when it restarts and a load reaches one replica only (vllm#12174). So each replica
is looked at again and again: what an alias needs and is not served there is loaded and probed; what no alias
needs any longer is unloaded once its traffic has drained. Each replica has a loop of its own: one that hangs
holds up nobody else. Adapters that the registry does not know are left alone.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from adapters.errors import AdapterError, NotServable, ProbeFailed, ReplicaError, UnknownRelease
from adapters.fleet import Fleet
from adapters.registry import Alias, Registry, wanted
from adapters.states import DROPPABLE, State
from adapters.store import ArtifactStore

INTERVAL_S = 0.5  # so that an alias moved by another gateway is seen within a second
GRACE_S = 10.0  # for other gateways to see that an alias has moved, before what it left is unloaded
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
NS = 1_000_000_000
log = logging.getLogger(__name__)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What can be routed to now."""

    aliases: Mapping[str, str] = {}  # alias -> release, where at least one replica serves the release
    replicas: Mapping[str, frozenset[str]] = {}  # replica -> the releases it was seen to serve rightly

    def on(self, release: str) -> frozenset[str]:
        """The replicas that serve a release."""
        return frozenset(name for name, releases in self.replicas.items() if release in releases)


class Tended(msgspec.Struct, frozen=True, kw_only=True):
    """What one look at one replica found and did. `failed` says why, by release; "" is the replica itself."""

    replica: str
    loaded: tuple[str, ...] = ()  # and probed
    unloaded: tuple[str, ...] = ()
    failed: Mapping[str, str] = {}


class _Retry(NamedTuple):
    due: float
    delay: float


class Reconciler:
    """Keeps the fleet as the registry wants it.

    `in_flight(release)` is the number of requests that a release is answering here. `on_change` is called, in
    the event loop, with each new `Served`.
    """

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        store: ArtifactStore,
        *,
        in_flight: Callable[[str], int] = lambda release: 0,
        on_change: Callable[[Served], None] = lambda served: None,
        interval_s: float = INTERVAL_S,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._fleet, self._registry, self._store = fleet, registry, store
        self._in_flight, self._on_change = in_flight, on_change
        self._interval_s, self._grace_s, self._clock, self._clock_ns = interval_s, grace_s, clock, clock_ns
        self._aliases: Mapping[str, Alias] = {}
        self._aliases_known = asyncio.Event()
        self._retries: dict[tuple[str, str], _Retry] = {}
        self._told = Served()
        self.tended: dict[str, Tended] = {}  # by replica, what the last look found and did
        self._changes = 0

    @property
    def changes(self) -> int:
        """Grows whenever `served` or `tended` may have changed: cheaper to ask than either."""
        return self._changes + self._fleet.changes

    @property
    def served(self) -> Served:
        replicas = self._fleet.served()
        anywhere = frozenset[str]().union(*replicas.values())
        aliases = {name: to.release for name, to in self._aliases.items() if to.release in anywhere}
        return Served(aliases=aliases, replicas=replicas)

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self.refresh))
            for name in self._fleet.names:
                loops.create_task(self._tend_always(name))

    async def _tend_always(self, name: str) -> None:
        await self._aliases_known.wait()  # a first look without them would find nothing to do
        await self._repeat(partial(self.tend, name))

    async def _repeat(self, step: Callable[[], Awaitable[object]]) -> None:
        while True:
            try:
                await step()
            except (AdapterError, SQLAlchemyError, OSError):
                # The database or the store is away: what is served stays as it is, and the loop must survive.
                log.exception("reconciling adapters failed; it will be tried again")
            await asyncio.sleep(self._interval_s)

    async def reconcile_once(self) -> tuple[Tended, ...]:
        """Look at the aliases, then once at every replica."""
        await self.refresh()
        return tuple(await asyncio.gather(*(self.tend(name) for name in self._fleet.names)))

    async def refresh(self) -> Served:
        """Read the aliases again: call it after a release or a rollback to have it seen at once."""
        aliases = await asyncio.to_thread(self._registry.aliases)
        if aliases != self._aliases:
            self._aliases = aliases
            self._changes += 1
        self._aliases_known.set()
        return self._publish()

    async def tend(self, name: str) -> Tended:
        """Look at one replica, load what is missing there, unload what is not needed."""
        try:
            tended = await self._tend(name)
        except ReplicaError as error:
            tended = Tended(replica=name, failed={"": error.reason})
        self._publish()
        if tended != self.tended.get(name, Tended(replica=name)):
            log.info("adapters on %s: %s", name, tended)
        if tended != self.tended.get(name):
            self.tended[name] = tended
            self._changes += 1
        return tended

    async def _tend(self, name: str) -> Tended:
        loaded = [model.id for model in await self._fleet.observe(name)]
        self._publish()
        needed = wanted(self._aliases)
        came, failed = await self._load_missing(name, sorted(needed - self._fleet.served()[name]))
        went = await self._unload_surplus(name, [release for release in loaded if release not in needed])
        return Tended(replica=name, loaded=came, unloaded=went, failed=failed)

    async def _load_missing(self, name: str, releases: list[str]) -> tuple[tuple[str, ...], dict[str, str]]:
        came: list[str] = []
        failed: dict[str, str] = {}
        for release in releases:
            retry = self._retries.get((name, release))
            if retry is not None and self._clock() < retry.due:
                continue
            try:
                await self._bring_up(name, release)
            except AdapterError as error:
                failed[release] = str(error)
                self._postpone(name, release, retry)
            else:
                came.append(release)
                self._retries.pop((name, release), None)
        return tuple(came), failed

    async def _bring_up(self, name: str, release: str) -> None:
        manifest = await asyncio.to_thread(self._store.get, release)
        await asyncio.to_thread(self._registry.register, manifest)  # refuses another manifest than before
        path = self._store.path(release)
        await self._fleet.load(name, release, path)
        try:
            await self._fleet.prove(name, manifest, path)
        except ProbeFailed:
            await self._fleet.unload(name, release)  # what answers wrongly must not answer at all
            raise

    def _postpone(self, name: str, release: str, retry: _Retry | None) -> None:
        delay = FIRST_RETRY_S if retry is None else min(2 * retry.delay, LAST_RETRY_S)
        self._retries[name, release] = _Retry(self._clock() + delay, delay)

    async def _unload_surplus(self, name: str, releases: list[str]) -> tuple[str, ...]:
        went: list[str] = []
        for release in releases:
            if self._in_flight(release) == 0 and await asyncio.to_thread(self._retire, release):
                await self._fleet.unload(name, release)
                went.append(release)
        return tuple(went)

    def _retire(self, release: str) -> bool:
        """Whether replicas may drop a release. It is not stable then, so no alias can be moved to it."""
        try:
            state = self._registry.version(release).state
        except UnknownRelease:
            return False
        aliases = self._registry.aliases()
        if release in wanted(aliases) or self._moved_lately(aliases, release):
            return False
        if state is State.STABLE:
            with contextlib.suppress(NotServable):  # another loop or another gateway was quicker
                self._registry.advance(release, State.RETIRED)
        # Looked at again: an alias may have been moved to it until the moment at which it was retired.
        droppable = self._registry.version(release).state in DROPPABLE
        return droppable and release not in self._registry.wanted()

    def _moved_lately(self, aliases: Mapping[str, Alias], release: str) -> bool:
        since = self._clock_ns() - round(self._grace_s * NS)
        return any(to.moved_ns > since for to in aliases.values() if _name(to.release) == _name(release))

    def _publish(self) -> Served:
        served = self.served
        if served != self._told:
            self._told = served
            self._on_change(served)
        return served


def _name(release: str) -> str:
    return release.partition("@")[0]

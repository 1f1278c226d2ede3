"""Desired against actual, on every replica, always.

vLLM forgets its adapters when it restarts and a load reaches one replica only (vllm#12174). So each replica
is looked at again and again: what an alias needs and is not served there is loaded and probed; what no alias
needs any longer is unloaded once its traffic has drained. Each replica has a loop of its own: one that hangs
holds up nobody else. Adapters that the registry does not know are left alone.

An alias moves here once this process has proved its new release on a replica, so that there is no moment in
which it leads nowhere. What another gateway is rolling out is proved here before its alias moves, where that
gateway takes long enough; what it takes after that is a probe.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from adapters.errors import AdapterError, NotServable, ProbeFailed, ReplicaError, UnknownRelease
from adapters.fleet import Fleet
from adapters.names import CANARY, PREVIOUS, STABLE, alias_of
from adapters.registry import Alias, Desired, Registry
from adapters.slots import Slots
from adapters.states import DROPPABLE, State
from adapters.store import ArtifactStore

INTERVAL_S = 0.5  # between two looks at one replica
REFRESH_S = 0.25  # between two looks at the aliases: with a probe, a move by another gateway takes under 1 s
HOLD_S = 5.0  # for which an alias may lead where it led before, while its new release is not proved here
GRACE_S = 10.0  # for other gateways to see that an alias has moved, before what it left is unloaded
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 60.0
NS = 1_000_000_000
log = logging.getLogger(__name__)


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A release that answers a share of the traffic of an alias."""

    alias: str  # "name@stable"
    release: str
    weight: float  # in (0, 1)


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What can be routed to now."""

    aliases: Mapping[str, str] = {}  # alias -> release, where at least one replica serves the release
    canaries: tuple[Canary, ...] = ()
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

    With `slots`, and more releases than fit, only pinned ones are loaded here; `adapters.demand` brings in
    the others. `in_flight(release)` is the number of requests that a release is answering here. `on_change`
    is called, in the event loop, with each new `Served`.
    """

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        store: ArtifactStore,
        *,
        in_flight: Callable[[str], int] = lambda release: 0,
        on_change: Callable[[Served], None] = lambda served: None,
        slots: Slots | None = None,
        interval_s: float = INTERVAL_S,
        grace_s: float = GRACE_S,
        clock: Callable[[], float] = time.monotonic,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._fleet, self._registry, self._store = fleet, registry, store
        self._in_flight, self._on_change, self._slots = in_flight, on_change, slots
        self._interval_s, self._grace_s, self._clock, self._clock_ns = interval_s, grace_s, clock, clock_ns
        self._desired = Desired()
        self._desired_known = asyncio.Event()
        self._news = {name: asyncio.Event() for name in fleet.names}  # that a loop need not wait for
        self._moves: dict[str, tuple[int, float]] = {}  # alias -> its last move, when it was seen here
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
        blocked = self._desired.blocked
        replicas = {name: releases - blocked for name, releases in self._fleet.served().items()}
        anywhere = frozenset[str]().union(*replicas.values())
        aliases = {}
        for name, to in self._desired.aliases.items():
            if (release := self._leads_to(to, anywhere)) is not None:
                aliases[name] = release
                if name.endswith(f"@{STABLE}") and to.previous in anywhere and to.previous != release:
                    aliases[alias_of(_name(name), PREVIOUS)] = to.previous
        return Served(aliases=aliases, canaries=self._canaries(aliases), replicas=replicas)

    def _leads_to(self, to: Alias, anywhere: frozenset[str]) -> str | None:
        """The release that an alias stands for here and now; None: none that is served."""
        if to.release in anywhere or self._on_demand:
            return to.release
        moved_ns, seen = self._moves.get(to.alias, (0, -math.inf))
        held = moved_ns == to.moved_ns and self._clock() < seen + HOLD_S
        if held and to.previous in anywhere and self._told.aliases.get(to.alias) == to.previous:
            return to.previous
        return None

    @property
    def needed(self) -> frozenset[str]:
        """The releases that aliases lead to, or led to before: nothing else is brought in on demand."""
        return self._desired.needed

    @property
    def _on_demand(self) -> bool:
        return self._slots is not None and len(self._desired.needed) > self._slots.capacity

    def _missing(self, loaded: Collection[str]) -> frozenset[str]:
        """What a replica should serve. Of what is loaded on demand, that is what it has loaded already."""
        needed, slots = self._desired.needed, self._slots
        if slots is None or not self._on_demand:
            return needed
        return frozenset(one for one in needed if one in loaded or slots.is_pinned(one))

    def _canaries(self, aliases: Mapping[str, str]) -> tuple[Canary, ...]:
        return tuple(
            Canary(alias=alias_of(trial.name, STABLE), release=trial.release, weight=trial.weight)
            for trial in self._desired.trials
            if aliases.get(alias_of(trial.name, CANARY)) == trial.release
        )

    async def run(self) -> None:
        """Run until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._repeat(self.refresh, min(REFRESH_S, self._interval_s)))
            for name in self._fleet.names:
                loops.create_task(self._tend_always(name))

    async def _tend_always(self, name: str) -> None:
        await self._desired_known.wait()  # a first look without it would find nothing to do
        await self._repeat(partial(self.tend, name), self._interval_s, self._news[name])

    async def _repeat(
        self, step: Callable[[], Awaitable[object]], every_s: float, news: asyncio.Event | None = None
    ) -> None:
        """Again and again; at once where there is news."""
        news = news or asyncio.Event()
        while True:
            news.clear()
            try:
                await step()
            except (AdapterError, SQLAlchemyError, OSError):
                # The database or the store is away: what is served stays as it is, and the loop must survive.
                log.exception("reconciling adapters failed; it will be tried again")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s):  # not wait_for, which can swallow a cancellation
                    await news.wait()

    async def reconcile_once(self) -> tuple[Tended, ...]:
        """Look at the aliases, then once at every replica."""
        await self.refresh()
        return tuple(await asyncio.gather(*(self.tend(name) for name in self._fleet.names)))

    async def refresh(self) -> Served:
        """Read the aliases again: call it after a release or a rollback to have it seen at once."""
        desired = await asyncio.to_thread(self._registry.desired)
        if desired != self._desired:
            for alias in desired.aliases.values():
                if self._moves.get(alias.alias, (0, 0.0))[0] != alias.moved_ns:
                    self._moves[alias.alias] = (alias.moved_ns, self._clock())
            self._desired = desired
            self._changes += 1
            for news in self._news.values():
                news.set()
        self._desired_known.set()
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
        needed, served = self._desired.needed, self._fleet.served()[name]
        came, failed = await self._load_missing(name, sorted(self._missing(loaded) - served))
        for release in sorted(self._desired.probing.intersection(loaded) - served - needed):
            await self._prove_early(name, release)
        went = await self._unload_surplus(name, [release for release in loaded if release not in needed])
        if self._slots is not None and self._on_demand:
            went += await self._make_fit(name, [one for one in loaded if one in needed], self._slots)
        return Tended(replica=name, loaded=came, unloaded=went, failed=failed)

    async def _make_fit(self, name: str, loaded: list[str], slots: Slots) -> tuple[str, ...]:
        """A rollout proves a release on every replica, also where there is no slot for it to stay."""
        busy = [one for one in loaded if self._in_flight(one) or self._fleet.at_work[one]]
        surplus = slots.surplus(loaded, busy)
        for release in surplus:
            await self._fleet.unload(name, release)
        return tuple(surplus)

    async def _prove_early(self, name: str, release: str) -> None:
        """What another gateway rolls out. Should it fail here, that gateway will hear the same."""
        if self._fleet.at_work[release]:
            return
        with contextlib.suppress(AdapterError):
            manifest = await asyncio.to_thread(self._store.get, release)
            await self._fleet.prove(name, manifest, self._store.path(release))

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
        desired = self._registry.desired()
        if release in desired.blocked:
            return True
        if release in desired.needed or self._moved_lately(desired, release):
            return False
        if state in (State.STABLE, State.ROLLED_BACK):
            with contextlib.suppress(NotServable):  # another loop or another gateway was quicker
                self._registry.advance(release, State.RETIRED)
        # Looked at again: an alias may have been moved to it until the moment at which it was retired.
        droppable = self._registry.version(release).state in DROPPABLE
        return droppable and release not in self._registry.wanted()

    def _moved_lately(self, desired: Desired, release: str) -> bool:
        """Whether another gateway may not have seen yet that nothing leads to the release any more."""
        since = self._clock_ns() - round(self._grace_s * NS)
        moved = (to.moved_ns for to in desired.aliases.values() if _name(to.release) == _name(release))
        ended = (trial.ended_ns or 0 for trial in self._registry.trials(_name(release)))
        return any(ns > since for ns in (*moved, *ended))

    def _publish(self) -> Served:
        served = self.served
        if served != self._told:
            self._told = served
            self._changes += 1
            self._on_change(served)
        return served


def _name(release: str) -> str:
    return release.partition("@")[0]

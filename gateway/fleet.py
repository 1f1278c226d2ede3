"""Our own replicas as the gateway holds them: what they serve now, releases, and the way back.

The work is done in `adapters`; here it is tied to the configuration, to the requests in flight, to the
snapshot that decisions read and to the ledger, from which canaries are judged.
"""

import asyncio
import logging
import math
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from adapters import rollout
from adapters.demand import Demand
from adapters.errors import AdapterError, NoSlot, NotServable
from adapters.fleet import Fleet as Replicas
from adapters.lineage import Seen, Touched
from adapters.load import ReplicaLoad
from adapters.names import CANARY, SHADOW
from adapters.reconcile import Reconciler, Served
from adapters.registry import Registry
from adapters.replica import Replica
from adapters.sequential import Arm, Limits, judge
from adapters.slots import Quota, Slots
from adapters.states import State
from adapters.store import DEFAULT_MAX_RANK, ArtifactStore
from adapters.tables import create_tables
from adapters.trials import Trial
from gateway.errors import BackendError
from gateway.ledger.arms import arms
from gateway.ledger.database import StoreUnavailable
from gateway.privacy.egress import local_client
from gateway.settings import Settings, VllmSettings
from router_policies.names import is_adapter
from router_policies.types import ErrorClass, Place, Snapshot, Speed

JUDGE_EVERY_S = 2.0
WEIGH_EVERY_S = 2.0  # between two looks at what replicas say of their work
HOUR_NS = 3600 * 10**9
JUDGE = "sequential test"  # who moved an alias, in its history
log = logging.getLogger("headgate.fleet")


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release as operators see it."""

    release: str
    base: str
    state: str
    aliases: tuple[str, ...]  # that point at it
    replicas: tuple[str, ...]  # that were seen to serve it rightly
    reason: str  # why it failed or was rolled back, if it did
    erased_rows: int = 0  # that it was trained on and that were erased since
    blocked: bool = False  # for that reason it is not served


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as this process sees it."""

    replica: str
    backend: str
    url: str
    healthy: bool
    adapters: tuple[str, ...]  # that it was seen to serve rightly
    failed: Mapping[str, str]  # by release, why it could not be brought up; "": the replica itself
    load: ReplicaLoad | None  # what it says of its work; None: nothing lately


class Fleet:
    """All vLLM backends of the configuration."""

    def __init__(self, settings: Settings, *, judge_every_s: float = JUDGE_EVERY_S) -> None:
        own = {name: b for name, b in settings.backends.items() if isinstance(b, VllmSettings)}
        # Not the ledger's engine: that one's transactions are made for a single writer thread.
        self._engine = create_engine(settings.database_url)
        self._urls = {name: b.replicas(name) for name, b in own.items()}
        self._clients = {
            replica: local_client(name, settings.zone_of(b), url)
            for name, b in own.items()
            for replica, url in b.replicas(name).items()
        }
        self._replicas = Replicas(
            Replica(replica, url, api_key=b.api_key.get_secret_value(), client=self._clients[replica])
            for name, b in own.items()
            for replica, url in b.replicas(name).items()
        )
        self._registry = Registry(self._engine)
        ranks = [b.max_lora_rank for b in own.values()]
        self._store = ArtifactStore(settings.adapters, max_rank=min(ranks, default=DEFAULT_MAX_RANK))
        self.in_flight: Counter[str] = Counter()  # release -> requests that it is answering
        slots = _slots(settings, [b.slots for b in own.values() if b.slots is not None])
        self._reconciler = Reconciler(
            self._replicas, self._registry, self._store, in_flight=self.in_flight.__getitem__, slots=slots
        )
        self._demand: Demand | None = None
        if slots is not None:
            self._demand = Demand(
                self._replicas,
                self._store,
                slots,
                busy=self.in_flight.__getitem__,
                healthy=lambda: frozenset(self._replicas.names) - self._failing,
            )
        self._settings, self._judge_every_s = settings.fleet, judge_every_s
        self._snapshot, self._served, self._seen = Snapshot(), Served(), 0  # as of that many changes
        self._failing: frozenset[str] = frozenset()  # replicas
        self._loads: dict[str, ReplicaLoad] = {}  # by replica, as they said last
        self._able: dict[str, frozenset[str]] = {}  # by model, as far as it was asked for
        self.base = next((b.model for b in own.values()), "")  # that all replicas serve

    def measured(self, speeds: Mapping[Place, Speed], busy: Mapping[str, int]) -> None:
        """What decisions shall read of all backends beside it: mappings that others keep up to date."""
        self._snapshot = msgspec.structs.replace(self._snapshot, speeds=speeds, busy=busy)

    @property
    def snapshot(self) -> Snapshot:
        """What decisions read: aliases that are served, and backends of which no replica answers."""
        self._look()
        return self._snapshot

    def taken_by_canaries(self, unit: str) -> dict[str, str]:
        """The aliases that lead to a canary's release for one unit of traffic, which always sees the same."""
        self._look()
        return {
            canary.alias: canary.release
            for canary in self._served.canaries
            if _share(canary.release, unit) < canary.weight
        }

    def able(self, model: str) -> frozenset[str]:
        """The replicas that serve a model now: a release where it was seen to be served, a base anywhere."""
        self._look()
        found = self._able.get(model)
        if found is None:
            on = self._served.on(model) if is_adapter(model) else frozenset(self._replicas.names)
            found = self._able[model] = on - self._failing
        return found

    async def bring_in(self, model: str) -> None:
        """Has an adapter loaded that is asked for, where there are more than slots. Raises BackendError.

        Not one that merely lies in the store: it may have failed its rollout, or be blocked.
        """
        if self._demand is None or model not in self._reconciler.needed:
            return
        try:
            await self._demand.ensure(model, self._settings.wait_s)
        except AdapterError as error:
            busy = isinstance(error, NoSlot)
            kind = ErrorClass.RATE_LIMIT if busy else ErrorClass.SERVER_ERROR
            code, retry = ("adapter_not_loaded", "1") if busy else (type(error).__name__, None)
            raise BackendError(kind, str(error), status=503, code=code, retry_after=retry) from error

    def _look(self) -> None:
        if self._reconciler.changes == self._seen:
            return
        self._seen, self._able = self._reconciler.changes, {}
        self._served = self._reconciler.served
        tended = self._reconciler.tended
        self._failing = frozenset(name for name, seen in tended.items() if "" in seen.failed)
        down = frozenset(name for name, urls in self._urls.items() if self._failing.issuperset(urls))
        self._snapshot = msgspec.structs.replace(self._snapshot, aliases=self._served.aliases, down=down)

    def ready(self) -> bool:
        """Whether every replica has been looked at once."""
        return len(self._reconciler.tended) == len(self._replicas.names)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconciles and judges until left, if there are replicas."""
        await asyncio.to_thread(create_tables, self._engine)
        async with AsyncExitStack() as stack:
            stack.callback(self._engine.dispose)
            for client in self._clients.values():
                stack.push_async_callback(client.aclose)
            stack.push_async_callback(self._replicas.aclose)
            if self._demand is not None:
                stack.push_async_callback(self._demand.aclose)
            for work in (
                (self._reconciler.run, self._judge_always, self._weigh_always) if self._replicas.names else ()
            ):
                stack.push_async_callback(_ended, asyncio.create_task(work()))
            yield

    async def release(
        self, folder: Path, *, by: str, stage: State = State.STABLE, weight: float = 0.0
    ) -> Release:
        """Takes in the adapter in `folder`, brings it up on the replicas and moves the alias of `stage`.

        `weight` is the share of its adapter's traffic that a canary answers, in (0, 1). Raises AdapterError;
        then no alias has moved.
        """
        manifest = await asyncio.to_thread(self._store.put, folder)
        await rollout.release(
            manifest.release,
            fleet=self._replicas,
            registry=self._registry,
            store=self._store,
            by=by,
            stage=stage,
            weight=weight,
            quorum=self._settings.quorum,
        )
        return await self._moved(manifest.release)

    async def promote(self, name: str, *, by: str, stage: State, weight: float = 0.0) -> Release:
        """Takes an adapter's canary, or else its shadow, to a further stage. Raises AdapterError."""
        release = await asyncio.to_thread(self._candidate, name)
        if len(self._reconciler.served.on(release)) < self._settings.quorum * len(self._replicas.names):
            raise NotServable(release, "too few replicas serve it now; see /admin/fleet")

        def conclude() -> None:
            self._registry.conclude(release, by=by, stage=stage, weight=weight)

        await asyncio.to_thread(conclude)
        return await self._moved(release)

    async def withdraw(self, name: str, *, by: str) -> Release:
        """Ends an adapter's canary, or else its shadow; it is rolled back. Raises AdapterError."""
        release = await asyncio.to_thread(self._candidate, name)
        await asyncio.to_thread(self._registry.withdraw, release, f"withdrawn by {by}")
        return await self._moved(release)

    async def rollback(self, name: str, *, by: str) -> Release:
        """Points `name@stable` back at its previous release. Raises AdapterError."""
        alias = await rollout.rollback(name, registry=self._registry, by=by)
        return await self._moved(alias.release)

    async def releases(self) -> list[Release]:
        return await asyncio.to_thread(self._releases)

    async def trials(self, name: str) -> tuple[Trial, ...]:
        """Every canary of an adapter, oldest first, with the numbers of its test."""
        return await asyncio.to_thread(self._registry.trials, name)

    async def seen_by(self, release: str) -> tuple[Seen, ...]:
        """The rows that a release saw. Raises UnknownRelease."""
        return await asyncio.to_thread(self._registry.seen_by, release)

    async def who_saw(self, rows: Iterable[str]) -> tuple[Seen, ...]:
        """The releases that saw any of the rows."""
        return await asyncio.to_thread(self._registry.who_saw, tuple(rows))

    async def erase(self, rows: Iterable[str], *, block: bool, by: str) -> tuple[Touched, ...]:
        """Marks rows as erased; the releases that were trained on them. `block`: they are served no more."""
        rows = tuple(rows)

        def erase() -> tuple[Touched, ...]:
            return self._registry.erase(rows, block=block, by=by)

        touched = await asyncio.to_thread(erase)
        await self._reconciler.refresh()
        return touched

    def routes(self) -> Mapping[str, str]:
        """Where each alias leads in this process now."""
        return self.snapshot.aliases

    def demand(self) -> dict[str, int]:
        """Requests that found their adapter loaded, and that did not; empty where all are always loaded."""
        return {} if self._demand is None else {"hits": self._demand.hits, "misses": self._demand.misses}

    def replicas(self) -> list[ReplicaView]:
        """Every replica, by backend."""
        self._look()
        tended = self._reconciler.tended
        return [
            ReplicaView(
                replica=replica,
                backend=backend,
                url=url,
                healthy=replica in tended and replica not in self._failing,
                adapters=tuple(sorted(self._served.replicas.get(replica, ()))),
                failed=tended[replica].failed if replica in tended else {},
                load=self._loads.get(replica),
            )
            for backend, urls in self._urls.items()
            for replica, url in urls.items()
        ]

    def _candidate(self, name: str) -> str:
        """The release that is an adapter's canary, or else its shadow."""
        aliases = self._registry.aliases()
        for alias in (CANARY, SHADOW):
            if (found := aliases.get(f"{name}@{alias}")) is not None:
                return found.release
        raise NotServable(name, "it has neither a canary nor a shadow")

    async def _moved(self, release: str) -> Release:
        """A release after an alias has moved, which this process sees at once."""
        await self._reconciler.refresh()
        return next(found for found in await self.releases() if found.release == release)

    def _releases(self) -> list[Release]:
        aliases, served = self._registry.aliases(), self._reconciler.served
        touched = {one.release: one for one in self._registry.touched()}
        return [
            Release(
                release=version.release,
                base=version.base,
                state=version.state.value,
                aliases=tuple(sorted(a.alias for a in aliases.values() if a.release == version.release)),
                replicas=tuple(sorted(served.on(version.release))),
                reason=version.reason,
                erased_rows=len(touched[version.release].rows) if version.release in touched else 0,
                blocked=version.release in touched and touched[version.release].blocked,
            )
            for version in self._registry.versions()
        ]

    def load(self, replica: str) -> ReplicaLoad:
        """What a replica said of its work last; nothing at all where it is silent."""
        return self._loads.get(replica, ReplicaLoad())

    def replicas_of(self) -> Mapping[str, Collection[str]]:
        """The names of the replicas, by backend."""
        return self._urls

    def replicas_wanted(self, backend: str) -> int:
        """How many replicas the present work is for: a hint for whoever scales them. At least one."""
        loads = [self.load(replica) for replica in self._urls[backend]]
        work = sum(load.running + load.waiting for load in loads)
        return max(1, math.ceil(work / self._settings.work_per_replica))

    async def _weigh_always(self) -> None:
        while True:
            await asyncio.gather(*map(self._weigh, self._replicas.names))
            await asyncio.sleep(WEIGH_EVERY_S)

    async def _weigh(self, replica: str) -> None:
        try:
            self._loads[replica] = await self._replicas.work(replica)
        except AdapterError:  # the reconciler says that it is away; a stand-in may have no metrics
            self._loads.pop(replica, None)

    async def _judge_always(self) -> None:
        while True:
            await asyncio.sleep(self._judge_every_s)
            try:
                if await asyncio.to_thread(self.judge_once):
                    await self._reconciler.refresh()
            except (AdapterError, StoreUnavailable, SQLAlchemyError, OSError):
                log.exception("judging canaries failed; it will be tried again")

    def judge_once(self) -> bool:
        """Looks at every canary under way; whether one has ended. Of several gateways one ends it."""
        ended = False
        for trial in self._registry.desired().trials:
            with suppress(NotServable):  # another gateway was quicker
                ended |= self._judge(trial)
        return ended

    def _judge(self, trial: Trial) -> bool:
        if self._registry.alias(trial.name).release != trial.against:
            self._registry.withdraw(trial.release, f"{trial.against} is no longer stable: nothing to compare")
            return True
        limits = self._settings.canary
        counted = arms(self._engine, (trial.release, trial.against), trial.started_ns)
        found = judge(
            counted.get(trial.release, Arm()),
            counted.get(trial.against, Arm()),
            Limits(alpha=limits.alpha, errors=limits.errors, latency=limits.latency, ratings=limits.ratings),
        )
        numbers: dict[str, Any] = {**found.numbers, "verdict": found.verdict, "reason": found.reason}
        self._registry.note_trial(trial.id, numbers)
        late = time.time_ns() > trial.started_ns + limits.hours * HOUR_NS
        if found.verdict == "promote":
            self._registry.conclude(trial.release, by=JUDGE)
        elif found.verdict == "roll back":
            self._registry.withdraw(trial.release, found.reason)
        elif late:
            self._registry.withdraw(trial.release, f"no verdict within {limits.hours:g} h: {found.reason}")
        else:
            return False
        log.warning("canary %s: %s, %s", trial.release, found.verdict, found.reason)
        return True


def _slots(settings: Settings, capacities: Sequence[int]) -> Slots | None:
    """None: every replica holds all adapters."""
    if not capacities:
        return None
    quotas = [Quota(adapters=one.adapters, slots=one.slots) for one in settings.fleet.quotas]
    return Slots(min(capacities), pinned=settings.fleet.pinned, quotas=quotas)


def _share(release: str, unit: str) -> float:
    """Where in [0, 1) a unit of traffic falls: always the same place for one canary, another for others."""
    return zlib.crc32(f"{release}\0{unit}".encode()) / 2**32


async def _ended(work: asyncio.Task[None]) -> None:
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work

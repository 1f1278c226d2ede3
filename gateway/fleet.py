"""Our own replicas as the gateway holds them: what they serve now, releases, and the way back.

The work is done in `adapters`; here it is tied to the configuration, to the requests in flight and to the
snapshot that decisions read.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec
from sqlalchemy import create_engine

from adapters import rollout
from adapters.fleet import Fleet as Replicas
from adapters.reconcile import Reconciler
from adapters.registry import Registry
from adapters.replica import Replica
from adapters.store import DEFAULT_MAX_RANK, ArtifactStore
from adapters.tables import create_tables
from gateway.privacy.egress import local_client
from gateway.settings import Settings, VllmSettings
from router_policies.types import Snapshot


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """One release as operators see it."""

    release: str
    base: str
    state: str
    aliases: tuple[str, ...]  # that point at it
    replicas: tuple[str, ...]  # that were seen to serve it rightly
    reason: str  # why it failed, if it did


class Fleet:
    """All vLLM backends of the configuration."""

    def __init__(self, settings: Settings) -> None:
        own = {name: b for name, b in settings.backends.items() if isinstance(b, VllmSettings)}
        # Not the ledger's engine: that one's transactions are made for a single writer thread.
        self._engine = create_engine(settings.database_url)
        self._clients = {name: local_client(name, settings.zone_of(b), b.url) for name, b in own.items()}
        self._replicas = Replicas(
            Replica(name, b.url, api_key=b.api_key.get_secret_value(), client=self._clients[name])
            for name, b in own.items()
        )
        self._registry = Registry(self._engine)
        ranks = [b.max_lora_rank for b in own.values()]
        self._store = ArtifactStore(settings.adapters, max_rank=min(ranks, default=DEFAULT_MAX_RANK))
        self.in_flight: Counter[str] = Counter()  # release -> requests that it is answering
        self._reconciler = Reconciler(
            self._replicas, self._registry, self._store, in_flight=self.in_flight.__getitem__
        )
        self._snapshot, self._seen = Snapshot(), 0  # as of that many changes
        self.base = next((b.model for b in own.values()), "")  # that all replicas serve

    @property
    def snapshot(self) -> Snapshot:
        """What decisions read: aliases that are served, and replicas that did not answer of late."""
        if self._reconciler.changes != self._seen:
            self._seen = self._reconciler.changes
            down = frozenset(name for name, seen in self._reconciler.tended.items() if "" in seen.failed)
            self._snapshot = Snapshot(aliases=self._reconciler.served.aliases, down=down)
        return self._snapshot

    def ready(self) -> bool:
        """Whether every replica has been looked at once."""
        return len(self._reconciler.tended) == len(self._replicas.names)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reconciles until left, if there are replicas."""
        await asyncio.to_thread(create_tables, self._engine)
        loop = asyncio.create_task(self._reconciler.run()) if self._replicas.names else None
        try:
            yield
        finally:
            if loop is not None:
                loop.cancel()
                with suppress(asyncio.CancelledError):
                    await loop
            await self._replicas.aclose()
            for client in self._clients.values():
                await client.aclose()
            self._engine.dispose()

    async def release(self, folder: Path, *, by: str) -> Release:
        """Takes in the adapter in `folder`, brings it up on every replica and moves `name@stable` to it.

        Raises AdapterError; then no alias has moved.
        """
        manifest = await asyncio.to_thread(self._store.put, folder)
        await rollout.release(
            manifest.release, fleet=self._replicas, registry=self._registry, store=self._store, by=by
        )
        await self._reconciler.refresh()
        return await self._one(manifest.release)

    async def rollback(self, name: str, *, by: str) -> Release:
        """Points `name@stable` back at its previous release. Raises AdapterError."""
        alias = await rollout.rollback(name, registry=self._registry, by=by)
        await self._reconciler.refresh()
        return await self._one(alias.release)

    async def releases(self) -> list[Release]:
        return await asyncio.to_thread(self._releases)

    async def _one(self, release: str) -> Release:
        return next(found for found in await self.releases() if found.release == release)

    def _releases(self) -> list[Release]:
        aliases, served = self._registry.aliases(), self._reconciler.served
        return [
            Release(
                release=version.release,
                base=version.base,
                state=version.state.value,
                aliases=tuple(sorted(a.alias for a in aliases.values() if a.release == version.release)),
                replicas=tuple(sorted(served.on(version.release))),
                reason=version.reason,
            )
            for version in self._registry.versions()
        ]

"""Release an adapter to every replica, then move its alias; or move nothing and say why.

Each step of `adapters.states` is written down before it is done, so that others see how far it is and that
somebody is at work. What a release replaces stays loaded: that makes rolling back a mere alias move. What no
alias needs any longer is unloaded by `adapters.reconcile`, once its traffic has drained.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from adapters.errors import NotServable, ReplicaError, RolloutFailed
from adapters.fleet import Fleet
from adapters.manifest import Manifest
from adapters.names import STABLE
from adapters.registry import Alias, Registry
from adapters.states import State
from adapters.store import ArtifactStore


async def release(
    release: str,
    *,
    fleet: Fleet,
    registry: Registry,
    store: ArtifactStore,
    by: str,
    alias: str = STABLE,
    despite_evaluation: bool = False,
) -> Alias:
    """Bring a stored release up on all replicas and point `alias` at it.

    Raises UnknownRelease, ArtifactTampered, NotServable, or RolloutFailed with each replica's reason; then no
    alias has moved and no replica keeps what it did not have before. A release whose evaluation did not pass
    is refused unless `despite_evaluation` is set.
    """
    manifest = await asyncio.to_thread(store.get, release)
    if not manifest.evaluation.passed and not despite_evaluation:
        raise NotServable(release, f"its evaluation did not pass: {'; '.join(manifest.evaluation.reasons)}")
    await asyncio.to_thread(registry.register, manifest)
    # What traffic needs already stays stable while it is looked at again, whatever comes of that.
    standing = await asyncio.to_thread(_is_standing, registry, release)
    await _Rollout(manifest, store.path(release), fleet, registry, recorded=not standing).run()
    return await asyncio.to_thread(registry.conclude, release, alias, by=by)


async def rollback(name: str, *, registry: Registry, by: str, alias: str = STABLE) -> Alias:
    """Point an alias back at its previous release, which the replicas still serve.

    Raises UnknownAlias, NoPrevious or AliasMoved.
    """
    return await asyncio.to_thread(registry.rollback, name, alias, by=by)


def _is_standing(registry: Registry, release: str) -> bool:
    return registry.version(release).state is State.STABLE and release in registry.wanted()


class _Rollout:
    """One release on its way to all replicas; `recorded`: its steps are written to the registry."""

    def __init__(
        self, manifest: Manifest, path: Path, fleet: Fleet, registry: Registry, *, recorded: bool
    ) -> None:
        self._manifest, self._path, self._fleet, self._registry = manifest, path, fleet, registry
        self._recorded = recorded
        self._touched: set[str] = set()  # replicas that did not have the release before

    async def run(self) -> None:
        await self._record(State.LOADING)
        try:
            if not self._fleet.names:
                raise RolloutFailed(self._manifest.release, {"fleet": "it has no replicas"})
            await self._on_all(self._look, self._fleet.names)
            await self._on_all(self._load, self._fleet.names)
            await self._record(State.PROBING)
            await self._on_all(self._prove, self._fleet.names)
        except BaseException as error:  # a rollout that is cancelled is undone as well
            await self._undo()
            await self._record(State.FAILED, str(error) or type(error).__name__)
            raise

    async def _look(self, name: str) -> None:
        loaded = {model.id for model in await self._fleet.observe(name)}
        if self._manifest.release not in loaded:
            self._touched.add(name)

    async def _load(self, name: str) -> None:
        await self._fleet.load(name, self._manifest.release, self._path)

    async def _prove(self, name: str) -> None:
        await self._fleet.prove(name, self._manifest, self._path)

    async def _on_all(self, step: Callable[[str], Awaitable[None]], names: Iterable[str]) -> None:
        """Take one step on every replica at once; RolloutFailed when all have ended, if any failed."""
        told = await asyncio.gather(*(_outcome(step, name) for name in names))
        reasons = {error.replica: error.reason for error in told if error is not None}
        if reasons:
            raise RolloutFailed(self._manifest.release, reasons)

    async def _undo(self) -> None:
        """Unload it where it was not before. A replica that cannot be told now is told by the reconciler."""

        async def unload(name: str) -> None:
            await self._fleet.unload(name, self._manifest.release)

        await asyncio.gather(*(_outcome(unload, name) for name in self._touched))

    async def _record(self, state: State, reason: str = "") -> None:
        if self._recorded:
            await asyncio.to_thread(self._registry.advance, self._manifest.release, state, reason)


async def _outcome(step: Callable[[str], Awaitable[None]], name: str) -> ReplicaError | None:
    try:
        await step(name)
    except ReplicaError as error:
        return error
    return None

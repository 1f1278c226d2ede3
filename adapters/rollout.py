"""Release an adapter to every replica, then move its alias; or move nothing and say why.

Each step of `adapters.states` is written down before it is done, so that others see how far it is and that
somebody is at work. What a release replaces stays loaded: that makes rolling back a mere alias move. What no
alias needs any longer is unloaded by `adapters.reconcile`, once its traffic has drained.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from pathlib import Path

from adapters.errors import NotServable, ReplicaError, RolloutFailed
from adapters.fleet import Fleet
from adapters.manifest import Manifest
from adapters.names import STABLE
from adapters.registry import Alias, Registry
from adapters.states import STAGES, State
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
    stage: State = State.STABLE,
    weight: float = 0.0,
    quorum: float = 1.0,
) -> Alias:
    """Bring a stored release up on the replicas and point the alias of `stage`, or `alias`, at it.

    `quorum` is the share of all replicas that must serve it, at least one: what fails on others is left to
    the reconciler. A canary gets `weight`, its share of the traffic. A release whose evaluation did not pass
    is refused unless `despite_evaluation`.

    Raises UnknownRelease, ArtifactTampered, NotServable, or RolloutFailed with each replica's reason; then no
    alias has moved and no replica keeps what it did not have before.
    """
    manifest = await asyncio.to_thread(store.get, release)
    if not manifest.evaluation.passed and not despite_evaluation:
        raise NotServable(release, f"its evaluation did not pass: {'; '.join(manifest.evaluation.reasons)}")
    await asyncio.to_thread(registry.register, manifest)
    # What traffic needs already stays in its stage while it is looked at again, whatever comes of that.
    standing = await asyncio.to_thread(_is_standing, registry, release)
    least = max(1, math.ceil(quorum * len(fleet.names)))
    work = _Rollout(manifest, store.path(release), fleet, registry, recorded=not standing, least=least)
    with fleet.working_on(release):
        await work.run()
        try:
            return await asyncio.to_thread(
                registry.conclude, release, alias, by=by, stage=stage, weight=weight
            )
        except NotServable as error:  # blocked, or a canary with nothing to be compared with
            await work.give_up(error)
            raise


async def rollback(name: str, *, registry: Registry, by: str, alias: str = STABLE) -> Alias:
    """Point an alias back at its previous release, which the replicas still serve.

    Raises UnknownAlias, NoPrevious or AliasMoved.
    """
    return await asyncio.to_thread(registry.rollback, name, alias, by=by)


def _is_standing(registry: Registry, release: str) -> bool:
    passed = (*STAGES, State.ROLLED_BACK)
    return registry.version(release).state in passed and release in registry.wanted()


class _Rollout:
    """One release on its way to the replicas, of which `least` must serve it in the end.

    `recorded`: its steps are written to the registry.
    """

    def __init__(
        self,
        manifest: Manifest,
        path: Path,
        fleet: Fleet,
        registry: Registry,
        *,
        recorded: bool,
        least: int,
    ) -> None:
        self._manifest, self._path, self._fleet, self._registry = manifest, path, fleet, registry
        self._recorded, self._least = recorded, least
        self._touched: set[str] = set()  # replicas that did not have the release before

    async def run(self) -> None:
        await self._record(State.LOADING)
        try:
            if not self._fleet.names:
                raise RolloutFailed(self._manifest.release, {"fleet": "it has no replicas"})
            with_it = await self._on_all(self._look, self._fleet.names, {})
            with_it = await self._on_all(self._load, *with_it)
            await self._record(State.PROBING)
            _, failed = await self._on_all(self._prove, *with_it)
            await self._undo(failed)
        except BaseException as error:  # a rollout that is cancelled is undone as well
            await self.give_up(error)
            raise

    async def give_up(self, error: BaseException) -> None:
        """Take back what was done, and say so in the registry."""
        await self._undo(self._touched)
        await self._record(State.FAILED, str(error) or type(error).__name__)

    async def _look(self, name: str) -> None:
        loaded = {model.id for model in await self._fleet.observe(name)}
        if self._manifest.release not in loaded:
            self._touched.add(name)

    async def _load(self, name: str) -> None:
        await self._fleet.load(name, self._manifest.release, self._path)

    async def _prove(self, name: str) -> None:
        await self._fleet.prove(name, self._manifest, self._path)

    async def _on_all(
        self, step: Callable[[str], Awaitable[None]], names: Collection[str], failed: Mapping[str, str]
    ) -> tuple[Collection[str], Mapping[str, str]]:
        """Take one step on every replica at once. Who can go on, and why the others cannot.

        RolloutFailed, when all have ended, if fewer than `least` can.
        """
        told = await asyncio.gather(*(_outcome(step, name) for name in names))
        reasons = {**failed, **{error.replica: error.reason for error in told if error is not None}}
        left = [name for name in names if name not in reasons]
        if len(left) < self._least:
            raise RolloutFailed(self._manifest.release, reasons)
        return left, reasons

    async def _undo(self, names: Iterable[str]) -> None:
        """Unload it where it was not before. A replica that cannot be told now is told by the reconciler."""

        async def unload(name: str) -> None:
            await self._fleet.unload(name, self._manifest.release)

        await asyncio.gather(*(_outcome(unload, name) for name in self._touched.intersection(names)))

    async def _record(self, state: State, reason: str = "") -> None:
        if self._recorded:
            await asyncio.to_thread(self._registry.advance, self._manifest.release, state, reason)


async def _outcome(step: Callable[[str], Awaitable[None]], name: str) -> ReplicaError | None:
    try:
        await step(name)
    except ReplicaError as error:
        return error
    return None

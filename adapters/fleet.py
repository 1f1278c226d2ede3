"""The replicas of one gateway, and which releases each of them was seen to serve rightly.

A release counts as served on a replica only after this process has probed it there, and until the replica is
seen without it, or with the same name from another folder, or not at all.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import ForeignAdapter, ReplicaError, ReplicaUnreachable
from adapters.load import ReplicaLoad
from adapters.manifest import Manifest
from adapters.probe import probe
from adapters.replica import Replica, ServedModel

Probing = Callable[[Replica, Manifest], Awaitable[None]]


class Fleet:
    """The replicas by name. All work on one is done in turn: what is seen is then never older than what is
    known, and a load that fails cannot take others down with it (vllm#13698).
    """

    def __init__(self, replicas: Iterable[Replica], *, probe: Probing = probe) -> None:
        self._replicas = {replica.name: replica for replica in replicas}
        self._turns = {name: asyncio.Lock() for name in self._replicas}
        self._probe = probe
        # By replica, what was ever proved there since it last was away: the same bytes under the same name.
        self._proved_once: dict[str, dict[str, str]] = {name: {} for name in self._replicas}
        # By replica, the releases that it serves and the folders they came from.
        self._proven: dict[str, dict[str, str]] = {name: {} for name in self._replicas}
        self.at_work: Counter[str] = Counter()  # releases that this process is rolling out
        self.changes = 0  # grows whenever `served` may have changed

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._replicas)

    def served(self) -> Mapping[str, frozenset[str]]:
        """The releases that each replica serves, by the replica's name."""
        return {name: frozenset(proven) for name, proven in self._proven.items()}

    @contextmanager
    def working_on(self, release: str) -> Iterator[None]:
        """While this lasts the release is a rollout's own business here."""
        self.at_work[release] += 1
        try:
            yield
        finally:
            self.at_work[release] -= 1

    async def observe(self, name: str) -> tuple[ServedModel, ...]:
        """The adapters that a replica has loaded now; what it counts as serving is corrected by that.

        A replica that is merely slow to answer keeps its count: its traffic is likely the cause.
        """
        async with self._turns[name]:
            try:
                models = await self._replicas[name].models()
            except ReplicaError as error:
                if not (isinstance(error, ReplicaUnreachable) and error.hangs):
                    self._now_proven(name, {})
                    self._proved_once[name] = {}
                raise
            roots = {model.id: model.root for model in models}
            proven = self._proven[name]
            self._now_proven(name, {one: root for one, root in proven.items() if roots.get(one) == root})
            return tuple(model for model in models if model.parent is not None)

    async def work(self, name: str) -> ReplicaLoad:
        """What a replica says of its work; waits for no turn, as nothing is changed by it."""
        return await self._replicas[name].work()

    async def load(self, name: str, release: str, path: Path) -> bool:
        """Load a release. False: it was loaded before. ForeignAdapter: from elsewhere, so by other bytes.

        vLLM keeps prefix cache by adapter name, so such a name cannot be put right by loading it again.
        """
        replica = self._replicas[name]
        async with self._turns[name]:
            if await replica.load(release, path):
                return True
            roots = {model.id: model.root for model in await replica.models()}
            if roots.get(release) != str(path):
                raise ForeignAdapter(name, f"{release} is loaded there from {roots.get(release)}; restart it")
            return False

    async def prove(self, name: str, manifest: Manifest, path: Path) -> None:
        """Probe a release that is loaded; it counts as served from then on. Raises ReplicaError."""
        async with self._turns[name]:
            await self._probe(self._replicas[name], manifest)
            self._proved_once[name][manifest.release] = str(path)
            self._now_proven(name, self._proven[name] | {manifest.release: str(path)})

    def proved_before(self, name: str, release: str, path: Path) -> bool:
        """Count a release that is loaded as served if it was proved there before, and the replica never away.

        A release never stands for other bytes, and nor does its folder: what was right there still is.
        """
        if self._proved_once[name].get(release) != str(path):
            return False
        self._now_proven(name, self._proven[name] | {release: str(path)})
        return True

    async def unload(self, name: str, release: str) -> None:
        """Drop a release. It is no longer counted as served even if the replica cannot be told."""
        async with self._turns[name]:
            self._now_proven(name, {one: r for one, r in self._proven[name].items() if one != release})
            await self._replicas[name].unload(release)

    def _now_proven(self, name: str, proven: dict[str, str]) -> None:
        if proven != self._proven[name]:
            self._proven[name] = proven
            self.changes += 1

    async def aclose(self) -> None:
        for replica in self._replicas.values():
            await replica.aclose()

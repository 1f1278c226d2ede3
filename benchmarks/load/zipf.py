"""Many adapters on few slots: Zipf traffic through a gateway, and through three naive LRUs beside it.

Both get the same sequence of adapters, so many at once, on the same replicas, one after the other. The naive
way is what one writes first: any replica, each with the adapters that it was asked for last; a load call in
front of a request that misses, an unload call before that when its slots are full.
"""

import asyncio
import itertools
import random
import shutil
import statistics
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import msgspec
import numpy as np
from safetensors.numpy import load_file, save_file
from sqlalchemy import create_engine

from adapters.manifest import WEIGHT_FILES
from adapters.registry import Registry
from adapters.states import State
from adapters.store import ArtifactStore
from adapters.tables import create_tables
from tests.support.adapters import read_manifest, seal

AT_ONCE = 4
SLOTS = 4  # of each replica

Ask = Callable[[str], Awaitable[None]]


class Catalogue(msgspec.Struct, frozen=True):
    """Releases by rank, most popular first, and where each lies."""

    releases: tuple[str, ...]
    folders: tuple[Path, ...]

    def sequence(self, requests: int, seed: int) -> list[int]:
        """Ranks, drawn by Zipf's law with exponent 1."""
        weights = [1 / rank for rank in range(1, len(self.releases) + 1)]
        return random.Random(seed).choices(range(len(self.releases)), weights, k=requests)


def catalogue(state: Path, database: str, trained: Path, count: int) -> Catalogue:
    """`count` adapters that have passed their rollouts, as a gateway on `state` and `database` finds them."""
    store, engine = ArtifactStore(state / "adapters"), create_engine(database)
    create_tables(engine)
    registry = Registry(engine)
    weights = load_file(trained / WEIGHT_FILES[1])
    evaluation = msgspec.structs.replace(read_manifest(trained).evaluation, passed=True, reasons=())
    releases, folders = [], []
    for number in range(count):
        made = shutil.copytree(trained, state / "made" / str(number))
        hair = np.float32(1 - (number + 1) * 1e-6)
        save_file({name: tensor * hair for name, tensor in weights.items()}, made / WEIGHT_FILES[1])
        seal(made, name=f"tenant-{number:03}", evaluation=evaluation)
        manifest = store.put(made)
        registry.register(manifest)
        for state_ in (State.LOADING, State.PROBING):
            registry.advance(manifest.release, state_)
        registry.conclude(manifest.release, by="bench")
        releases.append(manifest.release)
        folders.append(store.path(manifest.release))
    engine.dispose()
    return Catalogue(tuple(releases), tuple(folders))


async def drive(ask: Ask, names: Sequence[str]) -> list[float]:
    """Asks for all of them in turn, some at once; the milliseconds that each took."""
    took: list[float] = []
    waiting = iter(names)

    async def client() -> None:
        for name in waiting:
            started = time.perf_counter()
            await ask(name)
            took.append((time.perf_counter() - started) * 1e3)

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return took


class NaiveLru:
    """One for each replica, which a request is sent to by turns."""

    def __init__(self, replicas: Sequence[httpx.AsyncClient], found: Catalogue) -> None:
        self._replicas = itertools.cycle(
            [(http, OrderedDict[str, None](), asyncio.Lock()) for http in replicas]
        )
        self._folders = dict(zip(found.releases, found.folders, strict=True))
        self.hits = self.misses = 0

    async def ask(self, release: str) -> None:
        http, lru, turn = next(self._replicas)
        async with turn:
            if release in lru:
                self.hits += 1
            else:
                self.misses += 1
                await self._load(http, lru, release)
            lru[release] = None
            lru.move_to_end(release)
        body = {
            "model": release,
            "messages": [{"role": "user", "content": "i lost my card"}],
            "max_tokens": 6,
        }
        (await http.post("/v1/chat/completions", json={**body, "temperature": 0})).raise_for_status()

    async def _load(self, http: httpx.AsyncClient, lru: OrderedDict[str, None], release: str) -> None:
        if len(lru) >= SLOTS:
            victim, _ = lru.popitem(last=False)
            (await http.post("/v1/unload_lora_adapter", json={"lora_name": victim})).raise_for_status()
        body = {"lora_name": release, "lora_path": str(self._folders[release])}
        (await http.post("/v1/load_lora_adapter", json=body)).raise_for_status()


def figures(name: str, hits: int, misses: int, took: Sequence[float]) -> dict[str, float]:
    return {
        f"{name}_hit_rate": round(hits / max(1, hits + misses), 3),
        f"{name}_ms_p50": statistics.median(took),
        f"{name}_ms_mean": statistics.fmean(took),
        f"{name}_ms_p99": float(np.percentile(took, 99)),
    }

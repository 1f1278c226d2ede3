"""Release, rollback and reconciliation on a real vLLM, with adapters that were really trained."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import Engine

from adapters import rollout
from adapters.errors import ProbeFailed, ReplicaRefused, RolloutFailed
from adapters.fleet import Fleet
from adapters.manifest import WEIGHT_FILES, Manifest
from adapters.probe import probe
from adapters.reconcile import Reconciler
from adapters.registry import Registry
from adapters.replica import Replica
from adapters.store import ArtifactStore
from tests.support.adapters import OPENINGS, QUEUES, REQUESTS, read_manifest, rename_tensors, seal
from tests.support.vllm import RunningVllm
from tests.support.waiting import until

Trained = Mapping[str, Path]
ALIAS = "queues@stable"


@pytest.fixture
async def replica(vllm: RunningVllm) -> AsyncIterator[Replica]:
    """The real one, with no adapter before and after."""
    replica = vllm.replica()
    yield replica
    for model in await replica.models():
        if model.parent is not None:
            await replica.unload(model.id)
    await replica.aclose()


class Site:
    def __init__(self, replica: Replica, registry: Registry, store: ArtifactStore) -> None:
        self.replica, self.registry, self.store = replica, registry, store
        self.fleet = Fleet((replica,))

    async def release(self, folder: Path) -> str:
        release = self.store.put(folder).release
        await rollout.release(
            release,
            fleet=self.fleet,
            registry=self.registry,
            store=self.store,
            by="ann",
            despite_evaluation=True,  # a toy's training may miss the gate; what is tested is the rollout
        )
        return release

    async def loaded(self) -> set[str]:
        return {model.id for model in await self.replica.models() if model.parent is not None}


@pytest.fixture
def site(replica: Replica, registry: Registry, store: ArtifactStore) -> Site:
    return Site(replica, registry, store)


async def answers(replica: Replica, release: str, manifest: Manifest) -> set[str]:
    """What a release says to the prompts of a manifest's probes."""
    asked = [(probe.prompt_token_ids, len(probe.logprobs)) for probe in manifest.probes]
    return {(await replica.complete(release, prompt, length + 4)).text for prompt, length in asked}


async def test_release_next_and_rollback(site: Site, engine: Engine, trained: Trained) -> None:
    """Two versions are released in turn and rolled back; each time two gateways route to the right one.

    Which version answers is read off its answers. The alias move is seen within a second.
    """
    gateways = [
        Reconciler(Fleet((site.replica,)), Registry(engine), site.store),
        Reconciler(site.fleet, site.registry, site.store),
    ]
    async with contextlib.AsyncExitStack() as stack:
        for gateway in gateways:
            await stack.enter_async_context(running(gateway))
        first = await site.release(trained["v1"])
        await until(routed(gateways, first), 30)
        second = await site.release(trained["v2"])
        await until(routed(gateways, second), 30)
        for release, version in ((first, "v1"), (second, "v2")):
            manifest = site.store.get(release)
            assert await answers(site.replica, release, manifest) <= set(QUEUES[version])
        started = time.monotonic()
        await rollout.rollback("queues", registry=site.registry, by="ann")
        await until(routed(gateways, first), 5)
        assert time.monotonic() - started < 1.0
        assert await site.loaded() == {first, second}


def routed(gateways: list[Reconciler], release: str) -> Callable[[], bool]:
    return lambda: all(gateway.served.aliases.get(ALIAS) == release for gateway in gateways)


@contextlib.asynccontextmanager
async def running(reconciler: Reconciler) -> AsyncIterator[None]:
    work = asyncio.create_task(reconciler.run())
    yield
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_unloaded_by_hand_comes_back(site: Site, trained: Trained) -> None:
    """What somebody unloads on the replica, or a restart forgets, is loaded, probed and served again."""
    release = await site.release(trained["v1"])
    reconciler = Reconciler(site.fleet, site.registry, site.store)
    assert (await reconciler.refresh()).aliases == {ALIAS: release}
    await site.replica.unload(release)
    (tended,) = await reconciler.reconcile_once()
    assert tended.loaded == (release,)
    assert await site.loaded() == {release}
    assert reconciler.served.aliases == {ALIAS: release}


def renamed_tensors(trained: Trained, folder: Path) -> Path:
    """vLLM takes these names and applies none of them (vllm#34186)."""
    shutil.copytree(trained["v1"], folder)
    rename_tensors(folder / WEIGHT_FILES[1], lambda name: name.replace(".model.layers.", ".blocks.layers."))
    seal(folder)
    return folder


def without_effect(trained: Trained, folder: Path) -> Path:
    """Weights that are all zero, under the manifest of a trained adapter."""
    shutil.copytree(trained["v1"], folder)
    file = folder / WEIGHT_FILES[1]
    content = file.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    file.write_bytes(content[:header] + bytes(len(content) - header))
    seal(folder)
    return folder


def weights_of_another(trained: Trained, folder: Path) -> Path:
    """v2's weights with v1's probes, and a digest of its own."""
    shutil.copytree(trained["v2"], folder)
    with (folder / WEIGHT_FILES[0]).open("a") as config:
        config.write("\n")
    seal(folder, probes=read_manifest(trained["v1"]).probes)
    return folder


def another_base(trained: Trained, folder: Path) -> Path:
    return trained["other_base"]


FAULTS: dict[str, tuple[Callable[[Trained, Path], Path], str]] = {
    "renamed tensors": (renamed_tensors, "just as the base answers"),
    "without effect": (without_effect, "just as the base answers"),
    "weights of another adapter": (weights_of_another, "neither as this adapter nor as the base"),
    "trained on another base": (another_base, "another base"),
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_wrong_adapters_never_reach_traffic(
    fault: str, site: Site, trained: Trained, tmp_path: Path
) -> None:
    """What vLLM loads without complaint and serves wrongly fails the probe; the release before it stays."""
    before = await site.release(trained["v2"])
    plant, diagnosis = FAULTS[fault]
    with pytest.raises(RolloutFailed) as failed:
        await site.release(plant(trained, tmp_path / "planted"))
    assert diagnosis in failed.value.reasons["vllm"]
    assert site.registry.alias("queues").release == before
    assert await site.loaded() == {before}


async def test_other_bytes_under_a_releases_name(site: Site, trained: Trained) -> None:
    """Somebody loads another adapter under a release's name: the rollout refuses and leaves it alone."""
    manifest = site.store.put(trained["v1"])
    await site.replica.load(manifest.release, trained["v2"])
    with pytest.raises(RolloutFailed, match="is loaded there from"):
        await site.release(trained["v1"])
    with pytest.raises(ProbeFailed):
        await probe(site.replica, manifest)


async def test_template_is_compared(site: Site, trained: Trained, vllm: RunningVllm) -> None:
    """A probe that knows its chat notices a replica whose template makes another prompt of it."""
    manifest = read_manifest(trained["v1"])
    await site.replica.load(manifest.release, trained["v1"])
    chats = {}
    for text in (opening + text for texts in REQUESTS for text in texts for opening in OPENINGS):
        chat = ({"role": "user", "content": text},)
        chats[await site.replica.tokenize(vllm.base, chat)] = chat
    known = [msgspec.structs.replace(one, messages=chats[one.prompt_token_ids]) for one in manifest.probes]
    await probe(site.replica, msgspec.structs.replace(manifest, probes=tuple(known)))
    system = ({"role": "system", "content": "Sort the request."},)
    other = [msgspec.structs.replace(one, messages=system + one.messages) for one in known]
    with pytest.raises(ProbeFailed, match="chat template or tokenizer"):
        await probe(site.replica, msgspec.structs.replace(manifest, probes=tuple(other)))


async def test_batches_do_not_mix_adapters(site: Site, trained: Trained, vllm: RunningVllm) -> None:
    """With every adapter slot in use, base and adapters asked at the same time each answer for themselves.

    vLLM's CPU operations let the base answer as the adapter in the last slot (vllm#48421); ours must not.
    """
    manifests = [read_manifest(trained[version]) for version in ("v1", "v2")]
    for slot in range(6):  # of 4
        await site.replica.load(f"slot-{slot}", trained[("v1", "v2")[slot % 2]])
    asked = [
        (model, one.prompt_token_ids, len(one.logprobs))
        for slot, manifest in ((4, manifests[0]), (5, manifests[1]))
        for one in manifest.probes
        for model in (vllm.base, f"slot-{slot}")
    ]
    alone = [await site.replica.complete(*one) for one in asked]
    expected = [one.completion for manifest in manifests for one in manifest.probes]
    assert [completion.text for completion in alone[1::2]] == expected
    together = await asyncio.gather(*(site.replica.complete(*one) for one in asked))
    assert [completion.text for completion in together] == [completion.text for completion in alone]


async def test_vllm_refuses_and_lives(
    site: Site, trained: Trained, vllm: RunningVllm, tmp_path: Path
) -> None:
    """Loads that fail are typed errors with vLLM's own words, and the server goes on answering."""
    torn = shutil.copytree(trained["v1"], tmp_path / "torn")
    (torn / WEIGHT_FILES[1]).write_bytes((torn / WEIGHT_FILES[1]).read_bytes()[:1000])
    with pytest.raises(ReplicaRefused) as refused:
        await site.replica.load("torn@000000000000", torn)
    assert refused.value.status in (400, 500)
    with pytest.raises(ReplicaRefused, match="404"):
        await site.replica.load("nowhere@000000000000", tmp_path / "nowhere")
    assert await site.loaded() == set()
    assert (await site.replica.complete(vllm.base, (1, 4, 5), 2)).logprobs


async def test_keys_are_needed(vllm: RunningVllm) -> None:
    """The load routes of the replica are closed to whoever lacks its key."""
    async with httpx.AsyncClient() as client:
        intruder = Replica("vllm", vllm.url, client=client)
        with pytest.raises(ReplicaRefused, match="401"):
            await intruder.load("x", Path("/x"))

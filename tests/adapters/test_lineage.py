"""Lineage: which rows made which adapter, from either end, and what the erasure of a row does."""

from pathlib import Path

import pytest

from adapters import rollout
from adapters.errors import NotServable, UnknownRelease
from adapters.fleet import Fleet
from adapters.manifest import DatasetLineage
from adapters.reconcile import NS, Reconciler
from adapters.registry import Registry
from adapters.states import State
from adapters.store import ArtifactStore
from tests.support.artifacts import make_artifact
from tests.support.fake_vllm import FakeVllm

ROWS = {letter: letter * 64 for letter in "abcdef"}


class Site:
    def __init__(self, tmp_path: Path, registry: Registry, store: ArtifactStore) -> None:
        self.fake, self.registry, self.store, self._folder = FakeVllm("a"), registry, store, tmp_path
        self.fleet = Fleet((self.fake.replica,))
        self.now_ns = 0
        self.reconciler = Reconciler(self.fleet, registry, store, clock_ns=lambda: self.now_ns)

    async def release(self, name: str, seed: int, train: str, held_out: str = "") -> str:
        """An adapter that was trained on the rows of some letters."""
        dataset = DatasetLineage(
            file="rows.jsonl",
            sha256="e" * 64,
            train_rows=tuple(ROWS[letter] for letter in train),
            held_out_rows=tuple(ROWS[letter] for letter in held_out),
        )
        folder = make_artifact(self._folder / f"{name}-{seed}", name=name, seed=seed, dataset=dataset)
        release = self.store.put(folder).release
        await rollout.release(release, fleet=self.fleet, registry=self.registry, store=self.store, by="ann")
        return release


@pytest.fixture
def site(tmp_path: Path, registry: Registry, store: ArtifactStore) -> Site:
    return Site(tmp_path, registry, store)


async def test_both_ways(site: Site) -> None:
    """Rows name the adapters that saw them, adapters their rows, and training and evaluation are apart."""
    desk, mail = await site.release("desk", 1, "abc", "d"), await site.release("mail", 2, "cd")
    seen = {(one.release, one.split, one.row[0]) for one in site.registry.who_saw([ROWS["c"], ROWS["d"]])}
    assert seen == {(desk, "train", "c"), (desk, "held_out", "d"), (mail, "train", "c"), (mail, "train", "d")}
    rows = {(one.split, one.row[0]) for one in site.registry.seen_by(desk)}
    assert rows == {("train", "a"), ("train", "b"), ("train", "c"), ("held_out", "d")}
    assert site.registry.who_saw(["0" * 64]) == ()
    with pytest.raises(UnknownRelease):
        site.registry.seen_by("desk@" + "0" * 12)


@pytest.mark.parametrize("erased", ["a", "c", "d", "ab", "f"])
async def test_erasure_names_exactly_who_trained(erased: str, site: Site) -> None:
    """All and only the adapters that trained on an erased row; who was only evaluated on it is not one."""
    trained = {"desk": "abc", "mail": "cd", "chat": "e"}
    releases = {
        name: await site.release(name, seed, rows, held_out="f")
        for seed, (name, rows) in enumerate(trained.items())
    }
    touched = site.registry.erase([ROWS[letter] for letter in erased], block=False, by="ann")
    assert {one.release for one in touched} == {
        releases[name] for name, rows in trained.items() if set(rows) & set(erased)
    }
    assert all({row[0] for row in one.rows} == set(erased) & set(trained[one.release[:4]]) for one in touched)
    assert not any(one.blocked for one in touched)
    assert site.registry.touched() == touched


async def test_erasure_without_a_block_only_marks(site: Site) -> None:
    """Marked adapters go on serving until somebody has trained their successors."""
    desk = await site.release("desk", 1, "ab")
    site.registry.erase([ROWS["a"]], block=False, by="ann")
    assert (await site.reconciler.refresh()).aliases["desk@stable"] == desk


async def test_blocked_adapters_leave_traffic_and_replicas(site: Site) -> None:
    """A blocking erasure takes the adapter out of routing at once, and off the replicas; others stay."""
    desk, mail = await site.release("desk", 1, "ab"), await site.release("mail", 2, "c")
    assert set((await site.reconciler.refresh()).aliases) == {"desk@stable", "mail@stable"}
    (touched,) = site.registry.erase([ROWS["b"]], block=True, by="ann")
    assert (touched.release, touched.blocked) == (desk, True)
    assert set((await site.reconciler.refresh()).aliases) == {"mail@stable"}
    await site.reconciler.reconcile_once()
    assert set(site.fake.loaded) == {mail}


async def test_the_way_back_is_blocked_too(site: Site) -> None:
    """No rollback leads to a blocked release, and none is released, though it was erased before."""
    old, new = await site.release("desk", 1, "a"), await site.release("desk", 2, "b")
    site.registry.erase([ROWS["a"], ROWS["c"]], block=True, by="ann")
    with pytest.raises(NotServable, match="1 rows that were erased"):
        site.registry.rollback("desk", by="ann")
    assert site.registry.alias("desk").release == new
    with pytest.raises(NotServable, match="erased"):
        await site.release("desk", 3, "bc")
    assert site.registry.alias("desk").release == new
    site.now_ns = site.registry.alias("desk").moved_ns + 60 * NS
    await site.reconciler.reconcile_once()
    assert set(site.fake.loaded) == {new}
    assert old not in site.fake.loaded


async def test_a_block_can_be_lifted(site: Site) -> None:
    """Erasing the rows again without a block gives the adapter back to traffic, as it stood."""
    desk = await site.release("desk", 1, "ab")
    site.registry.erase([ROWS["a"]], block=True, by="ann")
    await site.reconciler.reconcile_once()
    site.registry.erase([ROWS["a"]], block=False, by="ann")
    await site.reconciler.reconcile_once()
    assert site.reconciler.served.aliases["desk@stable"] == desk
    assert site.registry.version(desk).state is State.STABLE

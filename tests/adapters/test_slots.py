"""More adapters than slots: what goes, what stays, and requests that wait for one load together."""

import asyncio
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters import rollout
from adapters.demand import Demand
from adapters.errors import NoSlot, ProbeFailed, ReplicaUnreachable
from adapters.fleet import Fleet
from adapters.reconcile import Reconciler
from adapters.registry import Registry
from adapters.slots import Place, Quota, Slots
from adapters.store import ArtifactStore
from tests.support.artifacts import make_artifact
from tests.support.fake_vllm import FakeVllm, unreachable

NAMES = [f"desk-{number}" for number in range(6)]


def release_of(name: str) -> str:
    return f"{name}@{'0' * 12}"


def test_free_slots_first_then_the_least_valuable() -> None:
    """An empty slot of the emptiest replica; then the place of what is asked for least."""
    slots = Slots(2)
    assert slots.place("new", {"a": {"x"}, "b": set()}, ()) == Place("b", None)
    for name, uses in (("x", 5), ("y", 1), ("z", 3), ("w", 4)):
        for _ in range(uses):
            slots.used(name)
    full = {"a": {"x", "y"}, "b": {"z", "w"}}
    assert slots.place("new", full, ()) == Place("a", "y")
    assert slots.place("new", full, {"y"}) == Place("b", "z")
    assert slots.place("new", full, {"x", "y", "z", "w"}) is None


def test_what_was_popular_once_goes_in_the_end() -> None:
    """Age catches up with old counts, so a new favourite is not shut out for ever."""
    slots = Slots(1)
    for _ in range(10):
        slots.used("old")
    for _ in range(6):
        for name in ("one", "two"):
            slots.used(name)
            slots.used(name)
            slots.went(name)
    assert slots.value("one") > slots.value("old")


def test_dear_ones_stay() -> None:
    """At equal use the one that takes longer to bring in is kept."""
    slots = Slots(2)
    for name, seconds in (("big", 2.0), ("small", 0.1)):
        slots.used(name)
        slots.cost(name, seconds)
    assert slots.place("new", {"a": {"big", "small"}}, ()) == Place("a", "small")


def test_pinned_ones_never_go() -> None:
    """Not to make room, and not as surplus."""
    slots = Slots(2, pinned=["desk"])
    loaded = {"a": {release_of("desk"), release_of("mail")}}
    for _ in range(9):
        slots.used(release_of("mail"))
    assert slots.place("new", loaded, ()) == Place("a", release_of("mail"))
    assert slots.surplus([release_of("desk"), release_of("mail"), release_of("chat")], ()) == [
        release_of("chat")
    ]
    assert Slots(1, pinned=["desk"]).place("new", {"a": {release_of("desk")}}, ()) is None


def test_a_tenant_over_its_quota_displaces_its_own() -> None:
    """Though slots are free, or others are worth less: its own least valuable one goes."""
    slots = Slots(4, quotas=[Quota(adapters=("acme-*",), slots=2)])
    loaded = {"a": {release_of("acme-1"), release_of("acme-2"), release_of("mail")}}
    for name, uses in (("acme-1", 5), ("acme-2", 3), ("mail", 1)):
        for _ in range(uses):
            slots.used(release_of(name))
    assert slots.place(release_of("acme-3"), loaded, ()) == Place("a", release_of("acme-2"))
    assert slots.place(release_of("chat"), loaded, ()) == Place("a", None)


def test_zipf_beats_a_naive_lru() -> None:
    """200 adapters on 3 × 4 slots: one pool by value hits far oftener than three LRUs of their own."""
    random_ = random.Random(5)
    weights = [1 / rank for rank in range(1, 201)]
    asked = random_.choices([f"a-{number}" for number in range(200)], weights, k=8_000)
    slots, loaded = Slots(4), {name: set[str]() for name in "abc"}
    lrus = [OrderedDict[str, None]() for _ in range(3)]
    ours = theirs = 0
    for release in asked:
        slots.used(release)
        if any(release in there for there in loaded.values()):
            ours += 1
        else:
            place = slots.place(release, loaded, ())
            assert place is not None
            if place.victim is not None:
                slots.went(place.victim)
                loaded[place.replica].remove(place.victim)
            loaded[place.replica].add(release)
        lru = random_.choice(lrus)
        theirs += release in lru
        lru[release] = None
        lru.move_to_end(release)
        if len(lru) > 4:
            lru.popitem(last=False)
    assert ours / len(asked) > 0.42
    assert ours > 1.7 * theirs


class Site:
    """Two replicas with two slots each, six adapters, and a demand on them."""

    def __init__(self, tmp_path: Path, registry: Registry, store: ArtifactStore) -> None:
        self.a, self.b = FakeVllm("a"), FakeVllm("b")
        self.registry, self.store, self._folder = registry, store, tmp_path
        self.fleet = Fleet((self.a.replica, self.b.replica))
        self.slots = Slots(2)
        self.busy: Counter[str] = Counter()
        self.healthy = {"a", "b"}
        self.demand = Demand(
            self.fleet, store, self.slots, busy=self.busy.__getitem__, healthy=lambda: self.healthy
        )

    def put(self, number: int) -> str:
        folder = self._folder / NAMES[number]
        return self.store.put(make_artifact(folder, name=NAMES[number], seed=number)).release

    def loads(self) -> int:
        return sum(route == "load_lora_adapter" for fake in (self.a, self.b) for _, route, _ in fake.calls)

    def loaded(self) -> set[str]:
        return {*self.a.loaded, *self.b.loaded}


@pytest.fixture
async def site(tmp_path: Path, registry: Registry, store: ArtifactStore) -> AsyncIterator[Site]:
    site = Site(tmp_path, registry, store)
    yield site
    await site.demand.aclose()


async def test_single_flight(site: Site) -> None:
    """Twenty requests for one adapter that is not loaded wait for one load."""
    one = site.put(0)
    await asyncio.gather(*(site.demand.ensure(one, 5) for _ in range(20)))
    assert site.loads() == 1
    assert site.fleet.served()["a"] | site.fleet.served()["b"] == {one}
    await site.demand.ensure(one, 5)
    assert (site.loads(), site.demand.hits, site.demand.misses) == (1, 1, 20)


async def test_no_more_than_fit(site: Site) -> None:
    """Whatever is asked for, and at once: no replica ever holds more than its slots."""
    releases = [site.put(number) for number in range(6)]
    for _ in range(3):
        await asyncio.gather(*(site.demand.ensure(release, 5) for release in releases[:4]))
        assert max(len(site.a.loaded), len(site.b.loaded)) == 2
        for release in releases[4:]:
            await site.demand.ensure(release, 5)
        assert max(len(site.a.loaded), len(site.b.loaded)) == 2


async def test_what_answers_is_not_displaced(site: Site) -> None:
    """While all slots are answering, a request waits so long and is told; when one is idle it comes in."""
    releases = [site.put(number) for number in range(5)]
    for release in releases[:4]:
        await site.demand.ensure(release, 5)
        site.busy[release] = 1
    with pytest.raises(NoSlot, match="could not be within"):
        await site.demand.ensure(releases[4], 0.1)
    assert site.loaded() == set(releases[:4])
    waiting = asyncio.create_task(site.demand.ensure(releases[4], 5))
    site.busy[releases[2]] = 0
    await waiting
    assert site.loaded() == {*releases[:2], *releases[3:]}


async def test_proved_once_is_not_probed_again(site: Site) -> None:
    """What comes back to the same replica unchanged is served at once; after a restart it is probed again."""
    site.healthy = {"a"}
    releases = [site.put(number) for number in range(3)]
    for release in (*releases, releases[0]):
        await site.demand.ensure(release, 5)
    probes = [name for _, route, name in site.a.calls if route == "completions"]
    assert probes == releases
    site.a.restart()
    site.a.planted["models"] = unreachable
    with pytest.raises(ReplicaUnreachable):
        await site.fleet.observe("a")
    site.a.planted.clear()
    await site.demand.ensure(releases[1], 5)
    probes = [name for _, route, name in site.a.calls if route == "completions"]
    assert probes == [*releases, releases[1]]


async def test_a_wrong_adapter_is_not_brought_in(site: Site) -> None:
    """What fails its probe is unloaded, and everybody who waited is told why."""
    site.a.silent = site.b.silent = True
    one = site.put(0)
    told = await asyncio.gather(*(site.demand.ensure(one, 5) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in told] == [ProbeFailed] * 3
    assert site.loaded() == set()


async def test_the_reconciler_leaves_demand_alone(site: Site) -> None:
    """With more releases than slots it loads pinned ones everywhere, trims what a rollout left, no more.

    Every alias can be routed to meanwhile, loaded or not.
    """
    slots = Slots(2, pinned=[NAMES[0]])
    reconciler = Reconciler(site.fleet, site.registry, site.store, slots=slots)
    releases = [site.put(number) for number in range(4)]
    for release in releases:
        await rollout.release(release, fleet=site.fleet, registry=site.registry, store=site.store, by="ann")
    assert len(site.a.loaded) == 4
    await reconciler.reconcile_once()
    await reconciler.reconcile_once()
    for fake in (site.a, site.b):
        assert len(fake.loaded) == 2
        assert releases[0] in fake.loaded
    site.a.restart()
    await reconciler.reconcile_once()
    assert set(site.a.loaded) == {releases[0]}
    assert set(reconciler.served.aliases.values()) == set(releases)

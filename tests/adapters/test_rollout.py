"""A rollout on a fleet of fakes: all replicas or none, and the alias last."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from adapters import rollout
from adapters.errors import NotServable, RolloutFailed, UnknownRelease
from adapters.fleet import Fleet
from adapters.registry import Alias, Registry
from adapters.states import State
from adapters.store import ArtifactStore
from tests.support.artifacts import PASSED, make_artifact
from tests.support.fake_vllm import FakeVllm, failing, hanging, unreachable

NAMES = ("a", "b", "c")


class Site:
    """Three replicas, a store and a registry, and a log of what the replicas were asked in order."""

    def __init__(self, tmp_path: Path, registry: Registry, store: ArtifactStore) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.replicas = {name: FakeVllm(name, self.calls) for name in NAMES}
        self.fleet = Fleet(fake.replica for fake in self.replicas.values())
        self.registry, self.store, self._folder = registry, store, tmp_path

    def put(self, seed: int, **changes: object) -> str:
        return self.store.put(make_artifact(self._folder / f"desk-{seed}", seed=seed, **changes)).release

    async def release(self, release: str, **options: Any) -> Alias:
        return await rollout.release(
            release, fleet=self.fleet, registry=self.registry, store=self.store, by="ann", **options
        )

    def loaded(self) -> dict[str, set[str]]:
        return {name: set(fake.loaded) for name, fake in self.replicas.items()}


@pytest.fixture
def site(tmp_path: Path, registry: Registry, store: ArtifactStore) -> Site:
    return Site(tmp_path, registry, store)


async def test_all_replicas_then_the_alias(site: Site) -> None:
    """A release ends loaded and proven everywhere, stable, and behind its alias."""
    one = site.put(1)
    alias = await site.release(one)
    assert (alias.alias, alias.release, alias.moved_by) == ("desk@stable", one, "ann")
    assert site.registry.version(one).state is State.STABLE
    assert site.loaded() == {name: {one} for name in NAMES}
    assert site.fleet.served() == {name: {one} for name in NAMES}


async def test_nobody_is_probed_before_all_have_loaded(site: Site) -> None:
    """The stages follow each other over the whole fleet, as the state table says."""
    await site.release(site.put(1))
    routes = [route for _, route, _ in site.calls]
    last_load = max(at for at, route in enumerate(routes) if route == "load_lora_adapter")
    assert routes.index("completions") > last_load


FAULTS = {
    "refuses the load": (lambda fake: fake.planted.update(load_lora_adapter=failing()), "engine is dead"),
    "is not there": (lambda fake: fake.planted.update(models=unreachable), "connection refused"),
    "dies while loading": (lambda fake: fake.planted.update(load_lora_adapter=unreachable), "refused"),
    "hangs while probed": (lambda fake: fake.planted.update(completions=hanging), "timed out"),
    "answers as the base": (lambda fake: setattr(fake, "silent", True), "just as the base answers"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("where", NAMES)
async def test_one_failing_replica_undoes_all(fault: str, where: str, site: Site) -> None:
    """Whatever fails, wherever: the alias stays, the new release is nowhere, the old one everywhere."""
    old, new = site.put(1), site.put(2)
    await site.release(old)
    plant, reason = FAULTS[fault]
    plant(site.replicas[where])
    with pytest.raises(RolloutFailed) as failed:
        await site.release(new)
    assert set(failed.value.reasons) == {where}
    assert reason in failed.value.reasons[where]
    assert site.registry.alias("desk").release == old
    assert site.registry.version(new).state is State.FAILED
    assert reason in site.registry.version(new).reason
    assert site.loaded() == {name: {old} for name in NAMES}


async def test_every_failing_replica_is_named(site: Site) -> None:
    """Reasons come from all replicas that failed, not from the first."""
    for name in ("a", "c"):
        site.replicas[name].planted["load_lora_adapter"] = failing(message=f"no room on {name}")
    with pytest.raises(RolloutFailed) as failed:
        await site.release(site.put(1))
    assert failed.value.reasons == {name: f"no room on {name} (HTTP 500)" for name in ("a", "c")}


async def test_failed_release_may_be_tried_again(site: Site) -> None:
    """Once the cause is gone the same release rolls out."""
    one = site.put(1)
    site.replicas["b"].planted["load_lora_adapter"] = failing()
    with pytest.raises(RolloutFailed):
        await site.release(one)
    site.replicas["b"].planted.clear()
    assert (await site.release(one)).release == one


async def test_previous_stays_loaded_and_rollback_is_an_alias_move(site: Site) -> None:
    """After a release its predecessor is still served everywhere; going back asks no replica anything."""
    old, new = site.put(1), site.put(2)
    await site.release(old)
    await site.release(new)
    assert site.loaded() == {name: {old, new} for name in NAMES}
    site.calls.clear()
    alias = await rollout.rollback("desk", registry=site.registry, by="bob")
    assert (alias.release, alias.previous) == (old, new)
    assert site.calls == []


async def test_failing_again_leaves_a_standing_release_alone(site: Site) -> None:
    """A release behind an alias that is rolled out again and fails stays stable, loaded and there."""
    one = site.put(1)
    await site.release(one)
    site.replicas["b"].silent = True
    with pytest.raises(RolloutFailed):
        await site.release(one)
    assert site.registry.version(one).state is State.STABLE
    assert site.registry.alias("desk").release == one
    assert site.loaded() == {name: {one} for name in NAMES}


async def test_name_taken_by_other_files(site: Site) -> None:
    """A release's name under which a replica serves another folder is never trusted, nor taken away."""
    one = site.put(1)
    site.replicas["b"].loaded[one] = "/somewhere/else"
    with pytest.raises(RolloutFailed, match="/somewhere/else"):
        await site.release(one)
    assert site.loaded() == {"a": set(), "b": {one}, "c": set()}


async def test_cancelled_rollout_is_undone(site: Site) -> None:
    """Shutting down in the middle leaves no half-released adapter and says so in the registry."""
    one, reached = site.put(1), asyncio.Event()

    async def stuck(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    site.fleet = Fleet((fake.replica for fake in site.replicas.values()), probe=stuck)
    work = asyncio.create_task(site.release(one))
    await reached.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert site.loaded() == {name: set() for name in NAMES}
    assert site.registry.version(one).state is State.FAILED


async def test_evaluation_gates(site: Site) -> None:
    """An adapter that was evaluated as no better than its base is released only on purpose."""
    poor = msgspec.structs.replace(PASSED, passed=False, reasons=("worse",))
    release = site.put(1, evaluation=poor)
    with pytest.raises(NotServable, match="worse"):
        await site.release(release)
    assert site.calls == []
    assert (await site.release(release, despite_evaluation=True)).release == release


async def test_nothing_to_release(site: Site) -> None:
    """An unknown release, and a fleet without replicas, are errors and not successes."""
    with pytest.raises(UnknownRelease):
        await site.release("desk@" + "0" * 12)
    site.fleet = Fleet(())
    with pytest.raises(RolloutFailed, match="no replicas"):
        await site.release(site.put(1))


async def test_quorum_leaves_a_failing_replica_behind(site: Site) -> None:
    """With a quorum of two of three, one replica that fails does not fail the release, nor keeps it."""
    site.replicas["b"].silent = True
    one = site.put(1)
    with pytest.raises(RolloutFailed):
        await site.release(one)
    assert (await site.release(one, quorum=0.6)).release == one
    assert site.loaded() == {"a": {one}, "b": set(), "c": {one}}
    assert site.fleet.served() == {"a": {one}, "b": frozenset(), "c": {one}}
    assert site.registry.version(one).state is State.STABLE


async def test_below_the_quorum_all_is_undone(site: Site) -> None:
    """Two that fail at different steps are too many: both are named, and nobody keeps the release."""
    site.replicas["a"].planted["load_lora_adapter"] = failing()
    site.replicas["b"].silent = True
    with pytest.raises(RolloutFailed) as failed:
        await site.release(site.put(1), quorum=0.6)
    assert set(failed.value.reasons) == {"a", "b"}
    assert site.loaded() == {name: set() for name in NAMES}


async def test_shadow_canary_stable(site: Site) -> None:
    """A release goes stage by stage; each has its own alias, and none but the last moves @stable."""
    old, new = site.put(1), site.put(2)
    await site.release(old)
    shadow = await site.release(new, stage=State.SHADOW)
    assert (shadow.alias, site.registry.version(new).state) == ("desk@shadow", State.SHADOW)
    canary = await site.release(new, stage=State.CANARY, weight=0.1)
    assert (canary.alias, site.registry.version(new).state) == ("desk@canary", State.CANARY)
    assert set(site.registry.aliases()) == {"desk@canary", "desk@stable"}
    assert site.registry.alias("desk").release == old
    (trial,) = site.registry.trials("desk")
    assert (trial.release, trial.against, trial.weight, trial.verdict) == (new, old, 0.1, "")
    stable = site.registry.conclude(new, by="ann")
    assert (stable.release, stable.previous) == (new, old)
    assert set(site.registry.aliases()) == {"desk@stable"}
    (trial,) = site.registry.trials("desk")
    assert (trial.verdict, trial.ended_ns is not None) == ("promoted", True)


async def test_a_canary_that_is_withdrawn(site: Site) -> None:
    """It is rolled back with its reason, its alias goes, and it may be tried again later."""
    old, new = site.put(1), site.put(2)
    await site.release(old)
    await site.release(new, stage=State.CANARY, weight=0.2)
    site.registry.withdraw(new, "worse in errors")
    version = site.registry.version(new)
    assert (version.state, version.reason) == (State.ROLLED_BACK, "worse in errors")
    assert set(site.registry.aliases()) == {"desk@stable"}
    assert site.registry.trials()[0].verdict == "rolled back"
    with pytest.raises(NotServable, match="neither shadow nor canary"):
        site.registry.withdraw(new, "again")
    await site.release(new, stage=State.CANARY, weight=0.2)
    assert [trial.verdict for trial in site.registry.trials()] == ["rolled back", ""]


async def test_canaries_that_cannot_be(site: Site) -> None:
    """Without a stable release, beside another canary, or with all of the traffic: refused, nothing stays."""
    one, two, three = (site.put(seed) for seed in (1, 2, 3))
    with pytest.raises(NotServable, match="no stable release"):
        await site.release(one, stage=State.CANARY, weight=0.1)
    assert (site.loaded()["a"], site.registry.version(one).state) == (set(), State.FAILED)
    await site.release(one)
    with pytest.raises(NotServable, match="weight"):
        await site.release(two, stage=State.CANARY, weight=1.0)
    await site.release(two, stage=State.CANARY, weight=0.1)
    with pytest.raises(NotServable, match="under way"):
        await site.release(three, stage=State.CANARY, weight=0.1)
    assert site.loaded() == {name: {one, two} for name in NAMES}


async def test_rollback_is_written_in_the_states(site: Site) -> None:
    """What an alias was rolled back from says so; rolling forward makes it stable again."""
    old, new = site.put(1), site.put(2)
    for release in (old, new):
        await site.release(release)
    await rollout.rollback("desk", registry=site.registry, by="bob")
    assert site.registry.version(new).state is State.ROLLED_BACK
    assert site.registry.version(old).state is State.STABLE
    await rollout.rollback("desk", registry=site.registry, by="bob")
    assert site.registry.version(new).state is State.STABLE

"""The reconciler brings replicas back to what the aliases need, and says what is served where."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters import rollout
from adapters.fleet import Fleet
from adapters.manifest import WEIGHT_FILES
from adapters.reconcile import NS, Reconciler, Served
from adapters.registry import Registry
from adapters.states import State
from adapters.store import ArtifactStore
from tests.support.artifacts import make_artifact
from tests.support.fake_vllm import FakeVllm, failing, hanging, unreachable
from tests.support.waiting import until

ALIAS = "desk@stable"


class Site:
    """Two replicas, and a reconciler whose clocks the tests turn."""

    def __init__(self, tmp_path: Path, registry: Registry, store: ArtifactStore) -> None:
        self.a, self.b = FakeVllm("a"), FakeVllm("b")
        self.fleet = Fleet((self.a.replica, self.b.replica))
        self.registry, self.store, self._folder = registry, store, tmp_path
        self.now = 0.0
        self.in_flight: dict[str, int] = {}
        self.seen: list[Served] = []
        self.reconciler = self.fresh_reconciler()

    def fresh_reconciler(self, interval_s: float = 0.01) -> Reconciler:
        """As in a gateway that has just started."""
        return Reconciler(
            self.fleet,
            self.registry,
            self.store,
            in_flight=lambda release: self.in_flight.get(release, 0),
            on_change=self.seen.append,
            interval_s=interval_s,
            clock=lambda: self.now,
            clock_ns=lambda: self.registry.alias("desk").moved_ns + round(self.now * NS),
        )

    def put(self, seed: int) -> str:
        return self.store.put(make_artifact(self._folder / f"desk-{seed}", seed=seed)).release

    async def release(self, seed: int) -> str:
        release = self.put(seed)
        await rollout.release(release, fleet=self.fleet, registry=self.registry, store=self.store, by="ann")
        return release


@pytest.fixture
def site(tmp_path: Path, registry: Registry, store: ArtifactStore) -> Site:
    return Site(tmp_path, registry, store)


@contextlib.asynccontextmanager
async def running(reconciler: Reconciler) -> AsyncIterator[None]:
    work = asyncio.create_task(reconciler.run())
    yield
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


async def test_what_is_released_is_served(site: Site) -> None:
    """After a release and a look at the aliases, the alias can be routed to, on both replicas."""
    one = await site.release(1)
    served = await site.reconciler.refresh()
    assert served.aliases.get(ALIAS) == one
    assert served.on(one) == {"a", "b"}
    assert site.seen == [served]


async def test_nothing_to_do_is_nothing_done(site: Site) -> None:
    """A pass over a fleet that is as it should be asks for the models and for nothing else."""
    await site.release(1)
    site.a.calls.clear()
    report = await site.reconciler.reconcile_once()
    assert [(tended.loaded, tended.unloaded, dict(tended.failed)) for tended in report] == [((), (), {})] * 2
    assert {route for _, route, _ in site.a.calls} == {"models"}


async def test_restarted_replica_gets_its_adapters_back(site: Site) -> None:
    """After a restart both the release and the one to roll back to are loaded and probed again."""
    old, new = await site.release(1), await site.release(2)
    site.a.restart()
    report = await site.reconciler.reconcile_once()
    assert set(report[0].loaded) == {old, new}
    assert set(site.a.loaded) == {old, new}
    assert site.reconciler.served.on(new) == {"a", "b"}


async def test_alias_is_not_listed_while_nobody_serves_it(site: Site) -> None:
    """A fleet that is gone takes its aliases out of routing; when it is back they return, without a hand."""
    one = await site.release(1)
    await site.reconciler.refresh()
    for fake in (site.a, site.b):
        fake.restart()
        fake.planted["models"] = unreachable
    report = await site.reconciler.reconcile_once()
    assert [tended.failed for tended in report] == [{"": "GET /v1/models: connection refused"}] * 2
    assert site.reconciler.served.aliases == {}
    for fake in (site.a, site.b):
        fake.planted.clear()
    await site.reconciler.reconcile_once()
    assert site.reconciler.served.aliases.get(ALIAS) == one
    assert [served.aliases for served in site.seen][-1] == {ALIAS: one}


async def test_slow_replica_keeps_its_adapters(site: Site) -> None:
    """A replica that is late under load is not taken for one that lost its adapters."""
    one = await site.release(1)
    site.a.planted["models"] = hanging
    await site.reconciler.reconcile_once()
    assert site.reconciler.served.on(one) == {"a", "b"}


async def test_new_gateway_probes_before_it_trusts(site: Site) -> None:
    """Adapters that were loaded before this process started count only after they have been probed."""
    one = await site.release(1)
    site.fleet = Fleet((site.a.replica, site.b.replica))
    site.b.silent = True
    reconciler = site.fresh_reconciler()
    report = await reconciler.reconcile_once()
    assert report[0].loaded == (one,)
    assert "just as the base answers" in report[1].failed[one]
    assert reconciler.served.on(one) == {"a"}
    assert one not in site.b.loaded


async def test_failing_load_is_tried_again_ever_more_rarely(site: Site) -> None:
    """A replica that cannot load is not hammered, and is served again soon after it can."""
    one = await site.release(1)
    site.a.restart()
    site.a.planted["load_lora_adapter"] = failing()
    tries = 0
    for second in range(32):
        site.now = float(second)
        site.a.calls.clear()
        await site.reconciler.reconcile_once()
        tries += sum(route == "load_lora_adapter" for _, route, _ in site.a.calls)
    assert tries == 6  # at 0, 1, 3, 7, 15 and 31 s
    site.a.planted.clear()
    site.now = 63.0
    assert one in (await site.reconciler.reconcile_once())[0].loaded


async def test_drain_before_unload(site: Site) -> None:
    """What no alias needs goes only when other gateways must have seen it and nobody waits for its answer."""
    oldest, old, new = [await site.release(seed) for seed in (1, 2, 3)]
    site.in_flight[oldest] = 1
    await site.reconciler.reconcile_once()
    assert oldest in site.a.loaded  # the alias has only just moved

    site.now = 11.0
    await site.reconciler.reconcile_once()
    assert oldest in site.a.loaded  # a request is in flight

    site.in_flight[oldest] = 0
    report = await site.reconciler.reconcile_once()
    assert [tended.unloaded for tended in report] == [(oldest,)] * 2
    assert set(site.a.loaded) == set(site.b.loaded) == {old, new}
    assert site.registry.version(oldest).state is State.RETIRED


async def test_retired_release_can_come_back(site: Site) -> None:
    """An old release rolls out again as any other does."""
    oldest = await site.release(1)
    await site.release(2)
    await site.release(3)
    site.now = 11.0
    await site.reconciler.reconcile_once()
    await rollout.release(oldest, fleet=site.fleet, registry=site.registry, store=site.store, by="ann")
    assert (await site.reconciler.refresh()).aliases[ALIAS] == oldest


async def test_a_rollout_at_work_is_left_alone(site: Site) -> None:
    """A release that is loading or probing is behind no alias yet, and is not unloaded for that."""
    await site.release(1)
    new = site.put(2)
    site.registry.register(site.store.get(new))
    site.a.loaded[new] = str(site.store.path(new))
    site.now = 11.0
    for state in (State.LOADING, State.PROBING):
        site.registry.advance(new, state)
        await site.reconciler.reconcile_once()
        assert new in site.a.loaded


async def test_strangers_are_left_alone(site: Site) -> None:
    """An adapter that somebody loaded by hand is neither served nor taken away."""
    await site.release(1)
    site.a.loaded["by-hand"] = "/adapters/by-hand"
    site.now = 11.0
    await site.reconciler.reconcile_once()
    assert "by-hand" in site.a.loaded
    assert not site.reconciler.served.on("by-hand")


async def test_tampered_artifact_is_not_loaded(site: Site) -> None:
    """A release whose files changed in the store does not reach a replica that asks for it again."""
    one = await site.release(1)
    (site.store.path(one) / WEIGHT_FILES[1]).write_bytes(b"other")
    site.a.restart()
    report = await site.reconciler.reconcile_once()
    assert "is not what was stored" in report[0].failed[one]
    assert site.a.loaded == {}
    assert site.reconciler.served.on(one) == {"b"}


async def test_the_loop_sees_an_alias_that_another_gateway_moved(site: Site) -> None:
    """Aliases moved in the database alone reach this gateway's routing, there and back."""
    old, new = await site.release(1), await site.release(2)
    elsewhere = site.registry
    async with running(site.reconciler):
        await until(lambda: site.reconciler.served.aliases.get(ALIAS) == new)
        elsewhere.rollback("desk", by="bob")
        await until(lambda: site.reconciler.served.aliases.get(ALIAS) == old)
    assert site.seen[-1].aliases[ALIAS] == old


async def test_the_first_look_is_a_whole_one(site: Site) -> None:
    """Once a new gateway has looked at every replica, what they serve is known: it may call itself ready."""
    one = await site.release(1)
    site.fleet = Fleet((site.a.replica, site.b.replica))
    reconciler = site.fresh_reconciler(interval_s=60)
    async with running(reconciler):
        await until(lambda: len(reconciler.tended) == 2)
        assert reconciler.served.aliases.get(ALIAS) == one


async def test_one_hanging_replica_holds_up_nobody(site: Site) -> None:
    """While one replica never answers, the other is tended and aliases move."""
    old, new = await site.release(1), await site.release(2)
    stuck = asyncio.Event()

    async def probe_that_hangs_on_b(replica: object, manifest: object) -> None:
        if replica is site.b.replica:
            await stuck.wait()

    site.fleet = Fleet((site.a.replica, site.b.replica), probe=probe_that_hangs_on_b)
    reconciler = site.fresh_reconciler()
    async with running(reconciler):
        await until(lambda: reconciler.served.on(new) == {"a"})
        site.registry.rollback("desk", by="bob")
        await until(lambda: reconciler.served.aliases.get(ALIAS) == old)
        site.a.restart()
        await until(lambda: set(site.a.loaded) == {old, new})


async def test_the_loop_survives_its_database(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that is away leaves routing as it is, and is asked again."""
    one = await site.release(1)
    asked = 0

    def away() -> None:
        nonlocal asked
        asked += 1
        raise OSError("disk is gone")

    async with running(site.reconciler):
        await until(lambda: site.reconciler.served.aliases.get(ALIAS) == one)
        with monkeypatch.context() as patched:
            patched.setattr(site.registry, "desired", away)
            await until(lambda: asked > 2)
        assert site.reconciler.served.aliases.get(ALIAS) == one
        site.a.restart()
        await until(lambda: one in site.a.loaded)


async def test_an_alias_leads_somewhere_while_its_release_is_proved_here(site: Site) -> None:
    """Another gateway moves an alias: until its release is proved here the old one answers, not nobody."""
    old = await site.release(1)
    others = Fleet((site.a.replica, site.b.replica))  # another gateway's, with the same replicas
    await site.reconciler.refresh()
    new = site.put(2)
    await rollout.release(new, fleet=others, registry=site.registry, store=site.store, by="bob")
    assert (await site.reconciler.refresh()).aliases[ALIAS] == old
    await site.reconciler.reconcile_once()
    assert site.reconciler.served.aliases == {ALIAS: new, "desk@previous": old}


async def test_an_alias_is_not_held_for_ever(site: Site) -> None:
    """A new release that no replica serves for long is a fault to be seen: nobody answers in its place."""
    await site.release(1)
    await site.reconciler.refresh()
    new = site.put(2)
    others = Fleet((site.a.replica, site.b.replica))
    await rollout.release(new, fleet=others, registry=site.registry, store=site.store, by="bob")
    site.a.silent = site.b.silent = True
    await site.reconciler.reconcile_once()
    site.now = 6.0
    await site.reconciler.reconcile_once()
    assert ALIAS not in site.reconciler.served.aliases


async def test_what_others_roll_out_is_proved_before_its_alias_moves(site: Site) -> None:
    """A gateway that sees a release being probed proves it for itself, so that the move finds it ready."""
    await site.release(1)
    new = site.put(2)
    site.registry.register(site.store.get(new))
    for state in (State.LOADING, State.PROBING):
        site.registry.advance(new, state)
    for fake in (site.a, site.b):
        fake.loaded[new] = str(site.store.path(new))
    await site.reconciler.reconcile_once()
    assert site.reconciler.served.on(new) == {"a", "b"}
    with site.fleet.working_on(new):  # its own rollout is left to probe by itself
        site.fleet._proven["a"].pop(new)
        await site.reconciler.reconcile_once()
        assert site.reconciler.served.on(new) == {"b"}


async def test_a_canary_is_served_beside_the_stable_release(site: Site) -> None:
    """Routing hears of the canary's weight while it is under way, and of nothing when it has ended."""
    old, new = await site.release(1), site.put(2)
    await rollout.release(
        new,
        fleet=site.fleet,
        registry=site.registry,
        store=site.store,
        by="ann",
        stage=State.CANARY,
        weight=0.25,
    )
    served = await site.reconciler.refresh()
    assert served.aliases == {ALIAS: old, "desk@canary": new}
    assert [(one.alias, one.release, one.weight) for one in served.canaries] == [(ALIAS, new, 0.25)]
    site.registry.withdraw(new, "worse")
    served = await site.reconciler.refresh()
    assert (served.aliases, served.canaries) == ({ALIAS: old}, ())

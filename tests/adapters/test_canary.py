"""A canary through the whole gateway: its share of the traffic, and its end by what the ledger says.

The replicas are stand-ins on real sockets; gateway, ledger, registry and their database are as they ship.
"""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.states import State
from gateway.admission import hash_key
from gateway.fleet import Fleet
from gateway.ledger.store import Store
from gateway.settings import Settings, load_settings
from gateway.types import Outcome
from router_policies.types import ErrorClass
from tests.ledger.samples import entry
from tests.support.artifacts import make_artifact
from tests.support.fake_vllm import FakeVllm

ALIAS = "desk@stable"


class Site:
    """One gateway's fleet over two replicas, and a ledger to write requests into."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self._folder, self._calls = settings, folder, 0
        self.fleet = Fleet(settings, judge_every_s=3600)  # the tests judge themselves
        self.ledger = Store(settings.database_url)
        self.ledger.migrate()

    async def release(self, seed: int, **plan: Any) -> str:
        folder = make_artifact(self._folder / f"desk-{seed}", seed=seed)
        return (await self.fleet.release(folder, by="ann", **plan)).release

    def aliases(self, unit: str) -> dict[str, str]:
        """Where aliases lead for one unit of traffic."""
        return {**self.fleet.snapshot.aliases, **self.fleet.taken_by_canaries(unit)}

    def answered(self, release: str, requests: int, failed: int = 0, ms: float = 100.0) -> None:
        """Requests of now that a release answered, or failed to."""
        rows = []
        for number in range(requests):
            self._calls += 1
            wrong: dict[str, Any] = (
                {"outcome": Outcome.FAILED, "error_class": ErrorClass.SERVER_ERROR, "first_byte_ms": None}
                if number < failed
                else {"first_byte_ms": ms * (0.9 + 0.2 * (number % 2))}
            )
            started_ns = self.fleet._registry.alias("desk").moved_ns + 3600 * 10**9
            rows.append(entry(f"call-{self._calls}", adapter=release, started_ns=started_ns, **wrong))
        self.ledger.insert(rows)


def configuration(urls: list[str], **changes: Any) -> dict[str, Any]:
    vllm = {"kind": "vllm", "zone": "home", "urls": urls, "model": "tiny", "usd_per_hour": "1"}
    return {
        "policy": "policy.yaml",
        "zones": {"home": {"local": True, "ceiling": "restricted"}},
        "backends": {"vllm": vllm | changes},
        "keys": [{"id": "app", "sha256": hash_key("sk"), "team": "desk"}],
    }


@asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[Site]:
    """`changes` go over the backend of the configuration."""
    async with AsyncExitStack() as stack:
        fakes = [FakeVllm("a"), FakeVllm("b")]
        urls = [await stack.enter_async_context(fake.serving()) for fake in fakes]
        path = folder / "headgate.yaml"
        path.write_text(yaml.safe_dump(configuration(urls, **changes)))
        settings = load_settings(path, {})
        settings.state.mkdir()
        site = Site(settings, folder)
        stack.callback(site.ledger.close)
        await stack.enter_async_context(site.fleet.running())
        yield site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as site:
        yield site


async def test_replicas_of_one_backend(site: Site) -> None:
    """A release comes up on every replica of a backend; who is able to answer is known by model."""
    one = await site.release(1)
    assert site.fleet.able(one) == {"vllm/1", "vllm/2"}
    assert site.fleet.able("tiny") == {"vllm/1", "vllm/2"}
    assert site.fleet.able("desk@" + "0" * 12) == frozenset()
    assert [view.replica for view in site.fleet.replicas()] == ["vllm/1", "vllm/2"]


async def test_traffic_is_shared_by_weight_and_users_stick(site: Site) -> None:
    """About a quarter of the units get the canary, each of them always; all others the stable release."""
    old = await site.release(1)
    new = await site.release(2, stage=State.CANARY, weight=0.25)
    units = [f"app/user-{number}" for number in range(4_000)]
    given = {unit: site.aliases(unit)[ALIAS] for unit in units}
    assert all(site.aliases(unit)[ALIAS] == release for unit, release in given.items())
    assert set(given.values()) == {old, new}
    assert 0.22 < Counter(given.values())[new] / len(units) < 0.28
    assert site.fleet.snapshot.aliases == {ALIAS: old, "desk@canary": new}


async def test_a_good_canary_is_promoted(site: Site) -> None:
    """Once enough requests have gone as well as the stable release's, it takes all of the traffic."""
    old = await site.release(1)
    new = await site.release(2, stage=State.CANARY, weight=0.25)
    site.answered(new, 20)
    site.answered(old, 60)
    assert not site.fleet.judge_once()
    (trial,) = await site.fleet.trials("desk")
    assert (trial.verdict, trial.numbers["verdict"], trial.numbers["canary"]["requests"]) == ("", "go on", 20)
    site.answered(new, 980)
    site.answered(old, 2_940)
    assert site.fleet.judge_once()
    await site.fleet._reconciler.refresh()
    assert site.aliases("anybody") == {ALIAS: new, "desk@previous": old}
    (trial,) = await site.fleet.trials("desk")
    assert (trial.verdict, trial.numbers["canary"]["requests"]) == ("promoted", 1_000)


@pytest.mark.parametrize("fault", [{"failed": 60}, {"ms": 200.0}], ids=["failures", "latency"])
async def test_a_bad_canary_is_rolled_back(fault: dict[str, Any], site: Site) -> None:
    """More failures, or slower answers: its share ends, and the numbers that said so are kept."""
    old = await site.release(1)
    new = await site.release(2, stage=State.CANARY, weight=0.25)
    site.answered(new, 300, **fault)
    site.answered(old, 900)
    assert site.fleet.judge_once()
    await site.fleet._reconciler.refresh()
    assert site.aliases("anybody") == {ALIAS: old}
    found = {one.release: (one.state, one.reason) for one in await site.fleet.releases()}
    measure = "errors" if "failed" in fault else "latency"
    assert found[new] == ("rolled back", f"worse in {measure}")
    assert (await site.fleet.trials("desk"))[0].numbers[measure]["low"] > 0


async def test_requests_that_are_at_fault_themselves_do_not_count(site: Site) -> None:
    """What the client did wrong says nothing of the adapter that it asked for."""
    old = await site.release(1)
    new = await site.release(2, stage=State.CANARY, weight=0.25)
    refused = {"outcome": Outcome.FAILED, "error_class": ErrorClass.REFUSED, "status": 400}
    later = site.fleet._registry.alias("desk").moved_ns + 3600 * 10**9
    site.ledger.insert([entry(f"bad-{n}", adapter=new, started_ns=later, **refused) for n in range(200)])
    site.answered(old, 200)
    assert not site.fleet.judge_once()
    assert (await site.fleet.trials("desk"))[0].numbers["canary"]["requests"] == 0


async def test_a_canary_whose_rival_is_gone(site: Site) -> None:
    """Where the stable release changes under a canary there is nothing to compare it with any more."""
    await site.release(1)
    new = await site.release(2, stage=State.CANARY, weight=0.25)
    await site.release(3)
    assert site.fleet.judge_once()
    assert (await site.fleet.trials("desk"))[0].reason.endswith("nothing to compare")
    assert {one.release: one.state for one in await site.fleet.releases()}[new] == "rolled back"


async def test_by_hand(site: Site) -> None:
    """An operator takes a shadow to canary and stable, or withdraws it."""
    old = await site.release(1)
    new = await site.release(2, stage=State.SHADOW)
    assert site.fleet.snapshot.aliases == {ALIAS: old, "desk@shadow": new}
    assert (await site.fleet.promote("desk", by="ann", stage=State.CANARY, weight=0.5)).state == "canary"
    assert (await site.fleet.promote("desk", by="ann", stage=State.STABLE)).aliases == (ALIAS,)
    third = await site.release(3, stage=State.SHADOW)
    assert (await site.fleet.withdraw("desk", by="bob")).reason == "withdrawn by bob"
    assert site.fleet.snapshot.aliases == {ALIAS: new, "desk@previous": old}
    assert third not in site.fleet.snapshot.aliases.values()


async def test_only_what_aliases_lead_to_is_brought_in(tmp_path: Path) -> None:
    """With one slot each, stable and previous come in when asked for; what only lies in the store never."""
    async with running(tmp_path, slots=1) as site:
        old, new = await site.release(1), await site.release(2)
        stranger = site.fleet._store.put(make_artifact(tmp_path / "desk-3", seed=3)).release
        for release in (old, new, old):
            await site.fleet.bring_in(release)
            assert site.fleet.able(release)
        assert site.fleet.demand()["hits"] + site.fleet.demand()["misses"] == 3
        await site.fleet.bring_in(stranger)
        assert not site.fleet.able(stranger)


async def test_a_blocked_release_answers_nobody_any_more(site: Site) -> None:
    """Not by its alias, nor by its digest: at once, though replicas have yet to unload it."""
    one = await site.release(1)
    assert site.fleet.able(one)
    (row,) = {seen.row for seen in await site.fleet.seen_by(one)}
    await site.fleet.erase([row], block=True, by="ann")
    assert ALIAS not in site.fleet.snapshot.aliases
    assert not site.fleet.able(one)

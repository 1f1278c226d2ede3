"""Several replicas behind one backend, on real sockets: balanced, and taken over from when one fails."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from gateway.backends.answer import begin
from gateway.backends.base import UpstreamRequest
from gateway.backends.fake import FakeProvider
from gateway.backends.fake_calls import Behaviour
from gateway.backends.openai_wire import OpenAIWire
from gateway.backends.replica_set import ReplicaSet
from gateway.errors import BackendError
from router_policies.types import ErrorClass, PrivacyClass, Zone

HOME = Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True)
NAMES = ("vllm/1", "vllm/2", "vllm/3")
RELEASE = "desk@0123456789ab"


class Site:
    """Three providers as replicas, and what the fleet says of them."""

    def __init__(self, providers: dict[str, FakeProvider]) -> None:
        self.providers = providers
        self.able = {RELEASE: {"vllm/1", "vllm/2"}}
        self.now = 0.0
        wires = {name: OpenAIWire(name, HOME, f"{one.url}/v1") for name, one in providers.items()}
        self.set = ReplicaSet(
            "vllm",
            HOME,
            wires,
            lambda model: self.able.get(model, set(NAMES)),
            random=lambda: 1.0,
            clock=lambda: self.now,
        )

    async def ask(self, text: str = "hello", model: str = "base", stream: bool = False) -> bytes:
        content = b'{"messages":[{"role":"user","content":"' + text.encode() + b'"}]}'
        if stream:
            content = b'{"stream":true,' + content[1:]
        request = UpstreamRequest(
            call_id="c",
            endpoint="chat/completions",
            model=model,
            content=content,
            stream=stream,
            permit=None,
        )
        answer = await begin(await self.set.send(request), stream=stream)
        try:
            parts: list[bytes] = []
            await answer.pump(parts.append)
            return b"".join(parts)
        finally:
            await answer.aclose()

    def asked(self) -> Counter[str]:
        return Counter({name: one.called for name, one in self.providers.items()})


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with several() as providers:
        site = Site(providers)
        yield site
        await site.set.aclose()


@asynccontextmanager
async def several() -> AsyncIterator[dict[str, FakeProvider]]:
    providers = {name: FakeProvider() for name in NAMES}
    for one in providers.values():
        await one.start()
    yield providers
    for one in providers.values():
        await one.stop()


async def test_adapters_go_where_they_are_served(site: Site) -> None:
    """A release is asked for only on replicas that were seen to serve it; the base on all of them."""
    for number in range(40):
        await site.ask(f"question {number}", RELEASE)
    assert site.asked()["vllm/3"] == 0
    assert min(site.asked()["vllm/1"], site.asked()["vllm/2"]) > 5
    for number in range(40):
        await site.ask(f"question {number}")
    assert min(site.asked().values()) > 5


async def test_a_conversation_stays_where_its_prefix_is_cached(site: Site) -> None:
    """Requests that begin alike go to one replica while it is no busier than the others."""
    for _ in range(12):
        await site.ask("the same beginning")
    assert sorted(site.asked().values()) == [0, 0, 12]


async def test_the_least_busy_takes_over_from_a_busy_home(site: Site) -> None:
    """Alike or not: a home that is busier by more than the slack is left for the least busy one."""
    for one in site.providers.values():
        one.script(Behaviour(latency=0.3, times=8))
    await asyncio.gather(*(site.ask("the same beginning") for _ in range(12)))
    assert max(site.asked().values()) - min(site.asked().values()) <= 3
    assert set(site.set.outstanding.values()) == {0}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_replica_that_dies_fails_nobody(stream: bool, site: Site) -> None:
    """One of three goes away with requests in flight: each of them is answered by another."""
    for one in site.providers.values():
        one.script(Behaviour(latency=0.2, times=20))
    work = [asyncio.create_task(site.ask(f"question {number}", stream=stream)) for number in range(30)]
    victim = site.providers["vllm/2"]
    await victim.until(lambda: victim.called >= 3)
    await victim.stop()
    answers = await asyncio.gather(*work)
    assert len(answers) == 30
    assert all(b"choices" in answer for answer in answers)
    for number in range(10):
        await site.ask(f"later question {number}")
    assert set(site.set.outstanding.values()) == {0}


async def test_a_server_error_is_taken_over_once(site: Site) -> None:
    """A request that breaks what serves it breaks two replicas at most, and its error is told."""
    for one in site.providers.values():
        one.script(Behaviour(status=500, times=5))
    with pytest.raises(BackendError) as failed:
        await site.ask()
    assert failed.value.error_class is ErrorClass.SERVER_ERROR
    assert sum(site.asked().values()) == 2


@pytest.mark.parametrize("status", [400, 429])
async def test_what_the_request_is_told_is_final(status: int, site: Site) -> None:
    """A refusal would be the same anywhere, and another replica is no way around a limit."""
    for one in site.providers.values():
        one.script(Behaviour(status=status, times=5))
    with pytest.raises(BackendError):
        await site.ask()
    assert sum(site.asked().values()) == 1


async def test_who_keeps_failing_is_left_alone_and_tried_again(site: Site) -> None:
    """Two failures eject a replica for a while; then one request tries it, and it is back."""
    site.able = {"base": {"vllm/1", "vllm/2"}}
    site.providers["vllm/1"].script(Behaviour(status=500, times=2))
    for number in range(40):
        await site.ask(f"question {number}")
    assert site.asked()["vllm/1"] == 2
    site.now = 2.0
    for number in range(40):
        await site.ask(f"question {number}")
    assert site.asked()["vllm/1"] > 5


async def test_nobody_serves_it(site: Site) -> None:
    """A release that no replica has is a 404 of ours, and reaches none of them."""
    site.able[RELEASE] = set()
    with pytest.raises(BackendError) as failed:
        await site.ask(model=RELEASE)
    assert (failed.value.status, failed.value.error_class) == (404, ErrorClass.NOT_FOUND)
    assert sum(site.asked().values()) == 0


async def test_a_lost_adapter_is_found_elsewhere(site: Site) -> None:
    """A replica that has forgotten the adapter since it was last looked at sends nobody away."""
    site.providers["vllm/1"].script(Behaviour(status=404, times=50))
    site.providers["vllm/2"].script(Behaviour(status=200, times=0))
    for number in range(10):
        assert b"choices" in await site.ask(f"question {number}", RELEASE)

"""Invariant 1 at the rented APIs: no permit, no socket; litellm has no way out but the one it is given."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from gateway.backends.base import UpstreamRequest
from gateway.backends.cloud import CloudBackend
from gateway.backends.cloud_providers import origin
from gateway.backends.http1 import Timeouts
from gateway.errors import BackendError, ConfigError, EgressRefused
from gateway.privacy.egress import Door
from router_policies.types import ErrorClass
from tests.backends.cloud_case import (
    MESSAGES,
    PROVIDERS,
    QUICK,
    ZONE,
    Broken,
    Rented,
    recorded,
    request_for,
    sealed,
)
from tests.support.upstream import body_of

# Last: it must find the environment that `gateway.backends.cloud` prepares.
import litellm  # isort: skip
from litellm.litellm_core_utils.prompt_templates.image_handling import (  # isort: skip
    async_convert_url_to_base64,
    convert_url_to_base64,
)


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to find a host; all of them fail."""
    return _failing(monkeypatch, socket, "getaddrinfo")


@pytest.fixture
def connects(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every attempt to reach a host; all of them fail."""
    return _failing(monkeypatch, socket.socket, "connect")


def _failing(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    tried: list[Any] = []

    def refuse(*where: Any, **_: Any) -> Any:
        tried.append(where)
        raise OSError("no network in this test")

    monkeypatch.setattr(owner, name, refuse)
    return tried


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "changes", [None, {"call_id": "another"}, {"backend": "another"}, {"content": b'{"messages":[]}'}]
)
async def test_without_its_permit_nothing_is_sent(provider: str, stream: bool, changes: Any) -> None:
    """No permit, or one for another call, backend or content: shut before litellm is even asked."""
    rented = Rented(provider)
    request = rented.request(stream=stream)
    given = (
        None if changes is None else sealed(**{"model": request.model, "content": request.content} | changes)
    )
    request = msgspec.structs.replace(request, permit=given)
    with pytest.raises(EgressRefused):
        await rented.backend.send(request)
    assert not rented.router.calls


async def test_a_host_that_is_not_configured_is_refused() -> None:
    """The door checks where a request goes: a base that it does not know is the door's refusal."""
    door = Door(backend="cloud", zone=ZONE, allowed=[("api.anthropic.com", 443)])
    backend = CloudBackend(
        "cloud", ZONE, door, provider="anthropic", api_key="k", api_base="https://elsewhere.example"
    )
    with pytest.raises(EgressRefused, match="may reach"):
        await backend.send(_request())
    await backend.aclose()


def _request(stream: bool = False) -> UpstreamRequest:
    return request_for("claude-sonnet-4-5", {"messages": MESSAGES}, stream=stream)


def test_unknown_providers_are_refused_at_the_start() -> None:
    """A provider that was not seen to use the given client cannot be configured."""
    door = Door(backend="cloud", zone=ZONE, allowed=[origin("bedrock")])
    with pytest.raises(ConfigError, match="bedrock"):
        CloudBackend("cloud", ZONE, door, provider="bedrock", api_key="k")


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_opens_no_socket_of_litellms_own(
    provider: str,
    stream: bool,
    lookups: list[Any],
    connects: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From call to answer nothing is looked up or connected to past the tap: no price map, no header list."""
    monkeypatch.setenv("ANTHROPIC_API_BASE", "https://elsewhere.example")
    monkeypatch.setenv("GEMINI_API_BASE", "https://elsewhere.example")
    rented = Rented(provider)
    rented.records("stream.sse" if stream else "text.json")
    await rented.ask(stream=stream, response_format=_schema())
    assert rented.sent.url.host != "elsewhere.example"
    assert lookups == connects == []


def _schema() -> Any:
    """Structured output, for which litellm goes to look for a list of Anthropic's headers."""
    schema = {"type": "object", "properties": {}, "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": schema}}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_answers_come_uncompressed(provider: str) -> None:
    """The marks of an answer's end are looked for in its bytes, so these must not be compressed."""
    rented = Rented(provider)
    rented.records("text.json")
    await rented.ask()
    assert rented.sent.headers["accept-encoding"] == "identity"


async def test_litellm_cannot_go_out_by_itself(connects: list[Any]) -> None:
    """What goes past the given client, as Gemini's embeddings and images' addresses do, leads nowhere."""
    rented = Rented("gemini")
    with pytest.raises(litellm.APIConnectionError):
        await litellm.aembedding(
            model="text-embedding-004", custom_llm_provider="gemini", api_key="k", input="a", max_retries=0
        )
    with pytest.raises(litellm.ImageFetchError):
        await async_convert_url_to_base64("https://93.184.216.34/a.png")
    with pytest.raises(litellm.ImageFetchError):
        convert_url_to_base64("https://93.184.216.34/a.png")
    assert connects == []
    assert not rented.router.calls


async def test_the_first_event_is_awaited_and_the_rest_is_not() -> None:
    """`send` returns when the first event is there, while the provider still holds back the others."""
    rest = asyncio.Event()
    events = recorded("anthropic_stream.sse").split(b"\n\n")

    class Held(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"\n\n".join(events[:5]) + b"\n\n"
            await rest.wait()
            yield b"\n\n".join(events[5:])

    rented = Rented("anthropic")
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Held()))
    response = await rented.backend.send(rented.request(stream=True))
    rest.set()
    assert b"[DONE]" in await body_of(response)
    await response.aclose()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_closing_early_cancels_upstream(provider: str) -> None:
    """A client that goes away ends the provider's stream; closing twice is fine."""
    rented = Rented(provider)
    body = Broken([recorded(f"{provider}_stream.sse")[:700] + b"\n\n", b"more"])
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body))
    response = await rented.backend.send(rented.request(stream=True))
    assert not body.closed
    await response.aclose()
    await response.aclose()
    assert body.closed


async def test_cancelling_a_call_that_waits() -> None:
    """Cancelled before its first event, `send` closes the connection and passes the cancellation on."""
    reading = asyncio.Event()

    class Silent(Broken):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            reading.set()
            await asyncio.get_running_loop().create_future()
            yield b""

    body = Silent([])
    rented = Rented("anthropic")
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body))
    call = asyncio.create_task(rented.backend.send(rented.request(stream=True)))
    await reading.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert body.closed


async def test_timeouts_are_ours() -> None:
    """A provider that takes the request and says nothing is given up after `first_byte`."""

    async def hold(_: httpx.Request) -> httpx.Response:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    rented = Rented("gemini", timeouts=QUICK)
    rented.router.route().mock(side_effect=hold)
    with pytest.raises(BackendError) as failed:
        await rented.ask()
    assert (failed.value.error_class, failed.value.status) == (ErrorClass.TIMEOUT, 504)


async def test_a_stream_without_an_end() -> None:
    """However busy it is, an attempt takes no longer than `total`."""

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b": still thinking\n\n"
                await asyncio.sleep(0)

    rented = Rented("gemini", timeouts=Timeouts(connect=20, first_byte=20, between_bytes=20, total=0.2))
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Endless()))
    with pytest.raises(BackendError) as failed:
        await rented.ask(stream=True)
    assert failed.value.error_class is ErrorClass.TIMEOUT


async def test_a_stream_that_falls_silent() -> None:
    """Between two pieces no more than `between_bytes` may pass."""

    class Silent(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await asyncio.get_running_loop().create_future()
            yield b""

    rented = Rented("gemini", timeouts=QUICK)
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Silent()))
    with pytest.raises(BackendError) as failed:
        await rented.ask(stream=True)
    assert failed.value.error_class is ErrorClass.TIMEOUT

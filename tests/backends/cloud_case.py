"""A rented provider on the other side of a real door: respx answers with recorded wire shapes."""

import math
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import msgspec
import respx

from gateway.backends.base import UpstreamRequest
from gateway.backends.cloud import CloudBackend
from gateway.backends.cloud_providers import origin
from gateway.backends.http1 import Timeouts
from gateway.privacy.egress import Door, Sealed, digest_of
from router_policies.types import Permit, PrivacyClass, Zone
from tests.support.upstream import body_of

WIRE = Path(__file__).parent / "wire"
ZONE = Zone(name="rented", ceiling=PrivacyClass.INTERNAL)
MODELS = {"anthropic": "claude-sonnet-4-5", "gemini": "gemini-2.5-flash"}
PROVIDERS = sorted(MODELS)
MESSAGES = [{"role": "user", "content": "Hello"}]


def recorded(name: str) -> bytes:
    return (WIRE / name).read_bytes()


def sealed(model: str, content: bytes, call_id: str = "call-1", backend: str = "cloud") -> Sealed:
    permit = Permit(
        id=f"{call_id}.1",
        call_id=call_id,
        backend=backend,
        zone="rented",
        model=model,
        privacy=PrivacyClass.PUBLIC,
        policy="p@1",
    )
    return Sealed(permit=permit, digest=digest_of(content), until=math.inf)


def request_for(
    model: str, content: dict[str, Any], *, stream: bool = False, endpoint: str = "chat/completions"
) -> UpstreamRequest:
    encoded = msgspec.json.encode(content)
    return UpstreamRequest(
        call_id="call-1",
        endpoint=endpoint,
        model=model,
        content=encoded,
        stream=stream,
        permit=sealed(model, encoded),
    )


class Broken(httpx.AsyncByteStream):
    """A body that ends in an error after its pieces, or just ends."""

    def __init__(self, pieces: Iterable[bytes], error: Exception | None = None) -> None:
        self._pieces, self._error = list(pieces), error
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        self.closed = True


class Rented:
    """A backend, and the provider behind it as `answer` sets it up."""

    def __init__(self, provider: str, **options: Any) -> None:
        self.provider, self.model = provider, MODELS[provider]
        self.router = respx.MockRouter(assert_all_called=False, assert_all_mocked=True)
        door = Door(backend="cloud", zone=ZONE, allowed=[origin(provider)])
        inner = httpx.MockTransport(self.router.async_handler)
        self.backend = CloudBackend(
            "cloud", ZONE, door, provider=provider, api_key="secret", inner=inner, **options
        )

    def answer(self, response: httpx.Response | Exception) -> None:
        self.router.route().mock(side_effect=[response])

    def records(self, name: str) -> None:
        """Answers with a recorded whole answer or stream of this provider."""
        content_type = "text/event-stream" if name.endswith(".sse") else "application/json"
        content = recorded(f"{self.provider}_{name}")
        self.answer(httpx.Response(200, headers={"content-type": content_type}, content=content))

    async def ask(self, *, stream: bool = False, endpoint: str = "chat/completions", **body: Any) -> "Said":
        """The whole answer of one call, as the gateway would pass it on."""
        response = await self.backend.send(self.request(stream=stream, endpoint=endpoint, **body))
        body = await body_of(response)
        await response.aclose()
        return Said(response.content_type, body)

    def request(
        self, *, stream: bool = False, endpoint: str = "chat/completions", **body: Any
    ) -> UpstreamRequest:
        told = {"prompt": "Hello"} if endpoint == "completions" else {"messages": MESSAGES}
        return request_for(self.model, {**told, **body}, stream=stream, endpoint=endpoint)

    @property
    def sent(self) -> httpx.Request:
        """The one request that reached the provider."""
        assert len(self.router.calls) == 1
        request: httpx.Request = self.router.calls.last.request
        return request

    @property
    def sent_body(self) -> Any:
        return msgspec.json.decode(self.sent.content)


class Said:
    """An answer's bytes, read."""

    def __init__(self, content_type: str, body: bytes) -> None:
        self.content_type, self.body = content_type, body

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def events(self) -> list[Any]:
        """A stream's events, without its end mark, which is checked."""
        *events, done, rest = self.body.split(b"\n\n")
        assert (done, rest) == (b"data: [DONE]", b"")
        return [msgspec.json.decode(event.removeprefix(b"data: ")) for event in events]


QUICK = Timeouts(connect=0.05, first_byte=0.05, between_bytes=0.05)

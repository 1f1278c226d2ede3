"""What truly went over the wire below litellm, which does not always tell.

litellm sends a request again by itself when a connection breaks, ends a stream that was cut with an
invented `stop`, counts tokens that the provider did not count, loses `retry-after` and turns a status into
another. So one call is one `Exchange`: it carries one request, and remembers what came back.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar

import httpx

from gateway.backends.cloud_providers import Provider
from gateway.backends.http1 import Timeouts
from gateway.errors import BackendError
from router_policies.types import ErrorClass

_MAX_ERROR_BODY = 64 * 1024
_OVERLAP = 64  # bytes of one chunk looked at again with the next: longer than any mark
_DRAIN_S = 0.1  # for the last bytes after a stream's end, so that its connection can be used again


class Exchange:
    """One request and its answer."""

    def __init__(self, provider: Provider) -> None:
        self._provider, self._tail = provider, b""
        self._body: Body | None = None
        self.sent = False
        self.until = float("inf")  # on the loop's clock: the whole answer has to be there by then
        self.status = 0
        self.retry_after: str | None = None
        self.error_body = b""
        self.failure: Exception | None = None  # of the connection, or of the door
        self.ended = False  # the provider said that this is the end
        self.counted = False  # it said how many tokens there were

    def answered(self, response: httpx.Response, between_bytes_s: float) -> httpx.Response:
        """The answer with a body that this exchange reads along."""
        assert isinstance(response.stream, httpx.AsyncByteStream)  # noqa: S101 - narrows: we sent it async
        self.status = response.status_code
        self.retry_after = response.headers.get("retry-after")
        self._body = Body(response.stream, self, between_bytes_s)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=self._body, extensions=response.extensions
        )

    def read(self, chunk: bytes) -> None:
        if self.status >= 300:
            self.error_body = (self.error_body + chunk)[:_MAX_ERROR_BODY]
            return
        seen = self._tail + chunk
        self.ended = self.ended or self._provider.end.search(seen) is not None
        self.counted = self.counted or self._provider.counted.search(seen) is not None
        self._tail = seen[-_OVERLAP:]

    async def aclose(self) -> None:
        """Gives the connection back. Before the answer's end that cancels it upstream."""
        if self._body is not None:
            await self._body.finish(drain=self.ended)


class Body(httpx.AsyncByteStream):
    """An answer's bytes, read by the exchange before litellm reads them."""

    def __init__(self, inner: httpx.AsyncByteStream, exchange: Exchange, between_bytes_s: float) -> None:
        self._inner, self._exchange, self._between_bytes_s = inner, exchange, between_bytes_s
        self._chunks = aiter(inner)
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with _within(self._between_bytes_s, self._exchange.until):
                chunk = await anext(self._chunks)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._exchange.failure = error
            raise
        self._exchange.read(chunk)
        return chunk

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._inner.aclose()

    async def finish(self, *, drain: bool) -> None:
        if drain and not self._closed:
            with contextlib.suppress(TimeoutError, httpx.TransportError, RuntimeError):
                async with asyncio.timeout(_DRAIN_S):
                    while await anext(self._chunks, None) is not None:
                        pass
        await self.aclose()


def _within(seconds: float, until: float) -> asyncio.Timeout:
    """For so long, and not after `until` on the loop's clock."""
    return asyncio.timeout_at(min(asyncio.get_running_loop().time() + seconds, until))


_current: ContextVar[Exchange | None] = ContextVar("headgate_cloud_exchange", default=None)


@contextlib.contextmanager
def exchanging(provider: Provider) -> Iterator[Exchange]:
    """Within it, and in tasks begun within it, a `Tap` sends one request and notes what comes of it."""
    exchange = Exchange(provider)
    token = _current.set(exchange)
    try:
        yield exchange
    finally:
        _current.reset(token)


class Tap(httpx.AsyncBaseTransport):
    """The transport under litellm's client."""

    def __init__(self, inner: httpx.AsyncBaseTransport, timeouts: Timeouts) -> None:
        self._inner, self._timeouts = inner, timeouts

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        exchange = _current.get()
        if exchange is None or exchange.sent:
            raise BackendError(ErrorClass.CONNECTION, "one call is one request; this would be another")
        exchange.sent = True
        exchange.until = asyncio.get_running_loop().time() + self._timeouts.total
        self._prepare(request)
        try:
            async with _within(self._timeouts.first_byte, exchange.until):
                response = await self._inner.handle_async_request(request)
        except Exception as error:
            exchange.failure = error
            raise
        return exchange.answered(response, self._timeouts.between_bytes)

    async def aclose(self) -> None:
        """Stays open: litellm closes the clients that it makes over this transport; `shut` is the end."""

    async def shut(self) -> None:
        await self._inner.aclose()

    def _prepare(self, request: httpx.Request) -> None:
        # Not compressed: the exchange looks for marks in these very bytes.
        request.headers["accept-encoding"] = "identity"
        request.extensions["timeout"] = {
            "connect": self._timeouts.connect,
            "read": None,  # watched above, where the head and the body can differ
            "write": None,
            "pool": None,
        }

"""The hot endpoints below ASGI: uvicorn's own HTTP/1.1 protocol, with requests to them taken out of it.

ASGI costs more than all that the gateway does for a request (DECISIONS 14), so a POST to one of ENDPOINTS
goes from the parser to the data plane and back to the socket without scope, events or queues. Every other
request takes uvicorn's way into FastAPI, on the same port.

A connection carries one request at a time. What a client sends before the answer to its last request is whole
is not read any more, and the connection ends with that answer: RFC 9112, 9.3.2 leaves a server that freedom,
and nothing can be smuggled in behind a request.

Health is answered here too, before any queue: when all else is slow, an orchestrator must still hear it.

Time limits cost a request nothing: a connection writes down until when it waits for its client, and
`Dataplane.sweep` looks at all of them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Protocol

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.backends.outbox import Outbox
from gateway.dataplane.exchange import Exchange
from gateway.errors import ApiError, BadRequest, TooLarge

log = logging.getLogger("headgate.dataplane")

ENDPOINTS = {
    b"/v1/chat/completions": "chat/completions",
    b"/v1/completions": "completions",
    b"/v1/embeddings": "embeddings",
    b"/v1/responses": "responses",
}
"""Path -> endpoint below /v1/."""

READ_HEADERS = frozenset(
    {
        b"authorization",
        b"x-api-key",
        b"x-headgate-privacy",
        b"x-headgate-session",
        b"x-headgate-tags",
        b"x-headgate-task",
        b"content-length",
        b"expect",
        b"traceparent",
    }
)
"""All that is read of a client's headers. None of them goes upstream."""

UPLOAD = b"/v1/files"
"""A POST here brings a file that is larger than other bodies, and takes longer."""

MAX_UPLOAD = 513 * 1024 * 1024  # bytes: a file of 512 MiB, and the form around it
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LINGER_S = 2.0  # for a refused client to read why, before its unread bytes reset the connection


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """On what a client sends and how long it may take. Times are kept to within a sweep."""

    max_body: int = 32 * 1024 * 1024  # bytes
    max_head: int = 64 * 1024  # bytes of request line and headers
    max_headers: int = 128
    max_in_flight: int = 4096  # requests of all clients together
    body_timeout: float = 30.0  # seconds for a whole request to arrive; between two parts of an upload
    stall_timeout: float = 60.0  # seconds in which a client that reads too slowly must have caught up
    keep_alive: float = 75.0  # seconds between two requests of a connection
    drain: float = 0.25  # seconds for a request that is on its way when the server is told to stop


Instant = Callable[[], tuple[int, bytes]]
"""Status and JSON body of an answer that needs no work."""


class Plane(Protocol):
    """What a connection needs of `dataplane.plane.Dataplane`."""

    limits: Limits
    instant: Mapping[bytes, Instant]  # by path

    def render(self, headers: list[tuple[bytes, bytes]]) -> bytes: ...

    def joined(self, connection: "HotProtocol") -> None: ...

    def left(self, connection: "HotProtocol") -> None: ...

    def answer(self, exchange: Exchange) -> asyncio.Task[None]: ...

    def refuse(self, exchange: Exchange, error: ApiError) -> None: ...


class HotProtocol(HttpToolsProtocol):
    """One client's connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        plane: Plane,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._plane, self._limits, self.outbox = plane, plane.limits, Outbox.of(self.loop)
        self.deadline = inf  # on the loop's clock: by then the client must have done what is awaited of it
        self._exchange: Exchange | None = None  # the hot request that is being read or answered
        self._arriving = False  # a request has begun and is not whole
        self._in_head = False
        self._cold = False  # the last request was FastAPI's
        self._uploads = False  # and brings a file
        self._wire_bytes = 0  # of a request that is not whole, without the last read
        self._segment = 0  # bytes of the last read
        self._deaf = False  # nothing more is read of this client
        self._draining = False

    @property
    def head(self) -> bytes:
        """Header lines that every answer has: the date, which uvicorn renews."""
        return self._plane.render(self.server_state.default_headers)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._plane.joined(self)
        self.deadline = self.loop.time() + self._limits.body_timeout

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._segment = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as found:
            self._stay_with_http1(data[found.args[0] :])
        except httptools.HttpParserError as error:
            self._unreadable(error)
        if self._arriving:
            self._more_to_come()

    def connection_lost(self, exc: Exception | None) -> None:
        self._plane.left(self)
        if self._exchange is not None:
            exchange, self._exchange = self._exchange, None
            if exchange.task is not None:
                exchange.task.add_done_callback(self.tasks.discard)
            exchange.lost()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.deadline = self.loop.time() + self._limits.stall_timeout
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.deadline = inf if self._busy else self.loop.time() + self._limits.keep_alive
        if self._exchange is not None:
            self._exchange.resume()

    # The server, and the plane.

    def shutdown(self) -> None:
        """Ends with the present answer; an idle client may have a request on its way, and has it answered."""
        self._draining = True
        self._end_with_this_answer()
        if not (self._busy or self._arriving):
            self.deadline = self.loop.time() + self._limits.drain

    def expire(self, now: float) -> None:
        """Ends what takes its client too long."""
        if now < self.deadline:
            return
        if self._arriving and not self._deaf:
            self._refuse(
                BadRequest(
                    f"The request did not arrive within {self._limits.body_timeout:g} s.",
                    status=408,
                    code="request_timeout",
                )
            )
        else:
            self.transport.abort()

    def answered(self, exchange: Exchange) -> None:
        if exchange.task is not None:
            self.tasks.discard(exchange.task)
        self._exchange = None
        if exchange.keep_alive and not self._draining:
            self.deadline = self.loop.time() + self._limits.keep_alive
            return
        self.outbox.flush()
        unsent = self.transport.get_write_buffer_size()
        self.deadline = self.loop.time() + (self._limits.stall_timeout if unsent else LINGER_S)
        if self._deaf and self.transport.can_write_eof():
            self.transport.write_eof()  # closed at once, its unread bytes would reset the connection
        else:
            self.transport.close()

    # httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_begin(self) -> None:
        if self._busy:
            self._turn_deaf()
            return
        self.url, self.headers = b"", []
        self._arriving = self._in_head = True
        self._cold = self._uploads = False
        self._wire_bytes, self.deadline = 0, inf

    def on_headers_complete(self) -> None:
        if self._deaf or self.parser.should_upgrade():
            return
        self._in_head = False
        size = self._wire_bytes + self._segment  # at most: a body may have begun in the same segment
        if len(self.headers) > self._limits.max_headers or (
            size > self._limits.max_head and self._too_long()
        ):
            self._refuse(_head_too_large(self._limits))
            return
        endpoint = ENDPOINTS.get(self.url) or ENDPOINTS.get(_path(self.url) or b"")
        method = self.parser.get_method()
        if endpoint is None and not (method == b"GET" and self.url in self._plane.instant):
            self._to_uvicorn()
        elif endpoint is None or method == b"POST":
            self._expect(endpoint or "")
        else:
            self._refuse(_not_allowed(method, endpoint))

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            return
        exchange = self._exchange
        if exchange is None:
            super().on_body(body)
            return
        exchange.parts.append(body)
        exchange.size += len(body)
        if exchange.size > self._limits.max_body:
            self._refuse(self._too_large())

    def on_message_complete(self) -> None:
        if self._deaf or self._in_head:
            return
        self._arriving = False
        self.deadline = inf
        exchange = self._exchange
        if exchange is None:
            super().on_message_complete()
        elif not exchange.endpoint:
            exchange.instantly(*self._plane.instant[self.url]())
        elif len(self.tasks) >= self._limits.max_in_flight:
            self._plane.refuse(exchange, _overloaded())
        else:
            exchange.task = self._plane.answer(exchange)
            self.tasks.add(exchange.task)

    # Within.

    @property
    def _busy_cold(self) -> bool:
        """Whether FastAPI is at an answer."""
        return self._cold and not self.cycle.response_complete

    @property
    def _largest(self) -> int:
        """Bytes of a body. An upload's are counted while they are written, see `gateway.api.uploads`."""
        return MAX_UPLOAD if self._uploads else self._limits.max_body

    @property
    def _busy(self) -> bool:
        return self._exchange is not None or self._busy_cold

    def _expect(self, endpoint: str) -> None:
        """A hot request whose body is still to come."""
        headers: dict[bytes, str] = {}
        for name, value in self.headers:
            if name in READ_HEADERS:  # repeated ones are one list: none hides another (RFC 9110, 5.3)
                said = value.decode("latin-1")
                headers[name] = f"{headers[name]}, {said}" if name in headers else said
        declared = headers.get(b"content-length", "")
        if declared.isdecimal() and int(declared) > self._limits.max_body:
            self._refuse(self._too_large())
            return
        modern = self.parser.get_http_version() == "1.1"
        keep_alive = modern and not self._draining and self.parser.should_keep_alive()
        self._exchange = Exchange(self, endpoint, headers, keep_alive=keep_alive, chunked=modern)
        if headers.get(b"expect", "").lower() == "100-continue":
            self.outbox.write(self.transport, CONTINUE)

    def _to_uvicorn(self) -> None:
        url, headers = self.url, self.headers
        if _path(url) is None:
            self._refuse(BadRequest("The request's target is no path.", code="invalid_http"))
            return
        super().on_message_begin()
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()
        self._cold = True
        self._uploads = self.parser.get_method() == b"POST" and _path(url) == UPLOAD
        self.headers = []  # trailers go here: they are no headers of the request
        if self._draining:
            self.cycle.keep_alive = False

    def _stay_with_http1(self, rest: bytes) -> None:
        """Reads on as if no other protocol had been asked for, which RFC 9110, 7.8 lets a server do.

        llhttp takes all that follows such a head for that protocol. But many a client (Java's own is one)
        asks for HTTP/2 on every request and sends a body after it.
        """
        if self._deaf:
            return
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        if method == b"CONNECT":
            self._refuse(BadRequest("This is no proxy.", code="invalid_http"))
            return
        kept = [b"%b: %b\r\n" % header for header in self.headers if header[0] != b"upgrade"]
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(kept))
        self.parser = httptools.HttpRequestParser(self)
        try:
            self.parser.feed_data(head + rest)
        except httptools.HttpParserError as error:
            self._unreadable(error)

    def _more_to_come(self) -> None:
        """A request is under way: it has a time by which it must be whole, and a limited size."""
        if self.deadline == inf:
            self.deadline = self.loop.time() + self._limits.body_timeout
        self._wire_bytes += self._segment
        if self._in_head:
            if self._wire_bytes > self._limits.max_head:
                self._refuse(_head_too_large(self._limits))
            return
        if self._uploads:
            self.deadline = self.loop.time() + self._limits.body_timeout
        if self._wire_bytes > self._limits.max_head + 2 * self._largest:
            self._refuse(self._too_large())  # endless trailers, or much ado about each chunk

    def _turn_deaf(self) -> None:
        """What more this client sends is not read, and its connection ends with the present answer."""
        self._deaf = True
        self.url, self.headers = b"", []  # what the parser still tells of is no part of that request
        self._end_with_this_answer()

    def _end_with_this_answer(self) -> None:
        if self._exchange is not None:
            self._exchange.keep_alive = False
        elif self._busy_cold:
            self.cycle.keep_alive = False

    def _unreadable(self, error: httptools.HttpParserError) -> None:
        if isinstance(error, httptools.HttpParserCallbackError):
            log.error("a request could not be taken in: a fault of ours", exc_info=error)
        self._refuse(BadRequest(f"This is not a request in HTTP/1.1: {error}", code="invalid_http"))

    def _refuse(self, error: ApiError) -> None:
        """Answers what has come of a request, unless another one is being answered, and hangs up."""
        if self._deaf:
            return
        answering = self._exchange.task is not None if self._exchange is not None else self._busy_cold
        arriving, self._arriving, self._in_head = self._arriving, False, False
        self._turn_deaf()
        if self._cold and arriving:
            self.transport.close()  # FastAPI has half of it, and perhaps has answered: no second answer
            return
        if answering:
            return
        refused = self._exchange or Exchange(self, "", {}, keep_alive=False, chunked=True)
        refused.head_only = self.parser.get_method() == b"HEAD"
        self._exchange = refused
        self._plane.refuse(refused, error)

    def _too_long(self) -> bool:
        return len(self.url) + sum(len(n) + len(v) + 4 for n, v in self.headers) > self._limits.max_head

    def _too_large(self) -> TooLarge:
        return TooLarge(f"The request body is over {self._largest} bytes.", code="request_too_large")


def _path(target: bytes) -> bytes | None:
    """Of a request's target in origin or absolute form (RFC 9112, 3.2); None where it has none."""
    try:
        path: bytes | None = httptools.parse_url(target).path
    except httptools.HttpParserInvalidURLError:
        return None
    return path if path is not None and path.isascii() else None


def _head_too_large(limits: Limits) -> ApiError:
    return BadRequest(
        f"The request's headers are over {limits.max_head} bytes or {limits.max_headers} lines.",
        status=431,
        code="headers_too_large",
    )


def _not_allowed(method: bytes, endpoint: str) -> ApiError:
    return BadRequest(
        f"Not allowed to {method.decode('ascii')} on /v1/{endpoint}; use POST.",
        status=405,
        headers={"allow": "POST"},
    )


def _overloaded() -> ApiError:
    return ApiError(
        "The gateway has as many requests in flight as it takes. Please try again shortly.",
        status=503,
        code="overloaded",
        headers={"retry-after": "1"},
    )

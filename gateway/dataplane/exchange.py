"""One hot request of a client, and the answer to it as it goes out: `replies.Reply` on a socket."""

import asyncio
from collections.abc import Mapping
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.backends.base import Source
from gateway.backends.outbox import Outbox
from gateway.backends.wire import stream_error
from gateway.errors import ApiError

LAST_CHUNK = b"0\r\n\r\n"


class Client(Protocol):
    """The connection that an exchange belongs to."""

    transport: asyncio.Transport
    outbox: Outbox

    @property
    def head(self) -> bytes:
        """Header lines that every answer has."""
        ...

    def answered(self, exchange: "Exchange") -> None:
        """The exchange is over. Its connection may be used again if `exchange.keep_alive`."""
        ...


class Exchange:
    """Filled by the connection while the request arrives, then given to the data plane to be answered."""

    head_only = False  # the client asked for the head of the answer alone
    call_id = ""
    task: asyncio.Task[None] | None = None  # that answers
    _source: Source | None = None
    _pending = b""  # the head of a stream that has not said anything
    _full = _started = _streaming = _over = False

    def __init__(
        self, client: Client, endpoint: str, headers: Mapping[bytes, str], *, keep_alive: bool, chunked: bool
    ) -> None:
        """`chunked`: the client understands chunks; else the end of the connection is a stream's end."""
        self.endpoint, self.headers = endpoint, headers
        self.parts: list[bytes] = []  # of the body
        self.size = 0
        self.keep_alive = keep_alive
        self._client, self._chunked = client, chunked
        self._transport, self._outbox = client.transport, client.outbox

    @property
    def body(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    # replies.Reply

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._started = True
        framing = f"content-length: {len(body)}\r\n"
        self._write(self._head(status, headers, framing) + (b"" if self.head_only else body))

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        self._started = self._streaming = True
        if not self._chunked:
            self.keep_alive = False
        framing = "transfer-encoding: chunked\r\n" if self._chunked else ""
        self._pending = self._head(status, headers, framing)

    def write(self, chunk: bytes) -> None:
        if self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        if self._pending:  # the head leaves with the first bytes of the body: one packet, one call
            chunk, self._pending = self._pending + chunk, b""
        self._write(chunk)

    def drawn_from(self, source: Source | None) -> None:
        """`source` is paused while the client reads too slowly."""
        self._source = source
        if self._full and source is not None:
            source.pause()

    def instantly(self, status: int, body: bytes) -> None:
        """The whole answer, in JSON, without any more ado."""
        self.whole(status, {"content-type": "application/json"}, body)
        self.end()

    # Its end, one way or another.

    def end(self) -> None:
        if self._streaming:
            self._write(self._pending + (LAST_CHUNK if self._chunked else b""))
        self._finish()

    def fail(self, error: ApiError) -> None:
        """Renders `error`; in a stream that has begun as an event, lest its end be taken for a good one."""
        if self._over:
            return
        if self._started and not self._streaming:
            self.cut()
            return
        if self._started:
            self.write(stream_error(self.endpoint, error.message, error.code or "internal"))
        else:
            self.whole(error.status, {"content-type": "application/json"} | error.headers, error.body())
        self.end()

    def cut(self) -> None:
        """Ends the connection in mid-answer: the client sees that it is not whole."""
        self.keep_alive = False
        self._finish()

    def lost(self) -> None:
        """The client is gone: so is the reason for the call upstream."""
        self._over = True
        if self.task is not None:
            self.task.cancel()

    def pause(self) -> None:
        """The client reads more slowly than the answer comes."""
        self._full = True
        if self._source is not None:
            self._source.pause()

    def resume(self) -> None:
        self._full = False
        if self._source is not None:
            self._source.resume()

    def _write(self, data: bytes) -> None:
        self._outbox.write(self._transport, data)

    def _head(self, status: int, headers: Mapping[str, str], framing: str) -> bytes:
        own = framing
        if self.call_id:
            own = f"x-headgate-call-id: {self.call_id}\r\nx-request-id: {self.call_id}\r\n{framing}"
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        return STATUS_LINE[status] + self._client.head + own.encode("ascii") + header_lines(headers) + end

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self._client.answered(self)


_PRINTABLE = bytes(range(0x20, 0x7F))


def header_lines(headers: Mapping[str, str]) -> bytes:
    """In printable ASCII only: what a client or a policy wrote cannot start a header of its own."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.isascii():
        raw = lines.encode("ascii")
        if raw.translate(None, _PRINTABLE) == b"\r\n" * len(headers):
            return raw
    return b"".join([f"{name}: {_printable(value)}\r\n".encode("ascii") for name, value in headers.items()])


def _printable(value: str) -> str:
    return "".join(c if " " <= c <= "~" else "?" for c in value)

"""One hot request of a client, and the answer to it as it goes out: `pipeline.Reply` on a socket."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Protocol

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from gateway.backends.base import Source
from gateway.backends.wire import error_event
from gateway.errors import ApiError

LAST_CHUNK = b"0\r\n\r\n"


class Client(Protocol):
    """The connection that an exchange belongs to."""

    transport: asyncio.Transport

    @property
    def default_headers(self) -> Iterable[tuple[bytes, bytes]]: ...

    def answered(self, exchange: "Exchange") -> None:
        """The exchange is over. Its connection may be used again if `exchange.keep_alive`."""
        ...


class Exchange:
    """Filled by the connection while the request arrives, then given to the data plane to be answered."""

    def __init__(
        self, client: Client, endpoint: str, headers: Mapping[bytes, str], *, keep_alive: bool, chunked: bool
    ) -> None:
        """`chunked`: the client understands chunks; else the end of the connection is a stream's end."""
        self.endpoint, self.headers = endpoint, headers
        self.parts: list[bytes] = []  # of the body
        self.size = 0
        self.keep_alive = keep_alive
        self.head_only = False  # the client asked for the head of the answer alone
        self.call_id = ""
        self.task: asyncio.Task[None] | None = None  # that answers
        self._client, self._transport = client, client.transport
        self._chunked = chunked
        self._source: Source | None = None
        self._full = self._started = self._streaming = self._over = False

    @property
    def body(self) -> bytes:
        return self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)

    # pipeline.Reply

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """Without a content-length what follows is a stream."""
        self._started = True
        self._streaming = "content-length" not in headers
        if not self._chunked and self._streaming:
            self.keep_alive = False
        head = [
            STATUS_LINE[status],
            *(b"%b: %b\r\n" % pair for pair in self._client.default_headers),
            b"x-headgate-call-id: %b\r\nx-request-id: %b\r\n" % ((self.call_id.encode("ascii"),) * 2),
            "".join([f"{name}: {printable(value)}\r\n" for name, value in headers.items()]).encode("ascii"),
            b"transfer-encoding: chunked\r\n" if self._streaming and self._chunked else b"",
            b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n",
        ]
        self._transport.write(b"".join(head))

    def write(self, chunk: bytes) -> None:
        if self._streaming and self._chunked:
            chunk = b"%x\r\n%b\r\n" % (len(chunk), chunk)
        self._transport.write(chunk)

    def drawn_from(self, source: Source | None) -> None:
        """`source` is paused while the client reads too slowly."""
        self._source = source
        if self._full and source is not None:
            source.pause()

    # Its end, one way or another.

    def end(self) -> None:
        if self._streaming and self._chunked:
            self._transport.write(LAST_CHUNK)
        self._finish()

    def fail(self, error: ApiError) -> None:
        """Renders `error`; in a stream that has begun as an event, lest its end be taken for a good one."""
        if self._over:
            return
        if self._started and not self._streaming:
            self.cut()
            return
        if self._started:
            self.write(error_event(error.message, error.code or "internal"))
        else:
            body = error.body()
            headers = {"content-type": "application/json", "content-length": str(len(body))} | error.headers
            if headers.pop("connection", "") == "close":
                self.keep_alive = False
            self.start(error.status, headers)
            if not self.head_only:
                self.write(body)
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

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            self._client.answered(self)


def printable(value: str) -> str:
    """Printable ASCII only: what a client or a policy wrote cannot start a header of its own."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(c if " " <= c <= "~" else "?" for c in value)

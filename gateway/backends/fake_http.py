"""HTTP/1.1 for the fake provider: one connection, read with httptools, written by hand.

The fake needs what a web framework hides: the bytes as they left the client, a reset in mid-answer, an end
without an end mark. A connection answers one request at a time; what is pipelined behind it waits.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal, cast

import httptools
import msgspec

SERVER = "headgate-fake-provider"
BreakHow = Literal["reset", "close", "end"]

_REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found", 429: "Too Many Requests"}


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One parsed request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    keep_alive: bool


class Broken(Exception):
    """The answer ends here, and the connection with it."""


class Recording:
    """Every byte that came in, by connection: up to `limit` bytes in all, in `file` without a limit."""

    def __init__(self, limit: int, file: Path | None) -> None:
        self._room, self._file = limit, file
        self.connections: list[bytearray] = []
        self.size = 0  # bytes that came in
        self.missing = 0  # of those, bytes above the limit

    def opened(self) -> bytearray:
        self.connections.append(bytearray())
        return self.connections[-1]

    def add(self, record: bytearray, data: bytes) -> None:
        kept = data[: self._room]
        record += kept
        self._room -= len(kept)
        self.size += len(data)
        self.missing += len(data) - len(kept)
        if self._file is not None:
            with self._file.open("ab") as file:
                file.write(data)


class Connection(asyncio.Protocol):
    """A client's connection; a member of `siblings` for as long as it is open."""

    def __init__(
        self,
        handle: Callable[["Connection", Request], Awaitable[None]],
        recording: Recording,
        siblings: set["Connection"],
    ) -> None:
        self._handle, self._recording, self._siblings = handle, recording, siblings
        self._requests: asyncio.Queue[Request] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._chunked = False

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._record = self._recording.opened()
        self._siblings.add(self)
        self._parser = httptools.HttpRequestParser(self)
        self.task = asyncio.create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._recording.add(self._record, data)  # before the parser can change or refuse anything
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._writable.set()
        self.task.cancel()
        self._siblings.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # Called by the parser.

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body = b"", dict[str, str](), bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._requests.put_nowait(
            Request(
                method=self._parser.get_method().decode("ascii"),
                path=self._url.decode("latin-1").partition("?")[0],
                headers=self._headers,
                body=bytes(self._body),
                keep_alive=self._parser.should_keep_alive(),
            )
        )

    # Called by whoever answers.

    async def send(
        self, status: int, body: bytes, headers: Mapping[str, str], content_type: str = "application/json"
    ) -> None:
        """A whole answer."""
        self._head(status, {"content-type": content_type, "content-length": str(len(body)), **headers})
        await self._write(body)

    def begin(self, headers: Mapping[str, str]) -> None:
        """The head of a stream of events, whose pieces follow through `event` and `end`."""
        self._head(
            200,
            {"content-type": "text/event-stream; charset=utf-8", "transfer-encoding": "chunked", **headers},
        )
        self._chunked = True

    async def event(self, data: bytes, name: str = "") -> None:
        event = (f"event: {name}\n" if name else "").encode() + b"data: " + data + b"\n\n"
        await self._write(b"%x\r\n%s\r\n" % (len(event), event))

    async def end(self) -> None:
        self._chunked = False
        await self._write(b"0\r\n\r\n")

    def break_off(self, how: BreakHow) -> None:
        """Ends the answer early: a reset, a close in mid-body, or the end of a well-formed body."""
        if how == "reset":
            _reset_on_close(self.transport)
            self.transport.abort()
        elif how == "end" and self._chunked:
            self.transport.write(b"0\r\n\r\n")
        raise Broken

    async def _serve(self) -> None:
        try:
            with contextlib.suppress(Broken):
                while await self._serve_one():
                    pass
        finally:
            self.transport.close()

    async def _serve_one(self) -> bool:
        """Whether another request may follow."""
        request = await self._requests.get()
        await self._handle(self, request)
        return request.keep_alive

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Status')}", f"server: {SERVER}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.transport.write("\r\n".join([*lines, "", ""]).encode("latin-1"))

    async def _write(self, data: bytes) -> None:
        self.transport.write(data)
        await self._writable.wait()


def _reset_on_close(transport: asyncio.BaseTransport) -> None:
    """Lingering for zero seconds makes the kernel send RST in place of FIN."""
    sock: socket.socket = transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

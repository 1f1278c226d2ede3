"""A server that misbehaves by script, on a real socket. What one connection does is one async function.

    async with Toxic() as toxic:
        toxic.script(replies(answer(b"{}")), hangs_up_after(b"HTTP/1.1 2"))

The first connection plays the first function, the second the second. A connection that nobody scripted is
a failure of the test, and so is a function that raises.
"""

import asyncio
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

import msgspec

Play = Callable[["Peer"], Awaitable[None]]
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class Peer:
    """The server's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def request(self) -> bytes:
        """The next request, whole. IncompleteReadError: the client left in place of it."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        return head + await self._reader.readexactly(int(length[1]) if length else 0)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def drain(self) -> None:
        await self._writer.drain()

    async def gone(self) -> None:
        """Until the client has closed the connection, one way or the other."""
        with suppress(ConnectionError):
            while await self._reader.read(65536):
                pass

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        """Lingering for zero seconds makes the kernel send RST in place of FIN."""
        sock: socket.socket = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Toxic:
    """See the module. `requests` are those that `Peer.request` has read."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._plays: deque[Play] = deque()
        self.otherwise: Play | None = None  # what connections do that nobody scripted, if they may
        self._tasks: set[asyncio.Task[None]] = set()
        self._failures: list[BaseException] = []
        self.connections = 0  # accepted so far

    @property
    def open(self) -> int:
        """Connections that the client has not closed and that still play."""
        return len(self._tasks)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/v1"

    def script(self, *plays: Play) -> None:
        self._plays.extend(plays)

    def check(self) -> None:
        """Raises what went wrong on this side; all that was scripted must have been played."""
        failures, self._failures = self._failures, []
        left = len(self._plays)
        self._plays.clear()
        if failures:
            raise failures[0]
        assert not left, f"{left} connections that were scripted were never made"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()
        if error[0] is None:
            self.check()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            play = self._plays.popleft() if self._plays else self.otherwise
            assert play, "a connection that nobody scripted"
            await play(Peer(reader, writer))
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
        except asyncio.CancelledError:
            pass  # the test is over; asyncio's own callback wants no exception
        except Exception as failure:  # noqa: BLE001 - told by `check`, in the test's own task
            self._failures.append(failure)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


# What connections do.


def replies(*answers: bytes) -> Play:
    """One answer for each request, then the connection stays until the client closes it."""

    async def play(peer: Peer) -> None:
        for reply in answers:
            await peer.request()
            peer.send(reply)
        await peer.gone()

    return play


def hangs_up_after(data: bytes = b"", *, reset: bool = False, first: bytes = b"") -> Play:
    """Answers a request with `first`, if that is given; the next one with `data` and the end."""

    async def play(peer: Peer) -> None:
        if first:
            await peer.request()
            peer.send(first)
        await peer.request()
        peer.send(data)
        await peer.drain()
        if reset:
            peer.reset()

    return play


def stalls_after(data: bytes = b"", *, reached: asyncio.Event | None = None) -> Play:
    """Sends `data` in answer to a request and then nothing until the client closes. `reached`: it is sent."""

    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(data)
        if reached is not None:
            reached.set()
        await peer.gone()

    return play


def in_steps(*steps: bytes, go: asyncio.Semaphore, reset: bool = False) -> Play:
    """Answers a request with the first step at once, each further one on a release of `go`; then ends."""

    async def play(peer: Peer) -> None:
        await peer.request()
        for step in steps:
            peer.send(step)
            await peer.drain()
            await go.acquire()
        if reset:
            peer.reset()

    return play


# What they say.


def answer(body: bytes, status: int = 200, *headers: str) -> bytes:
    """With a content-length. `headers` are whole lines."""
    lines = [f"HTTP/1.1 {status} Said", "content-type: application/json", f"content-length: {len(body)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + body


def error(status: int, *headers: str, **fields: object) -> bytes:
    """An answer with OpenAI's error envelope."""
    said = {"message": f"said {status}", "type": "test_error", "param": None, "code": None, **fields}
    return answer(msgspec.json.encode({"error": said}), status, *headers)


STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
STREAM_END = b"0\r\n\r\n"


def chunk(*events: bytes) -> bytes:
    """One HTTP chunk that holds `events`."""
    data = b"".join(events)
    return b"%x\r\n%b\r\n" % (len(data), data)


def stream(*events: bytes) -> bytes:
    """A whole answer of one chunk for each event."""
    return STREAM_HEAD + b"".join(map(chunk, events)) + STREAM_END

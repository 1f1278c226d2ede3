"""A small HTTP/1.1 client: one pool of kept-alive connections to one origin, parsed by llhttp (httptools).

It exists because general-purpose clients cost more CPU than all the rest of a request.
It speaks what a model server needs: POST with a known body, answers with a length, in chunks or until close.

Time limits cost a request nothing: a connection writes down until when it waits, and the pool looks at all
busy ones every TICK_S. So a limit is kept to within a tick.
"""

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic
from typing import cast

import httptools
import msgspec

from gateway.backends.base import Sink
from gateway.backends.outbox import Outbox

HIGH_WATER = 256 * 1024  # bytes held for a slow reader before the socket is paused
MAX_HEAD = 64 * 1024  # bytes
TICK_S, IDLE_TICK_S = 0.05, 1.0

_INTERIM = (b"HTTP/1.1 1", b"HTTP/1.0 1")  # 100-continue, early hints


class HttpError(Exception):
    """The exchange failed. `answered`: at least one byte of the answer had come."""

    def __init__(self, message: str, *, answered: bool) -> None:
        super().__init__(message)
        self.answered = answered


class NotHttp(HttpError):
    """What came is no HTTP answer."""


class Silent(HttpError):
    """The peer let a time limit pass."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """All in seconds."""

    connect: float = 5.0
    first_byte: float = 120.0  # from the request's last byte to the answer's head, and to its body from there
    between_bytes: float = 60.0
    total: float = 600.0  # from the request's first byte to the answer's last


class Connection(asyncio.Protocol):
    """One connection, one exchange at a time: `exchange`, `read` or `pump` to the end, `finish`; again."""

    def __init__(self, timeouts: Timeouts | None = None) -> None:
        self.opened_at = self.idle_since = monotonic()
        self.deadline = inf  # on the clock of `monotonic`; who waits longer gets Silent
        self.status = 0
        self.closed = False
        timeouts = timeouts or Timeouts()
        self._first_byte_s, self._between_bytes_s = timeouts.first_byte, timeouts.between_bytes
        self._total_s, self._until = timeouts.total, inf  # the whole exchange must be over by then
        self._transport: asyncio.Transport
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox.of(self._loop)
        self._parser = httptools.HttpResponseParser(self)
        self._busy = False
        # Of the present exchange:
        self._head = b""  # of the answer, as it came, with what followed it in the same read
        self._head_done = self._complete = self._informational = False
        self._keep_alive = self._junk = False
        self._error: Exception | None = None
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._paused = False  # by whom the answer is for
        self._held = False  # by us: nobody has read what has come
        self._sink: Sink | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def reusable(self) -> bool:
        # A paused one still holds an answer that nobody read to its end.
        return self._complete and self._keep_alive and not (self._paused or self._held or self.closed)

    async def exchange(self, request: bytes) -> None:
        """Sends `request` and waits for the answer's head: `status` and `header`. Raises HttpError."""
        if self.closed:
            raise HttpError("the connection is closed", answered=False)
        self._busy = True
        self._head_done = self._complete = self._keep_alive = False
        self._head, self._buffered, self._chunks = b"", 0, []
        now = monotonic()
        self._until = now + self._total_s
        self.deadline = min(now + self._first_byte_s, self._until)
        self._outbox.write(self._transport, request)
        while not self._head_done:
            await self._news()

    def header(self, name: bytes) -> bytes:
        """The value of the answer's first header of that name, which is in small letters; b"" without one.

        The parser has checked the head. A search in it is cheaper than a call from there for each header.
        """
        blocks = self._head.split(b"\r\n\r\n")
        head = next(block for block in blocks if not block.startswith(_INTERIM))
        start = head.lower().find(b"\r\n" + name + b":")
        return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip() if start >= 0 else b""

    async def read(self) -> bytes:
        """The next bytes of the body, as they came; b"" at its end. Raises HttpError when it breaks off."""
        while not self._chunks and not self._complete:
            await self._news()
        data = self._taken()
        self._go_on()
        return data

    async def read_all(self, limit: int) -> bytes:
        """What is left of the body. Raises HttpError, also when that is more than `limit` bytes."""
        if self._complete and self._buffered <= limit:  # mostly it comes in one piece with the head
            return self._taken()
        parts, size = [], 0
        while part := await self.read():
            parts.append(part)
            size += len(part)
            if size > limit:
                raise HttpError(f"it is over {limit} bytes", answered=True)
        return b"".join(parts)

    async def pump(self, sink: Sink) -> None:
        """Hands what is left of the body to `sink` as it arrives, until its end.

        Raises HttpError when it breaks off, and what `sink` raises.
        """
        if self._chunks:
            sink(self._taken())
        self._sink = sink
        self._go_on()
        while not self._complete:
            await self._news()
        if self._error is not None:  # of `sink`, at the last bytes
            raise self._error

    def pause(self) -> None:
        """Back-pressure: reads no more from the socket until `resume`. Only the `total` time runs on."""
        if not (self._paused or self.closed):
            self._paused = True
            self._stop()

    def resume(self) -> None:
        if self._paused:
            self._paused = False
            self._start()

    def finish(self) -> None:
        """Ends the exchange; a connection that cannot be reused is closed."""
        self._busy = False
        self._sink = None
        self.deadline = inf
        self.idle_since = monotonic()
        if not self.reusable:
            self.abort()

    def abort(self) -> None:
        if not self.closed:
            self.closed = True
            self._transport.abort()

    def expire(self, now: float) -> None:
        """Fails the exchange if its time is up at `now`."""
        if now >= self.deadline:
            self._fail(Silent("nothing came in time", answered=bool(self._head)))

    def _go_on(self) -> None:
        """Somebody has read what was held."""
        if self._held:
            self._held = False
            self._start()

    def _stop(self) -> None:
        self._transport.pause_reading()
        self.deadline = self._until

    def _start(self) -> None:
        """Reads from the socket again, if nothing else is against it."""
        if self._paused or self._held:
            return
        if not self.closed:
            self._transport.resume_reading()
        self.deadline = min(monotonic() + self._between_bytes_s, self._until)

    def _taken(self) -> bytes:
        chunks, self._chunks, self._buffered = self._chunks, [], 0
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _news(self) -> asyncio.Future[None]:
        """Done when something has changed. Raises what the exchange has failed with."""
        if self._error is not None:
            raise self._error
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self._complete:
            self._error = error
        self.abort()
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        if not self._busy or self._complete:
            self._keep_alive = False  # bytes that no request asked for: this peer cannot be trusted again
            self.abort()
            return
        if not self._head_done:
            self._head += data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._received()  # what was good before it
            self._fail(NotHttp(f"not an HTTP answer: {error}", answered=True))
            return
        if not self._head_done and len(self._head) > MAX_HEAD:
            self._fail(NotHttp(f"the answer's head is over {MAX_HEAD} bytes", answered=True))
            return
        self._received()

    def _received(self) -> None:
        """Passes on what one read of the socket brought, and tells who waits for it."""
        if self._buffered:
            self.deadline = min(monotonic() + self._between_bytes_s, self._until)
            if self._sink is not None:
                try:
                    self._sink(self._taken())
                except Exception as error:  # noqa: BLE001 - it is raised again in `pump`, where the request is
                    self._error = error
                    self.abort()
                    self._wake()
                if not self._complete:
                    return
            elif self._buffered > HIGH_WATER:
                self._held = True
                self._stop()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        ends_at_close = self._head_done and not (
            self.header(b"content-length") or self.header(b"transfer-encoding")
        )
        if self._busy and not self._complete:
            if ends_at_close and exc is None:
                self._complete = True
            else:
                what = "the connection was reset" if exc else "the connection was closed early"
                self._fail(HttpError(what, answered=bool(self._head)))
        self._wake()

    # httptools callbacks. After the answer is complete, whatever more comes in the same bytes is junk:
    # it is ignored and the connection not used again.

    def on_message_begin(self) -> None:
        if self._complete:
            self._keep_alive, self._junk = False, True

    def on_headers_complete(self) -> None:
        if self._junk:
            return
        status = self._parser.get_status_code()
        self._informational = status < 200
        if not self._informational:
            self.status, self._head_done = status, True
            # A model server sends the head, then thinks.
            self.deadline = min(monotonic() + self._first_byte_s, self._until)

    def on_body(self, data: bytes) -> None:
        if not self._junk:
            self._chunks.append(data)
            self._buffered += len(data)

    def on_message_complete(self) -> None:
        if not (self._informational or self._junk):
            self._keep_alive = self._parser.should_keep_alive()
            self._complete = True


class Pool:
    """Kept-alive connections to one origin; the most recently used goes first, so that the rest age out."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        *,
        idle_s: float = 30.0,
        age_s: float = 600.0,
        max_idle: int = 256,
    ) -> None:
        self._connect, self._idle_s, self._age_s, self._max_idle = connect, idle_s, age_s, max_idle
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._resting = False  # the timer is for idle ones

    def idle(self) -> Connection | None:
        """A connection that was used before, and so may turn out stale."""
        while self._idle:
            connection = self._idle.pop()
            if self._usable(connection):
                return self._out(connection)
            connection.abort()
        return None

    async def open(self) -> Connection:
        """A new connection. Raises what connecting raises."""
        return self._out(await self._connect())

    def release(self, connection: Connection) -> None:
        self._busy.discard(connection)
        connection.finish()
        if connection.reusable and len(self._idle) < self._max_idle:
            self._idle.append(connection)
        else:
            connection.abort()

    def close(self) -> None:
        """For good: connections that are released later are closed too."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop().abort()

    def _usable(self, connection: Connection) -> bool:
        now = monotonic()
        return (
            not connection.closed
            and now - connection.idle_since < self._idle_s
            and now - connection.opened_at < self._age_s
        )

    def _out(self, connection: Connection) -> Connection:
        self._busy.add(connection)
        if self._timer is None or self._resting:
            self._look_in(TICK_S)
        return connection

    def _look_in(self, after_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._resting = after_s > TICK_S
        self._timer = asyncio.get_running_loop().call_later(after_s, self._tick)

    def _tick(self) -> None:
        """Holds busy connections to their time limits and closes idle ones; rests when there is none."""
        self._timer = None
        if self._busy or self._idle:  # first: no limit may be lost to what goes wrong below
            self._look_in(TICK_S if self._busy else IDLE_TICK_S)
        now = monotonic()
        for connection in list(self._busy):
            connection.expire(now)
        while self._idle and not self._usable(self._idle[0]):
            self._idle.pop(0).abort()

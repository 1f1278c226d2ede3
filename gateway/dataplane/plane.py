"""The data plane: takes hot requests from their connections through the pipeline, come what may."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.protocol import HotProtocol, Instant, Limits
from gateway.errors import ApiError, BadRequest
from gateway.monitor.observers import Observers
from gateway.parsing import read_tags, read_task
from gateway.pipeline import Incoming, Pipeline

log = logging.getLogger("headgate.dataplane")

MAX_SESSION = 128  # characters
SWEEP_S = 0.25


class Dataplane:
    """All hot requests of a process, and the connections that they come on."""

    def __init__(
        self,
        pipeline: Pipeline,
        observers: Observers,
        limits: Limits,
        instant: Mapping[bytes, Instant] | None = None,
    ) -> None:
        """`instant` answers a GET of these paths."""
        self.limits, self.instant = limits, instant or {}
        self._pipeline, self._observers = pipeline, observers
        self._connections: set[HotProtocol] = set()
        self._loop: asyncio.AbstractEventLoop
        self._rendered: tuple[list[tuple[bytes, bytes]], bytes] = ([], b"")

    def render(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """`headers` as lines, once for each list that uvicorn makes of them."""
        if headers is not self._rendered[0]:
            self._rendered = headers, b"".join([b"%b: %b\r\n" % pair for pair in headers])
        return self._rendered[1]

    def joined(self, connection: HotProtocol) -> None:
        self._connections.add(connection)

    def left(self, connection: HotProtocol) -> None:
        self._connections.discard(connection)

    def answer(self, exchange: Exchange) -> asyncio.Task[None]:
        """Begins to answer a request that is whole."""
        exchange.call_id = new_call_id()
        return self._loop.create_task(self._answer(exchange))

    def refuse(self, exchange: Exchange, error: ApiError) -> None:
        """Answers with `error` what never became a request."""
        exchange.call_id = new_call_id()
        self._fail(exchange, error)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Within it requests are answered, and clients held to their time limits."""
        self._loop = asyncio.get_running_loop()
        sweeper = self._loop.create_task(self._sweep())
        try:
            yield
        finally:
            sweeper.cancel()
            with suppress(asyncio.CancelledError):
                await sweeper

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._loop.time()
            for connection in list(self._connections):
                connection.expire(now)

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._pipeline.handle(_incoming(exchange), exchange)
            exchange.end()
        except ApiError as error:
            self._fail(exchange, error)
        except asyncio.CancelledError:
            exchange.cut()  # the client is gone, or the server stops without waiting any longer
            raise
        except Exception:  # the last boundary: no request may take the server down
            log.exception("request %s failed on a fault of ours", exchange.call_id)
            exchange.fail(
                ApiError("The gateway failed on this request; its operator has the trace.", code="internal")
            )

    def _fail(self, exchange: Exchange, error: ApiError) -> None:
        self._observers.refused(error.status)
        if not error.recorded:
            self._observers.unrecorded(exchange.call_id, time.time_ns(), error.status)
        exchange.fail(error)


def _incoming(exchange: Exchange) -> Incoming:
    """Raises BadRequest."""
    headers = exchange.headers
    return Incoming(
        call_id=exchange.call_id,
        endpoint=exchange.endpoint,
        body=exchange.body,
        authorization=headers.get(b"authorization", ""),
        api_key=headers.get(b"x-api-key", ""),
        privacy=_given(headers.get(b"x-headgate-privacy")),
        session=read_session(headers.get(b"x-headgate-session")),
        tags=read_tags(headers.get(b"x-headgate-tags", "")),
        task=read_task(headers.get(b"x-headgate-task", "")),
        traceparent=headers.get(b"traceparent", ""),
    )


def _given(header: str | None) -> tuple[str, ...]:
    return () if header is None else (header,)


def new_call_id() -> str:
    """Unique, and sorts by time."""
    return f"call_{time.time_ns():016x}{random.getrandbits(48):012x}"


def read_session(header: str | None) -> str | None:
    """`x-headgate-session: any-name`. Raises BadRequest."""
    if header is None:
        return None
    if not (0 < len(header) <= MAX_SESSION and header.isascii() and header.isprintable()):
        raise BadRequest(
            f"x-headgate-session takes 1 to {MAX_SESSION} printable characters.", param="x-headgate-session"
        )
    return header

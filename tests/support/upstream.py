"""A backend's answer: by script, and read as the pipeline does."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from gateway.backends.base import Sink


class Readable(Protocol):
    async def read(self) -> bytes: ...


async def body_of(response: Readable) -> bytes:
    """All that is left of an answer."""
    parts = []
    while part := await response.read():
        parts.append(part)
    return b"".join(parts)


class Response:
    """Says what it was given, then ends or raises. Its end waits for `closing`, if that is given."""

    status, content_type = 200, "application/json"

    def __init__(self, parts: Sequence[bytes | Exception], closing: asyncio.Event | None = None) -> None:
        self._parts, self._closing, self.closed = deque(parts), closing, False

    async def read(self) -> bytes:
        part = self._parts.popleft() if self._parts else b""
        if isinstance(part, Exception):
            raise part
        return part

    async def read_all(self, limit: int) -> bytes:
        return await body_of(self)

    async def pump(self, sink: Sink) -> None:
        while part := await self.read():
            sink(part)

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    async def aclose(self) -> None:
        self.closed = True
        if self._closing is not None:
            await self._closing.wait()

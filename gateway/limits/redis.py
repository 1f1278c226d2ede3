"""The little that we speak of Redis's protocol (RESP2): commands in, replies out, on one connection.

redis-py would be one more package in every deployment's lock, for two scripts that are called. Here a command
has one deadline for everything: name, connection, login and reply. When it has passed the connection is
closed, since its next reply would be that of an earlier command. No content goes this way: names of keys,
teams and routes, and numbers.
"""

import asyncio
import ssl
from collections import deque
from contextlib import suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from gateway.errors import HeadgateError

Reply = Any  # bytes, int, None or a list of these


class RedisError(HeadgateError):
    """Redis did not answer in time, or said no."""


class Redis:
    """One connection, opened when it is needed. For one event loop; commands may overlap."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """`url`: redis://[user:password@]host[:port][/database], or rediss:// for TLS."""
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._tls = ssl.create_default_context() if parts.scheme == "rediss" else None
        self._hello: list[list[str]] = []
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            self._hello.append(["AUTH", *user, unquote(parts.password)])
        if database := parts.path.strip("/"):
            self._hello.append(["SELECT", database])
        self._timeout_s = timeout_s
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: deque[asyncio.Future[Reply]] = deque()
        self._opening = asyncio.Lock()

    async def call(self, *command: str | int) -> Reply:
        """Raises RedisError, at the latest after `timeout_s`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._opening:
                    writer = self._writer or await self._open()
                return await self._send(writer, command)
        except TimeoutError:
            self._drop()
            raise RedisError("no answer in time") from None
        except OSError as error:
            self._drop()
            raise RedisError(f"cannot be reached: {error.strerror or type(error).__name__}") from error

    async def aclose(self) -> None:
        self._drop()
        if self._reading is not None:
            with suppress(asyncio.CancelledError):
                await self._reading

    async def _open(self) -> asyncio.StreamWriter:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls)
        self._reading = asyncio.create_task(self._read(reader))
        try:
            for command in self._hello:
                await self._send(writer, command)
        except BaseException:  # whoever comes next must not find half a login
            writer.transport.abort()
            self._drop()
            raise
        self._writer = writer
        return writer

    async def _send(self, writer: asyncio.StreamWriter, command: Any) -> Reply:
        parts = [str(part).encode() for part in command]
        writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        return await reply

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Hands each reply to the command that has waited longest."""
        try:
            while True:
                reply = await _reply(reader)
                waiting = self._waiting.popleft()
                if waiting.done():
                    continue
                if isinstance(reply, RedisError):
                    waiting.set_exception(reply)
                else:
                    waiting.set_result(reply)
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """Closes the connection; whoever waits on it hears so."""
        if self._writer is not None:
            self._writer.transport.abort()
            self._writer = None
        if self._reading is not None and self._reading is not asyncio.current_task():
            self._reading.cancel()
        waiting, self._waiting = self._waiting, deque()
        for reply in waiting:
            if not reply.done():
                reply.set_exception(RedisError("the connection was lost"))


async def _reply(reader: asyncio.StreamReader) -> Reply:
    """One reply; a RedisError where Redis says no. ValueError: that is not RESP."""
    line = await reader.readuntil(b"\r\n")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b"-":
        return RedisError(rest.decode("utf-8", "replace"))
    number = int(rest)
    if kind == b":":
        return number
    if number < 0 and kind in b"$*":
        return None
    if kind == b"$":
        return (await reader.readexactly(number + 2))[:-2]
    if kind == b"*":
        return [await _reply(reader) for _ in range(number)]
    raise ValueError(f"{kind!r} begins no reply")

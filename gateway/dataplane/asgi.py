"""The hot endpoints as one plain ASGI application: read the body within limits, run the pipeline, answer."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec

from gateway.backends.wire import error_event
from gateway.errors import ApiError, BadRequest, TooLarge
from gateway.monitor.metrics import Metrics
from gateway.pipeline import Incoming, Pipeline

log = logging.getLogger("headgate.dataplane")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

ENDPOINTS = {
    "/v1/chat/completions": "chat/completions",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
}
MAX_TAGS = 32
MAX_TAG = 64  # characters


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    max_body: int = 32 * 1024 * 1024  # bytes
    body_timeout: float = 30.0  # seconds for the whole of it


class ClientGone(Exception):
    """The client hung up before its body was complete."""


class Dataplane:
    def __init__(self, pipeline: Pipeline, metrics: Metrics, limits: Limits) -> None:
        self._pipeline, self._metrics, self._limits = pipeline, metrics, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call_id = new_call_id()
        reply = AsgiReply(send, call_id)
        try:
            incoming = await self._read(call_id, scope, receive)
            await self._until_client_leaves(self._pipeline.handle(incoming, reply), receive)
            await reply.end()
        except ApiError as error:
            self._metrics.refused(error.status)
            await reply.error(error)
        except ClientGone:
            self._metrics.refused(499)
        except Exception:  # the last boundary: no request may take the server down
            log.exception("request %s failed on a fault of ours", call_id)
            await reply.error(
                ApiError("The gateway failed on this request; its operator has the trace.", code="internal")
            )

    async def _read(self, call_id: str, scope: Scope, receive: Receive) -> Incoming:
        if scope["method"] != "POST":
            raise BadRequest(
                f"Not allowed to {scope['method']} on {scope['path']}; use POST.",
                status=405,
                headers={"allow": "POST"},
            )
        headers = {name: value.decode("latin-1") for name, value in scope["headers"] if name in READ_HEADERS}
        body = await self._body(headers.get(b"content-length", ""), receive)
        return Incoming(
            call_id=call_id,
            endpoint=ENDPOINTS[scope["path"]],
            body=body,
            authorization=headers.get(b"authorization", ""),
            api_key=headers.get(b"x-api-key", ""),
            privacy=headers.get(b"x-headgate-privacy"),
            tags=read_tags(headers.get(b"x-headgate-tags", "")),
        )

    async def _body(self, declared: str, receive: Receive) -> bytes:
        if declared.isdecimal() and int(declared) > self._limits.max_body:
            raise self._too_large()
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._limits.body_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > self._limits.max_body:
                        raise self._too_large()
                    if not message.get("more_body"):
                        return b"".join(chunks) if len(chunks) > 1 else chunks[0]
        except TimeoutError:
            raise BadRequest(
                f"The request body did not arrive within {self._limits.body_timeout:g} s.",
                status=408,
                code="request_timeout",
                headers={"connection": "close"},
            ) from None

    def _too_large(self) -> TooLarge:
        return TooLarge(
            f"The request body is over {self._limits.max_body} bytes.",
            code="request_too_large",
            headers={"connection": "close"},
        )

    async def _until_client_leaves(self, handling: Awaitable[None], receive: Receive) -> None:
        """Runs `handling`; a client that hangs up cancels it, and with it the call upstream."""
        task = asyncio.ensure_future(handling)
        watcher = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
            if not task.cancelled():
                task.result()
        finally:
            watcher.cancel()
            if not task.done():
                task.cancel()  # the server itself is stopping
                await asyncio.wait((task,))


class AsgiReply:
    """`pipeline.Reply` over ASGI."""

    def __init__(self, send: Send, call_id: str) -> None:
        self._send, self._call_id = send, call_id
        self._started = self._streaming = self._ended = False

    async def start(self, status: int, headers: Mapping[str, str]) -> None:
        self._started = True
        self._streaming = headers.get("content-type", "").startswith("text/event-stream")
        named = {"x-headgate-call-id": self._call_id, "x-request-id": self._call_id} | dict(headers)
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(name.encode("latin-1"), header_value(v)) for name, v in named.items()],
            }
        )

    async def write(self, chunk: bytes) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def end(self) -> None:
        if not self._ended:
            self._ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def error(self, error: ApiError) -> None:
        """Renders `error`; in a stream that has begun as an event, lest its end be taken for a good one."""
        if not self._started:
            body = error.body()
            headers = {"content-type": "application/json", "content-length": str(len(body))} | error.headers
            await self.start(error.status, headers)
            await self.write(body)
        elif self._streaming:
            await self.write(error_event(error.message, error.code or "internal"))
        await self.end()


READ_HEADERS = frozenset(
    (b"authorization", b"x-api-key", b"x-headgate-privacy", b"x-headgate-tags", b"content-length")
)
"""All that is read of a client's headers. None of them goes upstream."""


def new_call_id() -> str:
    """Unique, and sorts by time."""
    return f"call_{time.time_ns():016x}{secrets.token_hex(6)}"


def read_tags(header: str) -> frozenset[str]:
    """`x-headgate-tags: a, b`. Raises BadRequest."""
    tags = frozenset(tag for tag in map(str.strip, header.split(",")) if tag)
    if len(tags) > MAX_TAGS or any(len(tag) > MAX_TAG for tag in tags):
        raise BadRequest(
            f"x-headgate-tags takes at most {MAX_TAGS} tags of {MAX_TAG} characters.", param="x-headgate-tags"
        )
    return tags


def header_value(value: str) -> bytes:
    """Printable ASCII only: what a client or a policy wrote cannot start a header of its own."""
    return "".join(c if " " <= c <= "~" else "?" for c in value).encode("ascii")


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

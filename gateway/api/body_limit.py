"""No body of a request to the API holds more than a limit; the hot path and uploads have their own."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.api.errors import render
from gateway.errors import TooLarge

LARGEST = 8 * 1024 * 1024  # bytes
COUNTED_ELSEWHERE = "/v1/files"  # see `gateway.api.uploads`


class _Exceeded(Exception):
    """More has come than was announced, or than is allowed."""


class BodyLimit:
    """ASGI middleware: 413 in OpenAI's envelope for what is larger, before or while it is read."""

    def __init__(self, app: ASGIApp, largest: int = LARGEST) -> None:
        self._app, self._largest = app, largest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == COUNTED_ELSEWHERE:
            await self._app(scope, receive, send)
            return
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        read, started = 0, False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._largest:
                raise _Exceeded
            return message

        async def sent(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if announced.isdigit() and int(announced) > self._largest:
                raise _Exceeded
            await self._app(scope, counted, sent)
        except _Exceeded:
            if started:
                raise
            refusal = render(TooLarge(f"The body of this request is larger than {self._largest} bytes."))
            await refusal(scope, receive, send)

"""A stand-in for a rented API, or for a model server, that ships with the product and says what it is.

It speaks OpenAI's protocol at the socket, so whatever can call OpenAI can call it: tests, benchmarks, the
demo, a user who tries a policy. It answers by rule (`fake_text`), misbehaves on request (`Behaviour`) and
keeps every byte that reached it, which is how a test proves what did not.

    POST /v1/chat/completions, /v1/completions, /v1/responses, /v1/embeddings    GET /v1/models
    POST /__fake__/script     a list of behaviours for the next calls;  DELETE forgets them
    GET  /__fake__/received   what came in: counts, and the last calls with their bodies
"""

import asyncio
import collections
import hmac
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from gateway.backends.fake_calls import Answerer, Behaviour, Call, send
from gateway.backends.fake_generate import WireError
from gateway.backends.fake_http import Connection, Recording, Request
from gateway.backends.fake_text import Answer
from gateway.backends.fake_tokens import encoding

_ENDPOINTS = {
    ("POST", "/v1/chat/completions"): "chat/completions",
    ("POST", "/v1/completions"): "completions",
    ("POST", "/v1/embeddings"): "embeddings",
    ("POST", "/v1/responses"): "responses",
    ("GET", "/v1/models"): "models",
}
_CALLS_KEPT = 1_000


class FakeProvider:
    """See the module. `answer` is asked first for each reply; None leaves it to the fake's own words. It is
    given the request's body, and for a response the chat that this amounts to.

    With `api_key`, every request must carry it as its bearer. With `models`, any other is answered 404;
    without, any name will do. `record_limit` bounds what `received` holds in memory, in bytes;
    `record_file` gets the same bytes appended, without a limit.
    """

    def __init__(
        self,
        *,
        answer: Answer | None = None,
        api_key: str | None = None,
        models: Sequence[str] = (),
        record_limit: int = 64 * 2**20,
        record_file: Path | None = None,
    ) -> None:
        self._api_key, self._answerer = api_key, Answerer(answer, models)
        self._recording = Recording(record_limit, record_file)
        self._connections: set[Connection] = set()
        self._script: list[Behaviour] = []
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None
        self.calls: collections.deque[Call] = collections.deque(maxlen=_CALLS_KEPT)
        self.called = 0  # calls that came in
        self.abandoned = 0  # of those, calls whose client left before the answer's end

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        encoding()  # takes a moment the first time: not in the middle of a call
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Connection(self._handle, self._recording, self._connections), host, port
        )
        self._address = self._server.sockets[0].getsockname()

    async def stop(self) -> None:
        """Closes all connections, whatever they are doing."""
        if self._server is None:
            return
        self._server.close()
        tasks = [connection.task for connection in self._connections]
        for connection in self._connections:
            connection.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Without a path: clients of OpenAI want `/v1` behind it."""
        return f"http://{self._address[0]}:{self._address[1]}"

    def script(self, *behaviours: Behaviour) -> None:
        """Queues behaviours for the next calls."""
        self._script += behaviours

    @property
    def received(self) -> list[bytearray]:
        """What each connection sent, as read from its socket, before any parsing."""
        return self._recording.connections

    @property
    def scripted(self) -> int:
        """Scripted calls that have not come yet."""
        return sum(behaviour.times for behaviour in self._script)

    def saw(self, needle: bytes) -> bool:
        """Whether these bytes came in on any connection. Fails when some of what came in was not kept."""
        if self._recording.missing:
            raise RuntimeError(
                f"{self._recording.missing} bytes came in above record_limit: cannot search them"
            )
        return any(needle in record for record in self.received)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until the condition holds, asked again when a call comes in or ends."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # One connection.

    async def _handle(self, connection: Connection, request: Request) -> None:
        try:
            await self._dispatch(connection, request)
        except WireError as refusal:
            await send(connection, refusal.status, refusal.envelope)

    async def _dispatch(self, connection: Connection, request: Request) -> None:
        self._authenticate(request)
        endpoint = _ENDPOINTS.get((request.method, request.path))
        if endpoint is not None:
            await self._call(connection, endpoint, request)
        elif request.path.startswith("/__fake__/"):
            await send(connection, 200, self._control(request))
        else:
            raise WireError(f"Invalid URL ({request.method} {request.path})", status=404)

    def _authenticate(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._api_key is None or hmac.compare_digest(given.encode(), self._api_key.encode()):
            return
        what = f"Incorrect API key provided: {given[:4]}***." if given else "You didn't provide an API key."
        raise WireError(what, status=401, code="invalid_api_key" if given else None)

    # The control endpoints.

    def _control(self, request: Request) -> dict[str, Any]:
        match request.method, request.path:
            case "POST", "/__fake__/script":
                self.script(*_behaviours(request.body))
            case "DELETE", "/__fake__/script":
                self._script.clear()
            case "GET", "/__fake__/received":
                return self._report()
            case _:
                raise WireError(f"Invalid URL ({request.method} {request.path})", status=404)
        return {"fake": True, "scripted": self.scripted}

    def _report(self) -> dict[str, Any]:
        return {
            "fake": True,
            "connections": len(self.received),
            "bytes": self._recording.size,
            "requests": self.called,
            "abandoned": self.abandoned,
            "calls": [msgspec.to_builtins(call) for call in self.calls],
        }

    # One call.

    async def _call(self, connection: Connection, endpoint: str, request: Request) -> None:
        call = Call(endpoint=endpoint, body=_parsed(request.body) if request.method == "POST" else {})
        self.calls.append(call)
        self.called += 1
        self._changed.set()
        try:
            await self._answerer.behave(connection, call, self._next_behaviour(endpoint))
        except asyncio.CancelledError:
            self.abandoned += 1
            raise
        finally:
            self._changed.set()

    def _next_behaviour(self, endpoint: str) -> Behaviour:
        """Takes the first scripted behaviour that is meant for this endpoint."""
        for i, behaviour in enumerate(self._script):
            if behaviour.endpoint == endpoint or (not behaviour.endpoint and endpoint != "models"):
                left = msgspec.structs.replace(behaviour, times=behaviour.times - 1)
                self._script[i : i + 1] = [left] if left.times > 0 else []
                return behaviour
        return Behaviour()


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        raise WireError("We could not parse the JSON body of your request.") from None


def _behaviours(body: bytes) -> list[Behaviour]:
    try:
        return msgspec.json.decode(body, type=list[Behaviour])
    except msgspec.DecodeError as error:
        raise WireError(f"Not a script: {error}") from None

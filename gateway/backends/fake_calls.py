"""One call at the fake provider: how it is told to behave, and how it does."""

import asyncio
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from gateway.backends import fake_generate, fake_responses, fake_wire
from gateway.backends.fake_generate import Generation, WireError
from gateway.backends.fake_http import BreakHow, Connection
from gateway.backends.fake_text import Answer, Reply, ToolCall
from gateway.backends.fake_tokens import PrefixCache

_DEFAULT_MODELS = ("fake-large", "fake-small")
_GENERATORS = {
    "chat/completions": fake_generate.chat,
    "completions": fake_generate.completion,
    "responses": fake_responses.generate,
}
_ENDPOINTS = Literal["", "chat/completions", "completions", "embeddings", "responses", "models"]

_TOLD_TO_FAIL = "Headgate's fake provider was told to fail in mid-stream."


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the next call goes, or the next `times` calls. What is not said goes well."""

    endpoint: _ENDPOINTS = ""  # empty: any POST
    times: int = 1
    status: int = 200
    error: dict[str, Any] | None = None  # inside the envelope; None: one that fits the status
    headers: dict[str, str] = {}
    latency: float = 0.0  # seconds before the first byte
    chunk_delay: float = 0.0  # seconds before each chunk of a stream
    chunk_chars: int | None = None  # cut the text into chunks of so many characters, not at its tokens
    reply: str | None = None
    tool_call: ToolCall | None = None
    usage: dict[str, Any] | None = None  # said in place of what was counted
    omit_usage: bool = False
    omit_done: bool = False  # leave out what ends a stream: `data: [DONE]`, or a response's last event
    fail_after: int | None = None  # send an error in place of what follows so many chunks of a stream
    break_after: int | None = None  # end a stream after so many chunks
    break_how: BreakHow = "close"
    hang: bool = False  # never answer
    close: bool = False  # close the connection in place of an answer


class Call(msgspec.Struct, kw_only=True):
    """One call as it was understood. `status` is 0 until it is answered."""

    endpoint: str
    body: dict[str, Any]
    status: int = 0


class Answerer:
    """Answers calls, each in the way of its behaviour."""

    def __init__(self, answer: Answer | None, models: Sequence[str]) -> None:
        self._answer, self._models = answer, tuple(models)
        self._cache = PrefixCache()
        self._responses: set[str] = set()  # those that a later one may go on from

    async def behave(self, connection: Connection, call: Call, behaviour: Behaviour) -> None:
        await asyncio.sleep(behaviour.latency)
        if behaviour.hang:
            await asyncio.get_running_loop().create_future()
        if behaviour.close:
            connection.break_off("close")
        call.status = behaviour.status
        if behaviour.status >= 400:
            await send(connection, behaviour.status, _scripted_error(behaviour), behaviour.headers)
            return
        try:
            await self._succeed(connection, call, behaviour)
        except WireError as refusal:
            call.status = refusal.status
            raise

    async def _succeed(self, connection: Connection, call: Call, behaviour: Behaviour) -> None:
        made = self._made(call, behaviour, self._reply(call, behaviour))
        if isinstance(made, Generation) and call.body.get("stream"):
            await _stream(connection, call, made, behaviour)
        else:
            await send(connection, 200, _whole(call, made, behaviour), behaviour.headers)

    def _reply(self, call: Call, behaviour: Behaviour) -> Reply | None:
        """What to say; None leaves it to the fake's own words."""
        scripted: Reply | None = behaviour.tool_call or behaviour.reply
        if scripted is not None or self._answer is None or call.endpoint not in _GENERATORS:
            return scripted
        is_response = call.endpoint == "responses"
        return self._answer(fake_responses.as_chat(call.body) if is_response else call.body)

    def _made(self, call: Call, behaviour: Behaviour, reply: Reply | None) -> Generation | dict[str, Any]:
        """A generation, or the whole answer where nothing is generated."""
        if call.endpoint == "models":
            return fake_wire.models(self._models or _DEFAULT_MODELS)
        self._check_model(call.body)
        try:
            if call.endpoint == "embeddings":
                return fake_wire.embeddings(call.body)
            if call.endpoint == "responses":
                fake_responses.check_earlier(call.body, self._responses)
            made = _GENERATORS[call.endpoint](call.body, reply, self._cache)
            if call.endpoint == "responses" and call.body.get("store") is not False:
                self._responses.add(made.id)
            return _adjusted(made, behaviour)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise WireError(f"The body is not of the shape that this endpoint reads: {error!r}") from None

    def _check_model(self, body: dict[str, Any]) -> None:
        model = fake_generate.required(body, "model")
        if self._models and model not in self._models:
            said = f"The model `{model}` does not exist or you do not have access to it."
            raise WireError(said, status=404, code="model_not_found")


def _adjusted(made: Generation, behaviour: Behaviour) -> Generation:
    if behaviour.chunk_chars is not None:
        made = msgspec.structs.replace(made, pieces=_recut(made.text, behaviour.chunk_chars))
    if behaviour.usage is not None:
        made = msgspec.structs.replace(made, usage=behaviour.usage)
    return made


def _whole(call: Call, made: Generation | dict[str, Any], behaviour: Behaviour) -> dict[str, Any]:
    """The answer as one object."""
    if isinstance(made, Generation):
        made = _answered(call, made)
    if behaviour.omit_usage:
        made.pop("usage", None)
    return made


def _answered(call: Call, made: Generation) -> dict[str, Any]:
    if call.endpoint == "responses":
        return fake_responses.answer(made, call.body)
    is_chat = call.endpoint == "chat/completions"
    return fake_wire.chat_answer(made) if is_chat else fake_wire.completion_answer(made)


async def _stream(connection: Connection, call: Call, made: Generation, behaviour: Behaviour) -> None:
    connection.begin({"x-request-id": _request_id(), **behaviour.headers})
    for sent, chunk in enumerate(_chunks(call, made, behaviour)):
        if sent == behaviour.break_after:
            connection.break_off(behaviour.break_how)
        await asyncio.sleep(behaviour.chunk_delay)
        await connection.event(msgspec.json.encode(chunk), chunk.get("type", ""))
    if not behaviour.omit_done and behaviour.fail_after is None and call.endpoint != "responses":
        await connection.event(b"[DONE]")
    await connection.end()


def _chunks(call: Call, made: Generation, behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    is_response = call.endpoint == "responses"
    chunks = (_response_events if is_response else _chat_chunks)(call, made, behaviour)
    yield from itertools.islice(chunks, behaviour.fail_after)
    if behaviour.fail_after is None:
        return
    error = {"code": "server_error", "message": _TOLD_TO_FAIL, **(behaviour.error or {})}
    if is_response:
        yield fake_responses.failure(made, call.body, error, behaviour.fail_after)
    else:
        yield {"error": {"type": "server_error", "param": None, **error}}


def _response_events(call: Call, made: Generation, behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    events = list(fake_responses.events(made, call.body, counted=not behaviour.omit_usage))
    return iter(events[:-1] if behaviour.omit_done else events)


def _chat_chunks(call: Call, made: Generation, behaviour: Behaviour) -> Iterator[dict[str, Any]]:
    is_chat = call.endpoint == "chat/completions"
    counted = (call.body.get("stream_options") or {}).get("include_usage") and not behaviour.omit_usage
    chunk: dict[str, Any] = {}
    for chunk in fake_wire.chat_chunks(made) if is_chat else fake_wire.completion_chunks(made):
        yield {**chunk, "usage": None} if counted else chunk
    if counted:
        yield fake_wire.usage_chunk(made, like=chunk)


async def send(
    connection: Connection, status: int, body: Any, headers: Mapping[str, str] | None = None
) -> None:
    await connection.send(
        status, msgspec.json.encode(body), {"x-request-id": _request_id(), **(headers or {})}
    )


def _request_id() -> str:
    return f"req_{uuid.uuid4().hex}"


def _recut(text: str, size: int) -> list[str]:
    return [text[i : i + size] for i in range(0, len(text), size)]


def _scripted_error(behaviour: Behaviour) -> dict[str, Any]:
    kind = "server_error" if behaviour.status >= 500 else "invalid_request_error"
    kind = "rate_limit_exceeded" if behaviour.status == 429 else kind
    said = f"Headgate's fake provider was told to answer {behaviour.status}."
    return {"error": {"message": said, "type": kind, "param": None, "code": None, **(behaviour.error or {})}}

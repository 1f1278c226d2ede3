"""What the gateway must know of OpenAI's wire while bytes pass: usage, the end, errors. It reads no more."""

import re
from typing import Annotated, Any

import msgspec

from gateway.backends.dialect import with_refusals
from gateway.errors import StreamBroken
from gateway.types import Usage
from router_policies.types import ErrorClass

MAX_EVENT = 4 * 1024 * 1024  # bytes of one server-sent event
DONE = b"data: [DONE]\n\n"


# The bound keeps a backend's nonsense out of the ledger's 64-bit columns: the usage is then unreadable.
Tokens = Annotated[int, msgspec.Meta(le=10**12)]


class _InputDetails(msgspec.Struct):
    cached_tokens: Tokens | None = None
    cache_write_tokens: Tokens | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Tokens | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None
    cache_creation_input_tokens: Tokens | None = None  # as litellm passes Anthropic's on


class _Body(msgspec.Struct):
    usage: _Usage | None = None


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: _Usage | None = None


_decode_body = msgspec.json.Decoder(_Body).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


def _usage(found: _Usage | None) -> Usage | None:
    """None when the provider gave none. An explicit zero is not missing (litellm#37992)."""
    if found is None or (found.prompt_tokens is None and found.completion_tokens is None):
        return None
    inputs, outputs = found.prompt_tokens_details, found.completion_tokens_details
    return Usage(
        input_tokens=max(0, found.prompt_tokens or 0),
        cached_input_tokens=max(0, (inputs and inputs.cached_tokens) or 0),
        cache_write_tokens=max(
            0, (inputs and inputs.cache_write_tokens) or found.cache_creation_input_tokens or 0
        ),
        output_tokens=max(0, found.completion_tokens or 0),
        reasoning_tokens=max(0, (outputs and outputs.reasoning_tokens) or 0),
    )


def usage_of(body: bytes) -> Usage | None:
    """The usage of a whole JSON answer; None when there is none that makes sense."""
    try:
        return _usage(_decode_body(body).usage)
    except msgspec.MsgspecError:
        return None


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Choices(msgspec.Struct):
    choices: list[_Choice] = []


def answer_text(body: bytes) -> str:
    """What a whole chat or completion answer says; empty where it cannot be read."""
    try:
        choices = msgspec.json.decode(body, type=_Choices).choices
    except msgspec.MsgspecError:
        return ""
    return "\n".join((c.message.content if c.message else c.text) or "" for c in choices)


# The space after `data:` is optional in server-sent events.
_FIRST_DATA = re.compile(rb"^data: ?(.*?)\r?\n\r?\n", re.MULTILINE | re.DOTALL)
_DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_ERROR = re.compile(rb'\{\s*"error"\s*:(?!\s*null)')
_ERROR_EVENT = re.compile(rb"^data: ?" + _ERROR.pattern, re.MULTILINE)


def first_data(events: bytes) -> bytes | None:
    """The data of the first event that has any; None while it is not whole."""
    found = _FIRST_DATA.search(events)
    return found[1] if found else None


def is_error(data: bytes) -> bool:
    """Whether an event's data is an error."""
    return _ERROR.match(data) is not None


class StreamMeter:
    """Passes server-sent events on whole and notes usage, `[DONE]` and errors in them.

    Upstream always sends its usage event, because we always ask for it; with `strip_usage` the client, who
    did not ask, does not get it.
    """

    def __init__(self, *, strip_usage: bool) -> None:
        self.usage: Usage | None = None
        self.done = False  # `[DONE]` was seen
        self.failed = False  # the backend itself sent an error event
        self.events = 0  # about one a token: the estimate when a stream is cut before its usage
        self._strip = strip_usage
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may go to the client now: all events that are complete. Raises StreamBroken on a huge one."""
        data = self._rest + chunk if self._rest else chunk
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if end < 4:  # neither was found: rfind gave -1
            end = 0
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT:
            raise StreamBroken(f"one event is over {MAX_EVENT} bytes")
        events = data[:end] if self._rest else data
        return self._read(events) if events else b""

    def _read(self, events: bytes) -> bytes:
        self.events += events.count(b"data:")
        if b"[DONE]" in events and _DONE.search(events):
            self.done = True
        if b'"error"' in events and _ERROR_EVENT.search(events):
            self.failed = True
        if b'"logprobs":{' in events:
            events = b"".join(_with_refusals(event) for event in _split(events))
        if b'"usage":{' in events or b'"usage": {' in events:
            return self._read_usage(events)
        return events

    def _read_usage(self, events: bytes) -> bytes:
        kept = []
        for event in _split(events):
            usage_only = event.startswith(b"data:") and self._note_usage(event[5:])
            if not (usage_only and self._strip):
                kept.append(event)
        return b"".join(kept)

    def _note_usage(self, data: bytes) -> bool:
        """Whether the event holds usage and nothing else."""
        try:
            chunk = _decode_chunk(data)
        except msgspec.MsgspecError:
            return False
        found = _usage(chunk.usage)
        if found is not None:
            self.usage = found
        return found is not None and not chunk.choices


def _split(events: bytes) -> list[bytes]:
    """Whole events, one by one, with the line end that OpenAI writes."""
    return [event + b"\n\n" for event in events.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]]


def _with_refusals(event: bytes) -> bytes:
    name, _, data = event.partition(b":")
    return b"data: " + with_refusals(data.strip()) + b"\n\n" if name == b"data" else event


def error_event(message: str, code: str) -> bytes:
    """How a broken stream ends: an error, never an invented finish_reason (invariant 4)."""
    error = {"message": message, "type": "api_error", "param": None, "code": code}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"


CONTENT_POLICY_CODES = frozenset({"content_policy_violation", "content_filter"})


class WireError(msgspec.Struct, frozen=True, kw_only=True):
    """A backend's error, out of whichever envelope it came in."""

    error_class: ErrorClass
    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None


def read_error(status: int, body: bytes) -> WireError:
    """OpenAI and new vLLM nest the error under `error`; old vLLM has it flat; proxies send anything."""
    fields = _error_fields(body)
    code = fields.get("code")
    code = code if isinstance(code, str) else None
    return WireError(
        error_class=classify_status(status, code),
        message=str(fields.get("message") or f"the backend answered with status {status}"),
        type=_text(fields.get("type")),
        code=code,
        param=_text(fields.get("param")),
    )


def classify_status(status: int, code: str | None = None) -> ErrorClass:
    if code in CONTENT_POLICY_CODES:
        return ErrorClass.CONTENT_POLICY
    if status == 429:
        return ErrorClass.RATE_LIMIT
    if status == 404:
        return ErrorClass.NOT_FOUND
    if status == 408:
        return ErrorClass.TIMEOUT
    return ErrorClass.REFUSED if 400 <= status < 500 else ErrorClass.SERVER_ERROR


def _error_fields(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return {}
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

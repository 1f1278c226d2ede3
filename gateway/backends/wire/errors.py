"""Errors as backends send them, in whichever envelope, and the one that ends a stream which broke."""

from typing import Any

import msgspec

from gateway.backends.wire.usage import UNREADABLE
from router_policies.types import ErrorClass

CONTENT_POLICY_CODES = frozenset(
    {"content_policy_violation", "content_filter"}
    # In Responses streams; "invalid_prompt" is a prompt that was flagged.
    | {"invalid_prompt", "bio_policy", "image_content_policy_violation"}
)


class WireError(msgspec.Struct, frozen=True, kw_only=True):
    """A backend's error, out of whichever envelope it came in."""

    error_class: ErrorClass
    message: str
    type: str | None = None
    code: str | None = None
    param: str | None = None


def read_error(status: int, body: bytes) -> WireError:
    """OpenAI and new vLLM nest the error under `error`; old vLLM has it flat; proxies send anything.

    A Responses stream has it flat in `error` events, and in the response of `response.failed`.
    """
    fields = _error_fields(body)
    code = _text(fields.get("code"))
    kind = _text(fields.get("type"))
    return WireError(
        error_class=classify_status(status, code),
        message=str(fields.get("message") or f"the backend answered with status {status}"),
        type=None if kind == "error" else kind,  # that is the event's type
        code=code,
        param=_text(fields.get("param")),
    )


def classify_status(status: int, code: str | None = None) -> ErrorClass:
    if code in CONTENT_POLICY_CODES:
        return ErrorClass.CONTENT_POLICY
    if status == 429 or code == "rate_limit_exceeded":
        return ErrorClass.RATE_LIMIT
    if status == 404:
        return ErrorClass.NOT_FOUND
    if status == 408:
        return ErrorClass.TIMEOUT
    return ErrorClass.REFUSED if 400 <= status < 500 else ErrorClass.SERVER_ERROR


def _error_fields(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    if isinstance(found, dict) and isinstance(found.get("response"), dict):
        found = found["response"]
    if isinstance(found, dict) and isinstance(found.get("error"), dict):
        found = found["error"]
    return found if isinstance(found, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class _Marks(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw()
    type: str | None = None


_decode_marks = msgspec.json.Decoder(_Marks).decode


def is_error(data: bytes) -> bool:
    """Whether an event's data, or a whole answer, is an error."""
    if b'"error"' not in data and b'"response.failed"' not in data:
        return False
    try:
        marks = _decode_marks(data)
    except UNREADABLE:
        return False
    return bytes(marks.error) not in (b"", b"null") or marks.type in ("error", "response.failed")


def error_event(message: str, code: str) -> bytes:
    """How a chat or completion that broke ends: an error, never an invented finish_reason (invariant 4)."""
    error = {"message": message, "type": "api_error", "param": None, "code": code}
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"

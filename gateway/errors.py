"""One tree of errors. Each knows its HTTP status and OpenAI error type; `envelope` renders them all.

HeadgateError
├── ConfigError            start-up: lists everything that is wrong
├── ApiError               answered to the client
│   ├── BadRequest         400   body, header or parameter
│   ├── Unauthenticated    401   no key, or an unknown one
│   ├── Forbidden          403   a known key that may not
│   ├── NotFound           404   path, model, adapter
│   ├── TooLarge           413
│   ├── Denied             4xx   the policy says no
│   ├── NotReady           503   this process does not know yet what it decides by
│   └── UpstreamFailed     4xx/5xx: what the last backend said, after all fallbacks
└── BackendError           one attempt failed, with its class; the pipeline decides what follows
    └── EgressRefused      the door stayed shut (invariant 1)
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from router_policies.types import ErrorClass


class HeadgateError(Exception):
    """Anything that Headgate raises on purpose."""


class ConfigError(HeadgateError):
    """The configuration cannot be used. `problems` lists all that is wrong, one line each."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, tuple(problems)
        super().__init__("\n".join([f"{source}:", *(f"  - {p}" for p in problems)]))


class ApiError(HeadgateError):
    """An answer to the client in OpenAI's error envelope."""

    status = 500
    type = "api_error"
    recorded = False  # does a row of the ledger tell of it?

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        status: int | None = None,
        type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message, self.code, self.param = message, code, param
        self.status = status or self.status
        self.type = type or self.type
        self.headers = headers or {}

    def envelope(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def body(self) -> bytes:
        return msgspec.json.encode(self.envelope())


class BadRequest(ApiError):
    status = 400
    type = "invalid_request_error"


class Unauthenticated(ApiError):
    status = 401
    type = "invalid_request_error"


class Forbidden(ApiError):
    status = 403
    type = "invalid_request_error"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"


class TooLarge(ApiError):
    status = 413
    type = "invalid_request_error"


class Denied(ApiError):
    status = 403
    type = "invalid_request_error"


class NotReady(ApiError):
    status = 503

    def __init__(self, unread: str) -> None:
        """`unread` is what the gateway has not read yet."""
        super().__init__(
            f"The gateway has not read {unread}. Please try again shortly.",
            code="not_ready",
            headers={"retry-after": "1"},
        )


class UpstreamFailed(ApiError):
    status = 502


class BackendError(HeadgateError):
    """One attempt at one backend failed before the first byte of an answer.

    `status`, `type`, `code` and `param` are the backend's own where it gave any; `retry_after` is its
    header, verbatim.
    """

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        status: int = 502,
        type: str | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.error_class, self.message, self.status = error_class, message, status
        self.type, self.code, self.param, self.retry_after = type, code, param, retry_after


class EgressRefused(BackendError):
    """A backend outside the local zone was asked for without a permit that covers the request."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorClass.REFUSED, message, status=403, code="privacy_egress_refused")


class StreamBroken(HeadgateError):
    """The backend broke off after the first byte: the client gets an error event, never an invented end.

    `silent`: it did so by letting a time limit pass.
    """

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent

"""How commands talk to a running gateway: its admin API, with an admin key."""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import httpx
import typer

from gateway.errors import ConfigError

KEY_VARIABLE = "HEADGATE_ADMIN_KEY"
ROLLOUT_SECONDS = 300.0  # a release waits until every replica has loaded and proved it
PAGE = 200

GatewayOption = Annotated[
    str, typer.Option("--gateway", help=f"URL of the gateway; the admin key comes from ${KEY_VARIABLE}.")
]
DEFAULT_GATEWAY = "http://127.0.0.1:4000"
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the audit log.")]


class GatewayAway(ConfigError):
    """Nobody answers at the gateway's address."""


def call(
    gateway: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    params: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Any:
    """The JSON answer. Raises ConfigError when the gateway is not there or says no."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise ConfigError(gateway, [f"set {KEY_VARIABLE} to a key with admin: true, or one with a role"])
    try:
        answer = httpx.request(
            method,
            f"{gateway.rstrip('/')}{path}",
            json=body,
            params={name: value for name, value in (params or {}).items() if value},
            headers={"authorization": f"Bearer {key}", **(headers or {})},
            timeout=httpx.Timeout(10.0, read=ROLLOUT_SECONDS),
        )
    except httpx.HTTPError as error:
        raise GatewayAway(gateway, [f"the gateway does not answer: {error}"]) from error
    if answer.is_error:
        raise ConfigError(gateway, [_message(answer)])
    return answer.json()


def because(reason: str, version: int | None = None) -> dict[str, str]:
    """Headers of a change: why it is made, and of which version."""
    headers = {"x-headgate-reason": reason} if reason else {}
    return headers if version is None else headers | {"if-match": f'"{version}"'}


def every(gateway: str, path: str, **params: Any) -> Iterator[dict[str, Any]]:
    """All records of a list, page by page."""
    after, more = "", True
    while more:
        page = call(gateway, "GET", path, params={"limit": PAGE, "after": after, **params})
        yield from page["data"]
        after, more = page["last_id"], page["has_more"]


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"

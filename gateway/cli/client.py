"""How commands talk to a running gateway: its admin API, with an admin key."""

import os
from typing import Annotated, Any

import httpx
import typer

from gateway.errors import ConfigError

KEY_VARIABLE = "HEADGATE_ADMIN_KEY"
ROLLOUT_SECONDS = 300.0  # a release waits until every replica has loaded and proved it

GatewayOption = Annotated[
    str, typer.Option("--gateway", help=f"URL of the gateway; the admin key comes from ${KEY_VARIABLE}.")
]
DEFAULT_GATEWAY = "http://127.0.0.1:4000"


def call(gateway: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """The JSON answer. Raises ConfigError when the gateway is not there or says no."""
    key = os.environ.get(KEY_VARIABLE, "")
    if not key:
        raise ConfigError(gateway, [f"set {KEY_VARIABLE} to a key with admin: true"])
    try:
        answer = httpx.request(
            method,
            f"{gateway.rstrip('/')}{path}",
            json=body,
            headers={"authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(10.0, read=ROLLOUT_SECONDS),
        )
    except httpx.HTTPError as error:
        raise ConfigError(gateway, [f"the gateway does not answer: {error}"]) from error
    if answer.is_error:
        raise ConfigError(gateway, [_message(answer)])
    return answer.json()


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"

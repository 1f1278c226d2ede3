"""`headgate serve`: the gateway process."""

import socket
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from gateway.app import build_app
from gateway.errors import ConfigError
from gateway.settings import Listen, load_settings

BACKLOG = 2048  # connections that wait while the process starts or is busy
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Path of headgate.yaml.")]


def serve(config: ConfigOption = Path("headgate.yaml")) -> None:
    """Start the gateway.

    Example: headgate serve --config headgate.yaml
    """
    settings = load_settings(config)
    app = build_app(settings)
    listener = listen(settings.listen, str(config))
    host, port = listener.getsockname()[:2]
    typer.echo(f"headgate on http://{host}:{port}/v1, policy {app.policy.label}")
    server = uvicorn.Server(app.server_config())
    server.run(sockets=[listener])


def listen(address: Listen, source: str) -> socket.socket:
    """Takes the port before anything else starts; port 0 takes a free one. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            source, [f"listen: {address.host}:{address.port} cannot be taken: {error.strerror}"]
        ) from error
    listener.listen(BACKLOG)
    return listener

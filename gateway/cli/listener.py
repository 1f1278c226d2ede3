"""The port that the gateway listens on."""

import socket

from gateway.errors import ConfigError
from gateway.settings import Listen

BACKLOG = 2048  # connections that wait while the process starts or is busy


def bind(address: Listen, source: str, *, shared: bool = False) -> socket.socket:
    """Takes the port before anything else starts; port 0 takes a free one. Nothing connects until it listens.

    With `shared`, other processes of this user can take it as well, and the kernel spreads connections over
    those that listen. Raises ConfigError.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind((address.host, address.port))
    except OSError as error:
        bound.close()
        raise ConfigError(
            source, [f"listen: {address.host}:{address.port} cannot be taken: {error.strerror}"]
        ) from error
    return bound


def url(bound: socket.socket) -> str:
    """Where clients of OpenAI's API find it."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"

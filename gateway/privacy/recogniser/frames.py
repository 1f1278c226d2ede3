"""Messages on a socket: four bytes of length, then as many bytes."""

import socket
import struct
import time

_LENGTH = struct.Struct(">I")
FOREVER = float("inf")
UNTIL = struct.Struct(">d")  # before a text; the monotonic clock of the machine, the same for both sides


def send(channel: socket.socket, data: bytes, until: float = FOREVER) -> None:
    """Raises OSError (TimeoutError is one) when it is not taken by `until`, monotonic time."""
    channel.settimeout(_left(until))
    channel.sendall(_LENGTH.pack(len(data)) + data)


def receive(channel: socket.socket, until: float = FOREVER) -> bytes:
    """Raises EOFError when the other side is gone, OSError when nothing whole comes by `until`."""
    length: int = _LENGTH.unpack(_exactly(channel, _LENGTH.size, until))[0]
    return _exactly(channel, length, until)


def _exactly(channel: socket.socket, count: int, until: float) -> bytes:
    parts = []
    while count:
        channel.settimeout(_left(until))
        part = channel.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _left(until: float) -> float | None:
    if until == FOREVER:
        return None
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left

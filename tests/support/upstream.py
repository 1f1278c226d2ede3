"""Reading a backend's answer as the pipeline does."""

from typing import Protocol


class Readable(Protocol):
    async def read(self) -> bytes: ...


async def body_of(response: Readable) -> bytes:
    """All that is left of an answer."""
    parts = []
    while part := await response.read():
        parts.append(part)
    return b"".join(parts)

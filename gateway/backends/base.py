"""What the pipeline needs of a backend. Answers are bytes on OpenAI's wire, whatever stands behind."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from gateway.privacy.egress import Sealed
from router_policies.types import Zone

Sink = Callable[[bytes], None]
"""Takes the bytes of an answer as they come: JSON, or server-sent events (not necessarily one a call)."""


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt. What leaves is `content` with `model` in it, as the backend's door releases it."""

    call_id: str
    endpoint: str  # below /v1/: "chat/completions", "completions", "embeddings", "responses"
    model: str  # the candidate's
    content: bytes  # a JSON object: all of the body but the model
    stream: bool
    permit: Sealed | None


class Source(Protocol):
    """What bytes are drawn from. Whoever cannot take more for now pauses it."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class UpstreamResponse(Source, Protocol):
    """A 2xx answer whose head has arrived."""

    status: int
    content_type: str

    async def read(self) -> bytes:
        """The next bytes of the body, as they arrived; b"" at its end.

        Raises StreamBroken when the backend breaks off.
        """
        ...

    async def read_all(self, limit: int) -> bytes:
        """What is left of the body. Raises StreamBroken, also when that is more than `limit` bytes."""
        ...

    async def pump(self, sink: Sink) -> None:
        """Hands what is left of the body to `sink` as it arrives, until its end.

        Raises StreamBroken when the backend breaks off, and what `sink` raises.
        """
        ...

    async def aclose(self) -> None:
        """Ends the call. Before the last byte this cancels it upstream. May be called twice."""
        ...


class Backend(Protocol):
    name: str
    zone: Zone

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Raises BackendError when there is no 2xx answer to pass on."""
        ...

    async def aclose(self) -> None: ...

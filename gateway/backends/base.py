"""What the pipeline needs of a backend. Answers are bytes on OpenAI's wire, whatever stands behind."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from router_policies.types import Permit, Zone


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt. `body` is what was classified, with `model` set to the candidate's."""

    call_id: str
    endpoint: str  # below /v1/: "chat/completions", "completions", "embeddings"
    body: dict[str, Any]
    stream: bool
    permit: Permit | None


class UpstreamResponse(Protocol):
    """A 2xx answer whose head and first bytes have arrived."""

    status: int
    content_type: str

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes: JSON, or server-sent events (not necessarily one a chunk).

        Raises StreamBroken when the backend breaks off.
        """
        ...

    async def aclose(self) -> None:
        """Ends the call. Before the last chunk this cancels it upstream. May be called twice."""
        ...


class Backend(Protocol):
    name: str
    zone: Zone

    async def send(self, request: UpstreamRequest) -> UpstreamResponse:
        """Raises BackendError when there is no 2xx answer to pass on."""
        ...

    async def aclose(self) -> None: ...

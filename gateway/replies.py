"""The way back to the client: as it is, and for the answer to a masked request."""

from collections.abc import Mapping
from typing import Protocol

from gateway.backends.base import Source
from gateway.parsing import Request
from gateway.privacy.placeholders import Vault
from gateway.privacy.restore import Restoration
from gateway.record import Record
from router_policies.types import Feature

_JSON = frozenset({Feature.JSON_OBJECT, Feature.JSON_SCHEMA})


class Reply(Protocol):
    """The way back to the client."""

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None: ...

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        """The head of a stream, which `write` goes on with."""
        ...

    def write(self, chunk: bytes) -> None: ...

    def drawn_from(self, source: Source | None) -> None:
        """What is written comes from `source`: to be paused while the client reads too slowly."""
        ...


class Restoring:
    """The way back to the client for the answer to a masked request: a Reply that puts the values back."""

    def __init__(self, reply: Reply, request: Request, vault: Vault, record: Record) -> None:
        self._reply, self._record, self._counted = reply, record, 0
        json_text = not _JSON.isdisjoint(request.features)
        self._restoration = Restoration(request.endpoint, vault, json_text=json_text)

    def whole(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._reply.whole(status, headers, self._restoration.whole(body))
        self._count()

    def start(self, status: int, headers: Mapping[str, str]) -> None:
        self._reply.start(status, headers)

    def write(self, chunk: bytes) -> None:
        """Whole events, as all that a meter gives."""
        events = self._restoration.events(chunk)
        if events:
            self._reply.write(events)
        self._count()

    def drawn_from(self, source: Source | None) -> None:
        self._reply.drawn_from(source)

    def _count(self) -> None:
        new = self._restoration.unrestored - self._counted
        if new:
            self._counted += new
            self._record.unrestored(new)

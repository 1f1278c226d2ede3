"""Streams while they pass: events go to the client whole, and usage, the end and errors in them are noted.

A chunk from a socket is mostly one event that holds one token. Such a one goes by without a close look: in
chats and completions when it is one event, begins like the last that had nothing to note up to its text, and
holds no object after that; in Responses when it is one event and named a delta.
"""

import re
from abc import ABC, abstractmethod
from typing import Any

import msgspec

from gateway.backends.dialect import with_refusals
from gateway.backends.wire.errors import error_event, is_error
from gateway.backends.wire.events import MAX_EVENT, data_of, split
from gateway.backends.wire.usage import UNREADABLE, Given, answer_id, usage_of
from gateway.errors import StreamBroken
from gateway.types import Usage


class Meter(ABC):
    """What is noted of a stream in any wire form."""

    end_mark: str  # by which a stream says that it is whole

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self.done = False  # the stream's own end was seen
        self.failed = False  # the backend itself sent an error
        self.events = 0  # about one a token: the estimate when a stream is cut before its usage
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may go to the client now: all events that are complete. Raises StreamBroken on a huge one."""
        data = self._rest + chunk if self._rest else chunk
        if data.endswith(b"\n\n"):
            self._rest = b""
            return self._read(data)
        end = max(data.rfind(b"\n\n") + 2, data.rfind(b"\r\n\r\n") + 4)
        if end < 4:  # neither was found: rfind gave -1
            end = 0
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT:
            raise StreamBroken(f"one event is over {MAX_EVENT} bytes")
        return self._read(data[:end]) if end else b""

    def response_id(self) -> str:
        """The id that a later request may go on from; empty where this API has none."""
        return ""

    @abstractmethod
    def _read(self, events: bytes) -> bytes:
        """Notes what whole events say; returns what of them the client gets."""

    @abstractmethod
    def broken(self, message: str) -> bytes:
        """What ends a stream that broke off: an error, never an invented finish (invariant 4)."""


def meter_for(endpoint: str, *, strip_usage: bool) -> Meter:
    """For a stream of that endpoint below /v1/; for `strip_usage` see StreamMeter."""
    return ResponsesMeter() if endpoint == "responses" else StreamMeter(strip_usage=strip_usage)


def stream_error(endpoint: str, message: str, code: str) -> bytes:
    """What ends a stream of that endpoint of which no more is known than that."""
    return ResponsesMeter().broken(message) if endpoint == "responses" else error_event(message, code)


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: Given | None = None
    service_tier: str | None = None


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_DONE = re.compile(rb"^data: ?\[DONE\]", re.MULTILINE)
_TEXTS = (b'content":"', b'"text":"')  # where the text of a chunk begins


class StreamMeter(Meter):
    """Chats and completions.

    Upstream always sends its usage event, because we always ask for it; with `strip_usage` the client, who
    did not ask, does not get it.
    """

    end_mark = "[DONE]"

    def __init__(self, *, strip_usage: bool) -> None:
        super().__init__()
        self._strip = strip_usage
        self._before = b"\n"  # what stood before the text of an event with nothing to note

    def feed(self, chunk: bytes) -> bytes:
        before = self._before
        if (
            chunk.startswith(before)
            and chunk.endswith(b"\n\n")
            and chunk.find(b"\n", len(before)) == len(chunk) - 2
            and chunk.find(b"{", len(before)) < 0  # neither usage nor log-probabilities
            and chunk.find(b'"error"', len(before)) < 0
            and not self._rest
        ):
            self.events += 1
            return chunk
        return super().feed(chunk)

    def broken(self, message: str) -> bytes:
        return error_event(message, "stream_broken")

    def _read(self, events: bytes) -> bytes:
        count = events.count(b"data:")
        self.events += count
        if b"[DONE]" in events and _DONE.search(events):
            self.done = True
        if b'"error"' in events and any(is_error(data_of(event)) for event in split(events)):
            self.failed = True
        scored = b'"logprobs":{' in events
        if scored:
            events = b"".join(_with_refusals(event) for event in split(events))
        if b'"usage":{' in events or b'"usage": {' in events:
            return self._read_usage(events)
        if count == 1 and not scored:
            self._learn(events)
        return events

    def _learn(self, event: bytes) -> None:
        """Remembers what stands before the text of an event, for the events that begin like it."""
        for opening in _TEXTS:
            end = event.find(opening) + len(opening)
            if end >= len(opening):
                self._before = event[:end]
                return

    def _read_usage(self, events: bytes) -> bytes:
        kept = []
        for event in split(events):
            usage_only = self._note_usage(data_of(event))
            if not (usage_only and self._strip):
                kept.append(event)
        return b"".join(kept)

    def _note_usage(self, data: bytes) -> bool:
        """Whether the event holds usage and nothing else."""
        try:
            chunk = _decode_chunk(data)
        except UNREADABLE:
            return False
        found = chunk.usage.meters(chunk.service_tier) if chunk.usage else None
        if found is not None:
            self.usage = found
        return found is not None and not chunk.choices


def _with_refusals(event: bytes) -> bytes:
    name, _, data = event.partition(b":")
    return b"data: " + with_refusals(data.strip()) + b"\n\n" if name == b"data" else event


class _Event(msgspec.Struct):
    type: str | None = None
    response: msgspec.Raw = msgspec.Raw()
    sequence_number: int | None = None


_decode_event = msgspec.json.Decoder(_Event).decode
_ENDS = frozenset({"response.completed", "response.incomplete"})


class ResponsesMeter(Meter):
    """Responses: named events, numbered, of which the first and the last hold the whole response."""

    end_mark = "response.completed"

    def __init__(self) -> None:
        super().__init__()
        self._opened = b""  # the response as it was when it began
        self._last = b""  # the last events with data

    def feed(self, chunk: bytes) -> bytes:
        if (
            chunk.startswith(b".delta\ndata:", chunk.find(b"\n") - 6)
            and chunk.startswith(b"event:")
            and chunk.endswith(b"\n\n")
            and chunk.count(b"\n") == 3
            and not self._rest
        ):
            self.events += 1
            self._last = chunk
            return chunk
        return super().feed(chunk)

    def response_id(self) -> str:
        return answer_id(self._opened)

    def broken(self, message: str) -> bytes:
        """A failed response, with the id and number that follow from what the client has seen.

        Before the response was opened there is none that could fail: then the API's `error` event.
        """
        number, error = self._last_number() + 1, {"code": "server_error", "message": message}
        begun = self._begun()
        if not begun:
            return _event("error", number, {**error, "param": None})
        if begun.get("usage") is None:  # where it stands, OpenAI's schema has no null
            begun.pop("usage", None)
        return _event("response.failed", number, {"response": {**begun, "status": "failed", "error": error}})

    def _read(self, events: bytes) -> bytes:
        self.events += events.count(b'.delta"')
        if b"data:" in events:
            self._last = events
        if b'"response":' in events or b'"error"' in events:
            for event in split(events):
                self._note(data_of(event))
        return events

    def _note(self, data: bytes) -> None:
        self.failed = self.failed or is_error(data)
        event = _decoded(data)
        if event.type in _ENDS:
            self.done = True
        if event.response:
            self._opened = self._opened or bytes(event.response)
            self.usage = usage_of(event.response) or self.usage

    def _begun(self) -> dict[str, Any]:
        """The response as it was begun; empty when there was none that can be read."""
        try:
            begun = msgspec.json.decode(self._opened)
        except UNREADABLE:
            return {}
        return begun if isinstance(begun, dict) else {}

    def _last_number(self) -> int:
        numbers = [_decoded(data_of(event)).sequence_number for event in split(self._last)]
        return next((n for n in reversed(numbers) if n is not None), -1)


def _decoded(data: bytes) -> _Event:
    try:
        return _decode_event(data)
    except UNREADABLE:
        return _Event()


def _event(kind: str, number: int, fields: dict[str, Any]) -> bytes:
    data = msgspec.json.encode({"type": kind, "sequence_number": number, **fields})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

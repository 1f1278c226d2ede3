"""The answer to a masked request with the values in their places again, whole or as a stream of events.

In a stream a placeholder comes in pieces. Text that may be the beginning of one is taken out of its event and
put before the next piece of the same text: of the same choice and field, tool call by tool call. Until that
piece comes, or the end of the text, its event waits, and so does whatever follows: no event is added, dropped
or overtaken, so numbers, usage and finish stay what the backend said. An event in which nothing changes goes
on as the bytes that came.

Values in the arguments of tools, and in a text that was asked for as JSON, are written as JSON writes them.
Log-probabilities are those of the tokens that the model said: they keep its placeholders.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from gateway.privacy.placeholders import Restorer, Vault

_EVENT = re.compile(rb".+?\r?\n\r?\n", re.DOTALL)
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
# The fields of a chunk that grow from one to the next. All others are whole in one chunk.
_GROWING = frozenset(
    {"content", "text", "refusal", "reasoning", "reasoning_content", "thinking", "summary", "transcript"}
    | {"arguments", "input"}
)
_SCORES = "logprobs"
_OUTPUT_TEXT = frozenset({"text", "output_text", "response.output_text.done"})  # types of what holds a text
_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})

Key = tuple[Any, ...]


class _Event:
    """One event on its way. `data` is what it holds, where that is JSON."""

    __slots__ = ("changed", "data", "raw", "waiting")

    def __init__(self, raw: bytes) -> None:
        self.raw, self.changed, self.waiting = raw, False, 0
        self.data: dict[str, Any] | None = None

    def render(self) -> bytes:
        if not self.changed:
            return self.raw
        lines = [line for line in self.raw.splitlines() if line and not line.startswith(b"data:")]
        return b"\n".join([*lines, b"data: " + msgspec.json.encode(self.data), b"", b""])


class _Growing:
    """A text that comes in pieces."""

    __slots__ = ("before", "container", "escaped", "event", "held", "name")

    def __init__(self, event: _Event, container: Any, name: Any, escaped: bool) -> None:
        self.event, self.container, self.name = event, container, name  # where its last piece stands
        self.escaped = escaped
        self.held = ""  # taken out of that
        self.before = ""  # see Restorer.count_strays


class Restoration:
    """For one answer: `whole`, or `events` for as long as they come."""

    def __init__(self, endpoint: str, vault: Vault, *, json_text: bool) -> None:
        """`json_text`: what the model says was asked for as JSON."""
        self._endpoint, self._json_text = endpoint, json_text
        self._restorer = Restorer(vault)
        self._queue: deque[_Event] = deque()
        self._growing: dict[Key, _Growing] = {}

    @property
    def unrestored(self) -> int:
        return self._restorer.unrestored

    def whole(self, body: bytes) -> bytes:
        """A whole answer; what is no JSON passes as it came."""
        if self._endpoint == "embeddings":
            return body
        try:
            answer = msgspec.json.decode(body)
            changed = isinstance(answer, dict | list) and self._restore(answer)
        except _UNREADABLE:
            return body
        return msgspec.json.encode(answer) if changed else body

    def events(self, events: bytes) -> bytes:
        """Takes whole events and gives back those that may go on now, which may be none."""
        for raw in _EVENT.findall(events):
            event = _Event(raw)
            self._queue.append(event)
            self._read(event)
        ready = []
        while self._queue and not self._queue[0].waiting:
            ready.append(self._queue.popleft().render())
        return b"".join(ready)

    def _read(self, event: _Event) -> None:
        data = b"\n".join(
            line[5:].removeprefix(b" ") for line in event.raw.splitlines() if line.startswith(b"data:")
        )
        if data == b"[DONE]":
            self._end_all()
        try:
            event.data = msgspec.json.decode(data)
            if isinstance(event.data, dict):
                read = self._read_response if self._endpoint == "responses" else self._read_chunk
                read(event, event.data)
        except _UNREADABLE:
            return

    # Chats and completions.

    def _read_chunk(self, event: _Event, chunk: dict[str, Any]) -> None:
        if chunk.get("error"):
            self._end_all()
        choices = chunk.get("choices")
        for place, choice in enumerate(choices if isinstance(choices, list) else ()):
            if not isinstance(choice, dict):
                continue
            index = choice.get("index", place)
            for key, container, name in _pieces(choice, (index,)):
                escaped = name == "arguments" or (self._json_text and name in ("content", "text"))
                self._grow(event, key, container, name, escaped)
            if choice.get("finish_reason") is not None:
                self._end_all(index)

    # Responses.

    def _read_response(self, event: _Event, said: dict[str, Any]) -> None:
        kind = str(said.get("type"))
        if kind.endswith(".delta") and isinstance(said.get("delta"), str):
            escaped = "arguments" in kind or (self._json_text and kind == "response.output_text.delta")
            self._grow(event, _key(kind.removesuffix(".delta"), said), said, "delta", escaped)
            return
        if kind.endswith(".done"):
            self._end(_key(kind.removesuffix(".done"), said))
        if kind in _ENDS:
            self._end_all()
        counted = self._restorer.unrestored
        event.changed = self._restore(said)
        self._restorer.unrestored = counted  # all of it has been said before, in pieces

    # Texts in pieces.

    def _grow(self, event: _Event, key: Key, container: Any, name: Any, escaped: bool) -> None:
        """`container[name]`, in `event`, is the next piece of the text `key`."""
        growing = self._growing.get(key)
        if growing is None:
            growing = self._growing[key] = _Growing(event, container, name, escaped)
        elif growing.held:
            growing.event.waiting -= 1
        piece = container[name]
        done, held = self._restorer.part(growing.held + piece, escaped=escaped)
        growing.before = self._restorer.count_strays(done, growing.before)
        if done != piece:
            container[name], event.changed = done, True
        growing.event, growing.container, growing.name, growing.held = event, container, name, held
        event.waiting += bool(held)

    def _end(self, key: Key) -> None:
        """No piece will follow: what is held was no placeholder, or is one by now."""
        growing = self._growing.pop(key, None)
        if growing is not None and growing.held:
            rest = self._restorer.whole(growing.held, escaped=growing.escaped)
            self._restorer.count_strays(rest, growing.before)
            growing.container[growing.name] += rest
            growing.event.changed = True
            growing.event.waiting -= 1

    def _end_all(self, choice: object = None) -> None:
        """Of that choice, or of all."""
        for key in [key for key in self._growing if choice is None or key[0] == choice]:
            self._end(key)

    # Texts in one piece.

    def _restore(self, container: Any) -> bool:
        """Puts the values into all strings in `container`; whether that changed any."""
        changed = False
        for name, value in list(container.items() if isinstance(container, dict) else enumerate(container)):
            if isinstance(value, dict | list):
                changed = (name != _SCORES and self._restore(value)) or changed
            elif isinstance(value, str):
                restored = self._restorer.whole(value, escaped=self._is_json(container, name))
                self._restorer.count_strays(restored)
                if restored != value:
                    container[name], changed = restored, True
        return changed

    def _is_json(self, container: Any, name: Any) -> bool:
        if name == "arguments":
            return True
        if not self._json_text:
            return False
        return name == "content" or (name == "text" and container.get("type", "text") in _OUTPUT_TEXT)


def _pieces(container: Any, key: Key) -> Iterator[tuple[Key, Any, Any]]:
    """Each piece of a growing text in `container`, with the key of that text."""
    listed = isinstance(container, list)
    for name, value in enumerate(container) if listed else container.items():
        if isinstance(value, dict | list):
            if name != _SCORES:
                step = value.get("index", name) if listed and isinstance(value, dict) else name
                yield from _pieces(value, (*key, step))
        elif isinstance(value, str) and value and name in _GROWING:
            yield (*key, name), container, name


def _key(kind: str, said: dict[str, Any]) -> Key:
    """Of the text that an event of this kind is about."""
    return kind, *(said.get(name) for name in ("output_index", "item_id", "content_index", "summary_index"))

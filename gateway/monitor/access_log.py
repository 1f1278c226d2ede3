"""The access log: one JSON line for each request, written by a thread, so that no request waits for a disk.

A line says who asked, where it went, how it ended and what it took. It holds no content and no key; the one
word in it that may be a client's is the model, where a backend takes any. The file is opened anew for each
batch, so rotating it by renaming needs no signal; it is appended to in whole lines, so workers may share it.
"""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from gateway.errors import ConfigError
from gateway.types import Entry

log = logging.getLogger("headgate.access_log")

STDOUT = "-"
_STDOUT_FD = 1
INTERVAL_S = 0.2  # nobody wakes the thread: it looks, which costs the requests nothing
ROOM = 65_536  # lines that may wait; further ones are dropped and counted
CLOSE_S = 5.0  # for a reader of standard output that has stalled
_BATCH = 512  # lines of one write


class Refusal(msgspec.Struct, frozen=True):
    """A request that was turned away before it had a row: no key, no sense, too large."""

    call_id: str
    at_ns: int
    status: int


class AccessLog:
    """Lines go in from one thread, and out until `close`."""

    def __init__(self, target: str, dropped: Callable[[int], None]) -> None:
        """`target` is a path, or `-` for standard output. `dropped` is told how many lines were given up.

        Raises ConfigError when the file cannot be written.
        """
        self._target = _STDOUT_FD if target == STDOUT else Path(target)
        self._dropped, self._lock = dropped, threading.Lock()
        self._lines: SimpleQueue[Entry | Refusal] = SimpleQueue()
        self._stopping = threading.Event()
        try:
            self._append(b"")
        except OSError as error:
            raise ConfigError("access_log", [f"{target} cannot be written: {error.strerror}"]) from error
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def settled(self, entry: Entry) -> None:
        if self._lines.qsize() < ROOM:
            self._lines.put(entry)
        else:
            self._drop(1)

    def refused(self, call_id: str, at_ns: int, status: int) -> None:
        """For a request that has no entry; `at_ns` in Unix time."""
        if self._lines.qsize() < ROOM:
            self._lines.put(Refusal(call_id, at_ns, status))
        else:
            self._drop(1)

    def close(self) -> None:
        """Returns when all lines are written, or after some seconds."""
        self._stopping.set()
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(INTERVAL_S)
            while batch := self._batch():
                self._write(batch)

    def _batch(self) -> list[Entry | Refusal]:
        batch: list[Entry | Refusal] = []
        try:
            while len(batch) < _BATCH:
                batch.append(self._lines.get_nowait())
        except Empty:
            pass
        return batch

    def _write(self, batch: list[Entry | Refusal]) -> None:
        try:
            self._append(b"".join(map(line, batch)))
        except OSError as error:
            self._drop(len(batch))
            log.warning("%d lines of the access log are lost: %s", len(batch), error)

    def _drop(self, lines: int) -> None:
        with self._lock:  # either thread may have to
            self._dropped(lines)

    def _append(self, data: bytes) -> None:
        with open(self._target, "ab", closefd=isinstance(self._target, Path)) as file:
            file.write(data)


def line(said: Entry | Refusal) -> bytes:
    """One line, newline included."""
    fields = _settled(said) if isinstance(said, Entry) else _refused(said)
    return msgspec.json.encode(fields) + b"\n"


def _settled(entry: Entry) -> dict[str, object]:
    return {
        "time": _time(entry.started_ns),
        "call_id": entry.call_id,
        "status": entry.status,
        "outcome": entry.outcome,
        "error_class": entry.error_class,
        "key_id": entry.key_id,
        "team": entry.team,
        "endpoint": entry.endpoint,
        "privacy": entry.privacy,
        "policy": entry.policy,
        "route": entry.route,
        "backend": entry.backend,
        "model": entry.model,
        "stream": entry.stream,
        "attempts": entry.attempts,
        "input_tokens": entry.usage.input_tokens,
        "output_tokens": entry.usage.output_tokens,
        "cost_nano": entry.cost_nano,
        "first_byte_ms": _rounded(entry.first_byte_ms),
        "duration_ms": _rounded(entry.duration_ms),
    }


def _refused(refusal: Refusal) -> dict[str, object]:
    return {
        "time": _time(refusal.at_ns),
        "call_id": refusal.call_id,
        "status": refusal.status,
        "outcome": "refused",
    }


def _time(unix_ns: int) -> str:
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)

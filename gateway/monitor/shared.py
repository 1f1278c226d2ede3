"""One answer for all workers of one port: each keeps its tally in a file beside its siblings' files.

A scrape reaches one worker, by the kernel's choice. That one writes its own file, then reads all of them. The
others wrote theirs within the last second or at a scrape of their own, so no number that was ever shown can
be higher than what the files hold, whichever worker answers next. A worker that replaces a dead one goes on
from the file that it left: counters survive, gauges count for the living only.
"""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.monitor.tally import Tally

log = logging.getLogger("headgate.monitor")

INTERVAL_S = 1.0
SUFFIX = ".tally"

decode = msgspec.msgpack.Decoder(Tally).decode


class SharedTally:
    """The file of this worker, written each second by a thread of its own."""

    def __init__(self, file: Path, snapshot: Callable[[], bytes]) -> None:
        """`snapshot` gives the encoded tally as it is; it is called in other threads."""
        self._file, self._snapshot = file, snapshot
        self._lock = threading.Lock()  # else an older snapshot could replace a newer one
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def gather(self) -> list[Tally]:
        """What all workers have counted, as far as their files say; this one's up to now. Blocks."""
        self._publish()
        files = self._file.parent.glob(f"*{SUFFIX}")
        return [_living_gauges(decode(file.read_bytes())) for file in files]

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._stopping.wait(INTERVAL_S)
            try:
                self._publish()
            except OSError as error:
                log.warning("metrics of this worker cannot be shared: %s", error)

    def _publish(self) -> None:
        with self._lock:
            fresh = self._file.with_suffix(".new")
            fresh.write_bytes(self._snapshot())
            fresh.replace(self._file)


def restore(file: Path) -> Tally | None:
    """What the worker before this one had counted."""
    try:
        return decode(file.read_bytes())
    except FileNotFoundError:
        return None


def _living_gauges(found: Tally) -> Tally:
    if not _alive(found.pid):
        found.gauges = []
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

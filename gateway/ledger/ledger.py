"""The ledger as the pipeline sees it: `begin` before a backend is reached, `settle` once after it."""

import threading
from pathlib import Path

import msgspec

from gateway.ledger.drain import Drain, Stats
from gateway.ledger.spool import BEGUN, SEGMENT_BYTES, SETTLED, SpoolUnwritable, Writer, claim
from gateway.ledger.store import Store
from gateway.types import Entry, Outcome

_REMEMBERED = 65_536


class Ledger:
    """Every request that reached a backend becomes one row, whatever happens to this process.

    Callers never wait for the database: a call costs them one write(2) to a local file. Several processes may
    share `spool_dir` and the database. Rows show up in `store` some 100 ms later.
    """

    def __init__(
        self,
        database_url: str,
        spool_dir: Path | str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Takes over what dead processes left in `spool_dir`. The database need not be up.

        Raises ConfigError (the URL), SpoolUnwritable.
        """
        self.store = Store(database_url)
        root = Path(spool_dir)
        self._claim, orphans = claim(root)
        self._writer = Writer(self._claim.directory, segment_bytes)
        self._drain = Drain(self.store, self._claim, orphans, root / "rejected.jsonl")
        self._lock = threading.Lock()
        self._settled: tuple[set[str], set[str]] = (set(), set())  # ids settled of late, newer ones first
        self._duplicates = self._unspooled = 0
        self._open: set[str] = set()
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the database has been reached and its schema is up to date."""
        return self._drain.ready

    def begin(self, entry: Entry) -> None:
        """Writes down that a backend is about to be reached. `entry`, as LOST, is the row that stands if this
        process dies before it settles.

        Raises SpoolUnwritable: the disk takes nothing, so the call could be lost; best refuse it.
        """
        payload = msgspec.json.encode(msgspec.structs.replace(entry, outcome=Outcome.LOST))
        with self._lock:
            if self._closed:
                raise SpoolUnwritable("the ledger is closed")
            self._writer.append(BEGUN, payload)
            self._open.add(entry.call_id)

    def settle(self, entry: Entry) -> None:
        """Writes down how a call ended; one that was refused and never begun too. Never waits, never raises
        for a full disk (the entry is then held in memory). A second settle of a call is ignored and counted.

        RuntimeError: the ledger is closed.
        """
        payload = msgspec.json.encode(entry)
        with self._lock:
            if self._closed:
                raise RuntimeError("the ledger is closed")
            if self._is_settled(entry.call_id):
                self._duplicates += 1
                return
            # Counted before it can be read back, so that the backlog is never negative.
            self._drain.settled += 1
            self._open.discard(entry.call_id)
            self._write(payload, entry)

    def flush(self, timeout: float) -> bool:
        """Waits until all that is settled by now, and what dead processes left, is in the database.

        `timeout` in seconds; False: it ran out. Blocks: not for the event loop's thread.
        """
        return self._drain.flush(timeout)

    def backlog(self) -> int:
        """Settled entries that are not in the database yet."""
        return self.stats().backlog

    def stats(self) -> Stats:
        stats = self._drain.stats()
        duplicates = stats.duplicates + self._duplicates
        return msgspec.structs.replace(
            stats, duplicates=duplicates, unspooled=self._unspooled, open_calls=len(self._open)
        )

    def close(self, timeout: float = 10.0) -> bool:
        """Flushes, for up to `timeout` seconds, and ends. False: rows are left to the next start.

        Calls that are begun and not settled are left to it too, and become LOST there.
        """
        with self._lock:
            if self._closed:
                return True
            self._closed = True
        flushed = self._drain.flush(timeout)
        if not self._drain.stop(timeout):
            return False  # the thread still reads the directory: the lock goes with the process
        self._writer.close()
        self._claim.release(remove=flushed and not self._open)
        self.store.close()
        return flushed

    def _write(self, payload: bytes, entry: Entry) -> None:
        try:
            self._writer.append(SETTLED, payload)
        except SpoolUnwritable:
            self._unspooled += 1
            self._drain.enqueue(entry)

    def _is_settled(self, call_id: str) -> bool:
        """Remembers the last 65,536 ids at least; before that the database's primary key does the work."""
        newer, older = self._settled
        if call_id in newer or call_id in older:
            return True
        if len(newer) >= _REMEMBERED:
            newer, older = set(), newer
            self._settled = (newer, older)
        newer.add(call_id)
        return False

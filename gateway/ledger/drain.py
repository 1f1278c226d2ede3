"""The thread that carries the spool into the database.

The spool is the queue: this thread reads what callers append and what dead processes left, and inserts it
in batches. It retries for as long as the database is down, and since the insert is idempotent it may repeat
a batch whose answer got lost. A segment is removed once all in it is settled and in the database.
"""

import logging
import threading
from collections import Counter, deque
from pathlib import Path

import msgspec

from gateway.ledger.spool import BEGUN, SETTLED, Chunk, Claim, Reader, count_settled, remove_segment, segments
from gateway.ledger.store import RowRefused, Store, StoreUnavailable
from gateway.types import Entry

log = logging.getLogger(__name__)

_POLL_S = 0.1
_LONGEST_WAIT_S = 10.0
_BATCH = 250  # rows in a transaction, or a few more


class _Id(msgspec.Struct, frozen=True):
    """Just as much of a begun entry as the reader of a living owner's lines needs."""

    call_id: str


class Stats(msgspec.Struct, kw_only=True):
    """Counts since the start. Only `backlog` and `open_calls` go down again."""

    backlog: int = 0  # settled, not yet in the database
    open_calls: int = 0  # begun, not yet settled
    inserted: int = 0
    duplicates: int = 0  # settled again: ignored
    lost: int = 0  # begun by a process that died before it settled
    torn: int = 0  # lines of the spool that were cut short or altered: skipped
    rejected: int = 0  # rows that the database will never take: in rejected.jsonl
    unspooled: int = 0  # settled while the disk took no line: held in memory until inserted
    failures: int = 0  # attempts to reach the database that failed
    last_failure: str = ""


class SpoolSource:
    """One spool directory: the batch that is on its way, and the calls that are still open."""

    def __init__(self, claim: Claim, *, orphaned: bool = False) -> None:
        """`orphaned`: its owner is dead, so what it began and did not settle is lost."""
        self.claim, self._orphaned = claim, orphaned
        self._reader = Reader(claim.directory, sealed=orphaned)
        self._open: dict[str, tuple[int, Entry | None]] = {}  # call id -> segment of its begun line, and that
        self._begun: Counter[int] = Counter()  # segment -> calls begun there that are still open
        self.batch: list[Entry] = []
        self.unreadable: list[bytes] = []  # whole lines of the batch that this version cannot decode
        self.torn = 0
        self.left = count_settled(claim.directory) if orphaned else 0  # settled lines not committed yet
        self.settled = 0  # settled lines in the batch, unreadable ones included
        self.finished = False

    def fill(self) -> bool:
        """Reads the next batch unless one is there; False: nothing is to be done at present."""
        if self.batch or self.settled or self.finished:
            return not self.finished
        moved = False
        while len(self.batch) < _BATCH and (chunk := self._reader.read()) is not None:
            self._take(chunk)
            moved = True
        if not moved and self._orphaned:
            self.finished = not self._open
            self.batch = [begun for _, begun in self._open.values() if begun is not None]
        return moved or bool(self.batch)

    def commit(self) -> None:
        """The batch is in the database: forgets it, and the segments that nobody needs any more."""
        for entry in self.batch:
            if entry.call_id in self._open:
                segment, _ = self._open.pop(entry.call_id)
                self._begun[segment] -= 1
        self.left -= self.settled
        self.batch, self.unreadable, self.torn, self.settled = [], [], 0, 0
        for n in segments(self.claim.directory):
            if n < self._reader.segment and self._begun[n] <= 0:
                remove_segment(self.claim.directory, n)
                del self._begun[n]

    def _take(self, chunk: Chunk) -> None:
        self.torn += chunk.torn
        for kind, payload in chunk.lines:
            try:
                self._take_line(chunk.segment, kind, payload)
            except msgspec.MsgspecError:  # whole, but written by a version with other fields
                self.unreadable.append(payload)

    def _take_line(self, segment: int, kind: bytes, payload: bytes) -> None:
        if kind == SETTLED:
            self.settled += 1
            self.batch.append(msgspec.json.decode(payload, type=Entry))
        elif kind == BEGUN:
            # A live owner will settle it, so its id is enough.
            begun = msgspec.json.decode(payload, type=Entry) if self._orphaned else None
            call_id = (begun or msgspec.json.decode(payload, type=_Id)).call_id
            if call_id not in self._open:
                self._open[call_id] = (segment, begun)
                self._begun[segment] += 1


class MemorySource:
    """Entries that the disk would not take."""

    def __init__(self) -> None:
        self.queue: deque[Entry] = deque()
        self.batch: list[Entry] = []

    def fill(self) -> bool:
        while self.queue and len(self.batch) < _BATCH:
            self.batch.append(self.queue.popleft())
        return bool(self.batch)

    def commit(self) -> None:
        self.batch = []


class Drain:
    """Owns the thread. Other threads call `enqueue`, `settled`, `flush`, `stats` and `stop`, no more."""

    def __init__(self, store: Store, own: Claim, orphans: list[Claim], rejected: Path) -> None:
        """Starts at once. `rejected` is the file for rows that the database refuses for good."""
        self._store, self._rejected = store, rejected
        self._own = SpoolSource(own)
        self._orphans = [SpoolSource(claim, orphaned=True) for claim in orphans]
        self._memory = MemorySource()
        self._stats = Stats()
        self._done = 0  # settled calls of this process that are in the database (or rejected)
        self.settled = 0  # settled calls of this process; the caller counts, under its own lock
        self.ready = False  # migrations are in
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ledger-drain", daemon=True)
        self._thread.start()

    def enqueue(self, entry: Entry) -> None:
        """Takes an entry that could not be spooled."""
        self._memory.queue.append(entry)

    def flush(self, timeout: float) -> bool:
        """Waits until all that was settled before this call, adopted rows too, is in the database.

        `timeout` in seconds; False: it ran out.
        """
        target = self.settled
        self._wake.set()
        with self._progress:
            return self._progress.wait_for(lambda: self._done >= target and not self._orphans, timeout)

    def stats(self) -> Stats:
        adopted = sum(source.left for source in list(self._orphans))
        backlog = adopted + self.settled - self._done
        return msgspec.structs.replace(self._stats, backlog=backlog)

    def stop(self, timeout: float) -> bool:
        """Ends the thread after its present batch; `timeout` in seconds. False: it is still at it."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            return False
        for source in self._orphans:
            source.claim.release(remove=False)
        return True

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            try:
                while self._step() and not self._stopping.is_set():
                    failures = 0
                wait = _POLL_S
            except Exception as e:  # noqa: BLE001 - whatever it is, rows wait in the spool and are tried again
                wait = min(_POLL_S * 2**failures, _LONGEST_WAIT_S)
                failures += 1
                self._failed(e, wait)
            self._wake.wait(wait)
            self._wake.clear()

    def _failed(self, error: Exception, wait: float) -> None:
        self._stats.failures += 1
        self._stats.last_failure = str(error)
        unexpected = not isinstance(error, StoreUnavailable)
        log.warning("ledger database: %s; again in %.1f s", error, wait, exc_info=unexpected)

    def _step(self) -> bool:
        """Moves one batch of each source; False: there was none."""
        if not self.ready:
            self._store.migrate()
            self.ready = True
        moved = [self._move_orphan(source) for source in list(self._orphans)]
        moved += [self._move_memory(), self._move_own()]
        return any(moved)

    def _move_own(self) -> bool:
        moved, repeated = self._move(self._own)
        self._stats.duplicates += repeated
        self._done += self._own.settled
        self._own.commit()
        self._advance()
        return moved

    def _move_memory(self) -> bool:
        if not self._memory.fill():
            return False
        self._stats.duplicates += self._insert(self._memory.batch)
        self._done += len(self._memory.batch)
        self._memory.commit()
        return True

    def _move_orphan(self, source: SpoolSource) -> bool:
        """What is in the database already is no duplicate here: its owner died before it could tidy up."""
        moved, repeated = self._move(source)
        if source.batch and not source.settled:
            self._stats.lost += len(source.batch) - repeated
        source.commit()
        if source.finished:
            source.claim.release(remove=True)
            self._orphans.remove(source)  # last: flush waits for it
            self._advance()
        return moved

    def _move(self, source: SpoolSource) -> tuple[bool, int]:
        """Whether there was anything, and how many of its rows the database had already."""
        moved = source.fill()
        repeated = self._insert(source.batch)
        for payload in source.unreadable:
            self._reject(payload, "this version cannot read it")
        self._stats.torn += source.torn
        return moved, repeated

    def _insert(self, entries: list[Entry]) -> int:
        """Returns how many the database had already."""
        try:
            new = self._store.insert(entries)
        except RowRefused as e:
            if len(entries) > 1:
                return sum(self._insert([entry]) for entry in entries)
            self._reject(msgspec.json.encode(entries[0]), str(e))
            return 0
        self._stats.inserted += new
        return len(entries) - new

    def _reject(self, payload: bytes, why: str) -> None:
        """Puts a row aside that would hold up all others; an operator decides about it."""
        with self._rejected.open("ab") as file:
            file.write(payload + b"\n")
        self._stats.rejected += 1
        log.error("ledger row put into %s: %s", self._rejected, why)

    def _advance(self) -> None:
        with self._progress:
            self._progress.notify_all()

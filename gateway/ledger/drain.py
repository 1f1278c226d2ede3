"""The thread that carries the spool into the database.

The spool is the queue: this thread reads what callers append and what dead processes left, and inserts it
in batches. It retries for as long as the database is down, and since the insert is idempotent it may repeat
a batch whose answer got lost.

Begun lines are for whoever adopts the spool. Of its own process's lines this thread decodes the settled ones
alone, since the owner knows which calls are open. A segment is removed once its settled lines are in the
database and none of the open calls began there.

The thread shares the interpreter with the event loop: it works on some 100 lines at a time and lets go of
the lock in between (in a read, a statement or a sync), so that the loop waits for some 0.3 ms. Fewer lines
would not serve it better: beside a busy loop on another core each return to the lock takes up to 5 ms, in
which every system call of the loop costs a futile wake-up. A batch is what came in within _POLL_S, so that
under load many rows share a commit and its sync.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from gateway.ledger.budgets.bill import Bill
from gateway.ledger.budgets.budget import Covering
from gateway.ledger.spool import BEGUN, SETTLED, Chunk, Claim, Reader, count_settled, remove_segment, segments
from gateway.ledger.store import RowRefused, Store, StoreUnavailable
from gateway.ledger.tables import COLUMNS, Row, encode, to_lost, to_row

log = logging.getLogger(__name__)

Sign = Callable[[Row], None]
"""Puts its signature into a row that is whole."""

_POLL_S = 0.2
_LONGEST_WAIT_S = 10.0
_BATCH = 1000  # rows in a transaction, or a few more


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
    """One spool directory, and the batch that is on its way."""

    def __init__(self, claim: Claim, sign: Sign, *, orphaned: bool = False) -> None:
        """`orphaned`: its owner is dead, so what it began and did not settle is lost."""
        self.claim, self._sign, self._orphaned = claim, sign, orphaned
        self._reader = Reader(claim.directory, sealed=orphaned, skip=() if orphaned else (BEGUN,))
        self._open: dict[str, tuple[int, Row]] = {}  # an orphan's begun lines so far, with their segments
        self.batch: list[Row] = []
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
        while self.settled < _BATCH and (chunk := self._reader.read()) is not None:
            self._take(chunk)
            moved = True
        if not moved and self._orphaned:
            self.batch, self._open = [to_lost(row) for _, row in self._open.values()], {}
            for row in self.batch:
                self._sign(row)
            self.finished = not self.batch
        return moved or bool(self.batch)

    def commit(self, begun: dict[str, int]) -> None:
        """The batch is in the database: forgets it, and the segments that nobody needs any more.

        `begun`: the owner's open calls, where it lives.
        """
        self.left -= self.settled
        self.batch, self.unreadable, self.torn, self.settled = [], [], 0, 0
        # Copied in one step, since the owner's threads write to it.
        held = {*begun.copy().values(), *(segment for segment, _ in self._open.values())}
        for n in segments(self.claim.directory):
            if n < self._reader.segment and n not in held:
                remove_segment(self.claim.directory, n)

    def _take(self, chunk: Chunk) -> None:
        self.torn += chunk.torn
        for kind, payload in chunk.lines:
            self.settled += kind == SETTLED
            try:
                row = to_row(payload)
            except msgspec.MsgspecError:  # whole, but written by a version with other fields
                self.unreadable.append(payload)
                continue
            if kind == SETTLED:
                self._sign(row)
                self.batch.append(row)
                self._open.pop(row[0], None)
            else:
                self._open[row[0]] = (chunk.segment, row)


class MemorySource:
    """Payloads that the disk would not take."""

    def __init__(self, sign: Sign) -> None:
        self._sign = sign
        self._queue: deque[bytes] = deque()
        self.batch: list[Row] = []

    def put(self, payload: bytes) -> None:
        self._queue.append(payload)

    def fill(self) -> bool:
        while self._queue and len(self.batch) < _BATCH:
            row = to_row(self._queue.popleft())
            self._sign(row)
            self.batch.append(row)
        return bool(self.batch)

    def commit(self) -> None:
        self.batch = []


class Drain:
    """Owns the thread. Other threads call `enqueue`, `settled`, `flush`, `stats` and `stop`, no more."""

    def __init__(
        self,
        store: Store,
        own: Claim,
        begun: dict[str, int],
        orphans: list[Claim],
        rejected: Path,
        sign: Sign,
        covering: Callable[[], Covering] = lambda: Covering(()),
    ) -> None:
        """Starts at once. `begun`, which the caller keeps, maps each open call to the segment where it began.

        `rejected` is the file for rows that the database refuses for good. `covering`: the budgets there are.
        """
        self._store, self._begun, self._rejected = store, begun, rejected
        self._covering = covering
        self._own = SpoolSource(own, sign)
        self._orphans = [SpoolSource(claim, sign, orphaned=True) for claim in orphans]
        self._memory = MemorySource(sign)
        self._stats = Stats()
        self._done = 0  # settled calls of this process that are in the database (or rejected)
        self.settled = 0  # settled calls of this process; the caller counts, under its own lock
        self.ready = False  # migrations are in
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ledger-drain", daemon=True)
        self._thread.start()

    def enqueue(self, payload: bytes) -> None:
        """Takes a settled call that could not be spooled. It leaves `begun` when it is in the database."""
        self._memory.put(payload)

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
        """Moves one batch of each source; False: what is left may wait until there is more of it."""
        if not self.ready:
            self._store.migrate()
            self.ready = True
        moved = [self._move_orphan(source) for source in list(self._orphans)]
        moved += [self._move_memory(), self._move_own()]
        return any(moved)

    def _move_own(self) -> bool:
        moved, repeated = self._move(self._own)
        if not moved:
            return False
        self._stats.duplicates += repeated
        settled = self._own.settled
        self._own.commit(self._begun)
        self._advance(settled)
        return settled >= _BATCH

    def _move_memory(self) -> bool:
        if not self._memory.fill():
            return False
        self._stats.duplicates += self._insert(self._memory.batch, self._own.claim.holder)
        for row in self._memory.batch:
            self._begun.pop(row[0], None)
        settled = len(self._memory.batch)
        self._memory.commit()
        self._advance(settled)
        return True

    def _move_orphan(self, source: SpoolSource) -> bool:
        """What is in the database already is no duplicate here: its owner died before it could tidy up."""
        moved, repeated = self._move(source)
        if source.batch and not source.settled:
            self._stats.lost += len(source.batch) - repeated
        source.commit({})
        if source.finished:
            self._store.end_leases(source.claim.holder)
            source.claim.release(remove=True)
            self._orphans.remove(source)  # last: flush waits for it
            self._advance(0)
        return moved

    def _move(self, source: SpoolSource) -> tuple[bool, int]:
        """Whether there was anything, and how many of its rows the database had already."""
        moved = source.fill()
        repeated = self._insert(source.batch, source.claim.holder)
        for payload in source.unreadable:
            self._reject(payload, "this version cannot read it")
        self._stats.torn += source.torn
        return moved, repeated

    def _insert(self, rows: list[Row], holder: str) -> int:
        """Returns how many the database had already. `holder` is the process whose calls they are."""
        try:
            new = self._store.insert_rows(rows, self._bill(holder))
        except RowRefused as e:
            if len(rows) > 1:
                half = len(rows) // 2
                return self._insert(rows[:half], holder) + self._insert(rows[half:], holder)
            self._reject(encode(dict(zip(COLUMNS, rows[0], strict=True))), str(e))
            return 0
        self._stats.inserted += new
        return len(rows) - new

    def _bill(self, holder: str) -> Bill | None:
        covering = self._covering()
        return Bill(covering, holder) if covering.budgets else None

    def _reject(self, payload: bytes, why: str) -> None:
        """Puts a row aside that would hold up all others; an operator decides about it."""
        with self._rejected.open("ab") as file:
            file.write(payload + b"\n")
        self._stats.rejected += 1
        log.error("ledger row put into %s: %s", self._rejected, why)

    def _advance(self, settled: int) -> None:
        """Last of all: whoever waits for these calls finds everything about them done."""
        with self._progress:
            self._done += settled
            self._progress.notify_all()

"""The ledger as the pipeline sees it: `begin` before a backend is reached, `settle` once after it."""

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from gateway.ledger.budgets.budget import Budget
from gateway.ledger.budgets.leases import Purse
from gateway.ledger.drain import Drain, Sign, Stats
from gateway.ledger.rollups import Roller
from gateway.ledger.spool import BEGUN, SEGMENT_BYTES, SETTLED, SpoolUnwritable, Writer, claim
from gateway.ledger.store import BudgetStanding, Store, StoreUnavailable
from gateway.ledger.tables import encode
from gateway.types import Entry

log = logging.getLogger(__name__)


class Ledger:
    """Every request that reached a backend becomes one row, whatever happens to this process.

    Callers never wait for the database: a call costs them one write(2) to a local file. Several processes may
    share `spool_dir` and the database. Rows show up in `store` some 200 ms later.
    """

    def __init__(
        self,
        database_url: str,
        spool_dir: Path | str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        sign: Sign = lambda _: None,
        budgets: Sequence[Budget] = (),
    ) -> None:
        """Takes over what dead processes left in `spool_dir`. The database need not be up.

        `sign` is called for each row, in the thread that inserts it; by default rows stay unsigned.

        Raises ConfigError (the URL), SpoolUnwritable.
        """
        self.store = Store(database_url)
        root = Path(spool_dir)
        self._claim, orphans = claim(root)
        self._writer = Writer(self._claim.directory, segment_bytes)
        self._begun: dict[str, int] = {}  # call id -> segment that must stay until the call is settled
        self.purse = Purse(budgets, self._claim.holder, self.store.writing)
        self._drain = Drain(
            self.store,
            self._claim,
            self._begun,
            orphans,
            root / "rejected.jsonl",
            sign,
            lambda: self.purse.covering,
        )
        self._roller = Roller(self.store, lambda: self.ready)
        self._lock = threading.Lock()
        self._unspooled = 0
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether the database has been reached and its schema is up to date."""
        return self._drain.ready

    def begin(self, entry: Entry) -> None:
        """Writes down that a backend is about to be reached. `entry`, as LOST, is the row that stands if this
        process dies before it settles; of several, as when another backend follows, it is the last.

        Raises SpoolUnwritable: the disk takes nothing, so the call could be lost; best refuse it.
        """
        payload = encode(entry)
        with self._lock:
            if self._closed:
                raise SpoolUnwritable("the ledger is closed")
            self._begun[entry.call_id] = self._writer.append(BEGUN, payload)

    def settle(self, entry: Entry) -> None:
        """Writes down how a call ended; one that was refused and never begun too. Never waits, never raises
        for a full disk (the entry is then held in memory). Of several settles of a call the first one stands;
        the others are counted when they reach the database.

        RuntimeError: the ledger is closed.
        """
        payload = encode(entry)
        with self._lock:
            if self._closed:
                raise RuntimeError("the ledger is closed")
            # Counted before it can be read back, so that the backlog is never negative.
            self._drain.settled += 1
            try:
                self._writer.append(SETTLED, payload)
            except SpoolUnwritable:
                self._unspooled += 1
                self._drain.enqueue(payload)
            else:
                self._begun.pop(entry.call_id, None)

    def standings(self) -> list[BudgetStanding]:
        """Each budget in its present period. Raises StoreUnavailable."""
        return self.store.standings(self.purse.covering.budgets, time.time_ns())

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
        return msgspec.structs.replace(stats, unspooled=self._unspooled, open_calls=len(self._begun))

    def close(self, timeout: float = 10.0) -> bool:
        """Flushes, for up to `timeout` seconds, and ends. False: rows are left to the next start.

        Calls that are begun and not settled are left to it too, and become LOST there.
        """
        with self._lock:
            if self._closed:
                return True
            self._closed = True
        flushed = self._drain.flush(timeout)
        self._roller.stop(timeout)
        if not self._drain.stop(timeout):
            return False  # the thread still reads the directory: the lock goes with the process
        self._writer.close()
        if flushed and not self._begun:
            self._end_leases()
        self._claim.release(remove=flushed and not self._begun)
        self.store.close()
        return flushed

    def _end_leases(self) -> None:
        """What nobody holds against any more goes back to the budgets: else it would wait for its expiry."""
        if not self.purse.covering.budgets:
            return
        try:
            self.store.end_leases(self._claim.holder)
        except StoreUnavailable as error:
            log.warning("leases of budgets wait for their expiry: %s", error)

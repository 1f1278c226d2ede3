"""A lease, kept alive by a thread for as long as the work takes, and the work stopped when it is lost."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from finetune.jobs.store import JobStore, Lease

log = logging.getLogger("headgate.jobs")


class Holding:
    """Renews `lease` every `beat_s` until left; then lets it go.

    It is lost when somebody has changed the job's status, when another worker has taken the job over, and
    when it could not be renewed for half of `lease_s`: the other half is for the work to stop in, before
    another takes this worker for dead.
    """

    def __init__(self, jobs: JobStore, lease: Lease, *, lease_s: float, beat_s: float) -> None:
        self._jobs, self.lease = jobs, lease
        self._lease_s, self._beat_s = lease_s, beat_s
        self._lost, self._left = threading.Event(), threading.Event()
        self._stop: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def wait_lost(self, timeout_s: float) -> bool:
        """Waits for the loss of the lease, for so long at most."""
        return self._lost.wait(timeout_s)

    def on_lost(self, stop: Callable[[], None]) -> None:
        """Call `stop` once, from another thread, when the lease is lost; at once where it is."""
        with self._lock:
            self._stop = stop
            lost = self._lost.is_set()
        if lost:
            stop()

    def lose(self) -> None:
        """Stop the work: the worker itself is told to end."""
        with self._lock:
            already = self._lost.is_set()
            self._lost.set()
            stop = self._stop
        if stop is not None and not already:
            stop()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()
        try:
            self._jobs.let_go(self.lease)
        except Exception as error:  # noqa: BLE001 - the database is away: the lease ends by itself
            log.warning(
                "job %s: its lease runs out, it could not be given back: %s", self.lease.job.id, error
            )

    def _beat(self) -> None:
        renewed = time.monotonic()
        while not self._left.wait(self._beat_s):
            asked = time.monotonic()
            try:
                alive = self._jobs.renew(self.lease)
            except Exception as error:  # noqa: BLE001 - whatever the database raises, the lease goes on
                alive = asked - renewed < self._lease_s / 2
                log.warning("job %s: its lease could not be renewed: %s", self.lease.job.id, error)
            else:
                renewed = asked
            if not alive:
                self.lose()
                return

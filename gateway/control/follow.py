"""How a process learns of changes: a thread asks for the revision twice a second and reads all when it moved.

What it read is handed on as one frozen state, so nobody ever sees half of a change. A database that is away
leaves the last state in force; how old it is, readiness and metrics tell.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

import msgspec

from gateway.control.state import ControlState, read_state
from gateway.control.store import ControlStore
from gateway.errors import HeadgateError

log = logging.getLogger("headgate.control")

POLL_S = 0.5
OLD_S = 10.0  # longer than a poll and a slow database take: the state may have been changed elsewhere

Apply = Callable[[ControlState], Sequence[str]]
"""Puts a state into force and says what of it could not be; what could not stays as it was."""


class Status(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    age_s: float | None  # since the state was last known to be the newest; None: it never was
    faults: tuple[str, ...]  # parts of the newest state that this process cannot use


class Follower:
    """Keeps the parts of one process up to date with the control plane's database."""

    def __init__(self, store: ControlStore, apply: Apply, *, poll_s: float = POLL_S) -> None:
        self._store, self._apply, self._poll_s = store, apply, poll_s
        self._state: ControlState | None = None
        self._faults: tuple[str, ...] = ()
        self._known_at = 0.0  # on the monotonic clock
        self._migrated = self._away = False
        self._news, self._wake = threading.Condition(), threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="control", daemon=True)

    @property
    def loaded(self) -> bool:
        """Whether the state was read once."""
        return self._state is not None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Waits for the thread, and so for what it is asking the database."""
        self._ended = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def reached(self, revision: int, timeout_s: float) -> bool:
        """Waits until this process has followed up to `revision`; False: not in time. Not for the loop."""
        self._wake.set()
        with self._news:
            return self._news.wait_for(lambda: self._is_at(revision), timeout_s)

    def status(self) -> Status:
        if self._state is None:
            return Status(revision=0, age_s=None, faults=self._faults)
        age_s = max(0.0, time.monotonic() - self._known_at)
        return Status(revision=self._state.revision, age_s=round(age_s, 3), faults=self._faults)

    def age_s(self) -> float:
        """For the metrics: infinite until the state was read."""
        age = self.status().age_s
        return float("inf") if age is None else age

    def _is_at(self, revision: int) -> bool:
        return self._state is not None and self._state.revision >= revision

    def _run(self) -> None:
        while not self._ended:
            self._wake.clear()
            self._look()
            self._wake.wait(self._poll_s)
        self._store.close()

    def _look(self) -> None:
        asked_at = time.monotonic()
        try:
            if not self._migrated:
                self._store.migrate()
                self._migrated = True
            if self._state is None or self._store.revision() != self._state.revision:
                self._take(read_state(self._store))
        except HeadgateError as error:
            self._lost(error)
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever a driver raises
            self._lost(error)
        else:
            self._known_at = asked_at
            if self._away:
                self._away = False
                log.warning("control plane: its database is back")

    def _take(self, state: ControlState) -> None:
        faults = tuple(self._apply(state))
        for fault in faults:
            log.error("control plane, revision %d: %s", state.revision, fault)
        with self._news:
            self._state, self._faults = state, faults
            self._news.notify_all()

    def _lost(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            kept = "the last state stays in force" if self.loaded else "nothing is in force yet"
            log.error("control plane: %s: %s; %s", type(error).__name__, error, kept)

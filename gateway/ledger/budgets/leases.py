"""Holds against this process's leases: what the pipeline asks, without a database in its way.

`Purse.hold` takes an amount from every hard budget that covers a request, or from none. `Purse.settle`
puts back what the request did not cost. A thread keeps the leases filled: it asks the database for a slice
before the last one is used up, and returns slices that nobody needs, so that other processes find them.

A hold is an upper bound of what the request may cost, as far as one can be known. Where the cost is higher
after all, the lease goes below zero, the next slice makes up for it first, and the excess is counted.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import msgspec
from sqlalchemy import Connection

from gateway.errors import HeadgateError
from gateway.ledger.budgets.budget import Budget, Covering, Window
from gateway.ledger.budgets.store import Standing, expire, give_back, lease, open_window, recount, renew

log = logging.getLogger(__name__)

_TICK_S = 0.5  # how often standings are read anew, and who waits for a slice at the latest gets it
_RENEW_S = 60.0
_EXPIRY_S = 3600.0  # how long the slices of a host that never comes back stay leased
_IDLE_S = 5.0  # an unused slice goes back after so long
_FOLLOWED_S = 5.0  # by then every process knows of a budget that was changed
_SLICES = 50  # a slice is a budget's fiftieth: four processes keep less than a tenth from each other


class Allowance:
    """What this process may still hold in one window. `Purse` guards it."""

    def __init__(self, budget: Budget, window: Window) -> None:
        self.budget, self.window = budget, window
        self.free_nano = 0  # leased, neither held nor spent; below zero after an excess
        self.held_nano = 0
        self.short_nano = 0  # what a request lacked since the last visit to the database
        self.refused = False  # there was nothing free at the last visit
        self.retired = False  # its budget is gone, or has other windows now: what is free goes back
        self.standing: Standing | None = None  # as of the last visit
        self.used_at = 0.0

    @property
    def slice_nano(self) -> int:
        return max(1, self.budget.cap_nano // _SLICES)

    @property
    def share_used(self) -> float:
        """How much of the cap is spent or set aside: 1 is all of it. 0 until the database has been asked."""
        found = self.standing
        if found is None:
            return 0.0
        if found.cap_nano <= 0:
            return 1.0
        return (found.spent_nano + found.leased_nano - max(0, self.free_nano)) / found.cap_nano


class Hold:
    """Set aside until it is settled; settling again changes nothing."""

    __slots__ = ("allowances", "amount_nano")

    def __init__(self, allowances: tuple[Allowance, ...], amount_nano: int) -> None:
        self.allowances, self.amount_nano = allowances, amount_nano


class Shortage(msgspec.Struct, frozen=True):
    """A budget has too little for a request. `final`: the database has no more of it either."""

    budget: Budget
    window: Window
    final: bool


Writing = Callable[[], AbstractContextManager[Connection]]


class Purse:
    """All budgets as this process knows them. The event loop holds and settles; `serve` runs in a thread."""

    def __init__(
        self,
        budgets: Sequence[Budget],
        holder: str,
        writing: Writing,
        *,
        clock: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.covering = Covering(budgets)
        self.excess_nano = 0  # what requests cost beyond their holds, all together
        self._holder, self._writing, self._clock, self._now_ns = holder, writing, clock, now_ns
        self._allowances: dict[tuple[str, int], Allowance] = {}
        self._current: dict[str, Allowance] = {}  # budget -> that of the latest window
        self._lock = threading.Lock()
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._renewed_at = clock()
        self._recounts: list[tuple[float, Budget]] = []  # when due
        self._followed = False

    def follow(self, budgets: Sequence[Budget]) -> None:
        """Puts these in the place of all before. From any one thread.

        What a budget has spent is counted anew from the ledger where it is new or changed: at once, and once
        more when the last process charges it too.
        """
        with self._lock:
            before = {budget.id: budget for budget in self.covering.budgets}
            now = {budget.id: budget for budget in budgets}
            self.covering = Covering(budgets)
            for allowance in self._allowances.values():
                budget = now.get(allowance.budget.id)
                if budget is not None and budget.windows_like(allowance.budget):
                    allowance.budget = budget
                else:
                    allowance.retired = True
                    self._current.pop(allowance.budget.id, None)
            if self._followed:
                changed = [budget for id, budget in now.items() if before.get(id) != budget]
                due = self._clock()
                self._recounts += [(at, b) for b in changed for at in (due, due + _FOLLOWED_S)]
            self._followed = True
        self._wake.set()

    def share_used(self, budgets: Sequence[Budget], at_ns: int) -> float:
        """The largest share of these that is spent or set aside, as of the last visit to the database."""
        return max((a.share_used for a in self.allowances(budgets, at_ns)), default=0.0)

    def standings(self) -> list[tuple[Budget, Window, Standing]]:
        """Of the present windows that this process knows of, as of the last visit to the database."""
        with self._lock:
            found = list(self._current.values())
        return [(a.budget, a.window, a.standing) for a in found if a.standing is not None]

    # The event loop's side.

    def allowances(self, budgets: Sequence[Budget], at_ns: int) -> tuple[Allowance, ...]:
        """Those of the windows that hold `at_ns`."""
        return tuple(self._allowance(budget, at_ns) for budget in budgets)

    def hold(self, allowances: Sequence[Allowance], amount_nano: int) -> Hold | Shortage:
        """Sets the amount aside in all that are hard, or in none."""
        hard = tuple(allowance for allowance in allowances if allowance.budget.hard)
        with self._lock:
            for allowance in hard:
                if allowance.free_nano < amount_nano:
                    return self._short(allowance, amount_nano)
            for allowance in hard:
                allowance.free_nano -= amount_nano
                allowance.held_nano += amount_nano
                allowance.used_at = self._clock()
                if allowance.free_nano < allowance.slice_nano // 4:
                    self._wake.set()
        return Hold(hard, amount_nano)

    def settle(self, hold: Hold, cost_nano: int) -> None:
        """The request is over: what it did not cost is free again."""
        with self._lock:
            for allowance in hold.allowances:
                allowance.held_nano -= hold.amount_nano
                allowance.free_nano += hold.amount_nano - cost_nano
            if hold.allowances:
                self.excess_nano += max(0, cost_nano - hold.amount_nano)
            hold.allowances, hold.amount_nano = (), 0

    def on_visit(self, listener: Callable[[], None]) -> None:
        """`listener` is called, in the thread, whenever the database has been asked."""
        self._listeners.append(listener)

    def _allowance(self, budget: Budget, at_ns: int) -> Allowance:
        latest = self._current.get(budget.id)
        if latest is not None and latest.window.start_ns <= at_ns < latest.window.end_ns:
            return latest
        window = budget.window(at_ns)
        with self._lock:
            place = (budget.id, window.start_ns)
            found = self._allowances.get(place) or Allowance(budget, window)
            found.budget, found.retired = budget, False
            self._allowances[place] = found
            if latest is None or window.start_ns > latest.window.start_ns:
                self._current[budget.id] = found
        return found

    def _short(self, allowance: Allowance, amount_nano: int) -> Shortage:
        allowance.short_nano = max(allowance.short_nano, amount_nano - allowance.free_nano)
        allowance.used_at = self._clock()
        self._wake.set()
        return Shortage(allowance.budget, allowance.window, final=allowance.refused)

    # The thread's side.

    def serve(self) -> None:
        """Visits the database until `stop`. A database that is down is asked again at the next turn."""
        while not self._stopping.is_set():
            self._wake.wait(_TICK_S)
            self._wake.clear()
            try:
                self.visit()
            except HeadgateError as error:
                log.warning("budgets: %s; what is leased already goes on", error)

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def visit(self) -> None:
        """One turn: fills, returns, renews and reads all that is due. Raises StoreUnavailable."""
        with self._lock:
            allowances = list(self._allowances.values())
        now = self._clock()
        self._recount(now)
        for allowance in allowances:
            self._attend(allowance, now)
        if now - self._renewed_at >= _RENEW_S:
            with self._writing() as connection:
                renew(connection, self._holder, self._expiry())
                expire(connection, self._now_ns())
            self._renewed_at = now
        for listener in self._listeners:
            listener()

    def _recount(self, now: float) -> None:
        """Raises StoreUnavailable: then it is still due."""
        while due := [recount for recount in self._recounts if recount[0] <= now]:
            budget = due[0][1]
            with self._writing() as connection:
                recount(connection, budget, budget.window(self._now_ns()))
            self._recounts.remove(due[0])

    def _attend(self, allowance: Allowance, now: float) -> None:
        budget, window = allowance.budget, allowance.window
        wanted, surplus = self._due(allowance, now)
        granted = 0
        # Where this fails nobody knows whether it was committed: what it was about is used by nobody until
        # this process's leases end. To use it could mean to spend it twice.
        with self._writing() as connection:
            if wanted:
                granted = lease(connection, budget, window, self._holder, wanted, self._expiry())
            elif surplus:
                give_back(connection, budget.id, window.start_ns, self._holder, surplus)
            standing = open_window(connection, budget, window)
        with self._lock:
            allowance.standing = standing
            allowance.free_nano += granted
            allowance.refused = bool(wanted) and granted < wanted
            if granted:
                allowance.short_nano = 0
        if self._is_over(allowance) and not allowance.held_nano and not allowance.free_nano:
            self._forget(allowance)

    def _is_over(self, allowance: Allowance) -> bool:
        return allowance.retired or self._now_ns() >= allowance.window.end_ns

    def _due(self, allowance: Allowance, now: float) -> tuple[int, int]:
        """What to ask for, and what to return: taken from what is free, so that nobody holds it meanwhile."""
        with self._lock:
            over = self._is_over(allowance)
            if not allowance.budget.hard and not over and not allowance.free_nano:
                return 0, 0
            over = over or not allowance.budget.hard
            if allowance.short_nano and not over:
                return max(allowance.short_nano, allowance.slice_nano), 0
            idle = now - allowance.used_at >= _IDLE_S
            if (idle or over) and allowance.free_nano > 0:
                surplus, allowance.free_nano = allowance.free_nano, 0
                return 0, surplus
            if not idle and not over and allowance.free_nano < allowance.slice_nano // 4:
                return allowance.slice_nano - allowance.free_nano, 0
            return 0, 0

    def _forget(self, allowance: Allowance) -> None:
        with self._lock:
            if not allowance.held_nano and not allowance.free_nano:
                self._allowances.pop((allowance.budget.id, allowance.window.start_ns), None)
                if self._current.get(allowance.budget.id) is allowance:
                    del self._current[allowance.budget.id]

    def _expiry(self) -> int:
        return self._now_ns() + int(_EXPIRY_S * 1e9)

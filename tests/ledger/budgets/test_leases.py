"""Holds against leases: never more than the cap, over all processes, whatever happens in between."""

from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.ledger.budgets.budget import Budget, Period, Scope
from gateway.ledger.budgets.leases import Hold, Purse, Shortage
from gateway.ledger.budgets.store import Charge, Standing, charge, release, standing
from gateway.ledger.store import Store, StoreUnavailable
from tests.ledger.samples import STARTED_NS, entry

CAP = 1000
BUDGET = Budget(id="b", cap_nano=CAP, period=Period.TOTAL)
SOFT = Budget(id="soft", cap_nano=10, period=Period.TOTAL, hard=False)
WINDOW = BUDGET.window(STARTED_NS)


class Clock:
    """Seconds and Unix nanoseconds that a test moves itself."""

    def __init__(self) -> None:
        self.seconds, self.ns = 1000.0, STARTED_NS

    def later(self, seconds: float) -> None:
        self.seconds += seconds
        self.ns += int(seconds * 1e9)


def purse(store: Store, clock: Clock, holder: str = "a", budgets: tuple[Budget, ...] = (BUDGET,)) -> Purse:
    return Purse(budgets, holder, store.writing, clock=lambda: clock.seconds, now_ns=lambda: clock.ns)


def hold(of: Purse, amount: int, *budgets: Budget) -> Hold | Shortage:
    return of.hold(of.allowances(budgets or (BUDGET,), STARTED_NS), amount)


def held(of: Purse, amount: int, *budgets: Budget) -> Hold:
    """A hold, for which the database is visited once where the lease is too small."""
    found = hold(of, amount, *budgets)
    if isinstance(found, Shortage):
        of.visit()
        found = hold(of, amount, *budgets)
    assert isinstance(found, Hold)
    return found


def now(store: Store, budget: Budget = BUDGET) -> Standing:
    with store.writing() as connection:
        found = standing(connection, budget, budget.window(STARTED_NS))
    assert found is not None
    return found


def drained(store: Store, holder: str, cost: int) -> None:
    with store.writing() as connection:
        charge(connection, holder, [Charge(BUDGET.id, WINDOW.start_ns, cost)])


def test_a_hold_needs_a_lease(store: Store) -> None:
    """The first request finds the purse empty; after a visit there is a slice, and more than one fits in."""
    mine = purse(store, Clock())
    first = hold(mine, 5)
    assert isinstance(first, Shortage)
    assert (first.budget, first.final) == (BUDGET, False)
    mine.visit()
    assert all(isinstance(hold(mine, 5), Hold) for _ in range(4))
    assert isinstance(hold(mine, 5), Shortage)
    assert now(store).leased_nano == CAP // 50


def test_a_request_larger_than_a_slice_gets_what_it_needs(store: Store) -> None:
    held(purse(store, Clock()), 700)
    assert now(store).leased_nano == 700


def test_what_does_not_fit_is_refused_for_good(store: Store) -> None:
    """The shortage says so once the database has been asked; what is settled makes room again."""
    mine = purse(store, Clock())
    large = held(mine, 900)
    assert isinstance(hold(mine, 200), Shortage)
    mine.visit()
    found = hold(mine, 200)
    assert isinstance(found, Shortage)
    assert found.final
    mine.settle(large, 100)
    assert isinstance(hold(mine, 200), Hold)


def test_all_budgets_or_none(store: Store) -> None:
    """A request that a narrower budget refuses sets nothing aside in the wider one."""
    narrow = Budget(id="narrow", scope=Scope(team="t"), cap_nano=10, period=Period.TOTAL)
    mine = purse(store, Clock(), budgets=(BUDGET, narrow))
    assert isinstance(hold(mine, 20, BUDGET, narrow), Shortage)
    mine.visit()
    assert isinstance(hold(mine, 20, BUDGET, narrow), Shortage)
    (wide,) = mine.allowances((BUDGET,), STARTED_NS)
    assert wide.held_nano == 0


def test_settling_twice_counts_once(store: Store) -> None:
    mine = purse(store, Clock())
    found = held(mine, 10)
    (allowance,) = mine.allowances((BUDGET,), STARTED_NS)
    mine.settle(found, 4)
    free = allowance.free_nano
    mine.settle(found, 4)
    assert (allowance.free_nano, allowance.held_nano, free) == (free, 0, CAP // 50 - 4)


def test_an_excess_is_counted_and_made_up_for_first(store: Store) -> None:
    """Below zero nothing can be held; the next slice fills the hole."""
    mine = purse(store, Clock())
    mine.settle(held(mine, 20), 50)
    assert mine.excess_nano == 30
    assert isinstance(hold(mine, 1), Shortage)
    mine.visit()
    (allowance,) = mine.allowances((BUDGET,), STARTED_NS)
    assert allowance.free_nano > 0
    drained(store, "a", 50)
    assert now(store).spent_nano + now(store).leased_nano <= CAP


def test_a_soft_budget_refuses_nothing_and_is_seen(store: Store) -> None:
    """It needs no lease, and its share used is known after a visit."""
    mine = purse(store, Clock(), budgets=(SOFT,))
    assert isinstance(hold(mine, 500, SOFT), Hold)
    mine.visit()
    drained_soft = [Charge(SOFT.id, SOFT.window(STARTED_NS).start_ns, 8)]
    with store.writing() as connection:
        charge(connection, "a", drained_soft)
    mine.visit()
    assert mine.allowances((SOFT,), STARTED_NS)[0].share_used == pytest.approx(0.8)


def test_idle_slices_go_back(store: Store) -> None:
    """So that another process finds them; what is held stays."""
    clock = Clock()
    mine = purse(store, clock)
    kept = held(mine, 5)
    clock.later(6)
    mine.visit()
    assert now(store).leased_nano == 5
    mine.settle(kept, 0)
    clock.later(6)
    mine.visit()
    assert now(store).leased_nano == 0


def test_a_new_period_begins_with_a_new_allowance(store: Store) -> None:
    """A hold of the old one settles there; then the old one is given back and forgotten."""
    clock = Clock()
    daily = Budget(id="daily", cap_nano=CAP, period=Period.DAY)
    mine = purse(store, clock, budgets=(daily,))
    old = held(mine, 5, daily)
    clock.later(86_400)
    (fresh,) = mine.allowances((daily,), clock.ns)
    assert fresh.window.start_ns == daily.window(clock.ns).start_ns
    mine.settle(old, 2)
    mine.visit()
    mine.visit()
    assert list(mine._allowances) == [("daily", fresh.window.start_ns)]
    with store.writing() as connection:
        found = standing(connection, daily, daily.window(STARTED_NS))
    assert found is not None
    assert found.leased_nano == 2  # spent, and its row is not in the ledger yet


def test_a_database_that_is_down_hands_out_nothing(store: Store) -> None:
    """What is leased goes on; nothing is added; and after a failure that left it open whether the slice was
    granted, it is used by nobody."""
    clock = Clock()
    failing = False

    def writing() -> object:
        if failing:
            raise StoreUnavailable("down")
        return store.writing()

    mine = Purse((BUDGET,), "a", writing, clock=lambda: clock.seconds, now_ns=lambda: clock.ns)  # type: ignore[arg-type]
    held(mine, 5)
    failing = True
    assert isinstance(hold(mine, 15), Hold)
    assert isinstance(hold(mine, 1), Shortage)
    with pytest.raises(StoreUnavailable):
        mine.visit()
    assert isinstance(hold(mine, 1), Shortage)
    failing = False
    mine.visit()
    assert isinstance(hold(mine, 1), Hold)


class Process:
    """A purse with what its ledger has not drained yet. Dying, it leaves the rows to be adopted."""

    def __init__(self, store: Store, clock: Clock, holder: str) -> None:
        self.store, self.holder, self.purse = store, holder, purse(store, clock, holder)
        self.holds: list[tuple[Hold, int]] = []
        self.spooled: list[int] = []

    def begin(self, amount: int) -> None:
        found = hold(self.purse, amount)
        if isinstance(found, Hold):
            self.holds.append((found, amount))

    def settle(self, chance: Random) -> None:
        if self.holds:
            found, amount = self.holds.pop(chance.randrange(len(self.holds)))
            cost = chance.randint(0, amount)
            self.purse.settle(found, cost)
            self.spooled.append(cost)

    def drain(self) -> None:
        for cost in self.spooled:
            drained(self.store, self.holder, cost)
        self.spooled.clear()

    def killed(self) -> None:
        """Whoever adopts its spool finds what had settled, and for what had not the most that it can cost."""
        self.spooled += [amount for _, amount in self.holds]
        self.holds.clear()
        self.drain()
        with self.store.writing() as connection:
            release(connection, self.holder)

    @property
    def committed(self) -> int:
        return sum(amount for _, amount in self.holds) + sum(self.spooled)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_spent_and_held_never_exceed_the_cap(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Four processes, in any order: requests, settles, drains, visits, kills. At every step what is spent,
    what waits to be drained and what is held fit under the cap; and in the end nothing stays leased."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('budgets')}/ledger.db")
    store.migrate()
    chance, clock = Random(seed), Clock()
    processes = [Process(store, clock, f"p{i}") for i in range(4)]
    for step in range(120):
        place = chance.randrange(4)
        process = processes[place]
        steps: list[Callable[[], None]] = [
            lambda p=process: p.begin(chance.choice((1, 10, 60, 400))),
            lambda p=process: p.settle(chance),
            lambda p=process: p.purse.visit(),
            lambda p=process: p.drain(),
            lambda: clock.later(chance.choice((0.1, 6.0))),
        ]
        if chance.random() < 0.03:
            process.killed()
            processes[place] = Process(store, clock, f"p{place}-{step}")
        else:
            chance.choice(steps)()
        with store.writing() as connection:
            found = standing(connection, BUDGET, WINDOW)
        if found is not None:
            assert found.spent_nano + found.leased_nano <= CAP
            assert found.spent_nano + sum(p.committed for p in processes) <= CAP
    for process in processes:
        process.killed()
    assert now(store).leased_nano == 0
    store.close()


def test_a_budget_that_is_gone_gives_its_slices_back(store: Store) -> None:
    """What is held stays until it has settled; what is free goes at once."""
    mine = purse(store, Clock())
    on_its_way = held(mine, 5)
    mine.follow([])
    mine.visit()
    assert now(store).leased_nano == 5
    mine.settle(on_its_way, 3)
    drained(store, "a", 3)
    mine.visit()
    assert (now(store).spent_nano, now(store).leased_nano) == (3, 0)
    assert mine.covering.of("", "", (), "") == ()


def test_a_budget_with_another_cap_goes_on(store: Store) -> None:
    """With its slices and what it has spent; a larger cap lets through what the smaller one refused."""
    clock, tight = Clock(), Budget(id="b", cap_nano=4, period=Period.TOTAL)
    mine = purse(store, clock, budgets=(tight,))
    assert isinstance(hold(mine, 5, tight), Shortage)
    mine.visit()
    assert isinstance(hold(mine, 5, tight), Shortage)
    mine.follow([BUDGET])
    assert isinstance(held(mine, 5), Hold)
    soft = Budget(id="b", cap_nano=CAP, period=Period.TOTAL, hard=False)
    mine.follow([soft])
    assert isinstance(hold(mine, 10**9, soft), Hold)


def test_what_a_changed_budget_has_spent_is_counted_anew(store: Store) -> None:
    """By its new scope: at once, and once more when other processes charge by it too."""
    clock = Clock()
    store.insert([entry("1", cost_nano=7, team="a"), entry("2", cost_nano=11, team="b")])
    mine = purse(store, clock)
    mine.follow([BUDGET])
    mine.allowances([BUDGET], STARTED_NS)
    mine.visit()
    assert now(store).spent_nano == 18
    narrow = Budget(id="b", scope=Scope(team="a"), cap_nano=CAP, period=Period.TOTAL)
    mine.follow([narrow])
    mine.visit()
    assert now(store).spent_nano == 7
    store.insert([entry("3", cost_nano=1, team="a")])  # by a process that does not know of it yet
    mine.visit()
    assert now(store).spent_nano == 7
    clock.later(6)
    mine.visit()
    assert now(store).spent_nano == 8

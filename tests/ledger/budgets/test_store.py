"""Windows and leases in the database, on SQLite and, where there is one, PostgreSQL."""

import threading

import pytest

from gateway.ledger.budgets.bill import Bill
from gateway.ledger.budgets.budget import Budget, Covering, Period, Scope
from gateway.ledger.budgets.store import (
    Charge,
    Standing,
    charge,
    expire,
    give_back,
    lease,
    open_window,
    release,
    renew,
    standing,
)
from gateway.ledger.store import Store
from gateway.ledger.tables import encode, to_row
from tests.ledger.samples import STARTED_NS, entry

TEAM = Budget(id="team", scope=Scope(team="support"), cap_nano=1000, period=Period.TOTAL)
WINDOW = TEAM.window(STARTED_NS)
LATER = STARTED_NS + 10**12


def now(store: Store, budget: Budget = TEAM) -> Standing | None:
    with store.writing() as connection:
        return standing(connection, budget, budget.window(STARTED_NS))


def leased(store: Store, holder: str, amount: int, budget: Budget = TEAM) -> int:
    with store.writing() as connection:
        return lease(connection, budget, budget.window(STARTED_NS), holder, amount, LATER)


def test_a_lease_is_never_larger_than_what_is_free(store: Store) -> None:
    """Slices sum to the cap, whoever asks for how much."""
    assert [leased(store, holder, 400) for holder in ("a", "b", "c", "a")] == [400, 400, 200, 0]
    assert now(store) == Standing(cap_nano=1000, spent_nano=0, leased_nano=1000)


def test_many_threads_lease_no_more_than_the_cap(store: Store) -> None:
    """Asked at the same moment, also for the window's first use."""
    granted: list[int] = []
    start = threading.Barrier(8)

    def ask(holder: str) -> None:
        start.wait()
        granted.extend(leased(store, holder, 30) for _ in range(10))

    threads = [threading.Thread(target=ask, args=(f"p{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 1000
    assert now(store) == Standing(cap_nano=1000, spent_nano=0, leased_nano=1000)


def test_what_an_entry_costs_moves_from_leased_to_spent_once(store: Store) -> None:
    """In the transaction that inserts it; a row that comes again costs nothing more."""
    leased(store, "a", 500)
    bill = Bill(Covering([TEAM]), "a")
    rows = [to_row(encode(entry(f"c{i}", team="support", cost_nano=30))) for i in range(3)]
    assert store.insert_rows(rows, bill) == 3
    assert store.insert_rows([*rows, to_row(encode(entry("d", team="support", cost_nano=5)))], bill) == 1
    assert now(store) == Standing(cap_nano=1000, spent_nano=95, leased_nano=405)


def test_what_a_budget_does_not_cover_costs_it_nothing(store: Store) -> None:
    """Another team's rows, and rows whose price is unknown."""
    leased(store, "a", 500)
    rows = [entry("x", team="other", cost_nano=30), entry("y", team="support", cost_nano=None)]
    store.insert_rows([to_row(encode(row)) for row in rows], Bill(Covering([TEAM]), "a"))
    assert now(store) == Standing(cap_nano=1000, spent_nano=0, leased_nano=500)


def test_a_budget_declared_later_counts_from_the_start_of_its_period(store: Store) -> None:
    """The ledger's own entries are its first standing, by team and by tag."""
    store.insert(
        [entry("a", team="support", cost_nano=30, tags=("x", "y")), entry("b", team="o", cost_nano=9)]
    )
    tagged = Budget(id="tag", scope=Scope(tag="y"), cap_nano=100, period=Period.TOTAL)
    everything = Budget(id="all", cap_nano=100, period=Period.TOTAL)
    with store.writing() as connection:
        found = [open_window(connection, b, b.window(STARTED_NS)) for b in (TEAM, tagged, everything)]
    assert [s.spent_nano for s in found] == [30, 30, 39]


def test_what_is_given_back_others_can_lease(store: Store) -> None:
    leased(store, "a", 1000)
    with store.writing() as connection:
        give_back(connection, TEAM.id, WINDOW.start_ns, "a", 600)
    assert leased(store, "b", 1000) == 600


def test_the_leases_of_a_dead_process_end_with_its_last_row(store: Store) -> None:
    """What it did not spend is free again; what it spent stays spent."""
    leased(store, "a", 700)
    with store.writing() as connection:
        charge(connection, "a", [Charge(TEAM.id, WINDOW.start_ns, 50)])
        release(connection, "a")
    assert now(store) == Standing(cap_nano=1000, spent_nano=50, leased_nano=0)


def test_a_lease_that_nobody_renews_expires(store: Store) -> None:
    """And a charge that comes after that is spent without one."""
    leased(store, "a", 700)
    with store.writing() as connection:
        assert expire(connection, LATER) == 0
        renew(connection, "a", LATER + 5)
        assert expire(connection, LATER + 1) == 0
        assert expire(connection, LATER + 6) == 1
        charge(connection, "a", [Charge(TEAM.id, WINDOW.start_ns, 50)])
    assert now(store) == Standing(cap_nano=1000, spent_nano=50, leased_nano=0)


def test_an_excess_is_taken_from_the_lease(store: Store) -> None:
    """The lease goes below zero, so that `spent + leased` stays what it was."""
    leased(store, "a", 100)
    with store.writing() as connection:
        charge(connection, "a", [Charge(TEAM.id, WINDOW.start_ns, 130)])
    assert now(store) == Standing(cap_nano=1000, spent_nano=130, leased_nano=-30)
    assert leased(store, "a", 1000) == 900
    assert now(store) == Standing(cap_nano=1000, spent_nano=130, leased_nano=870)


@pytest.mark.parametrize(("carry_over", "cap"), [(True, 170), (False, 100)])
def test_what_is_left_is_carried_over_by_choice(store: Store, carry_over: bool, cap: int) -> None:
    """Only what is left of the window before; what it was over is not held against this one."""
    daily = Budget(id="daily", cap_nano=100, period=Period.DAY, carry_over=carry_over)
    first = daily.window(STARTED_NS)
    second = daily.window(first.end_ns)
    store.insert([entry("a", cost_nano=30)])
    with store.writing() as connection:
        open_window(connection, daily, first)
        assert open_window(connection, daily, second).cap_nano == cap
        charge(connection, "a", [Charge(daily.id, second.start_ns, 500)])
        assert open_window(connection, daily, daily.window(second.end_ns)).cap_nano == 100

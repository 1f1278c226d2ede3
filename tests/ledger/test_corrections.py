"""Corrections: what was unknown or estimated becomes known, by rows that are added, once."""

from decimal import Decimal

import pytest

from gateway.ledger.budgets.bill import Bill
from gateway.ledger.budgets.budget import Budget, Covering, Period
from gateway.ledger.budgets.store import open_window
from gateway.ledger.corrections import Corrector
from gateway.ledger.prices import Override, PriceBook
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy
from gateway.ledger.tables import encode, to_row
from gateway.types import Outcome, Usage
from tests.ledger.samples import STARTED_NS, entry

PROVIDERS = {"openai-main": "openai"}
BOOK = PriceBook({}, "none", {"new": Override(input=Decimal(1), output=Decimal(2))})
BUDGET = Budget(id="all", cap_nano=10**12, period=Period.TOTAL)
USAGE = Usage(input_tokens=1000, output_tokens=10)
NOW_NS = STARTED_NS + 40 * DAY_NS


def corrector(store: Store, book: PriceBook = BOOK) -> Corrector:
    return Corrector(store, book, PROVIDERS, Covering([BUDGET]), lambda _: None, lambda: NOW_NS)


def spent(store: Store) -> int:
    with store.writing() as connection:
        return open_window(connection, BUDGET, BUDGET.window(NOW_NS)).spent_nano


def fill(store: Store) -> None:
    spent(store)  # from here on the window is charged row by row
    rows = [
        entry("known", cost_nano=5),
        entry("unknown", model="new", cost_nano=None, price="unknown: new", usage=USAGE),
        entry("nobody", model="nobody-knows", cost_nano=None, usage=USAGE),
        entry("ours", backend="vllm", cost_nano=None, usage=USAGE),
        entry("refused", outcome=Outcome.REFUSED, backend="", model="", cost_nano=None, usage=Usage()),
    ]
    store.insert_rows([to_row(encode(row)) for row in rows], Bill(Covering([BUDGET]), "p"))


def test_a_call_that_settles_twice_in_one_batch_is_charged_once(any_store: Store) -> None:
    """The first settle is the row, and what the budget pays."""
    spent(any_store)
    rows = [to_row(encode(entry("a", cost_nano=cost))) for cost in (5, 5, 7)]
    assert any_store.insert_rows(rows, Bill(Covering([BUDGET]), "p")) == 1
    assert spent(any_store) == 5


@pytest.mark.parametrize("rolled", [False, True])
def test_an_unknown_price_that_becomes_known(any_store: Store, rolled: bool) -> None:
    """One row more, in the call's day; the report counts it no longer, the budget is charged; once."""
    fill(any_store)
    if rolled:
        any_store.roll_up(STARTED_NS // DAY_NS)
    assert any_store.sums([])[0].unknown_price == 3
    done = corrector(any_store).rerate(None, None)
    # 1,000 x 1,000 + 10 x 2,000
    assert (done.calls, done.corrections, done.added_nano, done.unpriced) == (3, 1, 1_020_000, 2)
    if rolled:
        any_store.roll_up(STARTED_NS // DAY_NS)
    (sums,) = any_store.sums([GroupBy.DAY])
    assert (sums.keys[0], sums.requests, sums.unknown_price) == (STARTED_NS // DAY_NS, 5, 2)
    assert sums.cost_nano == 5 + 1_020_000 == spent(any_store)
    assert sums.input_tokens == 1000 + 3 * 1000
    (row,) = any_store.corrections(None, None)
    assert (row.corrects, row.call_id, row.recorded_ns) == ("unknown", "unknown~1", NOW_NS)
    assert row.price == "override: new"
    assert corrector(any_store).rerate(None, None).corrections == 0


def test_a_providers_count_takes_the_place_of_an_estimate(any_store: Store) -> None:
    """Tokens and cost end up as the provider has them, however often its account is read."""
    guess = Usage(input_tokens=900, output_tokens=50, estimated=True)
    any_store.insert([entry("a", model="new", usage=guess, cost_nano=1_000_000), entry("b", cost_nano=7)])
    account = [("a", Usage(input_tokens=1000, output_tokens=10), None), ("b", Usage(), 7), ("c", Usage(), 1)]
    done = corrector(any_store).reconcile(account)
    assert (done.corrections, done.added_nano, done.unknown) == (2, 20_000, ("c",))
    (sums,) = any_store.sums([GroupBy.MODEL], None, None)[1:]
    assert (sums.input_tokens, sums.output_tokens, sums.cost_nano) == (1000, 10, 1_020_000)
    assert any_store.sums([])[0].estimated == 0
    assert corrector(any_store).reconcile(account).corrections == 0
    # The account itself was wrong, and is put right.
    done = corrector(any_store).reconcile([("a", Usage(input_tokens=999, output_tokens=10), None)])
    assert (done.corrections, done.added_nano) == (1, -1_000)
    assert [row.call_id for row in any_store.corrections(None, None)] == ["a~1", "a~2", "b~1"]


def test_two_that_correct_one_state_are_taken_once(any_store: Store) -> None:
    """A race ends in one row: its id names the state that it corrects."""
    fill(any_store)
    one, other = corrector(any_store), corrector(any_store)
    history = any_store.corrected(["unknown"])
    assert len(history["unknown"]) == 1
    assert one.rerate(None, None).corrections == 1
    stale = any_store.corrections(None, None)
    assert any_store.insert(stale) == 0
    assert other.rerate(None, None).corrections == 0
    assert any_store.sums([])[0].cost_nano == 5 + 1_020_000

"""Budgets on a whole gateway: holds before the call, settles after it, refusals with a reason."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.fake_calls import Behaviour
from gateway.holds import Outputs, _place, _top
from gateway.ledger.budgets.store import Standing, standing
from tests.support.stack import KEY, Stack, running_stack

PRICE = {"gpt-test": {"input": "1000", "output": "1000"}}  # USD a million tokens: 0.001 USD a token
BUDGET = {"id": "support-all", "team": "support", "usd": "1", "per": "total"}
BODY = {"model": "gpt-test", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running_stack(tmp_path, changes={"prices": PRICE, "budgets": [BUDGET]}) as running:
        yield running


def ask(stack: Stack, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}"}
    return httpx.post(f"{stack.url}/chat/completions", json=BODY | more, headers=headers, timeout=20)


def now(stack: Stack) -> Standing:
    (budget,) = stack.app.ledger.purse.covering.of("client", "support", (), "rented")
    with stack.app.ledger.store.writing() as connection:
        found = standing(connection, budget, budget.window(0))
    assert found is not None
    return found


def test_a_budget_is_spent_to_its_end_and_no_further(stack: Stack) -> None:
    """Many clients at once: each answer is paid from the cap, the rest are refused before any backend is
    asked, and what the ledger says was spent is what the budget says."""
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: ask(stack), range(120)))
    assert {answer.status_code for answer in answers} == {200, 429}
    rows = stack.rows()
    spent = sum(row.cost_nano for row in rows)
    assert stack.rented.called == sum(answer.status_code == 200 for answer in answers)
    assert now(stack).spent_nano == spent <= 10**9
    # What is left is less than one request is held at, its slice and the others' unused ones.
    assert spent >= 0.8 * 10**9
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "budget_exceeded"
    assert "'support-all' of 1" in refused.json()["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert [row.outcome for row in rows if row.status == 429] == ["refused"] * rows_refused(rows)


def rows_refused(rows: list[Any]) -> int:
    return sum(row.status == 429 for row in rows)


def test_what_was_held_and_not_spent_is_free_again(stack: Stack) -> None:
    """A failed call costs nothing; a client's limit of 800 tokens is held and given back each time."""
    stack.rented.script(Behaviour(status=500))
    assert ask(stack, max_tokens=800).status_code == 500
    for _ in range(3):
        assert ask(stack, max_tokens=800).status_code == 200
    assert ask(stack, max_tokens=100_000).status_code == 429
    (allowance,) = stack.app.ledger.purse._allowances.values()
    assert allowance.held_nano == 0


def test_how_much_is_used_is_told(stack: Stack) -> None:
    """In a header, as a share of the cap."""
    ask(stack)
    answer = ask(stack)
    assert 0 <= Decimal(answer.headers["x-headgate-budget-used"]) < 1


def test_another_team_is_not_concerned(tmp_path: Path) -> None:
    """And pays nothing: neither a hold nor a header."""
    other = BUDGET | {"team": "others", "usd": "0"}
    with running_stack(tmp_path, changes={"prices": PRICE, "budgets": [other]}) as stack:
        answer = ask(stack)
        assert answer.status_code == 200
        assert "x-headgate-budget-used" not in answer.headers


def test_a_soft_budget_lets_pass(tmp_path: Path) -> None:
    soft = BUDGET | {"usd": "0.000001", "hard": False}
    with running_stack(tmp_path, changes={"prices": PRICE, "budgets": [soft]}) as stack:
        assert [ask(stack).status_code for _ in range(3)] == [200] * 3


@given(st.integers(0, 200_000))
def test_places_are_a_quarter_of_a_doubling_wide(tokens: int) -> None:
    """Each number of tokens is counted at a place whose top is no more than a quarter above it."""
    top = _top(_place(tokens))
    assert tokens <= top <= max(4, tokens * 1.25)
    assert _place(top + 1) == _place(tokens) + 1


def test_a_route_is_held_at_what_its_answers_stay_below() -> None:
    """95 of 100, once there are enough; longer answers later are learned within a thousand."""
    outputs = Outputs()
    assert outputs.most("r") == 1024
    for length in [100] * 95 + [5000] * 5:
        outputs.add("r", length)
    assert 100 <= outputs.most("r") <= 125
    for _ in range(3000):
        outputs.add("r", 5000)
    assert 5000 <= outputs.most("r") <= 6250
    for _ in range(30):
        outputs.add("endless", 10**9)
        outputs.add("brief", 1)
    assert (outputs.most("endless"), outputs.most("brief")) == (32_768, 16)

"""`/admin/budgets` and `/admin/prices`: in force in all processes without a restart."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.api.conftest import Admin, code_of
from tests.api.test_keys import FOLLOWED_S
from tests.support.stack import running_stack
from tests.support.waiting import until

CAP: dict[str, Any] = {"id": "cap", "usd": "0.000000001", "per": "total"}
PRICE: dict[str, Any] = {"id": "mini", "model": "gpt-4o-mini", "input": "1000", "output": "2000"}


def status(admin: Admin) -> int:
    return admin.ask().status_code


async def test_a_budget_is_in_force_everywhere(admin: Admin, beside: Admin) -> None:
    """What was spent before counts; a larger cap lets requests through, and so does its deletion."""
    assert status(admin) == 200
    admin.stack.rows()
    made = admin.made("/budgets", CAP)
    assert (made["usd"], made["per"], made["hard"]) == ("0.000000001", "total", True)
    answer = admin.ask()
    assert (answer.status_code, code_of(answer)) == (429, "budget_exceeded")
    await until(lambda: status(beside) == 429, FOLLOWED_S)
    (state,) = admin("GET", "/budgets/state").json()["data"]
    assert (state["id"], state["cap_usd"]) == ("cap", "0.000000001")
    assert float(state["spent_usd"]) > 0
    larger = {"usd": "5", "per": "total"}
    assert admin("PUT", "/budgets/cap", larger).status_code == 200
    await until(lambda: status(admin) == 200, FOLLOWED_S)
    await until(lambda: status(beside) == 200, FOLLOWED_S)
    assert admin("DELETE", "/budgets/cap").status_code == 200
    answer = admin.ask()
    assert "x-headgate-budget-used" not in answer.headers
    assert admin("GET", "/budgets/state").json()["data"] == []


def test_a_soft_budget_says_how_far_it_is_used(admin: Admin) -> None:
    """And refuses nothing."""
    admin.made("/budgets", {**CAP, "id": "soft", "hard": False})
    assert {status(admin) for _ in range(3)} == {200}
    assert "x-headgate-budget-used" in admin.ask().headers


@pytest.mark.parametrize(
    ("terms", "code"),
    [({"team": "nobody"}, "team_not_found"), ({"key": "nobody"}, "key_not_found")],
)
def test_a_budget_of_nobody(admin: Admin, terms: dict[str, str], code: str) -> None:
    """A scope that covers nothing is a mistake, and is told."""
    answer = admin("POST", "/budgets", {**CAP, **terms})
    assert (answer.status_code, code_of(answer)) == (400, code)


def test_who_may(admin: Admin) -> None:
    """Finance reads budgets and prices, and changes neither."""
    finance = admin.as_role("finance")
    for path, body in (("/budgets", CAP), ("/prices", PRICE)):
        assert finance("GET", path).status_code == 200
        assert finance("POST", path, body).status_code == 403


def test_a_price_is_in_force_at_once(admin: Admin) -> None:
    """By the next request; a dated one only from its day on; without any the public one holds again."""
    public = admin.ask().headers["x-headgate-cost"]
    admin.made("/prices", PRICE)
    own = admin.ask().headers["x-headgate-cost"]
    assert float(own) > 1000 * float(public)
    assert admin.stack.rows()[-1].price == "override: gpt-4o-mini"
    admin.made("/prices", {**PRICE, "id": "later", "since": "2199-01-01", "input": "0"})
    assert admin.ask().headers["x-headgate-cost"] == own
    twice = admin("POST", "/prices", {**PRICE, "id": "again"})
    assert (twice.status_code, code_of(twice)) == (409, "already_exists")
    foreign = admin("POST", "/prices", {**PRICE, "id": "euro", "currency": "EUR"})
    assert (foreign.status_code, code_of(foreign)) == (400, "unknown_currency")
    for id in ("mini", "later"):
        assert admin("DELETE", f"/prices/{id}").status_code == 200
    assert admin.ask().headers["x-headgate-cost"] == public


@contextmanager
def hook(statuses: list[int]) -> Iterator[tuple[str, list[Any]]]:
    """A webhook's URL, and what it was told; it answers with these, and then with 200."""
    told: list[Any] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = statuses.pop() if statuses else 200
            if status == 200:
                told.append(event)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_a_webhook_is_told_once(tmp_path: Path) -> None:
    """At 80 and at 100 %, by one of two processes; what could not be delivered is tried again."""
    soft = {"id": "soft", "usd": "0.000000001", "per": "total", "hard": False}
    with hook([500]) as (url, told):
        changes = {"budget_webhook": url, "budgets": [soft]}
        beside = {**changes, "database": f"sqlite:///{tmp_path}/var/headgate.db"}
        (tmp_path / "beside").mkdir()
        with (
            running_stack(tmp_path, changes=changes) as one,
            running_stack(tmp_path / "beside", changes=beside) as other,
        ):
            assert {Admin(stack).ask().status_code for stack in (one, other)} == {200}
            await until(lambda: len(told) >= 2, 15)
            assert {Admin(stack).ask().status_code for stack in (one, other)} == {200}
        assert [event["percent"] for event in told] in ([80, 100], [100, 80])
        assert told[0]["event"] == "budget.used"
        assert (told[0]["budget"], told[0]["hard"], told[0]["period_end"]) == ("soft", False, None)

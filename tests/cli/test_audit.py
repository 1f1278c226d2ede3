"""`headgate privacy audit`, run as the command that it is, over a ledger that a gateway wrote."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stack import ADMIN_KEY, FLOOR_KEY, KEY, Stack, running_stack

CARD = "my card is 4111 1111 1111 1111"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with running_stack(tmp_path) as running:
        yield running


def ask(stack: Stack, content: str, key: str = KEY) -> str:
    """The id of the call."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}
    headers = {"authorization": f"Bearer {key}"}
    answer = httpx.post(f"{stack.url}/chat/completions", json=body, headers=headers, timeout=30)
    answer.raise_for_status()
    return str(answer.headers["x-headgate-call-id"])


def audit(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from gateway.cli.main import main; sys.argv = sys.argv[1:]; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "headgate", "privacy", "audit", *options],
        capture_output=True, text=True, timeout=120, check=False, cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin", "COLUMNS": "200"},
    )  # fmt: skip


def change(folder: Path, statement: str, *values: str) -> None:
    with sqlite3.connect(folder / "var" / "headgate.db") as connection:
        assert connection.execute(statement, values).rowcount == 1
    connection.close()


def test_proved_refuted_and_impossible(stack: Stack, tmp_path: Path) -> None:
    """0 for a clean ledger, 1 with the calls for a tampered one, 2 without the key."""
    calls = [ask(stack, "hello"), ask(stack, "hello", FLOOR_KEY), ask(stack, CARD)]
    assert len(stack.rows()) == 3
    clean = audit(tmp_path)
    assert (clean.returncode, "proved" in clean.stdout) == (0, True), clean.stdout + clean.stderr
    found = json.loads(audit(tmp_path, "--json").stdout)
    assert (found["clean"], found["requests"], found["violations"]) == (True, 3, [])
    assert found["sent"] == [
        {"class": "public", "zone": "cloud", "attempts": 1},
        {"class": "restricted", "zone": "home", "attempts": 2},
    ]
    assert json.loads(audit(tmp_path, "--json", "--class", "Restricted").stdout)["requests"] == 2
    later = audit(tmp_path, "--json", "--since", "2099-01-01", "--until", "2099-02-01")
    assert (later.returncode, json.loads(later.stdout)["requests"]) == (0, 0)

    change(tmp_path, "UPDATE entry SET privacy = 'restricted' WHERE call_id = ?", calls[0])
    refuted = audit(tmp_path)
    assert refuted.returncode == 1
    assert f"{calls[0]}: signature wrong" in refuted.stdout
    assert "not proved" in refuted.stdout
    listed = json.loads(audit(tmp_path, "--json").stdout)
    assert {violation["call_id"] for violation in listed["violations"]} == {calls[0]}

    (tmp_path / "var" / "audit.key").unlink()
    impossible = audit(tmp_path)
    assert impossible.returncode == 2
    assert "no audit key" in impossible.stderr


@pytest.mark.parametrize(
    ("options", "said"), [(["--class", "cosmic"], "known are"), (["--since", "soon"], "neither 30d")]
)
def test_what_cannot_be_asked(stack: Stack, tmp_path: Path, options: list[str], said: str) -> None:
    """2, naming what would do."""
    found = audit(tmp_path, *options)
    assert found.returncode == 2
    assert said in found.stderr


# GET /admin/privacy/decisions


def decisions(stack: Stack, key: str = ADMIN_KEY, **query: Any) -> httpx.Response:
    url = f"{stack.server.url}/admin/privacy/decisions"
    return httpx.get(url, params=query, headers={"authorization": f"Bearer {key}"}, timeout=30)


def test_decisions_page_by_page(stack: Stack, tmp_path: Path) -> None:
    """All of them in order, by call id; by class, zone and period; a tampered one says so."""
    calls = [ask(stack, CARD if n % 3 == 0 else "hello") for n in range(7)]
    assert len(stack.rows()) == 7
    seen: list[dict[str, Any]] = []
    after, more = "", True
    while more:
        page = decisions(stack, limit=3, after=after).raise_for_status().json()
        seen += page["data"]
        after, more = page["last_id"], page["has_more"]
    assert [entry["call_id"] for entry in seen] == calls
    first, second = seen[:2]
    assert (first["privacy"], first["findings"], first["cause"]) == (
        "restricted",
        {"payment_card": 1},
        "found payment_card",
    )
    assert first["reached"][0] | {"zone": "home", "permit": "", "local": True} == first["reached"][0]
    assert second["reached"][0]["permit"] == f"{calls[1]}.1"
    assert len(second["reached"][0]["digest"]) == 64
    assert "4111 1111" not in json.dumps(seen)
    assert {entry["signature_fault"] for entry in seen} == {None}

    def ids(**query: Any) -> list[str]:
        return [entry["call_id"] for entry in decisions(stack, **query).json()["data"]]

    assert ids(**{"class": "restricted"}) == calls[::3]
    assert ids(zone="cloud") == [call for n, call in enumerate(calls) if n % 3]
    assert ids(zone="clou_") == []
    assert ids(since=seen[0]["started_at"], until="2099-01-01T00:00:00Z") == calls
    assert ids(until="2020-01-01") == []
    change(tmp_path, "UPDATE entry SET team = 'other' WHERE call_id = ?", calls[1])
    assert decisions(stack).json()["data"][1]["signature_fault"] == "signature wrong"


@pytest.mark.parametrize(
    ("query", "param"),
    [({"class": "cosmic"}, "class"), ({"limit": 0}, "limit"), ({"since": "soon"}, "since")],
)
def test_decisions_that_cannot_be_asked_for(stack: Stack, query: dict[str, Any], param: str) -> None:
    """400 names the parameter."""
    answer = decisions(stack, **query)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_decisions_are_for_admins(stack: Stack) -> None:
    """A client's key is forbidden them."""
    assert decisions(stack, key=KEY).status_code == 403

"""`headgate admin …` and `headgate policy …` as operators use them, against a running gateway."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from sqlalchemy import create_engine, text
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.errors import ConfigError
from tests.support.stack import ADMIN_KEY, POLICY, Stack, running_stack

CASES = [
    {
        "name": "private stays home",
        "given": {"model": "gpt-4o", "privacy": "restricted"},
        "expect": {"backends": ["home"]},
    }
]


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    monkeypatch.setenv("HEADGATE_ADMIN_KEY", ADMIN_KEY)
    monkeypatch.setenv("COLUMNS", "100")
    with running_stack(tmp_path) as stack:
        yield stack


def run(*words: str, code: int = 0) -> str:
    """What the command prints; it has to end with `code`."""
    done = CliRunner().invoke(app, words)
    if isinstance(done.exception, ConfigError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def admin(stack: Stack, *words: str, code: int = 0) -> str:
    return run("admin", *words, "--gateway", stack.server.url, code=code)


def as_json(stack: Stack, *words: str) -> Any:
    return json.loads(admin(stack, *words, "--json"))


def test_teams_and_keys(stack: Stack) -> None:
    """A key that was made here lets a client in, is listed, rotated and disabled."""
    admin(stack, "teams", "create", "search", "--name", "Search", "--floor", "internal")
    assert "Search" in admin(stack, "teams", "list")
    made = as_json(
        stack, "keys", "create", "app", "--team", "search", "--expires", "90d", "--model", "gpt-4o*"
    )
    rotated = as_json(stack, "keys", "rotate", "app", "--overlap", "1h")

    def asks(key: str) -> int:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{stack.url}/chat/completions", json=body, headers=headers).status_code

    assert [asks(made["key"]), asks(rotated["key"])] == [200, 200]
    listed = {key["id"]: key for key in as_json(stack, "keys", "list", "--team", "search")}
    assert listed["app"]["models"] == ["gpt-4o*"]
    table = admin(stack, "keys", "list")
    assert max(map(len, table.splitlines())) <= 100
    assert made["key"] not in table
    admin(stack, "keys", "disable", "app", "--reason", "laptop stolen")
    assert [asks(made["key"]), asks(rotated["key"])] == [401, 401]
    assert as_json(stack, "audit", "list", "--limit", "1")[0]["reason"] == "laptop stolen"


def test_the_secret_is_shown(stack: Stack) -> None:
    """For people, with the word that it is not kept."""
    admin(stack, "teams", "create", "t")
    assert "it is not stored): hg_" in admin(stack, "keys", "create", "app", "--team", "t")


def test_refusals(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway says no to, and a missing key, are said in one line."""
    with pytest.raises(ConfigError, match="There is no team 'none'"):
        admin(stack, "keys", "create", "app", "--team", "none")
    monkeypatch.delenv("HEADGATE_ADMIN_KEY")
    with pytest.raises(ConfigError, match="set HEADGATE_ADMIN_KEY"):
        admin(stack, "teams", "list")
    monkeypatch.setenv("HEADGATE_ADMIN_KEY", "x")
    with pytest.raises(ConfigError, match="does not answer"):
        run("admin", "teams", "list", "--gateway", "http://127.0.0.1:1")


def test_policies(stack: Stack, tmp_path: Path) -> None:
    """A file with its cases becomes a version; it is compared, activated and taken back."""
    file = tmp_path / "next.yaml"
    file.write_text(yaml.safe_dump({**POLICY, "version": 2}))
    file.with_suffix(".tests.yaml").write_text(yaml.safe_dump(CASES))
    assert as_json(stack, "policies", "create", str(file))[0]["id"] == "tests@2"
    assert "+version: 2" in admin(stack, "policies", "diff", "tests@2")
    assert "in force: tests@2" in admin(stack, "policies", "activate", "tests@2")
    (listed,) = as_json(stack, "policies", "list")
    assert (listed["state"], listed["in_force"]) == ("tested", "active")
    assert "the policy of the configuration" in admin(stack, "policies", "rollback")


def test_the_audit_log_is_proved(stack: Stack, tmp_path: Path) -> None:
    """0 while it is intact; 1, with the row, once somebody changed it past the gateway."""
    admin(stack, "teams", "create", "a")
    head = as_json(stack, "audit", "verify")["head"]
    admin(stack, "teams", "create", "b")
    assert "2 rows, intact" in admin(stack, "audit", "verify", "--expect", head)
    engine = create_engine(f"sqlite:///{tmp_path}/var/headgate.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE control_audit SET actor = 'nobody' WHERE seq = 1"))
    engine.dispose()
    assert "NOT INTACT: row 1 was changed" in admin(stack, "audit", "verify", code=1)


def test_policy_test(stack: Stack, tmp_path: Path) -> None:
    """The cases beside the configured policy are run; one that fails is named, and no gateway starts."""
    config, cases = str(tmp_path / "headgate.yaml"), tmp_path / "policy.tests.yaml"
    assert "0 cases hold" in run("policy", "test", "--config", config)
    cases.write_text(yaml.safe_dump(CASES))
    assert "1 cases hold" in run("policy", "test", "--config", config)
    cases.write_text(yaml.safe_dump([{**CASES[0], "expect": {"backends": ["rented"]}}]))
    for command in ("test", "verify"):
        with pytest.raises(ConfigError, match="private stays home"):
            run("policy", command, "--config", config)


def test_policy_explain(stack: Stack, tmp_path: Path) -> None:
    """The request's class is found as on the hot path; the content is not repeated."""
    request = tmp_path / "request.json"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "IBAN DE89 3704 0044 0532 0130 00"}]}
    request.write_text(json.dumps(body))
    config = str(tmp_path / "headgate.yaml")
    told = run("policy", "explain", str(request), "--config", config)
    assert "→ private-stays-home: matches" in told
    assert "goes to home" in told
    assert "DE89" not in told
    down = run("policy", "explain", str(request), "--config", config, "--down", "home")
    assert "denied: 503 no_backend_available" in down

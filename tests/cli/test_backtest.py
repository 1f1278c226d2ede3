"""`headgate policy backtest` and `schema` as a user runs them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.ledger.store import Store
from tests.ledger.samples import STARTED_NS, entry

EXAMPLE = Path(__file__).parents[2] / "deploy" / "example"
NEW = """
name: new
version: 2
routes:
  - name: private
    match: {privacy: {at_least: confidential}}
    targets: [{backend: vllm, model: qwen3-8b}]
  - name: tools
    match: {team: agents, features: [tools]}
    targets: [{backend: openai, model: gpt-4o}]
  - name: rest
    targets: [{backend: openai, model: gpt-4o-mini}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("headgate.yaml", "policy.yaml"):
        (tmp_path / name).write_text((EXAMPLE / name).read_text())
    (tmp_path / "new.yaml").write_text(NEW)
    (tmp_path / "var").mkdir()
    store = Store(f"sqlite:///{tmp_path}/var/headgate.db")
    store.migrate()
    store.insert([entry(f"call_{n}", started_ns=STARTED_NS + n, backend="openai") for n in range(30)])
    store.insert([entry("call_tools", team="agents", backend="openai")])
    store.close()
    return tmp_path


def run(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["policy", *arguments], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def test_for_people_and_for_machines(folder: Path) -> None:
    """A table with what is unknown below it, and the same as JSON."""
    arguments = ("backtest", str(folder / "new.yaml"), "--config", str(folder / "headgate.yaml"))
    told = run(*arguments, "--since", "2025-12-31")
    assert "new@2: 31 requests" in told
    assert "unknown: 1 requests: route tools asks for features" in told
    found = json.loads(run(*arguments, "--since", "2025-12-31", "--json"))
    (rest,) = found["routes"]
    assert (rest["route"], rest["requests"], rest["moved"], rest["cost_unknown"]) == ("rest", 30, 0, 0)
    assert json.loads(run(*arguments, "--since", "1d", "--json"))["requests"] == 0


def test_the_schema_is_published(folder: Path) -> None:
    """On standard output, with the classes of a configuration where one is given."""
    shipped = json.loads(run("schema"))
    assert shipped == json.loads(run("schema", "--config", str(folder / "headgate.yaml")))
    assert shipped["$schema"] == "https://json-schema.org/draft/2020-12/schema"

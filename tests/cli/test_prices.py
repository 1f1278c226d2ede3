"""`headgate prices`, as an operator types it."""

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.ledger.store import Store
from gateway.types import Usage
from tests.cli.test_report import CONFIG
from tests.ledger.samples import entry


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A deployment with a model that the map does not have."""
    path = tmp_path / "headgate.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "var").mkdir()
    store = Store(f"sqlite:///{tmp_path}/var/headgate.db")
    store.migrate()
    usage = Usage(input_tokens=1000, output_tokens=100)
    store.insert([entry("1"), entry("2", model="house", cost_nano=None, price="unknown: house", usage=usage)])
    store.close()
    return path


def run(config: Path, *words: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["prices", words[0], *words[1:], "--config", str(config)])
    assert result.exit_code == code, result.output
    return result.output


def test_show(config: Path) -> None:
    """Every rate with its source; a model without a price says what to do, and exits with 1."""
    output = run(config, "show", "gpt-4o-mini", "--provider", "openai")
    assert ": gpt-4o-mini" in output
    assert "output, priority" in output
    assert "unknown" in run(config, "show", "house", code=1)


def test_diff(config: Path, tmp_path: Path) -> None:
    """Only what the ledger has used, unless all is asked for."""
    listed = {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-07}
    for name, price in (("old", 6e-07), ("new", 7e-07)):
        models = {"gpt-4o-mini": {**listed, "output_cost_per_token": price}, f"{name}-model": listed}
        (tmp_path / f"{name}.json").write_text(json.dumps(models))
    files = (str(tmp_path / "new.json"), "--old", str(tmp_path / "old.json"))
    output = run(config, "diff", *files, code=1)
    assert "0.6" in output
    assert "0.7" in output
    assert "1 rates change" in output
    assert "3 rates change" in run(config, "diff", *files, "--all", code=1)
    assert "0 rates change" in run(config, "diff", files[0], "--old", files[0], "--all")


def test_rerate_and_reconcile(config: Path, tmp_path: Path) -> None:
    """A price that is added prices the past; the provider's own count has the last word."""
    assert "0 corrected" in run(config, "rerate", "--since", "2025-12-01")
    config.write_text(yaml.safe_dump(CONFIG | {"prices": {"house": {"input": "1", "output": "2"}}}))
    assert "1 corrected by 0.001200000 USD" in run(config, "rerate", "--since", "2025-12-01")
    account = tmp_path / "usage.csv"
    account.write_text("call_id,input_tokens,output_tokens\n2,900,100\n9,1,1\n")
    output = run(config, "reconcile", str(account))
    assert "1 corrected by -0.000100000 USD" in output
    assert "not in the ledger: 9" in output
    audited = CliRunner().invoke(
        app, ["privacy", "audit", "--since", "2025-12-01", "-c", str(config), "--json"]
    )
    found = json.loads(audited.output)
    assert found["requests"] == 2
    assert all("~" not in violation["call_id"] for violation in found["violations"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("call,input_tokens\n", "column call_id is missing"),
        ("call_id,input_tokens,output_tokens\na,many,1\n", "no count of tokens"),
        ("call_id,input_tokens,output_tokens,cost_usd\na,1,1,one\n", "no amount"),
    ],
)
def test_an_account_that_cannot_be_read(config: Path, tmp_path: Path, text: str, problem: str) -> None:
    """Says which line and why, and changes nothing."""
    (tmp_path / "usage.csv").write_text(text)
    result = CliRunner().invoke(app, ["prices", "reconcile", str(tmp_path / "usage.csv"), "-c", str(config)])
    assert result.exit_code != 0
    assert problem in str(result.exception)

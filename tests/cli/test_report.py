"""`headgate report`, as finance types it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow.parquet as parquet
import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.ledger.store import Store
from gateway.types import Usage
from tests.ledger.samples import entry

CONFIG: dict[str, Any] = {
    "policy": "policy.yaml",
    "zones": {"us": {"ceiling": "internal"}, "home": {"ceiling": "restricted", "local": True}},
    "backends": {
        "openai-main": {
            "kind": "openai",
            "zone": "us",
            "url": "https://api.example.com/v1",
            "models": ["gpt-4o-mini"],
        },
        "vllm": {
            "kind": "vllm",
            "zone": "home",
            "url": "http://127.0.0.1:8000/v1",
            "model": "base",
            "usd_per_hour": "0.40",
        },
    },
    "keys": [{"id": "app", "sha256": "0" * 64, "team": "search"}],
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A deployment whose ledger holds January 2026: one rented request, two of ours."""
    path = tmp_path / "headgate.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "var").mkdir()
    store = Store(f"sqlite:///{tmp_path}/var/headgate.db")
    store.migrate()
    usage = Usage(input_tokens=1000, output_tokens=100)
    ours = {
        "backend": "vllm",
        "model": "base",
        "price": "self-hosted",
        "cost_nano": 2_000_000,
        "usage": usage,
    }
    store.insert([entry("1"), entry("2", **ours), entry("3", **ours, adapter="a@01")])
    store.close()
    return path


def run(config: Path, *words: str) -> str:
    result = CliRunner().invoke(app, ["report", words[0], "--config", str(config), *words[1:]])
    assert result.exit_code == 0, result.output
    return result.output


JANUARY = ("--period", "2026-01")


def test_without_a_command_the_last_month_is_shown(config: Path) -> None:
    """Nothing of January any more, and a table nevertheless."""
    result = CliRunner().invoke(app, ["report", "--config", str(config)])
    assert result.exit_code == 0
    assert "Cost from" in result.output


def test_formats_by_the_ending_of_the_file(config: Path, tmp_path: Path) -> None:
    """One report in five forms, all with the same total."""
    for ending in ("csv", "json", "xlsx", "parquet", "txt"):
        extra = ("--format", "table") if ending == "txt" else ()
        run(config, "chargeback", "--by", "team,model", *JANUARY, "-o", str(tmp_path / f"x.{ending}"), *extra)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text("utf-8-sig"))))
    assert lines[-1]["cost_of_priced_requests_usd"] == "0.004150000"
    assert (
        json.loads((tmp_path / "x.json").read_bytes())["total"]["cost_of_priced_requests_usd"]
        == "0.004150000"
    )
    assert openpyxl.load_workbook(tmp_path / "x.xlsx").sheetnames == ["chargeback", "notes"]
    assert parquet.read_table(tmp_path / "x.parquet").num_rows == 2
    assert "0.004150000" in (tmp_path / "x.txt").read_text()


def test_text_goes_to_the_screen(config: Path) -> None:
    """So that it can be piped."""
    output = run(config, "chargeback", "--by", "backend", *JANUARY, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(output.lstrip("\ufeff"))))
    assert [row["backend"] for row in rows] == ["openai-main", "vllm", ""]


@pytest.mark.parametrize(
    "words",
    [
        ("movers", "--by", "team", *JANUARY),
        ("hosting", *JANUARY),
        ("savings", "--against", "openai-main/gpt-4o-mini", *JANUARY),
        ("breakeven", "--replica", "vllm", "--against", "openai-main/gpt-4o-mini", *JANUARY),
        ("focus", *JANUARY),
    ],
)
def test_each_report_says_something(config: Path, words: tuple[str, ...]) -> None:
    """With the real price map that litellm carries."""
    values = json.loads(run(config, *words, "--format", "json"))
    assert values["report"] == words[0]
    assert values["rows"]
    assert values["notes"]


def test_a_drawing_of_the_break_even(config: Path, tmp_path: Path) -> None:
    """Beside the numbers."""
    chart = tmp_path / "even.svg"
    words = ("breakeven", "--replica", "vllm", "--adapter", "a@01", "--training-usd", "12.50")
    run(config, *words, "--against", "openai-main/gpt-4o-mini", *JANUARY, "--chart", str(chart))
    assert "a@01 against openai-main/gpt-4o-mini" in chart.read_text()


def test_rebuild_rolls_up_once(config: Path, tmp_path: Path) -> None:
    """And again when told to; the report stays what it was."""
    before = run(config, "chargeback", *JANUARY, "--format", "csv")
    assert "1 days rolled up" in run(config, "rebuild")
    assert "0 days rolled up" in run(config, "rebuild")
    assert "1 days rolled up" in run(config, "rebuild", "--all")
    assert run(config, "chargeback", *JANUARY, "--format", "csv") == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("chargeback", "--by", "taem"), "known are"),
        (("chargeback", "--period", "soon"), "is no period"),
        (("chargeback", "--tz", "Mars"), "no time zone"),
        (("chargeback", "--each", "hour"), "day, week, month"),
        (("chargeback", "--format", "xlsx"), "--output"),
        (("chargeback", "-o", "x.docx"), "none of table"),
        (("savings", "--against", "gpt-4o"), "BACKEND/MODEL"),
        (("breakeven", "--replica", "x", "--against", "openai-main/gpt-4o-mini"), "no replica"),
        (("forecast",), "three complete days"),
    ],
)
def test_what_cannot_be_answered_is_said(config: Path, words: tuple[str, ...], says: str) -> None:
    """Exit code 2, and words that name the way out."""
    result = CliRunner().invoke(app, ["report", words[0], "--config", str(config), *words[1:]])
    assert result.exit_code == 2
    assert says in " ".join(result.output.replace("│", " ").split())


def test_a_providers_account_beside_the_ledger(config: Path, tmp_path: Path) -> None:
    """Both sides' rows by day and model; what only one has is a variance too; and an invoice's total."""
    account = tmp_path / "openai.csv"
    account.write_text(
        "day,model,cost_usd\n2026-01-01,gpt-4o-mini,0.0002\n2026-01-02,gpt-4o,1\n2026-03-01,gpt-4o,9\n"
    )
    output = run(config, "reconcile", "--usage", str(account), *JANUARY, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(output.lstrip("\ufeff"))))
    found = [(row["day_utc"], row["model"], row["variance_usd"], row["requests"]) for row in rows]
    assert found == [
        ("2026-01-01", "gpt-4o-mini", "0.000050000", "1"),
        ("2026-01-02", "gpt-4o", "1.000000000", "0"),
        ("", "", "1.000050000", "1"),
    ]
    output = run(config, "reconcile", "--total", "0.00012", "--backend", "openai-main", *JANUARY)
    assert "-0.000030000" in output
    for words in (("--total", "1", "--usage", str(account)), (), ("--total", "1", "--backend", "vllm")):
        result = CliRunner().invoke(app, ["report", "reconcile", "--config", str(config), *words])
        assert result.exit_code == 2

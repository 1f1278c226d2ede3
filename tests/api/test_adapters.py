"""`/admin/adapters` and `headgate adapter`: lineage both ways, and the erasure of a person's rows."""

import json
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner

from adapters.manifest import DatasetLineage
from adapters.registry import Registry
from finetune.dataset import check_line
from gateway.cli.main import app
from tests.api.conftest import Admin, code_of
from tests.support.adapters import read_manifest
from tests.support.artifacts import make_artifact
from tests.support.stack import ADMIN_KEY

ROWS = [
    {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "desk"}]}
    for text in ("my card is lost", "send money to mom", "book a flight")
]


def row_id(row: object) -> str:
    outcome = check_line(1, json.dumps(row).encode())
    assert hasattr(outcome, "id"), outcome
    return str(outcome.id)


@pytest.fixture
def releases(admin: Admin, tmp_path: Path) -> dict[str, str]:
    """Two adapters: one was trained on the first two rows, one on the last, and tried on the first."""
    ids = [row_id(row) for row in ROWS]
    engine = create_engine(admin.stack.app.fleet._engine.url)
    registry = Registry(engine)
    found = {}
    for name, train, held_out in (("cards", ids[:2], ()), ("trips", ids[2:], ids[:1])):
        dataset = DatasetLineage(
            file="rows.jsonl", sha256="e" * 64, train_rows=tuple(train), held_out_rows=tuple(held_out)
        )
        manifest = read_manifest(make_artifact(tmp_path / name, name=name, seed=len(name), dataset=dataset))
        found[name] = registry.register(manifest).release
    engine.dispose()
    return found


def test_lineage_both_ways(admin: Admin, releases: dict[str, str]) -> None:
    """A row names who saw it and how, a release what it saw."""
    asked = admin("GET", f"/adapters/lineage?row={row_id(ROWS[0])}").json()
    assert {(one["release"], one["split"]) for one in asked} == {
        (releases["cards"], "train"),
        (releases["trips"], "held_out"),
    }
    seen = admin("GET", f"/adapters/lineage?release={releases['trips']}").json()
    assert {(one["row"], one["split"]) for one in seen} == {
        (row_id(ROWS[2]), "train"),
        (row_id(ROWS[0]), "held_out"),
    }
    assert admin("GET", "/adapters/lineage").status_code == 400
    missing = admin("GET", "/adapters/lineage?release=cards@000000000000")
    assert (missing.status_code, code_of(missing)) == (404, "UnknownRelease")


def test_erasure_names_who_trained_and_is_audited(admin: Admin, releases: dict[str, str]) -> None:
    """Exactly the adapter that trained on the row; the list says that it is blocked, the log who did it."""
    row = row_id(ROWS[0])
    touched = admin.made("/adapters/erasures", {"rows": [row]})
    assert touched == [{"release": releases["cards"], "rows": [row], "blocked": True}]
    listed = {
        one["release"]: (one["erased_rows"], one["blocked"]) for one in admin("GET", "/adapters").json()
    }
    assert listed == {releases["cards"]: (1, True), releases["trips"]: (0, False)}
    assert row in admin("GET", "/audit").text
    assert admin("POST", "/adapters/erasures", {"rows": ["not-an-id"]}).status_code == 400
    reader = admin.as_role("viewer")
    assert reader("POST", "/adapters/erasures", {"rows": [row]}).status_code == 403


def test_by_command(
    admin: Admin, releases: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person's rows are given as a file; their ids are those of the training."""
    monkeypatch.setenv("HEADGATE_ADMIN_KEY", ADMIN_KEY)
    file = tmp_path / "one-person.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:2]))
    where = ["--gateway", admin.stack.server.url, "--json"]
    seen = CliRunner().invoke(app, ["adapter", "lineage", "--file", str(file), *where])
    assert seen.exit_code == 0, seen.output
    assert {one["release"] for one in json.loads(seen.stdout)} == set(releases.values())
    erased = CliRunner().invoke(app, ["adapter", "erase", "--file", str(file), "--no-block", *where])
    assert erased.exit_code == 0, erased.output
    (touched,) = json.loads(erased.stdout)
    assert (touched["release"], len(touched["rows"]), touched["blocked"]) == (releases["cards"], 2, False)


def test_stages_are_checked(admin: Admin) -> None:
    """Only a canary has a weight, and an adapter without canary or shadow has nothing to promote."""
    refused = admin("POST", "/adapters", {"folder": "/nowhere", "stage": "stable", "weight": 0.5})
    assert refused.status_code == 400
    nothing = admin("POST", "/adapters/desk/promote", {"stage": "stable"})
    assert (nothing.status_code, code_of(nothing)) == (409, "NotServable")
    assert admin("POST", "/adapters/desk/withdraw").status_code == 409
    assert admin("GET", "/adapters/desk/trials").json() == []

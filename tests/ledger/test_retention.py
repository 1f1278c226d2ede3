"""Days that are pruned: their entries go, their sums stay, and what comes late is counted beside them."""

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.ledger.budgets.budget import Budget, Period, Scope
from gateway.ledger.budgets.store import open_window
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy
from tests.cli.test_report import CONFIG
from tests.ledger.samples import STARTED_NS, entry

DAY = STARTED_NS // DAY_NS
GROUPS = [GroupBy.DAY, GroupBy.TEAM, GroupBy.MODEL]


def fill(store: Store) -> None:
    for day in range(3):
        at_ns = STARTED_NS + day * DAY_NS
        store.insert(
            [entry(f"{day}-{n}", started_ns=at_ns + n, cost_nano=10 + n, team=f"t{n % 2}") for n in range(5)]
        )


def test_sums_stay_as_they_were(any_store: Store) -> None:
    """By group and in all, with bounds on prompts too; the rows themselves are gone."""
    fill(any_store)
    before, whole = any_store.sums(GROUPS), any_store.sums([])
    assert any_store.days_to_prune(DAY + 2) == [DAY, DAY + 1]
    assert [any_store.prune(day) for day in (DAY, DAY + 1)] == [5, 5]
    assert any_store.sums(GROUPS) == before
    assert any_store.sums([]) == whole
    assert {e.call_id[0] for e in any_store.last(99)} == {"2"}
    assert sum(s.requests for s in any_store.sums([GroupBy.TEAM], prompt_bounds=[100])) == 15
    assert any_store.days_to_prune(DAY + 2) == []
    assert any_store.prune(DAY) == 0


def test_what_comes_late_is_counted_beside_the_roll_up(any_store: Store) -> None:
    """Once, and a roll-up made anew does not take its place."""
    fill(any_store)
    any_store.prune(DAY)
    any_store.insert([entry("late", started_ns=STARTED_NS + 99, cost_nano=1000)])
    assert any_store.sums([])[0].requests == 16
    assert any_store.roll_up(DAY, anew=True) is False
    (first, *_) = any_store.sums([GroupBy.DAY])
    assert (first.requests, first.cost_nano) == (6, 10 + 11 + 12 + 13 + 14 + 1000)
    assert any_store.prune(DAY) == 0
    assert any_store.sums([])[0].requests == 16


@pytest.mark.parametrize("tag", ["", "eu"])
def test_a_budget_counts_pruned_days(any_store: Store, tag: str) -> None:
    """One that is declared later still counts from its period's beginning."""
    fill(any_store)
    any_store.prune(DAY)
    budget = Budget(id="b", scope=Scope(tag=tag), cap_nano=10**9, period=Period.TOTAL)
    with any_store.writing() as connection:
        window = budget.window(STARTED_NS)
        assert open_window(connection, budget, window).spent_nano == 3 * (10 + 11 + 12 + 13 + 14)


def test_the_commands(tmp_path: Path) -> None:
    """`headgate migrate` makes the schema and says so; `headgate ledger prune` keeps to whole days."""
    path = tmp_path / "headgate.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    (tmp_path / "var").mkdir()

    def run(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, [*words, "--config", str(path)])
        return result.exit_code, result.output

    assert run("migrate", "--check")[0] == 1
    code, said = run("migrate")
    assert code == 0
    assert "ledger: applied: 1, 2, 3" in said
    assert run("migrate", "--check") == (0, "ledger: pending: none\ncontrol: pending: none\n")
    store = Store(f"sqlite:///{tmp_path}/var/headgate.db")
    fill(store)
    code, said = run("ledger", "prune", "--older-than", "2026-01-03", "--dry-run")
    assert (code, "2 days would be pruned" in said) == (0, True)
    assert len(store.last(99)) == 15
    assert "2 days pruned, 10 entries removed" in run("ledger", "prune", "--older-than", "2026-01-03")[1]
    assert len(store.last(99)) == 5
    store.close()

"""Reports: groups, totals that tie, files that a spreadsheet takes for what they are."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from gateway.finance.reports import Report, cost_report, render_table, write_csv
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy
from gateway.types import Outcome, Usage
from tests.ledger.samples import STARTED_NS, entry

DAY_NS = 86_400 * 10**9


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(f"sqlite:///{tmp_path}/ledger.db")
    store.migrate()
    yield store
    store.close()


@pytest.fixture
def filled(store: Store) -> Store:
    """Two teams over two days; one request without a price, one refused, one with an adapter."""
    store.insert(
        [
            entry("1", team="search", cost_nano=1_000_000_001),
            entry("2", team="search", cost_nano=None, model="new-model"),
            entry("3", team="bank", cost_nano=5, adapter="bank@0123", started_ns=STARTED_NS + DAY_NS),
            entry("4", team="bank", cost_nano=None, outcome=Outcome.REFUSED, backend="", usage=Usage()),
            entry(
                "5", team="bank", cost_nano=2, started_ns=STARTED_NS + DAY_NS - 1, usage=Usage(estimated=True)
            ),
        ]
    )
    return store


def csv_lines(report: Report) -> list[dict[str, str]]:
    file = io.StringIO(newline="")
    write_csv(report, file)
    return list(csv.DictReader(io.StringIO(file.getvalue(), newline="")))


def printed(report: Report) -> str:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(render_table(report))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_by_team(filled: Store) -> None:
    """Each number of a row, and the total over them."""
    report = cost_report(filled, [GroupBy.TEAM])
    bank, search = report.rows
    assert (bank.keys, bank.requests, bank.refused, bank.cost_nano) == (("bank",), 3, 1, 7)
    assert (bank.unknown_price_requests, bank.estimated_requests) == (0, 1)
    assert (search.keys, search.requests, search.unknown_price_requests) == (("search",), 2, 1)
    assert (search.input_tokens, search.cached_input_tokens, search.output_tokens) == (2000, 800, 100)
    assert (report.total.requests, report.total.cost_nano) == (5, 1_000_000_008)


def test_days_are_utc_and_ends_are_exclusive(filled: Store) -> None:
    """A request one nanosecond before midnight belongs to the day that ends."""
    report = cost_report(filled, [GroupBy.DAY])
    assert [(row.keys[0], row.requests) for row in report.rows] == [("2026-01-01", 4), ("2026-01-02", 1)]
    second = datetime(2026, 1, 2, tzinfo=UTC)
    assert cost_report(filled, [], until=second).total.requests == 4
    assert cost_report(filled, [], since=second).total.requests == 1
    abroad = second.astimezone(timezone(timedelta(hours=9)))
    assert cost_report(filled, [], since=abroad).total.requests == 1


def test_an_unknown_cost_is_never_zero(store: Store) -> None:
    """Nothing priced: no cost. Nothing to be priced: zero. Everywhere it is shown."""
    store.insert([entry("1", team="a", cost_nano=None), entry("2", team="b", cost_nano=None, backend="")])
    report = cost_report(store, [GroupBy.TEAM])
    assert [row.cost_nano for row in report.rows] == [None, 0]
    assert [line["cost_of_priced_requests_nano_usd"] for line in csv_lines(report)] == ["", "0", "0"]
    assert "unknown" in printed(report)
    assert "≥ 0.000000000" in printed(report)


def test_bad_questions_are_refused(store: Store) -> None:
    """A time without a zone and a group twice are mistakes, not guesses."""
    with pytest.raises(ValueError, match="time zone"):
        cost_report(store, [], since=datetime(2026, 1, 1))
    with pytest.raises(ValueError, match="twice"):
        cost_report(store, [GroupBy.TEAM, GroupBy.TEAM])


def test_an_empty_ledger_has_an_empty_report(store: Store) -> None:
    """Nothing happened, and it cost nothing."""
    report = cost_report(store, [GroupBy.TEAM, GroupBy.DAY])
    assert report.rows == ()
    assert (report.total.requests, report.total.cost_nano) == (0, 0)
    assert len(csv_lines(report)) == 1
    assert "0.000000000" in printed(report)


def test_csv_cells_are_no_formulas(store: Store) -> None:
    """Names that a client or an admin chose come out as text, commas, quotes and newlines intact."""
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1", 'a,"b"\nc', "plain-name"]
    store.insert([entry(f"{i}", team=name) for i, name in enumerate(names)])
    cells = {line["team"] for line in csv_lines(cost_report(store, [GroupBy.TEAM])) if line["team"]}
    assert cells == {f"'{n}" for n in names[:-2]} | set(names[-2:])


def test_csv_totals_tie_and_names_explain_themselves(filled: Store) -> None:
    """The last line is the sum of the others, in every number, and the two forms of the cost agree."""
    lines = csv_lines(cost_report(filled, list(GroupBy), datetime(2026, 1, 1, tzinfo=UTC)))
    *groups, total = lines
    assert total["row_type"] == "total"
    assert {line["row_type"] for line in groups} == {"group"}
    numbers = [name for name in total if name.startswith(("requests", "input", "cached", "output", "cost"))]
    assert len(numbers) == 10
    for name in numbers:
        if not name.endswith("_usd") or "nano" in name:
            assert sum(int(line[name] or 0) for line in groups) == int(total[name]), name
    assert total["cost_of_priced_requests_usd"] == "1.000000008"
    assert total["period_start_utc"] == "2026-01-01T00:00:00Z"
    assert {line["adapter"] for line in groups} == {"—", "bank@0123"}


def test_the_table_fits_100_columns_and_says_what_is_missing(filled: Store) -> None:
    """Long names fold, no number is cut, "—" for no adapter, "≥" where a price is missing."""
    filled.insert(
        [
            entry(
                "6",
                team="quite-a-long-name-[bold]",
                adapter="adapter@0123456789ab",
                usage=Usage(input_tokens=123_456_789_012, output_tokens=999_999),
                cost_nano=123_456_789_012_345,
            )
        ]
    )
    text = printed(cost_report(filled, [GroupBy.TEAM, GroupBy.ADAPTER, GroupBy.DAY]))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "≥ 123457.789012353" in text
    assert "123.45G" in text
    assert "999999" in text
    assert "—" in text
    assert "quite-a-long-name-[bold]" in printed(cost_report(filled, [GroupBy.TEAM]))


def test_a_terminal_is_not_obeyed(store: Store) -> None:
    """Control characters in a name do not reach it."""
    store.insert([entry("1", team="\x1b[31mred")])
    assert "\x1b" not in printed(cost_report(store, [GroupBy.TEAM]))


def test_the_dict_is_json(filled: Store) -> None:
    """Rows with their groups by name, costs exact in both forms."""
    values = json.loads(json.dumps(cost_report(filled, [GroupBy.TEAM, GroupBy.MODEL]).to_dict()))
    assert values["group_by"] == ["team", "model"]
    assert values["rows"][1]["team"] == "search"
    assert values["rows"][1]["cost_usd"] == "1.000000001"
    assert values["rows"][2]["cost_nano"] is None
    assert values["total"]["cost_nano"] == 1_000_000_008
    assert values["since"] is None


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 10**15), st.integers(0, 10**7)),
        max_size=20,
    )
)
def test_any_grouping_has_the_same_total(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int | None, int]]
) -> None:
    """Whatever is in the ledger, each grouping's rows sum to what Python sums from the entries."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    store.migrate()
    entries = [
        entry(
            f"{i}", team=team, cost_nano=cost, usage=Usage(input_tokens=n), started_ns=STARTED_NS + n * 10**9
        )
        for i, (team, cost, n) in enumerate(rows)
    ]
    store.insert(entries)
    for group_by in ([], [GroupBy.TEAM], [GroupBy.DAY, GroupBy.TEAM]):
        total = cost_report(store, group_by).total
        assert total.requests == len(rows)
        assert total.input_tokens == sum(n for _, _, n in rows)
        assert (total.cost_nano or 0) == sum(cost or 0 for _, cost, _ in rows)
        assert total.unknown_price_requests == sum(cost is None for _, cost, _ in rows)
    store.close()

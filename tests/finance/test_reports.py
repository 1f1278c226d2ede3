"""Reports: groups, totals that tie, files that a spreadsheet takes for what they are."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import openpyxl
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gateway.finance.files import to_csv, to_json, to_parquet, to_xlsx
from gateway.finance.periods import Each, Period
from gateway.finance.reports import GROUPS, OVERLAP, chargeback, movers
from gateway.finance.screen import render
from gateway.finance.sheet import Kind, Sheet
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from gateway.types import Outcome, Usage
from tests.ledger.samples import STARTED_NS, entry

JANUARY = Period(
    label="2026-01", since=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2026, 2, 1, tzinfo=UTC)
)
DISJOINT = [name for name in GROUPS if name != "tag"]


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
                "5",
                team="bank",
                cost_nano=2,
                started_ns=STARTED_NS + DAY_NS - 1,
                usage=Usage(input_tokens=1, estimated=True),
                tags=(),
            ),
        ]
    )
    return store


def named(sheet: Sheet) -> list[dict[str, Any]]:
    names = [column.name for column in sheet.columns]
    return [dict(zip(names, row, strict=True)) for row in sheet.rows]


def total(sheet: Sheet) -> dict[str, Any]:
    assert sheet.total is not None
    return dict(zip([column.name for column in sheet.columns], sheet.total, strict=True))


def csv_lines(sheet: Sheet) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(sheet).decode("utf-8-sig"), newline="")))


def printed(sheet: Sheet) -> str:
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(render(sheet))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_by_team(filled: Store) -> None:
    """Each number of a row, and the total over them."""
    sheet = chargeback(filled, ["team"], JANUARY)
    bank, search = named(sheet)
    assert (bank["team"], bank["requests"], bank["cost_of_priced_requests_usd"]) == ("bank", 3, 7)
    assert bank["requests_refused_by_policy_or_limits"] == 1
    assert (bank["requests_with_unknown_price"], bank["requests_with_estimated_tokens"]) == (0, 1)
    assert (search["team"], search["requests"], search["requests_with_unknown_price"]) == ("search", 2, 1)
    assert (search["input_tokens_including_cached"], search["cached_input_tokens"]) == (2000, 800)
    assert (total(sheet)["requests"], total(sheet)["cost_of_priced_requests_usd"]) == (5, 1_000_000_008)
    assert "1 requests have no known price" in sheet.notes[0]
    assert "1 requests have estimated" in sheet.notes[1]


@pytest.mark.parametrize("by", [[], *([name] for name in GROUPS), DISJOINT, ["tag", "team"], ["day", "tag"]])
@pytest.mark.parametrize("rolled", [False, True])
def test_totals_tie_however_it_is_grouped(filled: Store, by: list[str], rolled: bool) -> None:
    """Every column of numbers sums to its total, and every grouping has the same total."""
    if rolled:
        for day in filled.days_to_roll_up(STARTED_NS + 60 * DAY_NS):
            filled.roll_up(day)
    sheet = chargeback(filled, by, JANUARY)
    for column, value in total(sheet).items():
        values = [row[column] for row in named(sheet)]
        if isinstance(value, int):
            assert sum(v or 0 for v in values) == value, column
    whole = total(chargeback(filled, [], JANUARY))
    assert {name: total(sheet)[name] for name in whole if whole[name] is not None} == {
        name: v for name, v in whole.items() if v is not None
    }


def test_a_tag_has_all_its_requests_and_the_surplus_is_taken_off(filled: Store) -> None:
    """Two tags on each of four requests: both rows are whole, and one row says what was counted twice."""
    rows = {row["tag"]: row["requests"] for row in named(chargeback(filled, ["tag"], JANUARY))}
    assert rows == {"batch": 4, "eu": 4, "": 1, OVERLAP: -4}


def test_months_of_a_named_zone(store: Store) -> None:
    """December ends an hour earlier in Berlin than in UTC, and its days begin there."""
    hour = 3600 * 10**9
    store.insert([entry("1", started_ns=STARTED_NS - hour), entry("2", started_ns=STARTED_NS - hour - 1)])
    berlin = ZoneInfo("Europe/Berlin")
    period = Period(
        label="x", since=datetime(2025, 12, 1, tzinfo=berlin), until=datetime(2026, 2, 1, tzinfo=berlin)
    )
    by_month = named(chargeback(store, [], period, each=Each.MONTH, tz=berlin))
    assert [(row["period"], row["requests"]) for row in by_month] == [("2025-12", 1), ("2026-01", 1)]
    by_day = named(chargeback(store, ["team"], period, each=Each.DAY, tz=berlin))
    assert [(row["period"], row["requests"]) for row in by_day] == [("2025-12-31", 1), ("2026-01-01", 1)]
    assert by_day[1]["period_start_utc"] == datetime(2025, 12, 31, 23, tzinfo=UTC)


def test_a_report_right_after_a_request_has_it(filled: Store) -> None:
    """Also on a day that is rolled up."""
    for day in filled.days_to_roll_up(STARTED_NS + 60 * DAY_NS):
        filled.roll_up(day)
    filled.insert([entry("6", team="bank", cost_nano=3)])
    assert total(chargeback(filled, ["team"], JANUARY))["cost_of_priced_requests_usd"] == 1_000_000_011


def test_an_unknown_cost_is_never_zero(store: Store) -> None:
    """Nothing priced: no cost. Nothing to be priced: zero. Everywhere it is shown."""
    store.insert([entry("1", team="a", cost_nano=None), entry("2", team="b", cost_nano=None, backend="")])
    sheet = chargeback(store, ["team"], JANUARY)
    assert [row["cost_of_priced_requests_usd"] for row in named(sheet)] == [None, 0]
    costs = [line["cost_of_priced_requests_usd"] for line in csv_lines(sheet)]
    assert costs == ["", "0.000000000", "0.000000000"]
    assert "unknown" in printed(sheet)
    assert "≥ 0.000000000" in printed(sheet)
    assert json.loads(to_json(sheet))["rows"][0]["cost_of_priced_requests_usd"] is None


@pytest.mark.parametrize(("by", "words"), [(["team", "team"], "twice"), (["taem"], "known are team")])
def test_bad_groups_are_refused(store: Store, by: list[str], words: str) -> None:
    """A mistake is not guessed at."""
    with pytest.raises(ValueError, match=words):
        chargeback(store, by, JANUARY)


def test_an_empty_ledger_has_an_empty_report(store: Store) -> None:
    """Nothing happened, and it cost nothing."""
    sheet = chargeback(store, ["team", "day"], JANUARY)
    assert sheet.rows == ()
    assert (total(sheet)["requests"], total(sheet)["cost_of_priced_requests_usd"]) == (0, 0)
    assert len(csv_lines(sheet)) == 1
    assert to_parquet(sheet)
    assert to_xlsx(sheet)


def test_movers_are_ranked_by_what_changed(store: Store) -> None:
    """New, gone, dearer and cheaper groups, against the same length of time before."""
    cost = {"new": (None, 7), "gone": (9, None), "dearer": (1, 3), "same": (5, 5)}
    entries = []
    for team, costs in cost.items():
        for when, nano in zip((STARTED_NS - DAY_NS, STARTED_NS), costs, strict=True):
            if nano is not None:
                entries.append(entry(f"{team}{when}", team=team, started_ns=when, cost_nano=nano))
    store.insert(entries)
    period = Period(label="d", since=JANUARY.since, until=JANUARY.since + timedelta(days=1))
    rows = named(movers(store, ["team"], period, top=3))
    found = [(r["team"], r["cost_before_usd"], r["cost_now_usd"], r["change_usd"]) for r in rows]
    assert found == [("gone", 9, 0, -9), ("new", 0, 7, 7), ("dearer", 1, 3, 2)]


def test_csv_cells_are_no_formulas(store: Store) -> None:
    """Names that a client or an admin chose come out as text, commas, quotes and newlines intact."""
    names = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "＝1", 'a,"b"\nc', "plain-name"]
    store.insert([entry(f"{i}", team=name) for i, name in enumerate(names)])
    cells = {line["team"] for line in csv_lines(chargeback(store, ["team"], JANUARY)) if line["team"]}
    assert cells == {f"'{n}" for n in names[:-2]} | set(names[-2:])


def test_csv_says_which_line_is_the_total(filled: Store) -> None:
    """A sum over the column by a careless reader is caught by its row_type; amounts are exact."""
    *groups, last = csv_lines(chargeback(filled, ["team", "adapter"], JANUARY))
    assert last["row_type"] == "total"
    assert {line["row_type"] for line in groups} == {"group"}
    assert last["cost_of_priced_requests_usd"] == "1.000000008"
    assert groups[0]["period_start_utc"] == "2026-01-01T00:00:00Z"
    assert {line["adapter"] for line in groups} == {"—", "bank@0123"}


def test_xlsx_has_numbers_dates_a_total_and_what_columns_mean(filled: Store) -> None:
    """Read back by another library: no number is a text, and each column is explained."""
    sheet = chargeback(filled, ["day", "team"], JANUARY)
    book = openpyxl.load_workbook(io.BytesIO(to_xlsx(sheet)))
    page, notes = book["chargeback"], book["notes"]
    header = [cell.value for cell in page[1]]
    first = dict(zip(header, page[2], strict=True))
    assert first["day_utc"].value == datetime(2026, 1, 1)
    assert (first["day_utc"].number_format, first["day_utc"].is_date) == ("yyyy-mm-dd", True)
    last = dict(zip(header, page[page.max_row], strict=True))
    assert last["requests"].value == 5
    assert last["cost_of_priced_requests_usd"].value == pytest.approx(1.000000008, abs=1e-12)
    assert last["cost_of_priced_requests_usd"].number_format == "#,##0.00####"
    assert page.max_row == len(sheet.rows) + 2
    explained = {row[0].value: row[1].value for row in notes.iter_rows() if row[0].value}
    assert all(explained[name] for name in header)
    assert not any("misc" in name for name in header)


def test_xlsx_takes_no_text_for_a_formula(store: Store) -> None:
    """A team called =1+1 is a text."""
    store.insert([entry("1", team="=1+1"), entry("2", team="http://x.test/")])
    book = openpyxl.load_workbook(io.BytesIO(to_xlsx(chargeback(store, ["team"], JANUARY))))
    page = book["chargeback"]
    cells = [page.cell(row, 4) for row in (2, 3)]
    assert [(c.value, c.data_type, c.hyperlink) for c in cells] == [
        ("=1+1", "s", None),
        ("http://x.test/", "s", None),
    ]


def test_parquet_amounts_are_decimals(filled: Store) -> None:
    """Exact to the nano-dollar, with the meanings in the schema."""
    table = parquet.read_table(io.BytesIO(to_parquet(chargeback(filled, ["team"], JANUARY))))
    costs = table.column("cost_of_priced_requests_usd").to_pylist()
    assert costs == [Decimal("0.000000007"), Decimal("1.000000001")]
    assert table.column("period_start_utc").to_pylist()[0] == JANUARY.since
    assert table.schema.field("requests").metadata[b"meaning"]


def test_json_explains_itself(filled: Store) -> None:
    """Columns with their meanings, exact amounts as strings, the total apart from the rows."""
    values = json.loads(to_json(chargeback(filled, ["team", "tags"], JANUARY)))
    assert values["total"]["cost_of_priced_requests_usd"] == "1.000000008"
    assert {c["name"] for c in values["columns"]} == set(values["rows"][0])
    assert {row["tags"] for row in values["rows"]} == {"", "batch, eu"}


def test_the_table_fits_100_columns_and_says_what_is_missing(filled: Store) -> None:
    """Long names fold, no number is cut, "—" for no adapter, "≥" where a price is missing."""
    usage = Usage(input_tokens=123_456_789_012, output_tokens=999_999)
    name = "quite-a-long-name-[bold]"
    filled.insert(
        [entry("6", team=name, adapter="adapter@0123456789ab", usage=usage, cost_nano=123_456_789_012_345)]
    )
    text = printed(chargeback(filled, ["team", "adapter"], JANUARY))
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "≥ 123457.789012353" in text
    assert "123.45G" in text
    assert "999999" in text
    assert "—" in text
    assert name in printed(chargeback(filled, ["team"], JANUARY))


def test_a_terminal_is_not_obeyed(store: Store) -> None:
    """Control characters in a name do not reach it."""
    store.insert([entry("1", team="\x1b[31mred")])
    assert "\x1b" not in printed(chargeback(store, ["team"], JANUARY))


def test_every_column_says_what_it_means(filled: Store) -> None:
    """No name stands alone, and amounts name their currency."""
    sheet = chargeback(filled, ["team", "key", "day"], JANUARY)
    for column in sheet.columns:
        assert column.meaning
        assert column.kind is not Kind.USD or column.name.endswith("_usd")


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"), st.none() | st.integers(0, 10**15), st.sets(st.sampled_from("xyz"))
        ),
        max_size=20,
    )
)
def test_any_ledger_sums_to_what_python_sums(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int | None, set[str]]]
) -> None:
    """Whatever is in it and however it is grouped."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    store.migrate()
    store.insert(
        [
            entry(f"{i}", team=team, cost_nano=cost, tags=tuple(sorted(tags)))
            for i, (team, cost, tags) in enumerate(rows)
        ]
    )
    for by in ([], ["team"], ["day", "team"], ["tag"]):
        found = total(chargeback(store, by, JANUARY))
        assert found["requests"] == len(rows)
        assert (found["cost_of_priced_requests_usd"] or 0) == sum(cost or 0 for _, cost, _ in rows)
        assert found["requests_with_unknown_price"] == sum(cost is None for _, cost, _ in rows)
    store.close()

"""Savings, self-hosting and break-even, against sums by hand."""

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from gateway.finance.chart import break_even_svg
from gateway.finance.list_prices import ListPrices
from gateway.finance.periods import Period
from gateway.finance.savings import savings
from gateway.finance.sheet import Sheet
from gateway.finance.tco import break_even, break_even_sheet, hosting, replicas
from gateway.ledger.prices import Override, OverrideTier, PriceBook
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from gateway.types import Outcome, Usage
from tests.ledger.samples import STARTED_NS, entry

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
JANUARY = Period(label="2026-01", since=SINCE, until=datetime(2026, 2, 1, tzinfo=UTC))
NOW = SINCE + timedelta(hours=100)
PRICES = ListPrices(
    PriceBook(
        {},
        "test",
        {
            "large": Override(
                input=Decimal(2),
                output=Decimal(8),
                tiers=(OverrideTier(above_tokens=1000, input=Decimal(4), output=Decimal(16)),),
            )
        },
    ),
    {"openai-main": "openai"},
)
USAGE = Usage(input_tokens=1000, cached_input_tokens=400, output_tokens=100)  # 2.8 mUSD at list price


def ours(call_id: str, **changes: Any) -> Any:
    usual: dict[str, Any] = {"backend": "vllm", "model": "base", "usage": USAGE, "cost_nano": 1_000_000}
    return entry(call_id, **(usual | changes))


def named(sheet: Sheet) -> list[dict[str, Any]]:
    names = [column.name for column in sheet.columns]
    return [dict(zip(names, row, strict=True)) for row in sheet.rows]


def test_savings_by_hand(store: Store) -> None:
    """1000 × 2 + 100 × 8 micro-dollars a request; twice that for a prompt beyond the tier."""
    store.insert([ours("1"), ours("2"), ours("3", usage=Usage(input_tokens=1001, output_tokens=100))])
    (row,) = named(savings(store, ["team"], JANUARY, PRICES, "large", "openai-main"))
    assert (row["requests_compared"], row["cost_usd"]) == (3, 3_000_000)
    assert row["cost_at_list_price_usd"] == 2 * 2_800_000 + 1001 * 4_000 + 100 * 16_000
    assert row["saved_usd"] == row["cost_at_list_price_usd"] - row["cost_usd"]


def test_what_cannot_be_compared_is_counted_by_its_reason(store: Store) -> None:
    """On both sides of the comparison, and none of it is."""
    store.insert(
        [
            ours("1", outcome=Outcome.REFUSED, backend="", cost_nano=None),
            ours("2", outcome=Outcome.LOST),
            ours("3", usage=Usage(input_tokens=5, estimated=True)),
            ours("4", cost_nano=None),
            ours("5", endpoint="embeddings"),
            ours("6", outcome=Outcome.CLIENT_CLOSED),
        ]
    )
    (row,) = named(savings(store, ["team"], JANUARY, PRICES, "large", "openai-main"))
    assert [row[name] for name in row if "left_out" in name] == [1, 1, 1]
    assert (row["requests_with_estimated_tokens"], row["requests_with_unknown_price"]) == (1, 1)
    assert (row["requests_compared"], row["cost_usd"]) == (1, 1_000_000)


def test_a_model_without_a_price_is_no_yardstick(store: Store) -> None:
    """Nothing is compared with a guess."""
    with pytest.raises(ValueError, match="no list price"):
        savings(store, ["team"], JANUARY, PRICES, "unheard-of", "openai-main")


@pytest.mark.parametrize("rolled", [False, True])
def test_busy_and_idle_make_up_what_is_paid(store: Store, rolled: bool) -> None:
    """100 hours at 0.40 USD since the first request; 30 % busy; CPTI of both kinds."""
    store.insert([ours(f"{i}", cost_nano=3_000_000_000) for i in range(4)])
    if rolled:
        store.roll_up(STARTED_NS // DAY_NS)
    sheet = hosting(store, JANUARY, {"vllm": 400_000_000}, NOW)
    (row,) = named(sheet)
    assert (row["hours_paid"], row["cost_paid_usd"], row["cost_busy_usd"]) == (100, 40 * 10**9, 12 * 10**9)
    assert (row["cost_idle_usd"], row["utilisation"]) == (28 * 10**9, Decimal("0.3"))
    assert row["cost_per_1000_requests_fully_loaded_usd"] == 10_000 * 10**9
    assert row["cost_per_1000_requests_marginal_usd"] == 3_000 * 10**9
    assert sheet.total is not None
    assert sheet.total[3] == 40 * 10**9


def test_energy_is_hours_times_power(store: Store) -> None:
    """Where the configuration says what is drawn; else it is not known, and not nothing."""
    store.insert([ours("1")])
    rates = {"vllm": 400_000_000}
    (row,) = named(hosting(store, JANUARY, rates, NOW, {"vllm": Decimal("0.65")}))
    assert (row["hours_paid"], row["energy_kwh"]) == (100, 65)
    (row,) = named(hosting(store, JANUARY, rates, NOW))
    assert row["energy_kwh"] is None


def test_a_replica_is_paid_from_its_first_request(store: Store) -> None:
    """Not before, and not beyond the period; one that was never asked costs nothing yet."""
    store.insert([ours("1", started_ns=STARTED_NS + 90 * 3600 * 10**9)])
    first, second = replicas(store, JANUARY, {"other": 1, "vllm": 1}, NOW)
    assert (first.uptime_ns, second.uptime_ns) == (0, 10 * 3600 * 10**9)
    (over,) = replicas(store, JANUARY, {"vllm": 1}, SINCE + timedelta(days=90))
    assert over.uptime_ns == (31 * 24 - 90) * 3600 * 10**9


def test_break_even_by_hand(store: Store) -> None:
    """Paid 40 USD; a request costs 1 mUSD of busy time, 2.8 by the API: 40,000 requests at full use.

    They would cost 112 USD there, so both are even at 40 / 112; with 20 USD of training at 60 / 112.
    """
    store.insert([ours("1"), ours("2"), ours("3", outcome=Outcome.REFUSED, backend="", cost_nano=None)])
    (replica,) = replicas(store, JANUARY, {"vllm": 400_000_000}, NOW)
    plain = break_even(store, replica, JANUARY, PRICES, ("large", "openai-main"))
    assert (plain.capacity, plain.api_nano) == (40_000, 2_800_000)
    assert plain.utilisation == Decimal(40) / 112
    trained = break_even(store, replica, JANUARY, PRICES, ("large", "openai-main"), training_nano=20 * 10**9)
    assert trained.utilisation == Decimal(60) / 112
    sheet = break_even_sheet(plain, JANUARY, "openai-main/large")
    last = named(sheet)[-1]
    assert (last["utilisation"], last["cost_api_usd"]) == (1, 112 * 10**9)
    assert "35.7 %" in sheet.notes[0]


def test_an_adapter_bears_its_share(store: Store) -> None:
    """Half of the busy time, half of the hosting; its own training."""
    store.insert([ours("1", adapter="a@01"), ours("2")])
    (replica,) = replicas(store, JANUARY, {"vllm": 400_000_000}, NOW)
    result = break_even(
        store, replica, JANUARY, PRICES, ("large", "openai-main"), adapter="a@01", training_nano=7
    )
    assert (result.name, result.fixed_nano, result.capacity) == ("a@01", 20 * 10**9 + 7, 20_000)
    with pytest.raises(ValueError, match="nothing to compare"):
        break_even(store, replica, JANUARY, PRICES, ("large", "openai-main"), adapter="b@02")


def test_the_drawing_is_xml_and_crosses_where_the_numbers_do(store: Store) -> None:
    """The dashed line stands at the break-even; a title with angle brackets breaks nothing."""
    store.insert([ours("1")])
    (replica,) = replicas(store, JANUARY, {"vllm": 400_000_000}, NOW)
    result = break_even(store, replica, JANUARY, PRICES, ("large", "openai-main"))
    root = ET.fromstring(break_even_svg(result, "<a> & b"))
    lines = [e for e in root if e.tag.endswith("line")]
    (dashed,) = (e for e in lines if e.get("stroke-dasharray") == "4 4")
    width = 720 - 90 - 20
    assert float(str(dashed.get("x1"))) == pytest.approx(90 + width * 40 / 112, abs=0.1)
    texts = [e.text for e in root if e.tag.endswith("text")]
    assert "<a> & b" in texts
    assert any("break-even at 35.7 %" in str(text) for text in texts)

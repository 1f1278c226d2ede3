"""The FOCUS 1.2 export: what the specification asks of it, and that it is the ledger to the nano-dollar."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.finance.files import to_csv, to_parquet
from gateway.finance.focus import Exporter
from gateway.finance.focus_columns import COLUMNS
from gateway.finance.list_prices import ListPrices
from gateway.finance.periods import Period
from gateway.finance.sheet import Sheet
from gateway.ledger.prices import Override, OverrideTier, PriceBook
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from gateway.types import Outcome, Resolves, Usage
from tests.finance.focus_rules import CHECKS, FILE, Row, Rules
from tests.ledger.samples import STARTED_NS, entry

JANUARY = Period(
    label="2026-01", since=datetime(2026, 1, 1, tzinfo=UTC), until=datetime(2026, 2, 1, tzinfo=UTC)
)
PROVIDERS = {"openai-main": "openai"}
OVERRIDES = {
    "small": Override(input=Decimal("0.15"), output=Decimal("0.6"), cached=Decimal("0.075")),
    "long": Override(
        input=Decimal("1.25"),
        output=Decimal(10),
        tiers=(OverrideTier(above_tokens=1000, input=Decimal("2.5"), output=Decimal(15)),),
        request=Decimal("0.001"),
    ),
    "heard": Override(
        input=Decimal("2.5"),
        output=Decimal(10),
        cached=Decimal("1.25"),
        cache_write=Decimal("3.125"),
        cache_write_1h=Decimal(5),
        audio_input=Decimal(32),
        audio_output=Decimal(64),
        image_output=Decimal(40),
        factors={"batch": Decimal("0.5")},
    ),
}
SUPPORTED = {
    "ACCOUNT_NAMING_SUPPORTED",
    "BILLING_BASED_ON_PROVISIONED_RESOURCES_SUPPORTED",  # replicas by the hour
    "MULTIPLE_PRICING_CATEGORIES_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED",  # prices of our own in headgate.yaml
    "PUBLIC_PRICE_LIST_SUPPORTED",
    "RESOURCE_TYPE_ASSIGNMENT_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "TAGGING_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
}
HOURLY = {"vllm": 400_000_000}
BOOK = PriceBook({}, "test", OVERRIDES)


def priced(call_id: str, model: str, usage: Usage, **changes: Any) -> Any:
    """An entry as the pipeline would price it."""
    found = BOOK.cost(model, "openai", usage)
    return entry(
        call_id, model=model, usage=usage, **({"cost_nano": found.cost_nano, "price": found.source} | changes)
    )


def ours(call_id: str, **changes: Any) -> Any:
    """An entry of a replica of ours."""
    usual: dict[str, Any] = {
        "backend": "vllm",
        "zone": "home",
        "model": "base",
        "price": "self-hosted: 0.4 USD/h",
    }
    return entry(call_id, **(usual | changes))


HEARD = Usage(
    input_tokens=1000,
    cached_input_tokens=100,
    cache_write_tokens=50,
    cache_write_1h_tokens=20,
    audio_input_tokens=300,
    output_tokens=200,
    audio_output_tokens=110,
    image_output_tokens=40,
    reasoning_tokens=7,
)
VARIED = [
    priced("1", "small", Usage(input_tokens=1001, cached_input_tokens=333, output_tokens=77)),
    priced("2", "small", Usage(input_tokens=7, output_tokens=1), started_ns=STARTED_NS + DAY_NS, tags=()),
    priced("3", "long", Usage(input_tokens=1000, output_tokens=9, reasoning_tokens=4)),
    priced("4", "long", Usage(input_tokens=1001, output_tokens=9), team="bank"),
    priced("5", "small", Usage(input_tokens=50), cost_nano=123_456_789),  # with attempts that failed before
    priced("6", "small", Usage(input_tokens=50), price="test of old: small", cost_nano=1_000_003),
    ours("7", adapter="support@0123456789ab", cost_nano=33_333_331),
    ours("8", cost_nano=11, usage=Usage(), outcome=Outcome.FAILED),
    ours("9", cost_nano=1_234_567, usage=Usage(input_tokens=11, output_tokens=3, estimated=True)),
    entry("10", model="unheard-of", cost_nano=None),
    priced("12", "heard", HEARD),
    priced("13", "heard", replace(HEARD, service_tier="batch")),
    entry("11", outcome=Outcome.REFUSED, backend="", model="", cost_nano=None, usage=Usage()),
]
CORRECTIONS = [
    entry(
        "10~1",
        cost_nano=42,
        usage=Usage(),
        corrects="10",
        resolves=Resolves.PRICE,
        recorded_ns=STARTED_NS + 40 * DAY_NS,
        reason="priced",
    ),
    entry(
        "1~1",
        cost_nano=-7,
        usage=Usage(),
        corrects="1",
        recorded_ns=STARTED_NS + DAY_NS,
        reason="list changed",
    ),
]


def export(store: Store, **options: Any) -> Sheet:
    now = JANUARY.since + timedelta(days=3)
    exporter = Exporter(store, ListPrices(BOOK, PROVIDERS), PROVIDERS)
    return exporter.export(JANUARY, **({"hourly": HOURLY, "now": now} | options))


def rows_of(sheet: Sheet) -> list[Row]:
    read = csv.DictReader(io.StringIO(to_csv(sheet).decode("utf-8-sig"), newline=""))
    return [{name: value or None for name, value in row.items()} for row in read]


def billed(rows: list[Row]) -> Decimal:
    return sum((Decimal(row["BilledCost"] or 0) for row in rows), Decimal(0))


@pytest.fixture
def filled(store: Store) -> Store:
    store.insert(VARIED)
    return store


def test_rows_sum_to_the_ledger(filled: Store) -> None:
    """Requests to what they were charged, idle time to the rest of what is paid, corrections to theirs."""
    charged = sum(e.cost_nano or 0 for e in VARIED)
    assert billed(rows_of(export(filled, hourly={}))) == Decimal(charged).scaleb(-9)
    paid = 72 * HOURLY["vllm"]
    busy = sum(e.cost_nano or 0 for e in VARIED if e.backend == "vllm")
    filled.insert(CORRECTIONS)
    whole = billed(rows_of(export(filled)))
    assert whole == Decimal(charged + paid - busy + 42 - 7).scaleb(-9)


def test_each_meter_is_its_tokens_at_its_price(filled: Store) -> None:
    """Quantity × unit price is the cost without a remainder; tokens are all there, once."""
    rows = rows_of(export(filled, hourly={}))
    for row in rows:
        if row["ChargeCategory"] == "Usage":
            product = Decimal(row["PricingQuantity"] or "x") * Decimal(row["ListUnitPrice"] or "x")
            assert product == Decimal(row["ListCost"] or "x") == Decimal(row["BilledCost"] or "x")
    tokens: Counter[str] = Counter()
    for row in rows:
        if row["ConsumedUnit"] == "Tokens":
            tokens[str(row["SkuMeter"])] += int(Decimal(row["ConsumedQuantity"] or 0))
    known = [e for e in VARIED if e.cost_nano is not None]
    assert tokens["Cached Input Tokens"] == sum(e.usage.cached_input_tokens for e in known)
    said = [meter for meter in tokens if "Output" in meter or "Reasoning" in meter]
    assert sum(tokens[meter] for meter in said) == sum(e.usage.output_tokens for e in known)
    assert tokens.total() == sum(e.usage.input_tokens + e.usage.output_tokens for e in known)


def test_list_prices_are_those_of_the_page(filled: Store) -> None:
    """By meter and tier, where the book still has what the entry was priced by; shares of cost elsewhere."""
    prices = {
        (
            row["x_Model"],
            row["SkuMeter"],
            json.loads(row["SkuPriceDetails"] or "{}").get("x_PromptTokensAbove"),
        ): row["ListUnitPrice"]
        for row in rows_of(export(filled, hourly={}))
        if row["x_UnitPriceMethod"] == "List" and row["x_Model"] != "heard"
    }
    assert {key: Decimal(str(price)) * 10**6 for key, price in prices.items()} == {
        ("small", "Input Tokens", None): Decimal("0.15"),  # of prompts of any length: it has no tiers
        ("small", "Cached Input Tokens", None): Decimal("0.075"),
        ("small", "Output Tokens", None): Decimal("0.6"),
        ("long", "Input Tokens", None): Decimal("1.25"),
        ("long", "Output Tokens", None): 10,
        ("long", "Reasoning Tokens", None): 10,
        ("long", "Requests", None): 1000,
        ("long", "Input Tokens", 1000): Decimal("2.5"),
        ("long", "Output Tokens", 1000): 15,
        ("long", "Requests", 1000): 1000,
    }


def test_adjustments_say_why(filled: Store) -> None:
    """Rounding is told from attempts that failed; both are apart from the tokens."""
    rows = [row for row in rows_of(export(filled, hourly={})) if row["ChargeCategory"] == "Adjustment"]
    reasons = {row["ChargeDescription"] for row in rows}
    assert reasons == {"Rounding of each request's cost", "Attempts and fees beyond the tokens"}
    assert all(row["PricingQuantity"] is None for row in rows)


def test_periods_are_whole_days_with_exclusive_ends(filled: Store) -> None:
    """A day ends where the next begins, a month likewise, in UTC."""
    rows = rows_of(export(filled))
    days = {(row["ChargePeriodStart"], row["ChargePeriodEnd"]) for row in rows}
    assert ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z") in days
    assert {(row["BillingPeriodStart"], row["BillingPeriodEnd"]) for row in rows} == {
        ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")
    }


def test_a_correction_of_an_earlier_month_has_its_class(filled: Store) -> None:
    """One within the month has none, as the specification wants it."""
    filled.insert(CORRECTIONS)
    rows = [r for r in rows_of(export(filled)) if "Correction of" in str(r["ChargeDescription"])]
    assert [(row["ChargeClass"], row["BilledCost"]) for row in rows] == [
        ("Correction", "0.000000042000000000"),
        (None, "-0.000000007000000000"),
    ]


def test_each_meter_and_service_tier_has_its_sku(filled: Store) -> None:
    """One row for each meter that was used, at its own unit price; half of it in a batch."""
    rows = [r for r in rows_of(export(filled)) if r["x_Model"] == "heard" and r["SkuMeter"]]
    plain = {r["SkuMeter"]: r for r in rows if "batch" not in str(r["SkuPriceId"])}
    batch = {r["SkuMeter"]: r for r in rows if "batch" in str(r["SkuPriceId"])}
    quantities = {meter: int(Decimal(str(row["PricingQuantity"]))) for meter, row in plain.items()}
    assert quantities == {
        "Input Tokens": 550,
        "Cached Input Tokens": 100,
        "Cache Write Tokens": 30,
        "Cache Write Tokens Kept 1 Hour": 20,
        "Audio Input Tokens": 300,
        "Output Tokens": 43,
        "Reasoning Tokens": 7,
        "Audio Output Tokens": 110,
        "Image Output Tokens": 40,
    }
    assert batch.keys() == plain.keys()
    for meter, row in plain.items():
        assert Decimal(str(row["BilledCost"])) == 2 * Decimal(str(batch[meter]["BilledCost"]))
        assert row["x_UnitPriceMethod"] == "List"


def test_idle_time_is_a_charge_of_its_own(filled: Store) -> None:
    """Each day of the replica since its first request, with no team."""
    rows = [row for row in rows_of(export(filled)) if row["ResourceType"] == "Replica"]
    assert {row["SkuMeter"] for row in rows} == {"Idle Seconds", None}
    assert {row["SubAccountId"] for row in rows} == {None}
    assert len({row["ChargePeriodStart"] for row in rows}) == 3


def test_unknown_prices_are_left_out_and_counted(filled: Store) -> None:
    """No row says that they cost nothing."""
    sheet = export(filled)
    assert sheet.notes == ("1 requests of unknown price have no cost and are left out.",)
    assert "unheard-of" not in {row["x_Model"] for row in rows_of(sheet)}


def test_parquet_is_the_same_table(filled: Store) -> None:
    """Types that a FinOps tool expects, and the same sum."""
    sheet = export(filled)
    table = parquet.read_table(io.BytesIO(to_parquet(sheet)))
    assert table.column_names == [column.name for column in COLUMNS]
    assert sum(table.column("BilledCost").to_pylist()) == billed(rows_of(sheet))


def test_tags_are_a_json_object(store: Store) -> None:
    """Tags without values have the value true, whatever characters they are made of."""
    store.insert([priced("1", "small", Usage(input_tokens=9), tags=('a"b', "größe"))])
    (row, *_) = rows_of(export(store, hourly={}))
    assert json.loads(row["Tags"] or "") == {'a"b': True, "größe": True}


needs_rules = pytest.mark.skipif(not FILE.exists(), reason=f"{FILE} is not here")


@needs_rules
def test_every_row_passes_the_rules_that_apply(filled: Store) -> None:
    """All 621 rules are accounted for: checked, not applicable, or words that no machine can check."""
    rules = Rules(SUPPORTED)
    filled.insert(CORRECTIONS)
    rules.check(rows_of(export(filled)))
    assert rules.failed == {}
    assert rules.advised == {}
    counts = rules.classify()
    print(f"FOCUS 1.2: {dict(counts)} of {len(rules.rules)}")
    assert counts.total() == len(rules.rules) == 621
    assert counts["checked"] >= 250
    assert set(rules.functions) == set(CHECKS)
    assert set(rules.criteria) > SUPPORTED
    assert len(rules.criteria) == 18


def _set(column: str, value: str | None) -> Callable[[Row], None]:
    return lambda row: row.update({column: value})


@needs_rules
@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (_set("BilledCost", None), "BilledCost-C-003-M"),
        (_set("BilledCost", "1/3"), "BilledCost-C-001-M"),
        (_set("ListCost", "1"), "ListCost-C-009-C"),
        (_set("ListUnitPrice", "-1"), "ListUnitPrice-C-008-M"),
        (_set("ChargeCategory", "Misc"), "ChargeCategory-C-003-M"),
        (_set("ChargeClass", "Refund"), "ChargeClass-C-005-C"),
        (_set("ChargePeriodEnd", "2026-01-02"), "ChargePeriodEnd-C-002-M"),
        (_set("BillingCurrency", "Dollars"), "BillingCurrency-C-003-M"),
        (_set("Tags", '{"a": ["b"]}'), "Tags-C-001-M"),
        (_set("SkuId", None), "SkuId-C-005-C"),
        (_set("InvoiceIssuerName", "Somebody"), "BilledCost-C-005-C"),
        (_set("SubAccountName", None), "SubAccountName-C-005-C"),
        (_set("ServiceSubcategory", "Gaming"), "ServiceSubcategory-C-004-M"),
        (_set("ConsumedQuantity", None), "ConsumedUnit-C-005-C"),
        (_set("PricingUnit", None), "PricingUnit-C-006-C"),
    ],
)
def test_the_interpreter_sees_what_is_wrong(filled: Store, spoil: Callable[[Row], None], rule: str) -> None:
    """One value spoilt in one row breaks the rule that is about it: the test above can fail."""
    rows = rows_of(export(filled))
    spoil(next(row for row in rows if row["ChargeCategory"] == "Usage" and row["SubAccountId"]))
    rules = Rules(SUPPORTED)
    rules.check(rows)
    assert rule in rules.failed


@needs_rules
def test_the_interpreter_misses_a_column(filled: Store) -> None:
    """A file without a column that must be there does not pass."""
    rows = rows_of(export(filled))
    for row in rows:
        del row["ProviderName"]
    rules = Rules(SUPPORTED)
    rules.check(rows)
    assert "CostAndUsage-D-038-M" in rules.failed


_USAGES = st.builds(
    lambda plain, cached, said, thought: Usage(
        input_tokens=plain + cached,
        cached_input_tokens=cached,
        output_tokens=said + thought,
        reasoning_tokens=thought,
    ),
    *(st.integers(0, 3000) for _ in range(4)),
)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["small", "long", "base"]), _USAGES, st.integers(0, 10**13)), max_size=12
    )
)
def test_any_ledger_is_exported_to_the_nano_dollar(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, Usage, int]]
) -> None:
    """Whatever was used and charged, and whether or not it is rolled up."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('ledger')}/ledger.db")
    store.migrate()
    entries = [
        ours(f"{i}", usage=usage, cost_nano=cost)
        if model == "base"
        else priced(f"{i}", model, usage, **({"cost_nano": cost} if cost % 3 == 0 else {}))
        for i, (model, usage, cost) in enumerate(calls)
    ]
    store.insert(entries)
    for rolled in (False, True):
        if rolled:
            store.roll_up(STARTED_NS // DAY_NS)
        rows = rows_of(export(store, hourly={}))
        assert billed(rows) == Decimal(sum(e.cost_nano for e in entries)).scaleb(-9)
        for row in rows:
            if row["ChargeCategory"] == "Usage":
                assert Decimal(str(row["PricingQuantity"])) * Decimal(
                    str(row["ContractedUnitPrice"])
                ) == Decimal(str(row["ContractedCost"]))
    store.close()

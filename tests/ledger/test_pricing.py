"""Prices: worked cases by hand, to the nano-dollar, and the properties that hold for all."""

import json
import sys
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.prices import ModelPrice, Override, OverrideTier, PriceBook, Rates, cost_nano, usd
from gateway.types import Usage

# Prices as public price pages have them, in litellm's vocabulary, written the way that file writes floats.
LISTED = {
    "gpt-4o-mini": '{"litellm_provider":"openai","mode":"chat","input_cost_per_token":1.5e-07,'
    '"cache_read_input_token_cost":7.5e-08,"output_cost_per_token":6e-07}',
    "azure/gpt-4o-mini": '{"litellm_provider":"azure","mode":"chat","input_cost_per_token":1.65e-07,'
    '"cache_read_input_token_cost":8.25e-08,"output_cost_per_token":6.6e-07}',
    "ft:gpt-4o-mini-2024-07-18": '{"litellm_provider":"openai","mode":"chat","input_cost_per_token":3e-07,'
    '"cache_read_input_token_cost":1.5e-07,"output_cost_per_token":1.2e-06}',
    "claude-sonnet-4-5": '{"litellm_provider":"anthropic","mode":"chat","input_cost_per_token":3e-06,'
    '"cache_read_input_token_cost":3e-07,"cache_creation_input_token_cost":3.75e-06,'
    '"output_cost_per_token":1.5e-05}',
    "gemini-2.5-pro": '{"litellm_provider":"vertex_ai-language-models","mode":"chat",'
    '"input_cost_per_token":1.25e-06,"input_cost_per_token_above_200k_tokens":2.5e-06,'
    '"cache_read_input_token_cost":1.25e-07,"cache_read_input_token_cost_above_200k_tokens":2.5e-07,'
    '"output_cost_per_token":1e-05,"output_cost_per_token_above_200k_tokens":1.5e-05}',
    "dashscope/qwen-flash": '{"litellm_provider":"dashscope","mode":"chat","tiered_pricing":['
    '{"input_cost_per_token":5e-08,"output_cost_per_token":4e-07,"range":[0,256000.0]},'
    '{"input_cost_per_token":2.5e-07,"output_cost_per_token":2e-06,"range":[256000.0,1000000.0]}]}',
    "dashscope/qwen-plus": '{"litellm_provider":"dashscope","mode":"chat","input_cost_per_token":4e-07,'
    '"output_cost_per_token":1.2e-06,"output_cost_per_reasoning_token":4e-06}',
    "perplexity/pplx-7b-online": '{"litellm_provider":"perplexity","mode":"chat","input_cost_per_token":0.0,'
    '"output_cost_per_token":2.8e-07,"input_cost_per_request":0.005}',
    "text-embedding-3-small": '{"litellm_provider":"openai","mode":"embedding",'
    '"input_cost_per_token":2e-08,"output_cost_per_token":0.0}',
    "mistral/mistral-embed": '{"litellm_provider":"mistral","mode":"embedding","input_cost_per_token":1e-07}',
    "noisy": '{"litellm_provider":"databricks","mode":"chat","input_cost_per_token":5.0000000000000004e-08,'
    '"output_cost_per_token":0.0000029999900000000002}',
    "fine": '{"litellm_provider":"bedrock","mode":"chat","input_cost_per_token":1.44375e-07,'
    '"output_cost_per_token":1e-06}',
    "placeholder": '{"litellm_provider":"openai","mode":"chat","input_cost_per_token":0.0,'
    '"output_cost_per_token":0.0}',
    "painter": '{"litellm_provider":"openai","mode":"image_generation","input_cost_per_token":5e-06,'
    '"output_cost_per_token":4e-05}',
    "negative": '{"litellm_provider":"openai","mode":"chat","input_cost_per_token":-1e-06}',
}
OVERRIDES = {
    "openai/house-model": Override(input=Decimal("0.10"), output=Decimal("0.40"), cached=Decimal(0)),
    "tiered": Override(
        input=Decimal("1.25"),
        output=Decimal(10),
        tiers=(OverrideTier(above_tokens=200_000, input=Decimal("2.5"), output=Decimal(15)),),
    ),
    "free": Override(input=Decimal(0)),
    "by-request": Override(input=Decimal(0), request=Decimal("0.01")),
    "azure/gpt-4o-mini": Override(input=Decimal("0.12"), output=Decimal("0.48")),
}
LIST_BOOK = PriceBook({k: msgspec.Raw(v.encode()) for k, v in LISTED.items()}, "list 1")
BOOK = PriceBook({k: msgspec.Raw(v.encode()) for k, v in LISTED.items()}, "list 1", OVERRIDES)


def tokens(i: int = 0, o: int = 0, *, cached: int = 0, write: int = 0, thought: int = 0) -> Usage:
    return Usage(
        input_tokens=i,
        output_tokens=o,
        cached_input_tokens=cached,
        cache_write_tokens=write,
        reasoning_tokens=thought,
    )


CASES = [
    # 1,000 × 150 + 50 × 600
    ("plain", "gpt-4o-mini", "openai", tokens(1000, 50), 180_000),
    # 600 × 150 + 400 × 75 + 50 × 600
    ("cached-part-once", "gpt-4o-mini", "openai", tokens(1000, 50, cached=400), 150_000),
    ("all-cached", "gpt-4o-mini", "openai", tokens(1000, cached=1000), 75_000),
    ("one-token-in", "gpt-4o-mini", "openai", tokens(1), 150),
    ("one-token-out", "gpt-4o-mini", "openai", tokens(0, 1), 600),
    ("explicit-zero", "gpt-4o-mini", "openai", tokens(), 0),
    ("zero-output", "gpt-4o-mini", "openai", tokens(1000, 0), 150_000),
    # Reasoning is inside the 500: 500 × 600
    ("reasoning-once", "gpt-4o-mini", "openai", tokens(0, 500, thought=400), 300_000),
    ("no-provider", "gpt-4o-mini", "", tokens(1000, 50), 180_000),
    ("prefixed-model", "azure/gpt-4o-mini", "", tokens(1000), 120_000),
    ("other-provider-unknown", "gpt-4o-mini", "groq", tokens(1000, 50), None),
    # 1,000 × 300 + 100 × 1,200
    ("fine-tuned", "ft:gpt-4o-mini-2024-07-18:org:name:id", "openai", tokens(1000, 100), 420_000),
    # 1,000 × 3,000 + 200 × 15,000
    ("sonnet", "claude-sonnet-4-5", "anthropic", tokens(1000, 200), 6_000_000),
    # 100 × 3,000 + 500 × 300 + 400 × 3,750
    (
        "cache-read-and-write",
        "claude-sonnet-4-5",
        "anthropic",
        tokens(1000, cached=500, write=400),
        1_950_000,
    ),
    ("cache-write-only", "claude-sonnet-4-5", "anthropic", tokens(1000, write=1000), 3_750_000),
    # 200,000 × 1,250 + 10 × 10,000: the bound itself is below the tier
    ("at-tier-bound", "gemini-2.5-pro", "vertex_ai", tokens(200_000, 10), 250_100_000),
    # 200,001 × 2,500 + 10 × 15,000: the whole call at the tier's price
    ("above-tier-bound", "gemini-2.5-pro", "vertex_ai", tokens(200_001, 10), 500_152_500),
    # 50,001 × 2,500 + 150,000 × 250: cached tokens count towards the bound
    ("tier-by-cached", "gemini-2.5-pro", "vertex_ai", tokens(200_001, cached=150_000), 162_502_500),
    # 300,000 × 10,000: output does not count towards it
    ("tier-not-by-output", "gemini-2.5-pro", "vertex_ai", tokens(0, 300_000), 3_000_000_000),
    # 256,000 × 50 + 100 × 400
    ("ranges-lower", "qwen-flash", "dashscope", tokens(256_000, 100), 12_840_000),
    # 256,001 × 250 + 100 × 2,000
    ("ranges-upper", "qwen-flash", "dashscope", tokens(256_001, 100), 64_200_250),
    # 1,000 × 400 + 60 × 1,200 + 40 × 4,000
    ("reasoning-own-price", "qwen-plus", "dashscope", tokens(1000, 100, thought=40), 632_000),
    # 5,000,000 + 100 × 280
    ("per-request", "pplx-7b-online", "perplexity", tokens(700, 100), 5_028_000),
    ("embedding", "text-embedding-3-small", "openai", tokens(8191), 163_820),
    ("embedding-without-output-price", "mistral-embed", "mistral", tokens(1000), 100_000),
    ("used-meter-without-price", "mistral-embed", "mistral", tokens(1000, 1), None),
    # 1,000 × 50, the float's noise gone
    ("float-noise-in", "noisy", "", tokens(1000), 50_000),
    # 1,000,000 × 2,999.99
    ("float-noise-out", "noisy", "", tokens(0, 1_000_000), 2_999_990_000),
    # 3 × 144.375 = 433.125
    ("rounds-down", "fine", "bedrock", tokens(3), 433),
    # 4 × 144.375 = 577.5: a half goes up
    ("rounds-half-up", "fine", "bedrock", tokens(4), 578),
    # 8 × 144.375 = 1,155 exactly: summed before it is rounded
    ("sums-before-rounding", "fine", "bedrock", tokens(8), 1_155),
    ("unknown-model", "nope", "openai", tokens(1000, 50), None),
    ("unknown-model-zero-usage", "nope", "openai", tokens(), None),
    ("zeros-are-not-a-price", "placeholder", "openai", tokens(1000), None),
    ("not-by-the-token", "painter", "openai", tokens(1000), None),
    ("negative-is-no-price", "negative", "openai", tokens(1000), None),
    # More cached than there is prompt: the prompt is not billed below zero. 1,200 × 75
    ("inconsistent-usage", "gpt-4o-mini", "openai", tokens(1000, cached=1200), 90_000),
    # 400 × 100 + 600 × 0 + 100 × 400: an explicit zero is a price
    ("override-cached-free", "house-model", "openai", tokens(1000, 100, cached=600), 80_000),
    # 100,001 × 2,500 + 100,000 × 2,500, no cached price: the tier's input price
    ("override-tier", "tiered", "any", tokens(200_001, cached=100_000), 500_002_500),
    ("override-free", "free", "", tokens(1000, 1000), 0),
    ("override-by-request", "by-request", "", tokens(1000), 10_000_000),
    # 1,000 × 120 + 100 × 480, not the list's 165 and 660
    ("override-wins", "gpt-4o-mini", "azure", tokens(1000, 100), 168_000),
]


@pytest.mark.parametrize(
    ("model", "provider", "usage", "nano"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_worked_cases(model: str, provider: str, usage: Usage, nano: int | None) -> None:
    """Each cost is what the price page says, worked out by hand in the comment above the case."""
    assert BOOK.cost(model, provider, usage).cost_nano == nano


def test_the_source_names_the_list_and_the_key() -> None:
    """A row can say where its price came from, and that there is none."""
    assert BOOK.cost("gpt-4o-mini", "openai", tokens(1)).source == "list 1: gpt-4o-mini"
    assert LIST_BOOK.cost("gpt-4o-mini", "azure", tokens(1)).source == "list 1: azure/gpt-4o-mini"
    assert BOOK.cost("gpt-4o-mini", "azure", tokens(1)).source == "override: azure/gpt-4o-mini"
    assert BOOK.cost("nope", "openai", tokens(1)).source == "unknown: openai/nope"


def test_estimate_is_the_cost_with_nothing_cached() -> None:
    """An estimate uses the same arithmetic as the bill."""
    assert BOOK.estimate("gpt-4o-mini", "openai", 1000, 50) == BOOK.cost(
        "gpt-4o-mini", "openai", tokens(1000, 50)
    )


def test_the_bundled_map_is_read_without_importing_litellm() -> None:
    """litellm's own file is found, and its gpt-4o-mini agrees with OpenAI's page: 0.15 and 0.60 USD."""
    already = "litellm" in sys.modules
    priced = PriceBook.bundled().cost("gpt-4o-mini", "openai", tokens(1_000_000, 1_000_000))
    assert priced.cost_nano == 750_000_000
    assert priced.source.startswith("litellm 1.")
    assert priced.source.endswith(": gpt-4o-mini")
    assert ("litellm" in sys.modules) == already


def test_every_bundled_entry_can_be_read() -> None:
    """No entry of litellm's map, whatever it prices, breaks a lookup or comes out negative."""
    book = PriceBook.bundled()
    costs = [book.cost(key, "", tokens(10, 10)).cost_nano for key in book._listed]
    assert sum(cost is not None for cost in costs) > 2000
    assert all(cost is None or cost >= 0 for cost in costs)


def test_overrides_come_from_settings_with_any_number_type() -> None:
    """YAML's floats and strings give exact Decimals; a misspelt meter is an error."""
    assert msgspec.convert({"input": 0.15, "output": "0.60"}, Override) == Override(
        input=Decimal("0.15"), output=Decimal("0.60")
    )
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"input": 1, "ouput": 2}, Override)


@pytest.mark.parametrize(
    ("nano", "text"),
    [(0, "0.000000000"), (1, "0.000000001"), (1_500_000_000, "1.500000000"), (-1, "-0.000000001")],
)
def test_usd_is_exact(nano: int, text: str) -> None:
    """Nine places, also below zero."""
    assert usd(nano) == text


counts = st.integers(0, 10**7)
rates = st.integers(0, 10**15)


@given(st.tuples(rates, rates, rates, rates), st.tuples(counts, counts, counts, counts))
def test_the_cost_is_within_half_a_nano_dollar_of_the_exact_sum(
    prices: tuple[int, int, int, int], parts: tuple[int, int, int, int]
) -> None:
    """For any prices and meters one rounding is all that stands between the cost and the exact sum."""
    price = ModelPrice(base=Rates(input=prices[0], cached=prices[1], cache_write=prices[2], output=prices[3]))
    plain, cached, write, output = parts
    cost = cost_nano(price, tokens(plain + cached + write, output, cached=cached, write=write))
    assert cost is not None
    exact = sum(n * p for n, p in zip(parts, prices, strict=True))
    assert -(10**9) <= 2 * (exact - cost * 10**9) < 10**9


@given(st.decimals(min_value=0, max_value=1000, places=6))
def test_a_price_survives_the_way_from_text_to_integers(price: Decimal) -> None:
    """A million tokens cost exactly what the page says a million cost, for any price with six places."""
    book = PriceBook({}, "none", {"m": Override(input=price)})
    assert book.cost("m", "", tokens(10**6)).cost_nano == int(price * 10**9)
    listed = json.dumps({"mode": "chat", "input_cost_per_token": float(price / 10**6)})
    by_list = PriceBook({"m": msgspec.Raw(listed.encode())}, "list").cost("m", "", tokens(10**6))
    assert by_list.cost_nano == (int(price * 10**9) if price else None)

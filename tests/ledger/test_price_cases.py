"""Worked examples by hand, from the rules of public price pages, to the nano-dollar.

Prices are written as the pages have them and as litellm's map has their numbers; a nano-dollar is 1e-9
USD, so
1 USD for a million tokens is 1,000 nano-dollars a token.
"""

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from gateway.backends.wire import usage_of
from gateway.ledger.prices import Override, OverrideTier, PriceBook
from gateway.types import Usage

MAP = {
    # OpenAI: 5.00 in, 0.50 cached, 30.00 out; beyond 272k 10.00, 1.00, 45.00; batch and flex half;
    # priority 2.5 x
    "gpt-5.5": """{"litellm_provider": "openai", "mode": "chat",
        "input_cost_per_token": 5e-06, "cache_read_input_token_cost": 5e-07, "output_cost_per_token": 3e-05,
        "input_cost_per_token_above_272k_tokens": 1e-05, "output_cost_per_token_above_272k_tokens": 4.5e-05,
        "cache_read_input_token_cost_above_272k_tokens": 1e-06,
        "input_cost_per_token_batches": 2.5e-06, "output_cost_per_token_batches": 1.5e-05,
        "cache_read_input_token_cost_batches": 2.5e-07,
        "input_cost_per_token_above_272k_tokens_batches": 5e-06,
        "output_cost_per_token_above_272k_tokens_batches": 2.25e-05,
        "input_cost_per_token_flex": 2.5e-06, "output_cost_per_token_flex": 1.5e-05,
        "cache_read_input_token_cost_flex": 2.5e-07,
        "input_cost_per_token_above_272k_tokens_flex": 5e-06,
        "output_cost_per_token_above_272k_tokens_flex": 2.25e-05,
        "cache_read_input_token_cost_above_272k_tokens_flex": 5e-07,
        "input_cost_per_token_priority": 1.25e-05, "output_cost_per_token_priority": 7.5e-05,
        "cache_read_input_token_cost_priority": 1.25e-06}""",
    # OpenAI: 2.50 in, 1.25 cached, 10.00 out; priority 4.25, 2.125, 17.00; batch 1.25, 5.00 and no
    # cache price
    "gpt-4o": """{"litellm_provider": "openai", "mode": "chat",
        "input_cost_per_token": 2.5e-06, "cache_read_input_token_cost": 1.25e-06,
        "output_cost_per_token": 1e-05,
        "input_cost_per_token_priority": 4.25e-06, "output_cost_per_token_priority": 1.7e-05,
        "cache_read_input_token_cost_priority": 2.125e-06,
        "input_cost_per_token_batches": 1.25e-06, "output_cost_per_token_batches": 5e-06}""",
    # OpenAI: text 2.50 and 10.00, audio 32.00 and 64.00
    "gpt-audio": """{"litellm_provider": "openai", "mode": "chat",
        "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05,
        "input_cost_per_audio_token": 3.2e-05, "output_cost_per_audio_token": 6.4e-05}""",
    # OpenAI: 1.10 in, 0.275 cached, 4.40 out, reasoning billed as output; flex 0.55, 0.138, 2.20
    "o4-mini": """{"litellm_provider": "openai", "mode": "chat",
        "input_cost_per_token": 1.1e-06, "cache_read_input_token_cost": 2.75e-07,
        "output_cost_per_token": 4.4e-06,
        "input_cost_per_token_flex": 5.5e-07, "output_cost_per_token_flex": 2.2e-06,
        "cache_read_input_token_cost_flex": 1.38e-07}""",
    # Anthropic: 3.00 in, 15.00 out; cache read 0.30, write 3.75 for 5 minutes and 6.00 for an hour;
    # batch half
    "claude-sonnet-4-5": """{"litellm_provider": "anthropic", "mode": "chat",
        "input_cost_per_token": 3e-06, "output_cost_per_token": 1.5e-05, "cache_read_input_token_cost": 3e-07,
        "cache_creation_input_token_cost": 3.75e-06, "cache_creation_input_token_cost_above_1hr": 6e-06,
        "input_cost_per_token_batches": 1.5e-06, "output_cost_per_token_batches": 7.5e-06,
        "cache_read_input_token_cost_batches": 1.5e-07,
        "cache_creation_input_token_cost_batches": 1.875e-06}""",
    # Google: 1.25 in, 10.00 out, cached 0.125; beyond 200k 2.50, 15.00, 0.25; priority 2.25, 18.00 and
    # 4.50, 27.00
    "gemini/gemini-2.5-pro": """{"litellm_provider": "gemini", "mode": "chat",
        "input_cost_per_token": 1.25e-06, "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-07,
        "input_cost_per_token_above_200k_tokens": 2.5e-06, "output_cost_per_token_above_200k_tokens": 1.5e-05,
        "cache_read_input_token_cost_above_200k_tokens": 2.5e-07,
        "input_cost_per_token_priority": 2.25e-06, "output_cost_per_token_priority": 1.8e-05,
        "input_cost_per_token_above_200k_tokens_priority": 4.5e-06,
        "output_cost_per_token_above_200k_tokens_priority": 2.7e-05}""",
    # Google: text 0.30, audio 1.00, out 2.50, thinking 2.50; batch 0.15, 0.50, 1.25
    "gemini/gemini-2.5-flash": """{"litellm_provider": "gemini", "mode": "chat",
        "input_cost_per_token": 3e-07, "input_cost_per_audio_token": 1e-06, "output_cost_per_token": 2.5e-06,
        "output_cost_per_reasoning_token": 2.5e-06, "cache_read_input_token_cost": 3e-08,
        "input_cost_per_token_batches": 1.5e-07, "input_cost_per_audio_token_batches": 5e-07,
        "output_cost_per_token_batches": 1.25e-06}""",
    # Google: text 0.30 in and 2.50 out, pictures made at 30.00
    "gemini/gemini-2.5-flash-image": """{"litellm_provider": "gemini", "mode": "image_generation",
        "input_cost_per_token": 3e-07, "output_cost_per_token": 2.5e-06, "output_cost_per_image_token": 3e-05,
        "output_cost_per_image": 0.039}""",
    # OpenAI: text 5.00, pictures read 10.00 and made 40.00, cached 1.25
    "gpt-image-1": """{"litellm_provider": "openai", "mode": "image_generation",
        "input_cost_per_token": 5e-06, "cache_read_input_token_cost": 1.25e-06,
        "input_cost_per_image_token": 1e-05, "output_cost_per_image_token": 4e-05}""",
    # Perplexity: 1.00 in, 1.00 out and 0.005 for each request
    "perplexity/sonar": """{"litellm_provider": "perplexity", "mode": "chat",
        "input_cost_per_token": 1e-06, "output_cost_per_token": 1e-06, "input_cost_per_request": 0.005}""",
    # Alibaba, by ranges of the prompt: 0.05 and 0.40 up to 256k, then 0.25 and 2.00
    "dashscope/qwen-flash": """{"litellm_provider": "dashscope", "mode": "chat", "tiered_pricing": [
        {"input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07, "range": [0, 256000.0]},
        {"input_cost_per_token": 2.5e-07, "output_cost_per_token": 2e-06, "range": [256000.0,
        1000000.0]}]}""",
    # Alibaba: 0.40 in, 1.20 out, 4.00 for what it thinks
    "dashscope/qwen-plus": """{"litellm_provider": "dashscope", "mode": "chat",
        "input_cost_per_token": 4e-07, "output_cost_per_token": 1.2e-06,
        "output_cost_per_reasoning_token": 4e-06}""",
    # OpenAI: 0.02, and nothing comes out
    "text-embedding-3-small": """{"litellm_provider": "openai", "mode": "embedding",
        "input_cost_per_token": 2e-08, "output_cost_per_token": 0.0}""",
    "unlisted": """{"litellm_provider": "openai", "mode": "chat",
        "input_cost_per_token": 0.0, "output_cost_per_token": 0.0}""",
}
OWN = {
    # A contract in euros from April on, renewed in July at other prices; 1 EUR was 1.10 USD, from June 1.20
    "mistral/contract": (
        Override(input=Decimal(2), output=Decimal(6), currency="EUR", since=date(2026, 4, 1)),
        Override(input=Decimal(1), output=Decimal(3), currency="EUR", since=date(2026, 7, 1)),
    ),
    # A discount of 20 % on every service, and batch at half of that
    "azure/gpt-4o": Override(
        input=Decimal(2),
        output=Decimal(8),
        cached=Decimal(1),
        factors={"batch": Decimal("0.5"), "priority": Decimal("1.7")},
        tiers=(OverrideTier(above_tokens=100_000, input=Decimal(4)),),
    ),
    "house/free": Override(input=Decimal(0)),
    "house/yen": Override(input=Decimal(100), currency="JPY"),
}
CURRENCIES = {"EUR": {date(2026, 1, 1): Decimal("1.10"), date(2026, 6, 1): Decimal("1.20")}}
BOOK = PriceBook({k: msgspec.Raw(v.encode()) for k, v in MAP.items()}, "page", OWN, CURRENCIES)


def noon(month: int, day: int) -> int:
    return int(datetime(2026, month, day, 12, tzinfo=UTC).timestamp()) * 10**9


def use(into: int = 0, out: int = 0, tier: str = "", **parts: int) -> Usage:
    return Usage(
        input_tokens=into,
        output_tokens=out,
        service_tier=tier,
        **{f"{name}_tokens": n for name, n in parts.items()},
    )


K = 1_000
CASES: dict[str, tuple[str, Usage, int | None]] = {
    # ---- cached: a part of the prompt, billed once (litellm#6215, #14849)
    # 2,000 plain x 2,500 + 8,000 cached x 1,250 + 500 x 10,000
    "cached once": ("openai gpt-4o", use(10 * K, 500, cached_input=8 * K), 20_000_000),
    # 10,000 cached x 1,250: nothing of the prompt is plain
    "all cached": ("openai gpt-4o", use(10 * K, 0, cached_input=10 * K), 12_500_000),
    # 1 plain x 2,500 + 1 cached x 1,250 + 1 x 10,000
    "one of each": ("openai gpt-4o", use(2, 1, cached_input=1), 13_750),
    # no cached price is listed: at the input price. 1,000 x 2,500
    "cached without a price": ("openai gpt-audio", use(K, 0, cached_input=600), 2_500_000),
    # ---- writes to the cache
    # 100 x 3,000 + 500 read x 300 + 400 written x 3,750
    "read and written": (
        "anthropic claude-sonnet-4-5",
        use(K, 0, cached_input=500, cache_write=400),
        1_950_000,
    ),
    # 400 written for an hour x 6,000 + 600 x 3,000
    "written for an hour": (
        "anthropic claude-sonnet-4-5",
        use(K, 0, cache_write=400, cache_write_1h=400),
        4_200_000,
    ),
    # 300 x 3,750 + 100 x 6,000 + 600 x 3,000 + 10 x 15,000
    "written for both": (
        "anthropic claude-sonnet-4-5",
        use(K, 10, cache_write=400, cache_write_1h=100),
        3_675_000,
    ),
    # 1,000 x 2,500: a model without a price for writes bills them as input
    "written without a price": ("openai gpt-4o", use(K, 0, cache_write=K), 2_500_000),
    # ---- tiers by the prompt's length, tested with all of it (litellm#30135)
    # 272,000 x 5,000 + 100 x 30,000: the bound itself is below
    "at the bound": ("openai gpt-5.5", use(272_000, 100), 1_363_000_000),
    # 272,001 x 10,000 + 100 x 45,000: all of the call at the tier's price
    "beyond the bound": ("openai gpt-5.5", use(272_001, 100), 2_724_510_000),
    # 2,001 plain x 10,000 + 270,000 cached x 1,000: cached tokens count towards the bound
    "beyond it by cached tokens": ("openai gpt-5.5", use(272_001, 0, cached_input=270_000), 290_010_000),
    # 1,000 x 1,250 + 300,000 x 10,000: output does not
    "long output": ("gemini gemini-2.5-pro", use(K, 300_000), 3_001_250_000),
    # 200,001 x 2,500 + 1 x 15,000
    "Google's bound": ("gemini gemini-2.5-pro", use(200_001, 1), 500_017_500),
    # 50,001 plain x 2,500 + 150,000 x 250 + 1,000 x 15,000
    "Google's bound by cached": (
        "gemini gemini-2.5-pro",
        use(200_001, K, cached_input=150_000),
        177_502_500,
    ),
    # 256,000 x 50 + 10 x 400
    "lower range": ("dashscope qwen-flash", use(256_000, 10), 12_804_000),
    # 256,001 x 250 + 10 x 2,000
    "upper range": ("dashscope qwen-flash", use(256_001, 10), 64_020_250),
    # ---- service tiers: the one that the answer names
    # 1,000 x 2,500 + 100 x 15,000
    "batch": ("openai gpt-5.5", use(K, 100, "batch"), 4_000_000),
    # 400 x 2,500 + 600 x 250 + 100 x 15,000
    "flex with cached": ("openai gpt-5.5", use(K, 100, "flex", cached_input=600), 2_650_000),
    # 1,000 x 12,500 + 100 x 75,000
    "priority": ("openai gpt-5.5", use(K, 100, "priority"), 20_000_000),
    # 1,000 x 5,000 + 100 x 30,000: what is called default is the plain price
    "default": ("openai gpt-5.5", use(K, 100, "default"), 8_000_000),
    # 300,000 x 5,000 + 100 x 22,500
    "flex beyond the bound": ("openai gpt-5.5", use(300_000, 100, "flex"), 1_502_250_000),
    # 100,000 plain x 5,000 + 200,000 x 500
    "flex beyond it, cached": (
        "openai gpt-5.5",
        use(300_000, 0, "flex", cached_input=200_000),
        600_000_000,
    ),
    # 300,000 x 5,000 + 100 x 22,500
    "batch beyond the bound": ("openai gpt-5.5", use(300_000, 100, "batch"), 1_502_250_000),
    # no priority is listed there: 300,000 x 10,000 + 100 x 45,000, as without it
    "priority beyond the bound": ("openai gpt-5.5", use(300_000, 100, "priority"), 3_004_500_000),
    # 500 x 4,250 + 500 x 2,125 + 10 x 17,000
    "priority with cached": ("openai gpt-4o", use(K, 10, "priority", cached_input=500), 3_357_500),
    # 500 x 1,250 + 500 cached x 1,250 + 10 x 5,000: batch lists no cached price, so it is the plain one
    "batch with cached": ("openai gpt-4o", use(K, 10, "batch", cached_input=500), 1_300_000),
    # 250,000 x 4,500 + 10 x 27,000
    "Google's priority beyond the bound": (
        "gemini gemini-2.5-pro",
        use(250_000, 10, "priority"),
        1_125_270_000,
    ),
    # 600 x 1,500 + 200 x 150 + 200 x 1,875 + 10 x 7,500
    "Anthropic's batch": (
        "anthropic claude-sonnet-4-5",
        use(K, 10, "batch", cached_input=200, cache_write=200),
        1_380_000,
    ),
    # the model lists no flex: what it costs there is not known
    "a tier without a price": ("openai gpt-4o", use(K, 10, "flex"), None),
    # ---- reasoning: a part of the output
    # 1,000 x 1,100 + 500 x 4,400, of which 400 were thought
    "reasoning once": ("openai o4-mini", use(K, 500, reasoning=400), 3_300_000),
    # 60 said x 1,200 + 40 thought x 4,000 + 1,000 x 400
    "reasoning at its own price": ("dashscope qwen-plus", use(K, 100, reasoning=40), 632_000),
    # 200 plain x 550 + 800 x 138 + 100 x 2,200
    "flex with a rounded cached price": ("openai o4-mini", use(K, 100, "flex", cached_input=800), 440_400),
    # 1,000 x 300 + 900 x 2,500, of which 700 were thought at the same price
    "thinking at the output's price": ("gemini gemini-2.5-flash", use(K, 900, reasoning=700), 2_550_000),
    # ---- audio and pictures
    # 200 heard x 32,000 + 800 x 2,500 + 300 spoken x 64,000 + 100 x 10,000
    "audio both ways": (
        "openai gpt-audio",
        use(K, 400, audio_input=200, audio_output=300),
        28_600_000,
    ),
    # 700 heard x 1,000 + 300 x 300 + 10 x 2,500
    "audio in": ("gemini gemini-2.5-flash", use(K, 10, audio_input=700), 815_000),
    # 700 x 500 + 300 x 150 + 10 x 1,250
    "audio in a batch": ("gemini gemini-2.5-flash", use(K, 10, "batch", audio_input=700), 407_500),
    # 1,000 x 2,500: without a price of its own audio is input
    "audio without a price": ("openai gpt-4o", use(K, 0, audio_input=600), 2_500_000),
    # 50 x 300 + 1,290 made x 30,000 + 10 said x 2,500
    "a picture made": ("gemini gemini-2.5-flash-image", use(50, 1_300, image_output=1_290), 38_740_000),
    # 100 x 5,000 + 300 seen x 10,000 + 1,056 made x 40,000
    "a picture changed": (
        "openai gpt-image-1",
        use(400, 1_056, image_input=300, image_output=1_056),
        45_740_000,
    ),
    # ---- per request, and nothing but
    # 5,000,000 + 700 x 1,000 + 100 x 1,000
    "each request": ("perplexity sonar", use(700, 100), 5_800_000),
    # 5,000,000: a request is one, also when it says nothing
    "each request, no tokens": ("perplexity sonar", use(), 5_000_000),
    # 8,191 x 20
    "embeddings": ("openai text-embedding-3-small", use(8_191), 163_820),
    # ---- zero and missing
    "zero usage": ("openai gpt-4o", use(), 0),
    "zero usage of a model without a price": ("openai nobody-knows", use(), None),
    "no price": ("openai nobody-knows", use(K, 10), None),
    "zeros are no price": ("openai unlisted", use(K, 10), None),
    "free by word of our own": ("house free", use(K, 10), 0),
    # ---- prices of one's own
    # 1,000 x 2,000 + 100 x 8,000
    "own": ("azure gpt-4o", use(K, 100), 2_800_000),
    # half of 1,000 x 2,000 + 100 x 8,000
    "own batch": ("azure gpt-4o", use(K, 100, "batch"), 1_400_000),
    # 400 x 3,400 + 600 x 1,700 + 100 x 13,600
    "own priority with cached": ("azure gpt-4o", use(K, 100, "priority", cached_input=600), 3_740_000),
    # 100,001 x 4,000 + 1 x 8,000
    "own tier": ("azure gpt-4o", use(100_001, 1), 400_012_000),
    "a currency without rates": ("house yen", use(K), None),
}
DATED = [
    # The map has nothing of it, and the contract had not begun
    ("before the contract", noon(3, 31), None),
    # 1,000 x 2,000 x 1.10 + 100 x 6,000 x 1.10
    ("in its first quarter", noon(4, 1), 2_860_000),
    # the same at 1.20
    ("at a new rate", noon(6, 1), 3_120_000),
    # 1,000 x 1,000 x 1.20 + 100 x 3,000 x 1.20
    ("at new prices", noon(7, 1), 1_560_000),
    ("and so on", noon(12, 31), 1_560_000),
]
# As providers write it, to what that costs.
ANSWERS: list[tuple[str, str, dict[str, Any], int | None]] = [
    # 200 x 2,500 + 800 x 1,250 + 50 x 10,000
    (
        "a chat with cached tokens",
        "openai gpt-4o",
        {
            "usage": {
                "prompt_tokens": 1000,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 800, "audio_tokens": 0},
            },
            "service_tier": "default",
        },
        2_000_000,
    ),
    # flex was asked for or not: the answer says so. 1,000 x 2,500 + 50 x 15,000
    (
        "served as flex",
        "openai gpt-5.5",
        {"usage": {"prompt_tokens": 1000, "completion_tokens": 50}, "service_tier": "flex"},
        3_250_000,
    ),
    # 1,000 x 5,000 + 50 x 30,000: it was served as default, whatever was asked for
    (
        "flex that was not to be had",
        "openai gpt-5.5",
        {"usage": {"prompt_tokens": 1000, "completion_tokens": 50}, "service_tier": "default"},
        6_500_000,
    ),
    # 300 x 3,000 + 500 x 300 + 150 x 3,750 + 50 x 6,000 + 10 x 15,000
    (
        "Anthropic's cache, as litellm passes it on",
        "anthropic claude-sonnet-4-5",
        {
            "usage": {
                "prompt_tokens": 1000,
                "completion_tokens": 10,
                "prompt_tokens_details": {
                    "cached_tokens": 500,
                    "cache_write_tokens": 200,
                    "cache_creation_token_details": {
                        "ephemeral_5m_input_tokens": 150,
                        "ephemeral_1h_input_tokens": 50,
                    },
                },
            }
        },
        2_062_500,
    ),
    # 60 x 2,500 + 40 x 32,000 + 10 x 10,000 + 90 x 64,000
    (
        "a spoken answer",
        "openai gpt-audio",
        {
            "usage": {
                "prompt_tokens": 100,
                "completion_tokens": 100,
                "prompt_tokens_details": {"audio_tokens": 40, "cached_tokens": 0},
                "completion_tokens_details": {"audio_tokens": 90, "reasoning_tokens": 0},
            }
        },
        7_290_000,
    ),
    # Responses: 100 x 1,100 + 900 x 275 + 300 x 4,400
    (
        "a response that thought",
        "openai o4-mini",
        {
            "usage": {
                "input_tokens": 1000,
                "output_tokens": 300,
                "input_tokens_details": {"cached_tokens": 900},
                "output_tokens_details": {"reasoning_tokens": 250},
            },
            "service_tier": "default",
        },
        1_677_500,
    ),
    # an explicit zero is not missing
    ("zero", "openai gpt-4o", {"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, 0),
]


@pytest.mark.parametrize("case", CASES)
def test_worked_cases(case: str) -> None:
    """Each cost is what the arithmetic in the comment above it says."""
    model, usage, nano = CASES[case]
    provider, name = model.split()
    assert BOOK.cost(name, provider, usage, noon(1, 1)).cost_nano == nano


@pytest.mark.parametrize(("at_ns", "nano"), [case[1:] for case in DATED], ids=[case[0] for case in DATED])
def test_dated_prices(at_ns: int, nano: int | None) -> None:
    """The price and the currency's rate are those of the day on which the call began."""
    assert BOOK.cost("contract", "mistral", use(K, 100), at_ns).cost_nano == nano


@pytest.mark.parametrize(
    ("model", "body", "nano"), [case[1:] for case in ANSWERS], ids=[case[0] for case in ANSWERS]
)
def test_answers(model: str, body: dict[str, Any], nano: int | None) -> None:
    """From the bytes of an answer to its cost, each meter read once."""
    usage = usage_of(json.dumps(body).encode())
    assert usage is not None
    provider, name = model.split()
    assert BOOK.cost(name, provider, usage, noon(1, 1)).cost_nano == nano


def test_a_missing_usage_is_missing() -> None:
    """None, which the pipeline replaces by a count of its own, marked as such: never a zero."""
    assert usage_of(b'{"choices": []}') is None
    estimate = BOOK.estimate("gpt-4o", "openai", 100, 10)
    assert estimate.cost_nano == 100 * 2_500 + 10 * 10_000


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][2] is not None])
def test_no_call_costs_more_than_is_held_for_it(case: str) -> None:
    """Whatever parts its tokens turn out to have, and in whichever tier the answer comes."""
    model, usage, nano = CASES[case]
    provider, name = model.split()
    asked = Usage(input_tokens=usage.input_tokens, output_tokens=usage.output_tokens)
    made = bool(usage.audio_output_tokens or usage.image_output_tokens)
    held = BOOK.most(name, provider, asked, noon(1, 1), made=made)
    assert nano is not None
    if not usage.audio_input_tokens:  # its bytes are held as text, of which there are hundreds for a token
        assert held >= nano

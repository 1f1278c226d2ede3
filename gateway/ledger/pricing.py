"""What a call costs, in integer arithmetic from the price page to the nano-dollar.

Prices are held in atto-dollars (1e-18 USD) per token: the finest public price is 1e-12 USD, and what lies
below 1e-18 in litellm's map is the noise of a float (5.0000000000000004e-8), which rounding to atto-dollars
takes away. A call's meters are summed exactly and rounded once, half up, to nano-dollars (1e-9 USD).

The rules, each of which some gateway got wrong:

- The cached and the cache-write part of the prompt are parts of `input_tokens` and billed once, at their
  own price; where a model lists none for them, at the input price.
- Reasoning is part of `output_tokens` and costs the same unless the model lists a price of its own.
- A context tier applies to the whole call when *all* prompt tokens, cached ones included, exceed its bound.
- A price that is not known is None. So is a map entry that lists zero for everything: for a rented model
  that means "not listed" more often than "free". Who knows it to be free says so in an override.

Cache writes are billed at the five-minute price; batch, flex and priority factors are not applied.
"""

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import ConfigError
from gateway.types import Usage

NANO_PER_USD = 10**9
ATTO_PER_NANO = 10**9
_ATTO = Decimal("1e-18")
_MAP_FILE = "model_prices_and_context_window_backup.json"
_TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")
_BY_THE_TOKEN = frozenset({None, "chat", "completion", "responses", "embedding"})


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Atto-dollars per token of each meter; None: this meter has no known price."""

    input: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    output: int | None = None
    reasoning: int | None = None


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True):
    """One model's price. `tiers` ascend by the number of prompt tokens that must be exceeded."""

    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()
    request: int = 0  # atto-dollars for each call, whatever its tokens

    def rates(self, prompt_tokens: int) -> Rates:
        """The rates of the highest tier that `prompt_tokens`, cached ones included, exceed."""
        rates = self.base
        for above, higher in self.tiers:
            if prompt_tokens > above:
                rates = higher
        return rates


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """A cost in nano-dollars with its source, such as "litellm 1.106.2: gpt-4o-mini"; None: unknown."""

    cost_nano: int | None
    source: str


class OverrideTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices in USD per million tokens once the prompt exceeds `above_tokens`; None: as without the tier."""

    above_tokens: int
    input: Decimal | None = None
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price from the settings, in USD per million tokens as public price pages have it.

    What is None follows the rules at the head of this module; an explicit 0 is a price.
    """

    input: Decimal
    output: Decimal = Decimal(0)
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    reasoning: Decimal | None = None
    request: Decimal = Decimal(0)  # USD for each call
    tiers: tuple[OverrideTier, ...] = ()


class PriceBook:
    """Prices by model and provider: overrides first, then litellm's bundled map."""

    def __init__(
        self,
        listed: Mapping[str, msgspec.Raw],
        source: str,
        overrides: Mapping[str, Override] | None = None,
    ) -> None:
        """`listed` maps keys to JSON objects in litellm's vocabulary; `source` names them in rows.

        `overrides` are keyed like the map: "model", or "provider/model" for that provider alone.
        """
        self._listed, self._source = listed, source
        self._overrides = {key: _from_override(o) for key, o in (overrides or {}).items()}
        self._find = lru_cache(maxsize=4096)(self._look_up)

    @classmethod
    def bundled(cls, overrides: Mapping[str, Override] | None = None) -> "PriceBook":
        """The map inside the installed litellm, read as a file. ConfigError: there is none to be read."""
        spec = importlib.util.find_spec("litellm")
        if spec is None or not spec.submodule_search_locations:
            raise ConfigError("prices", ["litellm is not installed: it carries the price map"])
        path = Path(spec.submodule_search_locations[0]) / _MAP_FILE
        try:
            listed = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
        except (OSError, msgspec.MsgspecError) as e:
            raise ConfigError("prices", [f"litellm's price map cannot be read: {e}"]) from e
        return cls(listed, f"litellm {importlib.metadata.version('litellm')}", overrides)

    def cost(self, model: str, provider: str, usage: Usage) -> Priced:
        """What `usage` of `model` costs. `provider` is litellm's name for it, "" where there is none."""
        price, source = self._find(model, provider)
        return Priced(cost_nano=None if price is None else cost_nano(price, usage), source=source)

    def price(self, model: str, provider: str) -> ModelPrice | None:
        """What its tokens cost; None: unknown."""
        return self._find(model, provider)[0]

    def estimate(self, model: str, provider: str, input_tokens: int, output_tokens: int) -> Priced:
        """What a call of that size would cost with nothing cached."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=True)
        return self.cost(model, provider, usage)

    def _look_up(self, model: str, provider: str) -> tuple[ModelPrice | None, str]:
        keys = tuple(_keys(model, provider))
        for key in keys:
            if key in self._overrides:
                return self._overrides[key], f"override: {key}"
        for key in keys:
            price = self._from_map(key, provider)
            if price is not None:
                return price, f"{self._source}: {key}"
        return None, f"unknown: {keys[0]}"

    def _from_map(self, key: str, provider: str) -> ModelPrice | None:
        if key not in self._listed:
            return None
        # Decimals straight from the file's digits, so that no float ever holds a price.
        listed = json.loads(bytes(self._listed[key]), parse_float=Decimal)
        bare = "/" not in key
        if bare and provider and not _same_provider(str(listed.get("litellm_provider", "")), provider):
            return None  # the same name elsewhere may well cost something else
        return _from_litellm(listed)


def cost_nano(price: ModelPrice, usage: Usage) -> int | None:
    """Nano-dollars for `usage`, rounded half up once; None when a meter that was used has no price."""
    rates = price.rates(usage.input_tokens)
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    reasoning = usage.reasoning_tokens
    plain, said = usage.input_tokens - cached - written, usage.output_tokens - reasoning
    meters = [(plain, rates.input), (said, rates.output)]
    if cached or written or reasoning:
        meters += [
            (cached, _first(rates.cached, rates.input)),
            (written, _first(rates.cache_write, rates.input)),
            (reasoning, _first(rates.reasoning, rates.output)),
        ]
    atto = price.request
    for tokens, rate in meters:
        if tokens > 0:
            if rate is None:
                return None
            atto += tokens * rate
    return (atto + ATTO_PER_NANO // 2) // ATTO_PER_NANO


def usd(nano: int) -> str:
    """Nano-dollars as an exact decimal of US dollars with nine places."""
    whole, part = divmod(abs(nano), NANO_PER_USD)
    return f"{'-' if nano < 0 else ''}{whole}.{part:09d}"


def _keys(model: str, provider: str) -> Iterator[str]:
    """Where to look, the most telling key first: "provider/model", "model", a fine-tuned model's base."""
    if provider and not model.startswith(f"{provider}/"):
        yield f"{provider}/{model}"
    yield model
    if model.startswith("ft:"):  # ft:base:organisation:suffix:id costs what ft:base does
        yield ":".join(model.split(":")[:2])


def _same_provider(listed: str, asked: str) -> bool:
    """Whether litellm's finer name (vertex_ai-language-models, bedrock_converse) is of that provider."""
    return listed == asked or listed.startswith((f"{asked}-", f"{asked}_")) or listed.endswith(f"-{asked}")


def _from_litellm(listed: Mapping[str, Any]) -> ModelPrice | None:
    """A map entry, or None when it does not price tokens (images, seconds, queries; nothing but zeros)."""
    if listed.get("mode") not in _BY_THE_TOKEN:
        return None
    ranges = sorted(listed.get("tiered_pricing") or (), key=lambda r: r["range"][0])
    if ranges:
        base, tiers = _listed_rates(ranges[0]), [(int(r["range"][0]), _listed_rates(r)) for r in ranges[1:]]
    else:
        base = _listed_rates(listed)
        bounds = sorted(int(m[1]) for key in listed if (m := _TIER.fullmatch(key)))
        tiers = [(k * 1000, _listed_rates(listed, base, f"_above_{k}k_tokens")) for k in bounds]
    price = ModelPrice(
        base=base, tiers=tuple(tiers), request=_atto(listed.get("input_cost_per_request")) or 0
    )
    return price if base.input or base.output or price.request else None


def _listed_rates(listed: Mapping[str, Any], base: Rates | None = None, tier: str = "") -> Rates:
    """The rates under litellm's keys with that ending; a meter that a tier does not list stays at `base`."""
    base = base or Rates()
    return Rates(
        input=_first(_atto(listed.get(f"input_cost_per_token{tier}")), base.input),
        cached=_first(_atto(listed.get(f"cache_read_input_token_cost{tier}")), base.cached),
        cache_write=_first(_atto(listed.get(f"cache_creation_input_token_cost{tier}")), base.cache_write),
        output=_first(_atto(listed.get(f"output_cost_per_token{tier}")), base.output),
        reasoning=_first(_atto(listed.get(f"output_cost_per_reasoning_token{tier}")), base.reasoning),
    )


def _from_override(override: Override) -> ModelPrice:
    base = _override_rates(override, Rates())
    ascending = sorted(override.tiers, key=lambda t: t.above_tokens)
    tiers = [(t.above_tokens, _override_rates(t, base)) for t in ascending]
    return ModelPrice(base=base, tiers=tuple(tiers), request=_atto(override.request) or 0)


def _override_rates(prices: Override | OverrideTier, base: Rates) -> Rates:
    def per_token(price: Decimal | None) -> int | None:
        return None if price is None else _atto(price / 10**6)

    return Rates(
        input=_first(per_token(prices.input), base.input),
        cached=_first(per_token(prices.cached), base.cached),
        cache_write=_first(per_token(prices.cache_write), base.cache_write),
        output=_first(per_token(prices.output), base.output),
        reasoning=_first(per_token(prices.reasoning), base.reasoning),
    )


def _atto(price: Any) -> int | None:
    """Whole atto-dollars, rounded half to even; None for what is no price."""
    if not isinstance(price, (int, Decimal)) or price < 0:
        return None
    return int((Decimal(price) / _ATTO).to_integral_value())


def _first(rate: int | None, otherwise: int | None) -> int | None:
    return otherwise if rate is None else rate

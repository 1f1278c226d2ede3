"""litellm's map of public prices, read as the file that it is: litellm itself is never imported here."""

import importlib.metadata
import importlib.util
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from gateway.errors import ConfigError
from gateway.ledger.prices.rates import METERS, ModelPrice, Rates, Schedule, to_atto

Listed = Mapping[str, msgspec.Raw]
"""Keys to JSON objects in litellm's vocabulary."""

_MAP_FILE = "model_prices_and_context_window_backup.json"
_TIER = re.compile(r"input_cost_per_token_above_(\d+)k_tokens")
_BY_THE_TOKEN = frozenset({None, "chat", "completion", "responses", "embedding", "realtime"})
# Service tier -> the ending of litellm's keys for it.
_SERVICES = {
    "batch": "_batches",
    "flex": "_flex",
    "priority": "_priority",
    "balanced": "_balanced",
    "ultrafast": "_ultrafast",
}
_KEYS = {
    "input": "input_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "output": "output_cost_per_token",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_output": "output_cost_per_audio_token",
    "image_output": "output_cost_per_image_token",
}


def bundled() -> tuple[Listed, str]:
    """The map inside the installed litellm, and the name of its version. ConfigError: it cannot be read."""
    spec = importlib.util.find_spec("litellm")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("prices", ["litellm is not installed: it carries the price map"])
    path = Path(spec.submodule_search_locations[0]) / _MAP_FILE
    return read_map(path), f"litellm {importlib.metadata.version('litellm')}"


def read_map(path: Path) -> Listed:
    """Raises ConfigError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.MsgspecError) as e:
        raise ConfigError("prices", [f"the price map {path} cannot be read: {e}"]) from e


def price_of(raw: msgspec.Raw, provider: str = "", *, bare: bool = False) -> ModelPrice | None:
    """What an entry prices by the token; None: nothing, or, found by its `bare` name, another provider's."""
    # Decimals straight from the file's digits, so that no float ever holds a price.
    listed = json.loads(bytes(raw), parse_float=Decimal)
    if not isinstance(listed, dict):
        return None
    if bare and provider and not _same_provider(str(listed.get("litellm_provider", "")), provider):
        return None  # the same name elsewhere may well cost something else
    return _from_litellm(listed)


def _same_provider(listed: str, asked: str) -> bool:
    """Whether litellm's finer name (vertex_ai-language-models, bedrock_converse) is of that provider."""
    return listed == asked or listed.startswith((f"{asked}-", f"{asked}_")) or listed.endswith(f"-{asked}")


def _from_litellm(listed: Mapping[str, Any]) -> ModelPrice | None:
    """A map entry, or None when it does not price tokens (pixels, seconds, queries; nothing but zeros)."""
    if listed.get("mode") not in _BY_THE_TOKEN and "output_cost_per_image_token" not in listed:
        return None
    standard = _ranges(listed) or _schedule(listed, "", None)
    services = {
        name: _schedule(listed, ending, standard)
        for name, ending in _SERVICES.items()
        if f"input_cost_per_token{ending}" in listed or f"output_cost_per_token{ending}" in listed
    }
    price = ModelPrice(
        base=standard.base,
        tiers=standard.tiers,
        services=services,
        request=to_atto(listed.get("input_cost_per_request")) or 0,
    )
    return price if price.base.input or price.base.output or price.request else None


def _ranges(listed: Mapping[str, Any]) -> Schedule | None:
    """Prices listed by ranges of the prompt's length."""
    found = sorted(listed.get("tiered_pricing") or (), key=lambda r: r["range"][0])
    if not found:
        return None
    tiers = tuple((int(r["range"][0]), _rates(r, "")) for r in found[1:])
    return Schedule(base=_rates(found[0], ""), tiers=tiers)


def _schedule(listed: Mapping[str, Any], ending: str, standard: Schedule | None) -> Schedule:
    """Of the service whose keys have that ending; what it leaves out is as in `standard`."""
    base = _rates(listed, ending).over(standard.base if standard else Rates())
    bounds = sorted({int(m[1]) for key in listed if (m := _TIER.match(key))})
    tiers = [
        (
            k * 1000,
            _rates(listed, f"_above_{k}k_tokens{ending}").over(
                standard.rates(k * 1000 + 1) if standard else base
            ),
        )
        for k in bounds
    ]
    return Schedule(base=base, tiers=tuple(tiers))


def _rates(listed: Mapping[str, Any], ending: str) -> Rates:
    return Rates(**{meter: to_atto(listed.get(f"{_KEYS[meter]}{ending}")) for meter in METERS})

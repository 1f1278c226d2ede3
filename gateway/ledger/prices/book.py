"""Which price holds for a model of a provider at an instant: overrides first, then litellm's map."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec

from gateway.ledger.prices.listed import Listed, bundled, price_of
from gateway.ledger.prices.overrides import Currencies, Override, Version, versions
from gateway.ledger.prices.rates import Dearest, ModelPrice, Priced, cost_nano, dearest
from gateway.types import Usage

_MOST_KNOWN = 4096
Overrides = Mapping[str, Override | Iterable[Override]]
"""By the map's keys: "model", or "provider/model" for that provider alone; several where they are dated."""


class PriceBook:
    """Safe to use from several threads; `follow` swaps the overrides of admins as a whole."""

    def __init__(
        self,
        listed: Listed,
        source: str,
        overrides: Overrides | None = None,
        currencies: Currencies | None = None,
    ) -> None:
        """`listed` maps keys to JSON objects in litellm's vocabulary; `source` names them in rows.

        ValueError: two overrides of one model begin on one day.
        """
        self._listed, self._source = listed, source
        self._own, self._currencies = dict(overrides or {}), currencies or {}
        self._dearest: dict[tuple[str, str, str, bool], tuple[Version, Dearest]] = {}
        self.follow({})

    @classmethod
    def bundled(cls, overrides: Overrides | None = None, currencies: Currencies | None = None) -> "PriceBook":
        """Over the map inside the installed litellm. ConfigError: there is none to be read."""
        listed, source = bundled()
        return cls(listed, source, overrides, currencies)

    def follow(self, more: Overrides) -> None:
        """Puts overrides into force beside those of the configuration, whose keys they take over.

        ValueError: two of one model begin on one day; then the last ones stay.
        """
        overrides = self._own | dict(more)
        found = {
            key: versions(key, [o] if isinstance(o, Override) else o, self._currencies)
            for key, o in overrides.items()
        }

        @lru_cache(maxsize=4096)
        def versions_of(model: str, provider: str) -> tuple[Version, ...]:
            return tuple(self._look_up(found, model, provider))

        self.versions = versions_of

    def at(self, model: str, provider: str, at_ns: int | None = None) -> Version:
        """The price at an instant (Unix nanoseconds), without one the last that is known of.

        `provider` is litellm's name for it, "" where there is none.
        """
        found = self.versions(model, provider)
        if at_ns is None or len(found) == 1:
            return found[-1]
        return found[max(0, bisect_right([version.since_ns for version in found], at_ns) - 1)]

    def cost(self, model: str, provider: str, usage: Usage, at_ns: int | None = None) -> Priced:
        """What `usage` of `model` costs where the call began at `at_ns`."""
        version = self.at(model, provider, at_ns)
        cost = None if version.price is None else cost_nano(version.price, usage)
        return Priced(cost_nano=cost, source=version.source)

    def most(self, model: str, provider: str, usage: Usage, at_ns: int, *, made: bool = False) -> int:
        """Nano-dollars that no call of up to that usage costs more than; 0: the price is unknown."""
        version = self.at(model, provider, at_ns)
        if version.price is None:
            return 0
        place = (model, provider, usage.service_tier, made)
        known = self._dearest.get(place)
        if known is None or known[0] is not version:
            if len(self._dearest) >= _MOST_KNOWN:  # clients choose service tiers
                self._dearest.clear()
            known = self._dearest[place] = version, dearest(version.price, usage.service_tier, made)
        return known[1].nano(usage)

    def estimate(self, model: str, provider: str, input_tokens: int, output_tokens: int) -> Priced:
        """What a call of that size would cost with nothing cached."""
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens, estimated=True)
        return self.cost(model, provider, usage)

    def _look_up(
        self, overrides: Mapping[str, tuple[Version, ...]], model: str, provider: str
    ) -> Iterator[Version]:
        keys = tuple(_keys(model, provider))
        own = next((overrides[key] for key in keys if overrides.get(key)), ())
        if not own or own[0].since_ns > 0:
            yield self._of_map(keys, provider)
        yield from own

    def _of_map(self, keys: tuple[str, ...], provider: str) -> Version:
        for key in keys:
            raw = self._listed.get(key)
            price: ModelPrice | None = None
            if raw is not None:
                price = price_of(raw, provider, bare="/" not in key)
            if price is not None:
                return Version(since_ns=0, price=price, source=f"{self._source}: {key}")
        return Version(since_ns=0, price=None, source=f"unknown: {keys[0]}")

    @property
    def source(self) -> str:
        """What the map is called."""
        return self._source

    @property
    def listed(self) -> Mapping[str, msgspec.Raw]:
        return self._listed


def _keys(model: str, provider: str) -> Iterator[str]:
    """Where to look, the most telling key first: "provider/model", "model", a fine-tuned model's base."""
    if provider and not model.startswith(f"{provider}/"):
        yield f"{provider}/{model}"
    yield model
    if model.startswith("ft:"):  # ft:base:organisation:suffix:id costs what ft:base does
        yield ":".join(model.split(":")[:2])

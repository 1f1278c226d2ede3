"""List prices by meter, for exports and comparisons: the price book seen from the ledger's rows."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from gateway.errors import ConfigError
from gateway.ledger.prices import NANO_PER_USD, ModelPrice, Override, PriceBook
from gateway.ledger.prices.overrides import Version
from gateway.ledger.prices.rates import METERS as TOKENS
from gateway.ledger.prices.rates import by_meter
from gateway.ledger.sums import Sums
from gateway.settings import OpenAISettings, Settings, VllmSettings

# Meters of one request, each token in one of them, in the order in which price pages have them.
METERS = {
    "Input Tokens": "input",
    "Cached Input Tokens": "cached",
    "Cache Write Tokens": "cache_write",
    "Cache Write Tokens Kept 1 Hour": "cache_write_1h",
    "Audio Input Tokens": "audio_input",
    "Image Input Tokens": "image_input",
    "Output Tokens": "output",
    "Reasoning Tokens": "reasoning",
    "Audio Output Tokens": "audio_output",
    "Image Output Tokens": "image_output",
    "Requests": "request",
}


def price_book(settings: Settings) -> PriceBook:
    """The bundled map under the prices of the configuration. Raises ConfigError."""
    own = {
        key: [msgspec.convert(found.model_dump(), Override) for found in versions]
        for key, versions in settings.prices.items()
    }
    try:
        return PriceBook.bundled(own, settings.currencies)
    except ValueError as error:
        raise ConfigError("prices", [str(error)]) from error


class ListPrices:
    """What a model lists, in atto-dollars (1e-18 USD) for one unit of each meter."""

    def __init__(self, book: PriceBook, providers: Mapping[str, str]) -> None:
        """`providers`: the price book's name of the provider, by backend; a replica of ours has none."""
        self._book, self._providers = book, providers

    @classmethod
    def of(cls, settings: Settings) -> "ListPrices":
        """Raises ConfigError: there is no price map."""
        return cls(price_book(settings), providers_of(settings))

    def bounds(self, model: str, backend: str) -> tuple[int, ...]:
        """Prompt lengths in tokens beyond which the model has other rates, in any version of its price."""
        prices = [version.price for version in self._versions(model, backend) if version.price]
        schedules = [s for price in prices for s in (price, *price.services.values())]
        return tuple(sorted({above for schedule in schedules for above, _ in schedule.tiers}))

    def tier(self, model: str, backend: str, above_tokens: int) -> int:
        """The model's own bound for prompts beyond `above_tokens`, which may be another model's; 0: none."""
        return max((bound for bound in self.bounds(model, backend) if bound <= above_tokens), default=0)

    def unit_atto(
        self, model: str, backend: str, above_tokens: int, *, service: str = "", source: str | None = None
    ) -> dict[str, int] | None:
        """Meter -> atto-dollars, for prompts beyond `above_tokens`; None: nothing is listed for that service.

        By the version of the price that rows call `source`; without it by the last.
        """
        found = self._versions(model, backend)
        named = [v.price for v in found if source in (None, v.source)]
        price: ModelPrice | None = named[-1] if named else None
        schedule = None if price is None else price.schedule(service)
        if price is None or schedule is None:
            return None
        rates = schedule.rates(above_tokens + 1 if above_tokens else 0)
        units = {meter: rates.of(meter) for meter in TOKENS}
        return {meter: unit for meter, unit in units.items() if unit is not None} | {"request": price.request}

    def source(self, model: str, backend: str) -> str:
        """What a ledger row says that is priced by this now."""
        return self._versions(model, backend)[-1].source

    def _versions(self, model: str, backend: str) -> tuple[Version, ...]:
        return self._book.versions(model, self._providers.get(backend, ""))


def providers_of(settings: Settings) -> dict[str, str]:
    """Backend -> the price book's name of its provider; those of ours are not there."""
    return {
        name: backend.price_as if isinstance(backend, OpenAISettings) else backend.provider
        for name, backend in settings.backends.items()
        if not isinstance(backend, VllmSettings)
    }


def hourly_of(settings: Settings) -> dict[str, int]:
    """Backend of ours -> nano-dollars an hour of all its replicas, electricity and overhead included."""
    return {
        name: int(backend.loaded_usd_per_hour * NANO_PER_USD)
        for name, backend in settings.backends.items()
        if isinstance(backend, VllmSettings)
    }


def kilowatts_of(settings: Settings) -> dict[str, Decimal]:
    """Backend of ours -> what all its replicas draw at the site's meter, where the configuration says so."""
    own = {name: b for name, b in settings.backends.items() if isinstance(b, VllmSettings)}
    return {name: backend.kilowatts for name, backend in own.items() if backend.power}


def quantities(sums: Sums) -> dict[str, int]:
    """Meter -> units used. They sum to the group's tokens, and its requests."""
    return by_meter(sums) | {"request": sums.requests}

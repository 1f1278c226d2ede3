"""List prices by meter, for exports and comparisons: the price book seen from the ledger's rows."""

from collections.abc import Mapping

from gateway.ledger.pricing import NANO_PER_USD, ModelPrice, Override, PriceBook
from gateway.ledger.sums import Sums
from gateway.settings import OpenAISettings, Settings, VllmSettings

# Meters of one request, each token in one of them, in the order in which price pages have them.
METERS = {
    "Input Tokens": "input",
    "Cached Input Tokens": "cached",
    "Cache Write Tokens": "cache_write",
    "Output Tokens": "output",
    "Reasoning Tokens": "reasoning",
    "Requests": "request",
}
_WHOLE = {"cached": "input", "cache_write": "input", "reasoning": "output"}


class ListPrices:
    """What a model lists, in atto-dollars (1e-18 USD) for one unit of each meter."""

    def __init__(self, book: PriceBook, providers: Mapping[str, str]) -> None:
        """`providers`: the price book's name of the provider, by backend; a replica of ours has none."""
        self._book, self._providers = book, providers

    @classmethod
    def of(cls, settings: Settings) -> "ListPrices":
        """Raises ConfigError: there is no price map."""
        book = PriceBook.bundled({name: Override(**dict(p)) for name, p in settings.prices.items()})
        return cls(book, providers_of(settings))

    def bounds(self, model: str, backend: str) -> tuple[int, ...]:
        """Prompt lengths in tokens beyond which the model has other rates."""
        price = self._price(model, backend)[0]
        return () if price is None else tuple(above for above, _ in price.tiers)

    def tier(self, model: str, backend: str, above_tokens: int) -> int:
        """The model's own bound for prompts beyond `above_tokens`, which may be another model's; 0: none."""
        return max((bound for bound in self.bounds(model, backend) if bound <= above_tokens), default=0)

    def unit_atto(self, model: str, backend: str, above_tokens: int) -> dict[str, int] | None:
        """Meter -> atto-dollars, for prompts beyond `above_tokens`; None: nothing is listed."""
        price = self._price(model, backend)[0]
        if price is None:
            return None
        rates = price.rates(above_tokens + 1 if above_tokens else 0)
        listed = {name: getattr(rates, name) for name in METERS.values() if name != "request"}
        found = {name: rate for name, rate in listed.items() if rate is not None}
        for part, whole in _WHOLE.items():
            if part not in found and whole in found:
                found[part] = found[whole]
        return found | {"request": price.request}

    def source(self, model: str, backend: str) -> str:
        """What a ledger row says that was priced by this."""
        return self._price(model, backend)[1]

    def _price(self, model: str, backend: str) -> tuple[ModelPrice | None, str]:
        return self._book._find(model, self._providers.get(backend, ""))


def providers_of(settings: Settings) -> dict[str, str]:
    """Backend -> the price book's name of its provider; those of ours are not there."""
    return {
        name: backend.price_as if isinstance(backend, OpenAISettings) else backend.provider
        for name, backend in settings.backends.items()
        if not isinstance(backend, VllmSettings)
    }


def hourly_of(settings: Settings) -> dict[str, int]:
    """Backend of ours -> nano-dollars an hour."""
    return {
        name: int(backend.usd_per_hour * NANO_PER_USD)
        for name, backend in settings.backends.items()
        if isinstance(backend, VllmSettings)
    }


def quantities(sums: Sums) -> dict[str, int]:
    """Meter -> units used. They sum to the group's tokens, and its requests."""
    cached, written, thought = sums.cached_input_tokens, sums.cache_write_tokens, sums.reasoning_tokens
    return {
        "input": sums.input_tokens - cached - written,
        "cached": cached,
        "cache_write": written,
        "output": sums.output_tokens - thought,
        "reasoning": thought,
        "request": sums.requests,
    }

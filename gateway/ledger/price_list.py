"""What decisions know of prices: the price book and the replicas' hours, by backend and model."""

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from gateway.ledger.prices import NANO_PER_USD, ModelPrice, PriceBook
from gateway.settings import AnyBackend, OpenAISettings, VllmSettings
from router_policies.types import Place, Price

_ATTO_PER_TOKEN = 1000  # in one nano-dollar per million tokens
_DAY_S = 86_400


class PriceList(Mapping[Place, Price]):
    """Looks a price up when it is asked for: clients may name any model. Keeps the last few thousand, until
    the book's prices change or a day begins, on which other ones may hold."""

    def __init__(self, backends: Mapping[str, AnyBackend], book: PriceBook) -> None:
        self._backends, self._book = backends, book
        self._renew()

    def get(self, place: Place, default: Any = None) -> Any:
        if self._book.versions is not self._versions or time.time() >= self._until:
            self._renew()
        price = self._known(place)
        return default if price is None else price

    def _renew(self) -> None:
        self._versions, self._until = self._book.versions, (time.time() // _DAY_S + 1) * _DAY_S
        self._known = lru_cache(maxsize=4096)(self._find)

    def __getitem__(self, place: Place) -> Price:
        price: Price | None = self.get(place)
        if price is None:
            raise KeyError(place)
        return price

    def __iter__(self) -> Iterator[Place]:
        """Those of the models that the configuration names."""
        for name, backend in self._backends.items():
            models = (backend.model,) if isinstance(backend, VllmSettings) else backend.models
            yield from ((name, model) for model in models if self.get((name, model)) is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _find(self, place: Place) -> Price | None:
        name, model = place
        backend = self._backends.get(name)
        if backend is None:
            return None
        if isinstance(backend, VllmSettings):
            return Price(hour=int(backend.loaded_usd_per_hour * NANO_PER_USD))
        provider = backend.price_as if isinstance(backend, OpenAISettings) else backend.provider
        price = self._book.at(model, provider, time.time_ns()).price
        return None if price is None else _by_the_million(price)


def _by_the_million(price: ModelPrice) -> Price:
    """Rounded down to nano-dollars per million tokens, which is far below what prices differ by."""
    base = price.base
    tiers = ((above, rates.input or 0, rates.output or 0) for above, rates in price.tiers)
    return Price(
        input=(base.input or 0) // _ATTO_PER_TOKEN,
        output=(base.output or 0) // _ATTO_PER_TOKEN,
        cached=None if base.cached is None else base.cached // _ATTO_PER_TOKEN,
        tiers=tuple((above, i // _ATTO_PER_TOKEN, o // _ATTO_PER_TOKEN) for above, i, o in tiers),
    )

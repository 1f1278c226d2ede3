"""What decisions know of prices."""

from decimal import Decimal

import pytest

from gateway.ledger.price_list import PriceList
from gateway.ledger.prices import Override, OverrideTier, PriceBook
from gateway.settings import OpenAISettings, VllmSettings
from router_policies.types import Price

BOOK = PriceBook(
    {},
    "none",
    {
        "m": Override(input=Decimal("0.15"), output=Decimal("0.6"), cached=Decimal("0.075")),
        "tiered": Override(
            input=Decimal(1), output=Decimal(2), tiers=(OverrideTier(above_tokens=9, input=Decimal(3)),)
        ),
    },
)
LIST = PriceList(
    {
        "rented": OpenAISettings(kind="openai", zone="z", url="https://x.example/v1", models=("m", "odd")),
        "own": VllmSettings(
            kind="vllm", zone="z", url="http://127.0.0.1:1", model="base", usd_per_hour=Decimal("0.4")
        ),
    },
    BOOK,
)


def test_prices_are_in_nano_dollars_a_million() -> None:
    """As the price page has them, times 1e9; a replica's is by the hour, whatever it serves."""
    assert LIST[("rented", "m")] == Price(input=150_000_000, output=600_000_000, cached=75_000_000)
    assert LIST[("rented", "tiered")].tiers == ((9, 3 * 10**9, 2 * 10**9),)
    assert LIST[("own", "any@0123456789ab")] == Price(hour=400_000_000)


def test_prices_follow_the_book() -> None:
    """A price that an admin sets holds for the next decision, also where another was known before."""
    book = PriceBook({}, "none", {"m": Override(input=Decimal(1))})
    backend = OpenAISettings(kind="openai", zone="z", url="https://x.example/v1", models=("m",))
    found = PriceList({"rented": backend}, book)
    assert found[("rented", "m")].input == 10**9
    book.follow({"m": [Override(input=Decimal(2))]})
    assert found[("rented", "m")].input == 2 * 10**9


def test_what_is_not_known_is_not_there() -> None:
    """No price is invented for a model or backend that nobody lists."""
    assert LIST.get(("rented", "odd")) is None
    assert LIST.get(("nowhere", "m")) is None
    with pytest.raises(KeyError):
        LIST[("rented", "odd")]
    assert list(LIST) == [("rented", "m"), ("own", "base")]
    assert len(LIST) == 2

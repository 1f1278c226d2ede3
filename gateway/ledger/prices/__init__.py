"""What a call costs, in integer arithmetic from the price page to the nano-dollar.

    rates       one model's rates, and what a call's meters cost at them
    listed      litellm's map, read into rates
    overrides   prices of one's own: dated, in any currency that has dated rates
    book        which price holds for a model, a provider and an instant
    diff        what another map would change

Prices are held in atto-dollars (1e-18 USD) per unit: the finest public price is 1e-12 USD, and what lies
below 1e-18 in litellm's map is the noise of a float (5.0000000000000004e-8), which rounding to atto-dollars
takes away. A call's meters are summed exactly and rounded once, half up, to nano-dollars (1e-9 USD).

The rules, each of which some gateway got wrong:

- The cached, written, audio and image parts of the prompt are parts of `input_tokens` and billed once, at
  their own price; where a model lists none for them, at the input price (a write kept for an hour: at that
  of a write). So are the reasoning, audio and image parts of `output_tokens`.
- A context tier applies to the whole call when *all* prompt tokens, cached ones included, exceed its bound.
- The service tier (flex, priority, batch) is the one that the answer names, not the one that was asked for.
  A model that lists no price for it has an unknown price there. A meter that a service or context tier does
  not list stays at the rate without it.
- A price that is not known is None. So is a map entry that lists zero for everything: for a rented model
  that means "not listed" more often than "free". Who knows it to be free says so in an override.

Discounts by the hour of the day and fees for tools (web search, code interpreters) are not applied.
"""

from gateway.ledger.prices.book import PriceBook
from gateway.ledger.prices.overrides import Currencies, Override, OverrideTier
from gateway.ledger.prices.rates import (
    ATTO_PER_NANO,
    NANO_PER_USD,
    ModelPrice,
    Priced,
    Rates,
    Schedule,
    cost_nano,
    usd,
)

__all__ = [
    "ATTO_PER_NANO",
    "NANO_PER_USD",
    "Currencies",
    "ModelPrice",
    "Override",
    "OverrideTier",
    "PriceBook",
    "Priced",
    "Rates",
    "Schedule",
    "cost_nano",
    "usd",
]

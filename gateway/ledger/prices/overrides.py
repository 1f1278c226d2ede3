"""Prices of one's own: from a day on, in any currency that has dated rates, with factors by service tier."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

import msgspec

from gateway.ledger.prices.rates import METERS, ModelPrice, Rates, Schedule, to_atto

USD = "USD"
FIRST_DAY = date(1970, 1, 1)
Currencies = Mapping[str, Mapping[date, Decimal]]
"""Currency -> from which day of UTC on -> US dollars for one unit of it."""


class OverrideTier(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Prices per million tokens once the prompt exceeds `above_tokens`; None: as without the tier."""

    above_tokens: int
    input: Decimal | None = None
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    image_input: Decimal | None = None
    output: Decimal | None = None
    reasoning: Decimal | None = None
    audio_output: Decimal | None = None
    image_output: Decimal | None = None


class Override(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price of one's own, per million tokens as public price pages have it.

    What is None follows the rules at the head of this package; an explicit 0 is a price.
    """

    input: Decimal
    output: Decimal = Decimal(0)
    cached: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    image_input: Decimal | None = None
    reasoning: Decimal | None = None
    audio_output: Decimal | None = None
    image_output: Decimal | None = None
    request: Decimal = Decimal(0)  # for each call
    tiers: tuple[OverrideTier, ...] = ()
    factors: dict[str, Decimal] = {}  # service tier, such as batch, flex or priority -> times the price
    currency: str = USD
    since: date = FIRST_DAY  # the first day, in UTC, that it is for


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A price and its source from an instant (Unix nanoseconds) on; None: unknown from then on."""

    since_ns: int
    price: ModelPrice | None
    source: str


def versions(key: str, overrides: Iterable[Override], currencies: Currencies) -> tuple[Version, ...]:
    """The overrides of one model by their beginnings, anew wherever the rate of a currency changes.

    Before the first rate of its currency a price is unknown. ValueError: two begin on one day.
    """
    ascending = sorted(overrides, key=lambda o: o.since)
    days = [override.since for override in ascending]
    if len(set(days)) < len(days):
        raise ValueError(f"{key!r} has two prices that begin on one day")
    found: list[Version] = []
    for override, after in zip(ascending, [*days[1:], date.max], strict=True):
        for day, rate in _rates_within(override, after, currencies):
            found.append(
                Version(
                    since_ns=_ns(day),
                    price=None if rate is None else _price(override, rate),
                    source=_source(key, override, rate),
                )
            )
    return tuple(found)


def _rates_within(
    override: Override, after: date, currencies: Currencies
) -> Sequence[tuple[date, Decimal | None]]:
    """From which days on which rate holds, while the override does."""
    if override.currency == USD:
        return [(override.since, Decimal(1))]
    dated = sorted(currencies.get(override.currency, {}).items())
    before = [rate for day, rate in dated if day <= override.since]
    first = before[-1] if before else None
    return [(override.since, first), *((d, rate) for d, rate in dated if override.since < d < after)]


def _source(key: str, override: Override, rate: Decimal | None) -> str:
    dated = "" if override.since == FIRST_DAY else f" from {override.since}"
    if override.currency == USD:
        return f"override: {key}{dated}"
    if rate is None:
        return f"unknown: {key}{dated}, no rate of {override.currency}"
    return f"override: {key}{dated}, {override.currency} at {rate} USD"


def _price(override: Override, rate: Decimal) -> ModelPrice:
    base = _rates(override, rate)
    ascending = sorted(override.tiers, key=lambda t: t.above_tokens)
    tiers = tuple((t.above_tokens, _rates(t, rate).over(base)) for t in ascending)
    standard = Schedule(base=base, tiers=tiers)
    return ModelPrice(
        base=base,
        tiers=tiers,
        services={service: standard.times(factor) for service, factor in override.factors.items()},
        request=to_atto(override.request * rate) or 0,
    )


def _rates(prices: Override | OverrideTier, rate: Decimal) -> Rates:
    listed = {meter: getattr(prices, meter) for meter in METERS}
    return Rates(**{m: None if p is None else to_atto(p * rate / 10**6) for m, p in listed.items()})


def _ns(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 10**9

"""What another version of litellm's map would change, for the models that one asks about."""

from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec

from gateway.ledger.prices.listed import Listed, price_of
from gateway.ledger.prices.rates import ATTO, METERS, ModelPrice, Rates, Schedule


class Change(msgspec.Struct, frozen=True):
    """One rate in US dollars per million tokens, or for each request. None: not listed."""

    key: str
    what: str  # such as "output", or "input above 200,000 tokens, flex"
    old: Decimal | None
    new: Decimal | None


def changes(old: Listed, new: Listed, keys: Iterable[str] | None = None) -> Iterator[Change]:
    """By key of the map and rate; `keys`: only these, else all that either map has."""
    for key in sorted(set(keys) if keys is not None else {*old, *new}):
        before, after = _listed(old, key), _listed(new, key)
        for what in sorted({*before, *after}):
            if before.get(what) != after.get(what):
                yield Change(key, what, before.get(what), after.get(what))


def rates_of(price: ModelPrice) -> dict[str, Decimal]:
    """What a price says, in words, to US dollars per million tokens or for each request."""
    found: dict[str, Decimal] = {}
    for service, schedule in {"": price, **price.services}.items():
        found |= _schedule(schedule, f", {service}" if service else "")
    return found | ({"each request": price.request * ATTO} if price.request else {})


def _listed(listed: Listed, key: str) -> dict[str, Decimal]:
    raw = listed.get(key)
    price = None if raw is None else price_of(raw)
    return {} if price is None else rates_of(price)


def _schedule(schedule: Schedule, service: str) -> dict[str, Decimal]:
    found = _rates(schedule.base, service)
    for above, rates in schedule.tiers:
        found |= _rates(rates, f" above {above:,} tokens{service}")
    return found


def _rates(rates: Rates, where: str) -> dict[str, Decimal]:
    listed = {f"{meter}{where}": getattr(rates, meter) for meter in METERS}
    return {what: rate * ATTO * 10**6 for what, rate in listed.items() if rate is not None}

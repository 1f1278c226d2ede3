"""Finds the first route that matches in a time that hardly depends on how many routes there are.

Routes are numbered bits. For each value that a condition may name, the index holds the set of routes that
accept it as one integer; the routes that match a request are the intersection over all conditions, and the
first of them is the lowest bit. A further kind of condition is one more integer to intersect with.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from .conditions import Conditions
from .privacy import PrivacyClass, Scale
from .types import Facts, Feature

Name = TypeVar("Name", bound=str)
Bits = int  # a set of routes: bit i stands for route i


class Choice(msgspec.Struct, frozen=True):
    """Routes that accept a value: those that name it, and those that name none."""

    named: Mapping[str, Bits]
    other: Bits

    def of(self, value: str) -> Bits:
        return self.named.get(value, self.other)


class Models(msgspec.Struct, frozen=True):
    """Routes that accept a model: looked up whole, else by its beginnings of the lengths that occur."""

    whole: Mapping[str, Bits]
    prefixes: tuple[tuple[int, Mapping[str, Bits]], ...]

    def of(self, model: str) -> Bits:
        found = self.whole.get(model)
        if found is None:
            found = 0
            for length, named in self.prefixes:
                found |= named.get(model[:length], 0)
        return found


class Tokens(msgspec.Struct, frozen=True):
    """Routes that accept a number of prompt tokens: `accepted[i]` from `cuts[i - 1]` to below `cuts[i]`."""

    cuts: tuple[int, ...]
    accepted: tuple[Bits, ...]

    def of(self, count: int) -> Bits:
        return self.accepted[bisect_right(self.cuts, count)]


class RouteIndex(msgspec.Struct, frozen=True, kw_only=True):
    privacy: tuple[Bits, ...]  # by class
    endpoints: Choice
    models: Models
    keys: Choice
    teams: Choice
    tokens: Tokens
    tags: tuple[tuple[str, Bits], ...]  # routes that require the tag
    features: tuple[tuple[Feature, Bits], ...]  # routes that require the feature
    without_features: tuple[tuple[Feature, Bits], ...]  # routes that refuse the feature

    def first(self, facts: Facts, privacy: PrivacyClass) -> int | None:
        """The number of the first route that matches `facts`, were they of class `privacy`."""
        matching = (
            self.privacy[privacy]
            & self.endpoints.of(facts.endpoint)
            & self.models.of(facts.model)
            & self.keys.of(facts.key_id)
            & self.teams.of(facts.team)
            & self.tokens.of(facts.prompt_tokens)
            & ~self._unmet(facts)
        )
        return (matching & -matching).bit_length() - 1 if matching else None

    def _unmet(self, facts: Facts) -> Bits:
        unmet = 0
        for tag, routes in self.tags:
            if tag not in facts.tags:
                unmet |= routes
        for feature, routes in self.features:
            if feature not in facts.features:
                unmet |= routes
        for feature, routes in self.without_features:
            if feature in facts.features:
                unmet |= routes
        return unmet


def build_index(routes: Sequence[Conditions], scale: Scale) -> RouteIndex:
    """The index over the routes' conditions, in their order."""
    return RouteIndex(
        privacy=tuple(_bits(privacy in c.classes for c in routes) for privacy in scale),
        endpoints=_choice([c.endpoints for c in routes]),
        models=_models(routes),
        keys=_choice([c.keys for c in routes]),
        teams=_choice([c.teams for c in routes]),
        tokens=_tokens(routes),
        tags=_holders([c.tags for c in routes]),
        features=_holders([c.features for c in routes]),
        without_features=_holders([c.without_features for c in routes]),
    )


def _bits(accepts: Iterable[bool]) -> Bits:
    return sum(1 << number for number, accepted in enumerate(accepts) if accepted)


def _choice(allowed: Sequence[frozenset[str] | None]) -> Choice:
    values = {value for values in allowed if values is not None for value in values}
    named = {value: _bits(a is None or value in a for a in allowed) for value in values}
    return Choice(named, _bits(a is None for a in allowed))


def _models(routes: Sequence[Conditions]) -> Models:
    names = {name for c in routes for name in c.models}
    prefixes = {prefix for c in routes for prefix in c.prefixes}
    by_length = {
        length: {p: _bits(p in c.prefixes for c in routes) for p in prefixes if len(p) == length}
        for length in sorted({len(p) for p in prefixes})
    }
    return Models({n: _bits(c.takes_model(n) for c in routes) for n in names}, tuple(by_length.items()))


def _tokens(routes: Sequence[Conditions]) -> Tokens:
    cuts = sorted({cut for c in routes for cut in (c.least_tokens, c.most_tokens + 1)} - {0})
    accepted = [_bits(c.least_tokens <= start <= c.most_tokens for c in routes) for start in (0, *cuts)]
    return Tokens(tuple(cuts), tuple(accepted))


def _holders(held: Sequence[frozenset[Name]]) -> tuple[tuple[Name, Bits], ...]:
    """Each member of any of the sets, with the routes whose set holds it."""
    members = sorted({member for members in held for member in members})
    return tuple((member, _bits(member in h for h in held)) for member in members)

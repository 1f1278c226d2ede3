"""Finds the first route that matches in a time that hardly depends on how many routes there are.

Routes are numbered bits. For each value that a condition may name, the index holds the set of routes that
accept it as one integer; the routes that match a request are the intersection over all conditions, and the
first of them is the lowest bit. A further kind of condition is one more integer to intersect with.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from zoneinfo import ZoneInfo

import msgspec

from .conditions import Conditions
from .privacy import PrivacyClass, Scale
from .types import UNBOUNDED, Facts, Feature

Name = TypeVar("Name", bound=str)
ALWAYS = ((0, math.inf),)
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


class Steps(msgspec.Struct, frozen=True):
    """Routes that accept a number: `accepted[i]` from `cuts[i - 1]` to below `cuts[i]`."""

    cuts: tuple[float, ...]
    accepted: tuple[Bits, ...]

    def of(self, number: float) -> Bits:
        return self.accepted[bisect_right(self.cuts, number)]


class Further(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions that few policies have; looked at only where one does."""

    projects: Choice
    tasks: Choice
    languages: Choice
    output: Steps
    budget: Steps
    windows: tuple[tuple[ZoneInfo, Steps], ...]  # routes that accept a minute of the week there
    metadata: tuple[tuple[str, Choice], ...]
    findings: tuple[tuple[str, Bits], ...]  # routes that accept the kind as one of theirs
    asks_findings: Bits  # routes that want one of several
    without_findings: tuple[tuple[str, Bits], ...]
    down: tuple[tuple[str, Bits], ...]
    up: tuple[tuple[str, Bits], ...]

    def of(self, facts: Facts, down: frozenset[str]) -> Bits:
        matching = (
            self.projects.of(facts.project)
            & self.tasks.of(facts.task)
            & self.languages.of(facts.language)
            & self.output.of(facts.output_tokens)
            & self.budget.of(facts.budget_used)
        )
        for zone, minutes in self.windows:
            matching &= minutes.of(minute_of_week(facts.at_s, zone))
        for key, choice in self.metadata:
            value = facts.metadata.get(key)
            matching &= choice.other if value is None else choice.of(value)
        if self.asks_findings:
            matching &= ~self.asks_findings | _any(self.findings, facts.findings)
        matching &= ~_any(self.without_findings, facts.findings)
        return matching & ~_any(self.up, down) & ~_lacking(self.down, down)


def minute_of_week(at_s: float, zone: ZoneInfo) -> int:
    """From Monday 00:00 by the zone's wall clock. `at_s`: Unix time."""
    local = datetime.fromtimestamp(at_s, zone)
    return (local.weekday() * 24 + local.hour) * 60 + local.minute


def _any(holders: Sequence[tuple[Name, Bits]], values: frozenset[Name]) -> Bits:
    """The routes that hold one of the values."""
    found = 0
    if values:
        for member, routes in holders:
            if member in values:
                found |= routes
    return found


def _lacking(holders: Sequence[tuple[Name, Bits]], values: frozenset[Name]) -> Bits:
    """The routes that hold something which is none of the values."""
    found = 0
    for member, routes in holders:
        if member not in values:
            found |= routes
    return found


class RouteIndex(msgspec.Struct, frozen=True, kw_only=True):
    privacy: tuple[Bits, ...]  # by class
    endpoints: Choice
    models: Models
    keys: Choice
    teams: Choice
    tokens: Steps
    tags: tuple[tuple[str, Bits], ...]  # routes that require the tag
    features: tuple[tuple[Feature, Bits], ...]  # routes that require the feature
    without_features: tuple[tuple[Feature, Bits], ...]  # routes that refuse the feature

    further: Further | None

    def first(self, facts: Facts, privacy: PrivacyClass, down: frozenset[str] = frozenset()) -> int | None:
        """The number of the first route that matches `facts`, were they of class `privacy`.

        `down` are the backends that are known to be.
        """
        unmet = _lacking(self.tags, facts.tags) | _lacking(self.features, facts.features)
        matching = (
            self.privacy[privacy]
            & self.endpoints.of(facts.endpoint)
            & self.models.of(facts.model)
            & self.keys.of(facts.key_id)
            & self.teams.of(facts.team)
            & self.tokens.of(facts.prompt_tokens)
            & ~(unmet | _any(self.without_features, facts.features))
        )
        if matching and self.further is not None:
            matching &= self.further.of(facts, down)
        return (matching & -matching).bit_length() - 1 if matching else None


def build_index(routes: Sequence[Conditions], scale: Scale) -> RouteIndex:
    """The index over the routes' conditions, in their order."""
    return RouteIndex(
        privacy=tuple(_bits(privacy in c.classes for c in routes) for privacy in scale),
        endpoints=_choice([c.endpoints for c in routes]),
        models=_models(routes),
        keys=_choice([c.keys for c in routes]),
        teams=_choice([c.teams for c in routes]),
        tokens=_steps([(c.least_tokens, c.most_tokens) for c in routes]),
        tags=_holders([c.tags for c in routes]),
        features=_holders([c.features for c in routes]),
        without_features=_holders([c.without_features for c in routes]),
        further=_further(routes),
    )


def _further(routes: Sequence[Conditions]) -> Further | None:
    """None where no route has such a condition."""
    found = Further(
        projects=_choice([c.projects for c in routes]),
        tasks=_choice([c.tasks for c in routes]),
        languages=_choice([c.languages for c in routes]),
        output=_steps([(c.least_output, c.most_output) for c in routes]),
        budget=_shares([(c.least_budget, c.most_budget) for c in routes]),
        windows=tuple(_windows(routes)),
        metadata=tuple(
            (key, _choice([c.metadata.get(key) for c in routes]))
            for key in sorted({key for c in routes for key in c.metadata})
        ),
        findings=_holders([c.findings or frozenset() for c in routes]),
        asks_findings=_bits(c.findings is not None for c in routes),
        without_findings=_holders([c.without_findings for c in routes]),
        down=_holders([c.down for c in routes]),
        up=_holders([c.up for c in routes]),
    )
    named = (found.projects.named, found.tasks.named, found.languages.named, found.windows, found.metadata)
    others = (
        found.findings,
        found.output.cuts,
        found.budget.cuts,
        found.without_findings,
        found.down,
        found.up,
    )
    return found if any(named) or any(others) else None


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


def _steps(ranges: Sequence[tuple[int, int]]) -> Steps:
    """For whole numbers, both ends of a range included."""
    return _stepped([((least, most + 1 if most < UNBOUNDED else math.inf),) for least, most in ranges])


def _shares(ranges: Sequence[tuple[float, float]]) -> Steps:
    """For any numbers, both ends of a range included."""
    return _stepped([((least, math.nextafter(most, math.inf)),) for least, most in ranges])


def _windows(routes: Sequence[Conditions]) -> Iterable[tuple[ZoneInfo, Steps]]:
    for zone in sorted({c.window.zone for c in routes if c.window is not None}):
        there = [c.window.spans if c.window and c.window.zone == zone else ALWAYS for c in routes]
        yield ZoneInfo(zone), _stepped(there)


def _stepped(accepted: Sequence[Sequence[tuple[float, float]]]) -> Steps:
    """Each route's spans, from 0 up, their ends not part of them."""
    cuts = sorted({cut for spans in accepted for span in spans for cut in span} - {0, math.inf})
    bits = [_bits(any(s <= at < e for s, e in spans) for spans in accepted) for at in (0, *cuts)]
    return Steps(tuple(cuts), tuple(bits))


def _holders(held: Sequence[frozenset[Name]]) -> tuple[tuple[Name, Bits], ...]:
    """Each member of any of the sets, with the routes whose set holds it."""
    members = sorted({member for members in held for member in members})
    return tuple((member, _bits(member in h for h in held)) for member in members)

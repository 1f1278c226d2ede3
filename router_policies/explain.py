"""Why a request would go where it would go: every route, every target, and what `decide` makes of them.

Nothing is decided here: which targets are left out, and why, is asked of `decide` itself, one target at a
time, so that an explanation cannot come to differ from what happens.
"""

from collections.abc import Iterator

import msgspec

from .compiled import CompiledPolicy, CompiledRoute
from .conditions import Conditions
from .decide import decide
from .privacy import PrivacyClass
from .types import Decision, Denial, Facts, Snapshot


class TriedRoute(msgspec.Struct, frozen=True, kw_only=True):
    """One route, and what of its match does not hold. `taken`: this one has the last word."""

    route: str
    matches: bool
    taken: bool
    unmet: tuple[str, ...]


class TriedTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One target of the route that is taken, in its order."""

    target: str
    zone: str
    local: bool  # the zone is our own, so nothing leaves
    model: str  # the name that would go upstream; empty: it is not asked
    out: str  # what rules it out; empty: it is a candidate


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    privacy: str  # of the request, the route's floor included
    routes: tuple[TriedRoute, ...]
    targets: tuple[TriedTarget, ...]
    route: str | None
    candidates: tuple[str, ...]  # backends in the order in which they would be asked
    fallback_on: tuple[str, ...]  # errors upon which the next one is
    status: int | None  # HTTP, code and message of the answer, where the request is denied
    code: str | None
    message: str | None
    reason: str


def explain(policy: CompiledPolicy, facts: Facts, snapshot: Snapshot) -> Explanation:
    """Pure, as `decide` is: no call is made. Holds nothing of the request's content."""
    verdict = decide(policy, facts, snapshot)
    denial = verdict if isinstance(verdict, Denial) else None
    taken = next((number for number, r in enumerate(policy.routes) if r.name == verdict.route), None)
    candidates = verdict.candidates if isinstance(verdict, Decision) else ()
    return Explanation(
        policy=policy.label,
        privacy=verdict.privacy.label,
        routes=tuple(_tried(route, facts, taken == number) for number, route in enumerate(policy.routes)),
        targets=() if taken is None else tuple(_targets(policy, taken, facts, snapshot)),
        route=verdict.route,
        candidates=tuple(candidate.backend for candidate in candidates),
        fallback_on=() if denial else tuple(sorted(verdict.fallback_on)),  # type: ignore[union-attr]
        status=denial.status if denial else None,
        code=denial.code if denial else None,
        message=denial.message if denial else None,
        reason=verdict.reason,
    )


def _tried(route: CompiledRoute, facts: Facts, taken: bool) -> TriedRoute:
    unmet = tuple(unmet_by(route.conditions, facts, facts.privacy))
    return TriedRoute(route=route.name, matches=not unmet, taken=taken, unmet=unmet)


def unmet_by(conditions: Conditions, facts: Facts, privacy: PrivacyClass) -> Iterator[str]:
    """What a request fails to meet, a line for each condition, the request's own words left out."""
    for name, allowed, value in (
        ("endpoint", conditions.endpoints, facts.endpoint),
        ("key", conditions.keys, facts.key_id),
        ("team", conditions.teams, facts.team),
    ):
        if allowed is not None and value not in allowed:
            yield f"{name} is none of {', '.join(sorted(allowed))}"
    if not conditions.takes_model(facts.model):
        patterns = [*conditions.models, *(f"{prefix}*" for prefix in conditions.prefixes)]
        yield f"model is none of {', '.join(sorted(patterns))}"
    if missing := conditions.tags - facts.tags:
        yield f"lacks the tags {', '.join(sorted(missing))}"
    if missing := conditions.features - facts.features:
        yield f"does not use {', '.join(sorted(missing))}"
    if unwanted := conditions.without_features & facts.features:
        yield f"uses {', '.join(sorted(unwanted))}"
    if not conditions.least_tokens <= facts.prompt_tokens <= conditions.most_tokens:
        yield f"{facts.prompt_tokens} prompt tokens are outside its range"
    if privacy not in conditions.classes:
        yield f"class {privacy.label} is outside its range"


def _targets(policy: CompiledPolicy, number: int, facts: Facts, snapshot: Snapshot) -> Iterator[TriedTarget]:
    route = policy.routes[number]
    for target in route.targets:
        alone = msgspec.structs.replace(route, targets=(target,))
        routes = (*policy.routes[:number], alone, *policy.routes[number + 1 :])
        verdict = decide(msgspec.structs.replace(policy, routes=routes), facts, snapshot)
        zone = target.backend.zone
        yield TriedTarget(
            target=target.label,
            zone=zone.name,
            local=zone.local,
            model=verdict.candidates[0].model if isinstance(verdict, Decision) else "",
            out="" if isinstance(verdict, Decision) else _words(verdict, route.name),
        )


def _words(denial: Denial, route: str) -> str:
    return denial.reason.removeprefix(f"route {route}: ").removesuffix("; no target is left")

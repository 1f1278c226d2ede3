"""Why a request would go where it would go: every route, every target, and what `decide` makes of them.

Nothing is decided here: which targets are left out, and why, is asked of `decide` itself, one target at a
time, so that an explanation cannot come to differ from what happens.
"""

from collections.abc import Iterator
from zoneinfo import ZoneInfo

import msgspec

from .compiled import CompiledGroup, CompiledPolicy, CompiledRoute, CompiledTarget
from .conditions import Conditions
from .decide import decide
from .index import minute_of_week
from .privacy import PrivacyClass
from .rank import expected_nano, expected_s
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
    place: str  # in the route: "fallback 2", "canary fallback 1", "shadow"
    expected_nano: int | None  # what it may cost in nano-dollars; None: its price is unknown
    expected_ms: float | None  # until its answer may be whole; None: it has not answered of late


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    privacy: str  # of the request, the route's floor included
    routes: tuple[TriedRoute, ...]
    targets: tuple[TriedTarget, ...]
    route: str | None
    candidates: tuple[str, ...]  # backends in the order in which they would be asked
    shadow: str | None  # the backend that gets a copy
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
        routes=tuple(
            _tried(route, facts, snapshot, taken == number) for number, route in enumerate(policy.routes)
        ),
        targets=() if taken is None else tuple(_targets(policy, taken, facts, snapshot)),
        route=verdict.route,
        candidates=tuple(candidate.backend for candidate in candidates),
        shadow=verdict.shadow.backend if isinstance(verdict, Decision) and verdict.shadow else None,
        fallback_on=() if denial else tuple(sorted(verdict.fallback_on)),  # type: ignore[union-attr]
        status=denial.status if denial else None,
        code=denial.code if denial else None,
        message=denial.message if denial else None,
        reason=verdict.reason,
    )


def _tried(route: CompiledRoute, facts: Facts, snapshot: Snapshot, taken: bool) -> TriedRoute:
    unmet = tuple(unmet_by(route.conditions, facts, facts.privacy, snapshot.down))
    return TriedRoute(route=route.name, matches=not unmet, taken=taken, unmet=unmet)


def unmet_by(
    conditions: Conditions, facts: Facts, privacy: PrivacyClass, down: frozenset[str] = frozenset()
) -> Iterator[str]:
    """What a request fails to meet, a line for each condition, the request's own words left out."""
    for name, allowed, value in (
        ("endpoint", conditions.endpoints, facts.endpoint),
        ("key", conditions.keys, facts.key_id),
        ("team", conditions.teams, facts.team),
        ("project", conditions.projects, facts.project),
        ("task", conditions.tasks, facts.task),
        ("language", conditions.languages, facts.language),
        *(
            (f"metadata.{key}", allowed, facts.metadata.get(key))
            for key, allowed in conditions.metadata.items()
        ),
    ):
        if allowed is not None and value not in allowed:
            yield f"{name} is none of {', '.join(sorted(allowed))}"
    if not conditions.takes_model(facts.model):
        patterns = [*conditions.models, *(f"{prefix}*" for prefix in conditions.prefixes)]
        yield f"model is none of {', '.join(sorted(patterns))}"
    yield from _unmet_sets(conditions, facts, down)
    if not conditions.least_tokens <= facts.prompt_tokens <= conditions.most_tokens:
        yield f"{facts.prompt_tokens} prompt tokens are outside its range"
    if not conditions.least_output <= facts.output_tokens <= conditions.most_output:
        yield "the limit of output tokens, or that there is none, is outside its range"
    if not conditions.least_budget <= facts.budget_used <= conditions.most_budget:
        yield f"the budget used, {facts.budget_used:.3f}, is outside its range"
    if (window := conditions.window) is not None and not window.holds(_minute(facts, window.zone)):
        yield f"the time in {window.zone} is outside its hours"
    if privacy not in conditions.classes:
        yield f"class {privacy.label} is outside its range"


def _unmet_sets(conditions: Conditions, facts: Facts, down: frozenset[str]) -> Iterator[str]:
    for words, names in (
        ("lacks the tags", conditions.tags - facts.tags),
        ("does not use", conditions.features - facts.features),
        ("uses", conditions.without_features & facts.features),
        ("findings that it refuses:", conditions.without_findings & facts.findings),
        ("not down:", conditions.down - down),
        ("down:", conditions.up & down),
    ):
        if names:
            yield f"{words} {', '.join(sorted(names))}"
    if conditions.findings is not None and not conditions.findings & facts.findings:
        yield f"nothing was found of {', '.join(sorted(conditions.findings))}"


def _minute(facts: Facts, zone: str) -> int:
    return minute_of_week(facts.at_s, ZoneInfo(zone))


def _targets(policy: CompiledPolicy, number: int, facts: Facts, snapshot: Snapshot) -> Iterator[TriedTarget]:
    route = policy.routes[number]
    for target in route.targets:
        alone = msgspec.structs.replace(
            route, targets=(target,), groups=(_alone(target),), canary=None, shadow=None
        )
        routes = (*policy.routes[:number], alone, *policy.routes[number + 1 :])
        verdict = decide(msgspec.structs.replace(policy, routes=routes), facts, snapshot)
        zone = target.backend.zone
        candidate = verdict.candidates[0] if isinstance(verdict, Decision) else None
        seconds = expected_s(candidate, facts, snapshot) if candidate else None
        yield TriedTarget(
            target=target.label,
            zone=zone.name,
            local=zone.local,
            model=candidate.model if candidate else "",
            out=_words(verdict, route.name) if isinstance(verdict, Denial) else "",
            place=target.place,
            expected_nano=expected_nano(policy, candidate, facts, snapshot) if candidate else None,
            expected_ms=None if seconds is None else round(seconds * 1e3, 1),
        )


def _alone(target: CompiledTarget) -> CompiledGroup:
    return CompiledGroup(strategy="ordered", by="call", targets=(target,))


def _words(denial: Denial, route: str) -> str:
    return denial.reason.removeprefix(f"route {route}: ").removesuffix("; no target is left")

"""`decide`: where a request goes, or why it goes nowhere. Pure, and the only place that mints permits.

The first route that matches has the last word: where none of its targets can take the request it is denied,
never handed to a later route. Every target is held against its zone's ceiling, although `verify` has proved
that no route of a loaded policy leads above one: the proof covers the policy, this covers the proof.

The targets of a group are ordered for the request by its strategy; a canary's go before the route's own, for
a share of the requests. Draws come from hashes of what is known of the request. A shadow is held against its
ceiling as any target is; where it is ruled out there is none.

A request above a ceiling may go to a target that masks, if the class of what is left is within it; the
candidate says so, and its permit is for that class and no higher one.
"""

from collections.abc import Sequence

import msgspec

from .compiled import ORDERED, CompiledCanary, CompiledGroup, CompiledPolicy, CompiledRoute, CompiledTarget
from .denials import Obstacle, Ruled, denied_by_route, no_route, no_route_for_class, none_left, ruled_line
from .draw import WORDS, hashed, mixed
from .names import TUNED_PREFIX, is_adapter, is_release, tuned_alias
from .privacy import PrivacyClass
from .rank import Found, ranked
from .types import Candidate, Decision, Denial, Facts, Permit, Snapshot, shadow_id

Upstream = tuple[str, str | None]  # the model's name there; the adapter's too, when it is one


def decide(policy: CompiledPolicy, facts: Facts, snapshot: Snapshot) -> Decision | Denial:
    """The candidates of the first matching route, in order, with a permit for each outside our own zones."""
    number = policy.index.first(facts, facts.privacy, snapshot.down)
    if number is None:
        return _unrouted(policy, facts, snapshot)
    route = policy.routes[number]
    if route.privacy_floor:
        facts = _raised(facts, route.privacy_floor)
    if route.deny is not None:
        return denied_by_route(policy, route, route.deny, facts)
    kept: list[Candidate] = []
    before: list[Ruled] = []  # ruled out ahead of the first that is kept
    chosen: CompiledTarget | None = None
    for group in route.groups if route.canary is None else _with_canary(route, route.canary, facts):
        if group.strategy != ORDERED:
            first = _take_ranked(policy, group, facts, snapshot, kept, before)
            chosen = chosen or first
            continue
        for target in group.targets:
            found = _candidate(policy, target, facts, snapshot)
            if isinstance(found, Candidate):
                kept.append(found)
                chosen = chosen or target
            elif chosen is None:
                before.append((target, found))
    if chosen is None:
        return none_left(policy, route, before, facts)
    return Decision(
        route=route.name,
        policy=policy.label,
        privacy=facts.privacy,
        candidates=tuple(kept),
        fallback_on=route.fallback_on,
        reason=_reason(route, before, chosen, facts) + _masking([c for c in kept if c.masked], facts),
        resilience=route.resilience,
        shadow=None if route.shadow is None else _shadow(policy, route, facts, snapshot),
        parameters=route.parameters,
    )


def _with_canary(route: CompiledRoute, canary: CompiledCanary, facts: Facts) -> Sequence[CompiledGroup]:
    if mixed(hashed(WORDS[canary.by](facts)), canary.salt) >= canary.below:
        return route.groups
    return (*canary.groups, *route.groups)


def _take_ranked(
    policy: CompiledPolicy,
    group: CompiledGroup,
    facts: Facts,
    snapshot: Snapshot,
    kept: list[Candidate],
    before: list[Ruled],
) -> CompiledTarget | None:
    """Adds the group's candidates to `kept` in their order, and what is ruled out to `before` while that is
    empty. The first of them; None: there is none."""
    found: list[Found] = []
    for target in group.targets:
        made = _candidate(policy, target, facts, snapshot)
        if isinstance(made, Candidate):
            found.append((target, made))
        elif not kept:
            before.append((target, made))
    found = ranked(policy, group, found, facts, snapshot)
    kept += [candidate for _, candidate in found]
    return found[0][0] if found else None


def _shadow(
    policy: CompiledPolicy, route: CompiledRoute, facts: Facts, snapshot: Snapshot
) -> Candidate | None:
    """Where the copy goes, by a permit of its own; None: this request has none."""
    shadow = route.shadow
    if shadow is None or mixed(hashed(facts.call_id), shadow.salt) >= shadow.below:
        return None
    copied = msgspec.structs.replace(facts, call_id=shadow_id(facts.call_id))
    made = _candidate(policy, shadow.target, copied, snapshot)
    return made if isinstance(made, Candidate) else None


def _raised(facts: Facts, floor: PrivacyClass) -> Facts:
    """A floor counts for what is left of a request as well: no placeholder takes it away."""
    masked = None if facts.masked is None else max(facts.masked, floor)
    return msgspec.structs.replace(facts, privacy=max(facts.privacy, floor), masked=masked)


def _unrouted(policy: CompiledPolicy, facts: Facts, snapshot: Snapshot) -> Denial:
    """Nothing matches. Where a lower class would have, the class is what the client has to hear about."""
    for lower in reversed(policy.scale.classes):
        number = policy.index.first(facts, lower, snapshot.down) if lower < facts.privacy else None
        if number is not None and policy.routes[number].targets:
            return no_route_for_class(policy, facts, policy.routes[number], lower)
    return no_route(policy, facts)


def _reason(route: CompiledRoute, before: Sequence[Ruled], chosen: CompiledTarget, facts: Facts) -> str:
    if not before:
        return f"route {route.name}: {chosen.chosen}"
    return f"route {route.name}: {ruled_line(before, facts)}; falls to {chosen.chosen}"


def _masking(candidates: Sequence[Candidate], facts: Facts) -> str:
    """`; masked for openai: 2 email, 1 payment_card`"""
    if not candidates:
        return ""
    backends = ", ".join(dict.fromkeys(candidate.backend for candidate in candidates))
    values = ", ".join(f"{count} {kind}" for kind, count in sorted(facts.masked_kinds.items()))
    return f"; masked for {backends}: {values}"


def _candidate(
    policy: CompiledPolicy, target: CompiledTarget, facts: Facts, snapshot: Snapshot
) -> Candidate | Obstacle:
    """The target as it would be called for this request, or what rules it out."""
    backend = target.backend
    if facts.endpoint not in backend.endpoints:
        return Obstacle.ENDPOINT
    if not facts.features <= backend.features:
        return Obstacle.FEATURE
    upstream = _upstream(target, facts, snapshot)
    if isinstance(upstream, Obstacle):
        return upstream
    zone, privacy = backend.zone, facts.privacy
    masked = privacy > zone.ceiling
    if masked:
        if not target.mask or facts.masked is None or facts.masked > zone.ceiling:
            return Obstacle.PRIVACY
        privacy = facts.masked
    if facts.holder is not None and backend.name != facts.holder:
        return Obstacle.ELSEWHERE
    if backend.name in snapshot.down:
        return Obstacle.DOWN
    model, adapter = upstream
    return Candidate(
        backend=backend.name,
        zone=zone.name,
        model=model,
        adapter=adapter,
        permit=None if zone.local else _permit(policy, target, facts, model, privacy),
        privacy=privacy,
        ceiling=zone.ceiling,
        local=zone.local,
        masked=masked,
    )


def _upstream(target: CompiledTarget, facts: Facts, snapshot: Snapshot) -> Upstream | Obstacle:
    if target.model:
        return target.model, None
    if not target.adapter:
        return _as_asked(target, facts, snapshot)
    # Of a pinned release nobody here knows where it is loaded; a backend without it answers 404.
    release = target.adapter if target.pinned else snapshot.aliases.get(target.adapter)
    return (release, release) if release else Obstacle.NOT_RELEASED


def _as_asked(target: CompiledTarget, facts: Facts, snapshot: Snapshot) -> Upstream | Obstacle:
    """The model that the client named, if the backend serves it: its own or an adapter."""
    backend, asked = target.backend, facts.model
    if asked in backend.models:
        return asked, None
    if backend.adapters and asked.startswith("ft:"):
        release = snapshot.aliases.get(tuned_alias(asked, facts.team) or "")
        return (release, release) if release else Obstacle.MODEL
    if backend.adapters and is_adapter(asked) and not asked.startswith(TUNED_PREFIX):
        release = asked if is_release(asked) else snapshot.aliases.get(asked)
        return (release, release) if release else Obstacle.MODEL
    return (asked, None) if "*" in backend.models else Obstacle.MODEL


def _permit(
    policy: CompiledPolicy, target: CompiledTarget, facts: Facts, model: str, privacy: PrivacyClass
) -> Permit:
    """For what is sent, of class `privacy`."""
    return Permit(
        id=f"{facts.call_id}.{target.position}",
        call_id=facts.call_id,
        backend=target.backend.name,
        zone=target.backend.zone.name,
        model=model,
        privacy=privacy,
        policy=policy.label,
    )

"""What rules a target out, and what the client and the operator are told when none is left.

The operator's `reason` goes into the ledger, so nothing that the client wrote is repeated in it.
"""

from collections.abc import Sequence
from enum import Enum, auto

import msgspec

from .compiled import CompiledDenial, CompiledPolicy, CompiledRoute, CompiledTarget
from .types import Denial, Facts, PrivacyClass

MOST_NAMED = 3  # targets that one line of reason names before it counts the rest


class Obstacle(Enum):
    """Why a target cannot take a request; where several rule out all targets, the first listed is answered.

    What passes with time stands first: a client that may try again should not be told to change its request.
    """

    DOWN = auto()
    NOT_RELEASED = auto()
    PRIVACY = auto()
    ELSEWHERE = auto()
    FEATURE = auto()
    ENDPOINT = auto()
    MODEL = auto()


class Answer(msgspec.Struct, frozen=True):
    """What the client is told. `message` may name {model}, {privacy}, {features} and {endpoint}."""

    status: int
    code: str
    message: str


NO_MODEL = Answer(
    404, "model_not_found", "The model `{model}` does not exist or you do not have access to it."
)
NOT_CLEARED = Answer(
    403,
    "privacy_no_permitted_backend",
    "This request is classed {privacy}, and no backend that is cleared for that class may answer it as "
    "`{model}`. Remove the sensitive content, or ask for a model that is served within a cleared zone.",
)
ANSWERS = {
    Obstacle.DOWN: Answer(
        503,
        "no_backend_available",
        "No backend that may answer this request is up. Please try again shortly.",
    ),
    Obstacle.NOT_RELEASED: Answer(
        503, "no_backend_available", "The adapter that answers this request is not released yet."
    ),
    Obstacle.PRIVACY: NOT_CLEARED,
    Obstacle.ELSEWHERE: Answer(
        400,
        "previous_response_elsewhere",
        "The response that this request goes on from is kept by a backend that `{model}` does not lead to. "
        "Ask for the model that answered before, or send all of the content in 'input'.",
    ),
    Obstacle.FEATURE: Answer(
        400,
        "unsupported_feature",
        "No backend for `{model}` supports all that this request uses: {features}.",
    ),
    Obstacle.ENDPOINT: Answer(400, "unsupported_endpoint", "`{model}` is not served at /v1/{endpoint}."),
    Obstacle.MODEL: NO_MODEL,
}

Ruled = tuple[CompiledTarget, Obstacle]  # a target that is out, and why


def denied_by_route(
    policy: CompiledPolicy, route: CompiledRoute, deny: CompiledDenial, facts: Facts
) -> Denial:
    return Denial(
        policy=policy.label,
        route=route.name,
        privacy=facts.privacy,
        status=deny.status,
        code=deny.code,
        message=deny.message,
        reason=f"route {route.name}: denies what it matches",
    )


def none_left(policy: CompiledPolicy, route: CompiledRoute, ruled: Sequence[Ruled], facts: Facts) -> Denial:
    """Every target of the route is ruled out."""
    obstacles = {obstacle for _, obstacle in ruled}
    answer = next((ANSWERS[obstacle] for obstacle in Obstacle if obstacle in obstacles), NO_MODEL)
    reason = f"route {route.name}: {ruled_line(ruled, facts)}; no target is left"
    return _denial(policy, route.name, answer, facts, reason)


def no_route(policy: CompiledPolicy, facts: Facts) -> Denial:
    return _denial(policy, None, NO_MODEL, facts, "no route matches")


def no_route_for_class(
    policy: CompiledPolicy, facts: Facts, route: CompiledRoute, lower: PrivacyClass
) -> Denial:
    """No route takes the request as it is classed, but `route` would at `lower`."""
    reason = f"no route matches class {facts.privacy.label}; route {route.name} would match {lower.label}"
    return _denial(policy, None, NOT_CLEARED, facts, reason)


def ruled_line(ruled: Sequence[Ruled], facts: Facts) -> str:
    """`vllm/support@stable not released yet; openai/gpt-4o down; 3 more ruled out`"""
    parts = [f"{target.label} {_words(target, obstacle, facts)}" for target, obstacle in ruled[:MOST_NAMED]]
    if len(ruled) > MOST_NAMED:
        parts.append(f"{len(ruled) - MOST_NAMED} more ruled out")
    return "; ".join(parts)


def _words(target: CompiledTarget, obstacle: Obstacle, facts: Facts) -> str:
    match obstacle:
        case Obstacle.DOWN:
            return "down"
        case Obstacle.NOT_RELEASED:
            return "not released yet"
        case Obstacle.PRIVACY:
            return f"stands in zone {target.backend.zone.name}, closed to {_class(target, facts)}"
        case Obstacle.ELSEWHERE:
            return "does not have the earlier response"
        case Obstacle.FEATURE:
            return f"lacks {', '.join(sorted(facts.features - target.backend.features))}"
        case Obstacle.ENDPOINT:
            return "does not serve the endpoint"
        case Obstacle.MODEL:
            return "does not serve the model asked for"


def _class(target: CompiledTarget, facts: Facts) -> str:
    if not target.mask:
        return f"class {facts.privacy.label}"
    left = facts.privacy if facts.masked is None else facts.masked
    return f"class {facts.privacy.label}, and to {left.label}, which is left of it when masked"


def _denial(policy: CompiledPolicy, route: str | None, answer: Answer, facts: Facts, reason: str) -> Denial:
    message = answer.message.format(
        model=facts.model,
        privacy=facts.privacy.label,
        features=", ".join(sorted(facts.features)),
        endpoint=facts.endpoint,
    )
    return Denial(
        policy=policy.label,
        route=route,
        privacy=facts.privacy,
        status=answer.status,
        code=answer.code,
        message=message,
        reason=reason,
    )

"""From a request that somebody asks about to an explanation: the steps of `pipeline`, less the call."""

import asyncio
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.api.desk import Desk
from gateway.control.records import Kind, Label, Slug, Tags
from gateway.errors import BadRequest
from gateway.ledger.tokens import estimate_prompt_tokens
from gateway.parsing import parse
from gateway.privacy.classify import Classifier
from gateway.privacy.mask import mask
from router_policies.compiled import CompiledPolicy
from router_policies.errors import PolicyError
from router_policies.explain import explain
from router_policies.privacy import PrivacyClass
from router_policies.types import Facts, Snapshot

Endpoint = Literal["chat/completions", "completions", "embeddings", "responses"]


class Question(BaseModel):
    """A request as a client would send it, and who would."""

    model_config = ConfigDict(extra="forbid")

    body: dict[str, JsonValue] = Field(description="The request's body. It is read and forgotten.")
    endpoint: Endpoint = "chat/completions"
    key: Slug | None = None
    team: Slug | None = None
    tags: Tags = ()
    privacy: Annotated[Label | None, Field(description="A class that it has at least.")] = None


class RouteView(BaseModel):
    route: str
    matches: bool
    taken: bool = Field(description="It has the last word.")
    unmet: tuple[str, ...] = Field(description="What of its match does not hold.")


class TargetView(BaseModel):
    target: str
    zone: str
    local: bool = Field(description="The zone is our own: nothing leaves.")
    model: str = Field(description="The name that would go upstream.")
    out: str = Field(description="What rules it out; empty: it is a candidate.")


class ExplanationView(BaseModel):
    policy: str
    classified: str = Field(description="The request's class.")
    classified_because: str
    findings: dict[str, int] = Field(description="What was found, and how often; never what it said.")
    prompt_tokens: int
    features: list[str]
    privacy: str = Field(description="The class, the route's floor included.")
    routes: tuple[RouteView, ...]
    targets: tuple[TargetView, ...]
    route: str | None
    candidates: tuple[str, ...] = Field(description="Backends in the order in which they would be asked.")
    fallback_on: tuple[str, ...]
    status: int | None = Field(description="HTTP, of the answer, where the request is denied.")
    code: str | None
    message: str | None
    reason: str


async def explained(desk: Desk, label: str, asked: Question) -> dict[str, Any]:
    """Raises ApiError."""
    desk.check_label(asked.privacy, "privacy")
    policy = await asyncio.to_thread(_policy, desk, label)
    return await explain_request(policy, asked, desk.classifier_of(asked.team or ""), desk.snapshot())


async def explain_request(
    policy: CompiledPolicy, asked: Question, classifier: Classifier, snapshot: Snapshot
) -> dict[str, Any]:
    """The explanation, the class and what gave it. Raises BadRequest."""
    request = parse(asked.endpoint, _encoded(asked.body))
    floor: PrivacyClass = policy.scale.parse(asked.privacy) if asked.privacy else policy.scale.lowest
    classify = partial(classifier.classify, floor=floor, asked=request.asked_privacy)
    found = await classify(request.body)
    above = policy.masks_above
    masked = None
    if found.places and above is not None and found.privacy > above:
        masked = await mask(request.body, found, classify)
    facts = Facts(
        call_id="call_explained",
        endpoint=request.endpoint,
        model=request.model,
        key_id=asked.key or "",
        team=asked.team or "",
        tags=frozenset(asked.tags) | request.tags,
        features=request.features,
        prompt_tokens=estimate_prompt_tokens(request.size),
        privacy=found.privacy,
        masked=masked.privacy if masked else None,
        masked_kinds=masked.vault.kinds() if masked else {},
    )
    classified = {
        "classified": found.privacy.label,
        "classified_because": found.reason,
        "findings": found.findings,
        "prompt_tokens": facts.prompt_tokens,
        "features": sorted(facts.features),
    }
    explanation: dict[str, Any] = msgspec.to_builtins(explain(policy, facts, snapshot))
    return classified | explanation


def _encoded(body: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(body)
    except (UnicodeEncodeError, RecursionError):
        raise BadRequest("body: holds what JSON cannot", param="body") from None


def _policy(desk: Desk, label: str) -> CompiledPolicy:
    if label == desk.policies.of_file.label:
        return desk.policies.of_file
    stored = desk.store.get(Kind.POLICY, label)
    try:
        return desk.policies.prove(stored.body["document"], label)
    except PolicyError as error:
        raise BadRequest(str(error), code="policy_refused") from None

"""From a request that somebody asks about to an explanation: the steps of `pipeline`, less the call."""

import asyncio
import time
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

from gateway.api.desk import Desk
from gateway.control.records import Kind, Label, Slug, Tags
from gateway.errors import BadRequest
from gateway.ledger.tokens import estimate_prompt_tokens
from gateway.parsing import parse
from gateway.privacy.classify import Classifier
from gateway.privacy.content import words_of
from gateway.privacy.mask import mask
from router_policies.compiled import CompiledPolicy
from router_policies.errors import PolicyError
from router_policies.explain import explain
from router_policies.language import language
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
    project: Slug | None = None
    task: Annotated[str, Field(max_length=64)] = ""
    session: Annotated[str, Field(max_length=128)] = ""
    at: Annotated[AwareDatetime | None, Field(description="When it comes in; without it now.")] = None
    budget_used: Annotated[float, Field(ge=0, description="Share of the fullest budget.")] = 0.0


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
    place: str = Field(description='In the route: "fallback 2", "canary fallback 1", "shadow".')
    expected_nano: int | None = Field(
        description="What it may cost, in nano-dollars (1e-9 USD); null: its price is unknown."
    )
    expected_ms: float | None = Field(
        description="Until its answer may be whole; null: it has not answered of late."
    )


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
    shadow: str | None = Field(description="The backend that gets a copy.")
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
        project=asked.project or "",
        metadata=request.metadata,
        findings=frozenset(found.findings),
        output_tokens=request.output_tokens,
        task=asked.task or request.task,
        language=language(words_of(request.body)),
        user=request.user,
        session=asked.session,
        at_s=asked.at.timestamp() if asked.at is not None else time.time(),
        budget_used=asked.budget_used,
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

"""`/admin/policies` and `/admin/rollout`: versions of the policy, and which of them decides."""

import difflib
from typing import Annotated, Any, Literal

import msgspec
import yaml
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gateway.api.desk import (
    Acting,
    After,
    Desk,
    Limit,
    Page,
    View,
    paged,
    posting,
    reading,
    tagged,
    viewed,
)
from gateway.api.explaining import ExplanationView, Question, explained
from gateway.control import policies
from gateway.control.records import ROLLOUT_ID, Kind, PolicyState, Rollout
from gateway.control.store import Stored, Transaction
from gateway.errors import NotFound
from gateway.types import Principal
from router_policies.json_schema import policy_schema

LabelPath = Annotated[str, Path(max_length=90, pattern=r"^[!-.0-~]+$", description="name@version")]
Documents = Annotated[list[dict[str, JsonValue]], Field(max_length=1_000)]


class NewPolicy(BaseModel):
    """A version, as the policy language has it, and the cases that it must pass."""

    model_config = ConfigDict(extra="forbid")

    document: dict[str, JsonValue]
    cases: Documents = []


class PolicyView(View):
    """A version. What it says never changes; its state does."""

    sha256: str
    state: PolicyState
    in_force: Literal["active", "candidate"] | None


class WholePolicyView(PolicyView):
    document: dict[str, JsonValue]
    cases: list[dict[str, JsonValue]]


class RolloutView(Rollout, View): ...


class Activation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    percent: float = Field(100.0, gt=0, le=100, description="Share of the requests that it decides.")
    by: Literal["call", "key"] = Field(
        "call", description="Draw each request, or each key with all of its own."
    )


class Difference(BaseModel):
    against: str
    diff: list[str] = Field(description="A unified diff of the YAML, line by line; empty: no difference.")


def policies_router(desk: Desk) -> APIRouter:  # noqa: C901 - a list of handlers
    router = APIRouter(prefix="/policies", tags=["policies"])
    Reader = Annotated[Principal, Depends(reading(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]
    prove = desk.policies.prove

    @router.get("", response_model=Page[PolicyView])
    def list_policies(
        _: Reader,
        after: After = "",
        limit: Limit = 50,
    ) -> Any:
        """All versions, by name@version. The configuration's policy is no version: see `/admin/policy`."""
        found, rollout = desk.store.page(Kind.POLICY, after=after, limit=limit + 1), _rollout(desk)
        return paged([_shown(policy, rollout) for policy in found], limit)

    @router.post("", status_code=201, response_model=PolicyView)
    def create_draft(asked: NewPolicy, act: Poster, response: Response) -> Any:
        """Keep a version as a draft. It is proved when it is verified, tested or activated."""

        def created(changes: Transaction) -> Stored:
            return policies.create(changes, asked.document, asked.cases, desk.policies.of_file.label)

        return tagged(response, act.change(created) | {"in_force": None})

    @router.get("/schema")
    def get_schema(_: Reader) -> dict[str, Any]:
        """The JSON Schema of a policy's document, with this deployment's privacy classes."""
        return policy_schema(desk.scale)

    @router.get("/{id}", response_model=WholePolicyView)
    def get_policy(id: LabelPath, _: Reader, response: Response) -> Any:
        """One version with its document and cases."""
        return tagged(response, _shown(desk.store.get(Kind.POLICY, id), _rollout(desk)))

    @router.get("/{id}/diff", response_model=Difference)
    def diff_policy(
        id: LabelPath,
        _: Reader,
        against: Annotated[
            str, Query(max_length=90, pattern="^[ -~]*$", description="Empty: what is in force.")
        ] = "",
    ) -> Any:
        """What a version changes, against the one in force or another one."""
        other = against or desk.policies.stable.label
        old, new = _document(desk, other), _document(desk, id)
        lines = difflib.unified_diff(_yaml(old), _yaml(new), fromfile=other, tofile=id, lineterm="", n=2)
        return {"against": other, "diff": list(lines)}

    @router.post("/{id}/verify", response_model=PolicyView)
    def verify_policy(id: LabelPath, act: Poster, response: Response) -> Any:
        """Prove that no path leads above a zone's ceiling; 400 names every one that does."""
        return _moved(response, act.change(lambda changes: policies.verify(changes, id, prove)))

    @router.post("/{id}/test", response_model=PolicyView)
    def test_policy(id: LabelPath, act: Poster, response: Response) -> Any:
        """Prove it and run its cases; 400 names those that fail."""
        return _moved(response, act.change(lambda changes: policies.test(changes, id, prove)))

    @router.post("/{id}/activate", response_model=RolloutView)
    def activate_policy(id: LabelPath, asked: Activation, act: Poster, response: Response) -> Any:
        """Prove, test and put into force, for all requests or for a share. `if-match`: the rollout's ETag."""

        def activated(changes: Transaction) -> Stored:
            return policies.activate(
                changes, id, prove, percent=asked.percent, by=asked.by, if_match=act.if_match
            )

        return tagged(response, act.change(activated))

    @router.post("/{id}/explain", response_model=ExplanationView)
    async def explain_policy(id: LabelPath, asked: Question, _: Reader) -> Any:
        """Why a request would go where it would go: routes, targets, decision. No call is made."""
        return await explained(desk, id, asked)

    def _moved(response: Response, view: dict[str, Any]) -> dict[str, Any]:
        rollout = _rollout(desk)
        return tagged(response, view | {"in_force": _in_force(id_of(view), rollout)})

    return router


def rollout_router(desk: Desk) -> APIRouter:
    router = APIRouter(tags=["policies"])
    Reader = Annotated[Principal, Depends(reading(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]

    @router.get("/rollout", response_model=RolloutView)
    def get_rollout(_: Reader, response: Response) -> Any:
        """Which version is in force, and which one beside it. `active` empty: the configuration's policy."""
        found = desk.store.find(Kind.ROLLOUT, ROLLOUT_ID)
        never = {**Rollout().model_dump(), "id": ROLLOUT_ID, "version": 0, "created_at": 0, "changed_at": 0}
        return tagged(response, viewed(found) if found else never)

    @router.post("/rollout/rollback", response_model=RolloutView)
    def roll_back(act: Poster, response: Response) -> Any:
        """End a roll-out by percentage; without one go back to what was in force before."""
        return tagged(response, act.change(lambda changes: policies.roll_back(changes, act.if_match)))

    @router.get("/policy")
    def policy_in_force(_: Reader) -> dict[str, Any]:
        """The policy that this process decides by, and the order of its routes."""
        stable = desk.policies.stable
        return {"policy": stable.label, "routes": [route.name for route in stable.routes]}

    @router.get("/status")
    def status(_: Reader) -> dict[str, Any]:
        """How far this process follows: revision, age in seconds, and what it cannot use."""
        found: dict[str, Any] = msgspec.to_builtins(desk.follower.status())
        return found

    return router


def id_of(view: dict[str, Any]) -> str:
    return str(view["id"])


def _rollout(desk: Desk) -> Rollout:
    found = desk.store.find(Kind.ROLLOUT, ROLLOUT_ID)
    return Rollout.model_validate(found.body) if found else Rollout()


def _shown(stored: Stored, rollout: Rollout) -> dict[str, Any]:
    return viewed(stored) | {"in_force": _in_force(stored.id, rollout)}


def _in_force(label: str, rollout: Rollout) -> str | None:
    return {rollout.candidate: "candidate", rollout.active: "active"}.get(label)


def _document(desk: Desk, label: str) -> Any:
    """Raises NotFound."""
    if label == desk.policies.of_file.label:
        return desk.file_policy
    found = desk.store.find(Kind.POLICY, label)
    if found is None:
        raise NotFound("There is no such policy.", code="policy_not_found", param="id")
    return found.body["document"]


def _yaml(document: Any) -> list[str]:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).splitlines()

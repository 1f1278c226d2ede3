"""`/admin/audit`: every change, with who, when, why, before and after; and the proof that none is missing."""

import json
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field, JsonValue

from gateway.api.desk import Desk, Limit, reading
from gateway.control.audit import Entry
from gateway.types import Principal

Word = Annotated[str, Query(max_length=200, pattern=r"^[ -~]*$")]
NEWEST = 2**62  # above all rows


class Change(BaseModel):
    seq: int
    at: int = Field(description="Unix seconds.")
    actor: str = Field(description="The id of the key.")
    reason: str
    action: str
    kind: str
    target: str
    before: JsonValue = Field(description="Secrets and confidential terms masked; null: there was nothing.")
    after: JsonValue
    digest: str
    previous: str = Field(description="The hash of the row before.")
    hash: str


class Changes(BaseModel):
    object: Literal["list"] = "list"
    data: list[Change]
    has_more: bool


class ProofView(BaseModel):
    intact: bool
    rows: int
    head: str = Field(
        description="The newest row's hash. Keep it elsewhere: a later proof can be held to it."
    )
    problem: str


def audit_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/audit", tags=["audit"])
    Reader = Annotated[Principal, Depends(reading(desk))]

    @router.get("", response_model=Changes)
    def list_changes(
        _: Reader,
        before: Annotated[int, Query(ge=1, le=NEWEST, description="Only rows below this `seq`.")] = NEWEST,
        limit: Limit = 50,
        actor: Word = "",
        kind: Word = "",
        target: Word = "",
        action: Word = "",
    ) -> Any:
        """Changes, the newest first. The next page comes with `before` = the last row's `seq`."""
        found = desk.store.log(
            before=before, limit=limit + 1, actor=actor, kind=kind, target=target, action=action
        )
        return {"data": [_change(entry) for entry in found[:limit]], "has_more": len(found) > limit}

    @router.get("/verify", response_model=ProofView)
    def verify_log(
        _: Reader,
        expect: Annotated[str, Query(pattern="^([0-9a-f]{64})?$", description="A hash it must hold.")] = "",
    ) -> Any:
        """Walk the whole chain, and hold every record against what the log says of it."""
        return msgspec.structs.asdict(desk.store.prove(expect))

    return router


def _change(entry: Entry) -> dict[str, Any]:
    shown = msgspec.structs.asdict(entry)
    return shown | {"before": json.loads(entry.before), "after": json.loads(entry.after)}

"""`/admin/adapters`: releases by stages and the way back, canaries, lineage, and the erasure of rows."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.errors import (
    AdapterError,
    AliasMoved,
    ArtifactRefused,
    NoPrevious,
    NotServable,
    ReplicaError,
    RolloutFailed,
    UnknownAlias,
    UnknownRelease,
)
from adapters.states import State
from gateway.api.desk import Acting, Desk, posting, reading
from gateway.api.errors import render
from gateway.control.records import Slug
from gateway.control.store import Transaction
from gateway.errors import ApiError, BadRequest, HeadgateError, NotFound
from gateway.fleet import Fleet, Release
from gateway.types import Principal

log = logging.getLogger("headgate.api")

STATUSES: dict[type[AdapterError], int] = {
    ArtifactRefused: 400,
    UnknownRelease: 404,
    UnknownAlias: 404,
    NoPrevious: 409,
    NotServable: 409,
    AliasMoved: 409,
    ReplicaError: 502,
    RolloutFailed: 502,
}
Printable = Annotated[str, Field(min_length=1, max_length=1_024, pattern=r"^[^\x00-\x1f\x7f]+$")]


Stage = Literal["shadow", "canary", "stable"]
RowId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the row's canonical JSON.")]
Weight = Annotated[
    float | None,
    Field(gt=0, lt=1, description="Share of the traffic that a canary answers; 0.1 if not given."),
]
USUAL_WEIGHT = 0.1


class Staged(BaseModel):
    model_config = ConfigDict(extra="forbid")

    stage: Stage = Field(
        default="stable",
        description="shadow: answers nobody. canary: a share of the traffic, until a sequential test of "
        "errors and latency promotes it or rolls it back. stable: all of it.",
    )
    weight: Weight = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.weight is not None and self.stage != "canary":
            raise ValueError("only a canary has a weight")
        return self

    @property
    def plan(self) -> dict[str, Any]:
        weight = USUAL_WEIGHT if self.weight is None else self.weight
        return {"stage": State(self.stage), "weight": weight if self.stage == "canary" else 0.0}


class ReleaseRequest(Staged):
    folder: Annotated[Printable, Field(description="Folder on this host that holds the adapter.")]


class ReleaseView(BaseModel):
    release: str
    base: str
    state: str
    aliases: list[str] = Field(description="That point at it.")
    replicas: list[str] = Field(description="That were seen to serve it rightly.")
    reason: str = Field(description="Why it failed or was rolled back, if it did.")
    erased_rows: int = Field(description="That it was trained on and that were erased since.")
    blocked: bool = Field(description="For that reason it is not served.")


class TrialView(BaseModel):
    release: str
    against: str = Field(description="The stable release that it is compared with.")
    weight: float
    started_ns: int = Field(description="Unix time in nanoseconds.")
    started_by: str
    ended_ns: int | None
    verdict: str = Field(description="promoted, rolled back, or empty: under way.")
    reason: str
    numbers: dict[str, Any] = Field(description="Of the test, as they last stood.")


class SeenView(BaseModel):
    row: str
    release: str
    split: Literal["train", "held_out"]


class ErasureRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rows: Annotated[list[RowId], Field(min_length=1, max_length=100_000)]
    block: bool = Field(default=True, description="Adapters that were trained on them are served no more.")


class TouchedView(BaseModel):
    release: str
    rows: list[str] = Field(description="Erased rows that it was trained on.")
    blocked: bool


def adapters_router(desk: Desk, fleet: Fleet) -> APIRouter:
    router = APIRouter(prefix="/adapters", tags=["adapters"])
    Reader = Annotated[Principal, Depends(reading(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]

    @router.get("", response_model=list[ReleaseView])
    async def list_releases(_: Reader) -> Any:
        """Every release, how far it is, and which aliases and replicas have it."""
        return msgspec.to_builtins(await fleet.releases())

    @router.post("", response_model=ReleaseView)
    async def release_adapter(asked: ReleaseRequest, act: Poster) -> Any:
        """Bring an adapter up on the replicas, prove it, and move its stage's alias; or change nothing."""
        released = await fleet.release(Path(asked.folder), by=act.principal.key_id, **asked.plan)
        return await _noted(act, "release", released)

    @router.post("/{name}/promote", response_model=ReleaseView)
    async def promote_adapter(name: Slug, asked: Staged, act: Poster) -> Any:
        """Take the adapter's canary, or else its shadow, to a further stage."""
        return await _noted(act, "promote", await fleet.promote(name, by=act.principal.key_id, **asked.plan))

    @router.post("/{name}/withdraw", response_model=ReleaseView)
    async def withdraw_adapter(name: Slug, act: Poster) -> Any:
        """End the adapter's canary, or else its shadow: it is rolled back."""
        return await _noted(act, "withdraw", await fleet.withdraw(name, by=act.principal.key_id))

    @router.post("/{name}/rollback", response_model=ReleaseView)
    async def roll_back_adapter(name: Slug, act: Poster) -> Any:
        """Move the adapter's @stable alias back to where it pointed before."""
        return await _noted(act, "rollback", await fleet.rollback(name, by=act.principal.key_id))

    @router.get("/{name}/trials", response_model=list[TrialView])
    async def list_trials(name: Slug, _: Reader) -> Any:
        """Every canary of the adapter, oldest first, with the numbers of its test."""
        return msgspec.to_builtins(await fleet.trials(name))

    @router.get("/lineage", response_model=list[SeenView])
    async def show_lineage(
        _: Reader,
        row: Annotated[list[RowId] | None, Query(description="Which adapters saw these rows.")] = None,
        release: Annotated[str, Query(max_length=80, description="Which rows this release saw.")] = "",
    ) -> Any:
        """Which adapters saw a row, or which rows an adapter saw."""
        if bool(row) == bool(release):
            raise BadRequest("give either row or release", param="row")
        return msgspec.to_builtins(await (fleet.who_saw(row) if row else fleet.seen_by(release)))

    @router.post("/erasures", response_model=list[TouchedView])
    async def erase_rows(asked: ErasureRequest, act: Poster) -> Any:
        """Mark rows as erased; the adapters that were trained on them, and no others."""
        touched = await fleet.erase(asked.rows, block=asked.block, by=act.principal.key_id)
        view = msgspec.to_builtins(touched)
        await _note(act, "erase", "rows", {"rows": asked.rows, "block": asked.block, "touched": view})
        return view

    return router


async def _noted(act: Acting, action: str, release: Release) -> dict[str, Any]:
    """The release, once it stands in the audit log."""
    view: dict[str, Any] = msgspec.to_builtins(release)
    await _note(act, action, release.release.partition("@")[0], view)
    return view


async def _note(act: Acting, action: str, name: str, view: dict[str, Any]) -> None:
    """Into the audit log. What is done is done, also where that fails."""

    def note(changes: Transaction) -> dict[str, Any]:
        changes.note(action, "adapter", name, view)
        return {}

    try:
        await asyncio.to_thread(act.desk.store.once, act.author, None, note)
    except HeadgateError as error:
        log.error("adapter %s by %s is not in the audit log: %s", action, act.principal.key_id, error)


def install(app: FastAPI) -> None:
    app.add_exception_handler(AdapterError, _adapter_error)


async def _adapter_error(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    kinds: dict[int, type[ApiError]] = {400: BadRequest, 404: NotFound}
    code = type(error).__name__
    return render(kinds.get(status, ApiError)(str(error), status=status, code=code))

"""`/admin/adapters`: releases, and the way back."""

import asyncio
import logging
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, Field

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


class ReleaseRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folder: Annotated[Printable, Field(description="Folder on this host that holds the adapter.")]


class ReleaseView(BaseModel):
    release: str
    base: str
    state: str
    aliases: list[str] = Field(description="That point at it.")
    replicas: list[str] = Field(description="That were seen to serve it rightly.")
    reason: str = Field(description="Why it failed, if it did.")


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
        """Bring an adapter up on every replica, prove it, and move its @stable alias; or change nothing."""
        released = await fleet.release(Path(asked.folder), by=act.principal.key_id)
        return await _noted(act, "release", released)

    @router.post("/{name}/rollback", response_model=ReleaseView)
    async def roll_back_adapter(name: Slug, act: Poster) -> Any:
        """Move the adapter's @stable alias back to where it pointed before."""
        return await _noted(act, "rollback", await fleet.rollback(name, by=act.principal.key_id))

    return router


async def _noted(act: Acting, action: str, release: Release) -> dict[str, Any]:
    """The release, once it stands in the audit log. What is done is done, also where that fails."""
    view: dict[str, Any] = msgspec.to_builtins(release)

    def note(changes: Transaction) -> dict[str, Any]:
        changes.note(action, "adapter", release.release.partition("@")[0], view)
        return {}

    try:
        await asyncio.to_thread(act.desk.store.once, act.author, None, note)
    except HeadgateError as error:
        log.error("adapter %s by %s is not in the audit log: %s", action, act.principal.key_id, error)
    return view


def install(app: FastAPI) -> None:
    app.add_exception_handler(AdapterError, _adapter_error)


async def _adapter_error(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    kinds: dict[int, type[ApiError]] = {400: BadRequest, 404: NotFound}
    code = type(error).__name__
    return render(kinds.get(status, ApiError)(str(error), status=status, code=code))

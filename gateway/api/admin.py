"""`/admin`: releases and the policy in force. Every route asks for a key with `admin: true`."""

from collections.abc import Callable
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
from gateway.api.errors import render
from gateway.errors import ApiError, BadRequest, NotFound
from gateway.fleet import Fleet
from gateway.types import Principal
from router_policies.compiled import CompiledPolicy

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


class ReleaseRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folder: Annotated[str, Field(min_length=1, description="Folder on this host that holds the adapter.")]


def admin_router(admit: Callable[[Request], Principal], fleet: Fleet, policy: CompiledPolicy) -> APIRouter:
    router = APIRouter(prefix="/admin", tags=["admin"])
    Admin = Annotated[Principal, Depends(admit)]

    @router.get("/adapters")
    async def releases(_: Admin) -> Any:
        """Every release, how far it is, and which aliases and replicas have it."""
        return msgspec.to_builtins(await fleet.releases())

    @router.post("/adapters")
    async def release(asked: ReleaseRequest, admin: Admin) -> Any:
        """Bring an adapter up on every replica, prove it, and move its @stable alias; or change nothing."""
        return msgspec.to_builtins(await fleet.release(Path(asked.folder), by=admin.key_id))

    @router.post("/adapters/{name}/rollback")
    async def rollback(name: str, admin: Admin) -> Any:
        """Move the adapter's @stable alias back to where it pointed before."""
        return msgspec.to_builtins(await fleet.rollback(name, by=admin.key_id))

    @router.get("/policy")
    async def active_policy(_: Admin) -> dict[str, Any]:
        """The policy in force and the order of its routes."""
        return {"policy": policy.label, "routes": [route.name for route in policy.routes]}

    return router


def install(app: FastAPI) -> None:
    app.add_exception_handler(AdapterError, _adapter_error)


async def _adapter_error(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in STATUSES.items() if isinstance(error, kind)), 500)
    kinds: dict[int, type[ApiError]] = {400: BadRequest, 404: NotFound}
    code = type(error).__name__
    return render(kinds.get(status, ApiError)(str(error), status=status, code=code))

"""`/admin/fleet`: the replicas as this process sees them, and where it routes each alias."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from gateway.api.desk import Desk, reading
from gateway.fleet import Fleet
from gateway.types import Principal


class LoadState(BaseModel):
    running: int = Field(description="Requests that it computes.")
    waiting: int = Field(description="Requests in its queue.")
    kv_use: float = Field(description="Share of the KV cache in use.")
    slots: int = Field(description="Adapters that fit into one batch; 0: not told yet.")
    active: list[str] = Field(description="Adapters of the present batch.")


class ReplicaState(BaseModel):
    replica: str
    backend: str
    url: str
    healthy: bool = Field(description="It answered when it was last looked at.")
    adapters: list[str] = Field(description="That it was seen to serve rightly.")
    failed: dict[str, str] = Field(description="By release, why it could not be brought up.")
    load: LoadState | None = Field(description="As vLLM says itself; null: it said nothing lately.")


class FleetState(BaseModel):
    aliases: dict[str, str] = Field(description="Where each alias leads in this process now.")
    demand: dict[str, int] = Field(
        description="Requests here that found their adapter loaded, and that did not, where there are slots."
    )
    wanted: dict[str, int] = Field(
        description="By backend, how many replicas the present work is for: a hint for whoever scales them."
    )
    replicas: list[ReplicaState]


def fleet_router(desk: Desk, fleet: Fleet) -> APIRouter:
    router = APIRouter(prefix="/fleet", tags=["adapters"])
    Reader = Annotated[Principal, Depends(reading(desk))]

    @router.get("", response_model=FleetState)
    async def show_fleet(_: Reader) -> Any:
        """Every replica: whether it answers, and what it serves."""
        return {
            "aliases": dict(fleet.routes()),
            "demand": fleet.demand(),
            "wanted": {backend: fleet.replicas_wanted(backend) for backend in fleet.replicas_of()},
            "replicas": msgspec.to_builtins(fleet.replicas()),
        }

    return router

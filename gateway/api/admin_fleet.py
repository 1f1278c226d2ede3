"""`/admin/fleet`: the replicas as this process sees them, and where it routes each alias."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from gateway.api.desk import Desk, reading
from gateway.fleet import Fleet
from gateway.types import Principal


class ReplicaState(BaseModel):
    replica: str
    backend: str
    url: str
    healthy: bool = Field(description="It answered when it was last looked at.")
    adapters: list[str] = Field(description="That it was seen to serve rightly.")
    failed: dict[str, str] = Field(description="By release, why it could not be brought up.")


class FleetState(BaseModel):
    aliases: dict[str, str] = Field(description="Where each alias leads in this process now.")
    demand: dict[str, int] = Field(
        description="Requests here that found their adapter loaded, and that did not, where there are slots."
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
            "replicas": msgspec.to_builtins(fleet.replicas()),
        }

    return router

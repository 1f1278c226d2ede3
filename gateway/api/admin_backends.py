"""`/admin/backends` and `/admin/zones`: what the configuration's file says, and how it does now.

They are read here and changed in the file only: which hosts may be reached, and which classes may go there,
is no matter of an API key.
"""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from gateway.api.desk import Desk, reading
from gateway.control.records import Slug
from gateway.errors import NotFound
from gateway.settings import AnyBackend, LitellmSettings, Settings, VllmSettings
from gateway.types import Principal
from router_policies.types import Snapshot


class ZoneView(BaseModel):
    id: str
    ceiling: str = Field(description="The highest class that may go there.")
    local: bool = Field(description="It is our own: reached without a permit.")
    backends: list[str]


class BackendView(BaseModel):
    id: str
    kind: str = Field(description="vllm, openai or litellm.")
    zone: str
    urls: list[str] = Field(description="Where it is reached; of several replicas each.")
    models: list[str] = Field(description="As it names them itself; `*`: any.")
    max_concurrent: int = Field(description="Requests under way at once, by process.")
    busy: int = Field(description="Requests under way or waiting in this process.")
    down: bool = Field(description="It is left alone for now: no replica answers, or it kept failing.")


def zones_router(desk: Desk, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/zones", tags=["backends"])
    Reader = Annotated[Principal, Depends(reading(desk))]

    @router.get("", response_model=list[ZoneView])
    async def list_zones(_: Reader) -> Any:
        """Every zone with its ceiling, by name."""
        return [_zone(id, settings) for id in sorted(settings.zones)]

    @router.get("/{id}", response_model=ZoneView)
    async def show_zone(id: Slug, _: Reader) -> Any:
        if id not in settings.zones:
            raise NotFound(f"There is no zone {id!r}.")
        return _zone(id, settings)

    return router


def backends_router(desk: Desk, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/backends", tags=["backends"])
    Reader = Annotated[Principal, Depends(reading(desk))]
    snapshot: Callable[[], Snapshot] = desk.snapshot

    @router.get("", response_model=list[BackendView])
    async def list_backends(_: Reader) -> Any:
        """Every backend, by name, and how it does."""
        return [_backend(id, settings.backends[id], snapshot()) for id in sorted(settings.backends)]

    @router.get("/{id}", response_model=BackendView)
    async def show_backend(id: Slug, _: Reader) -> Any:
        if id not in settings.backends:
            raise NotFound(f"There is no backend {id!r}.")
        return _backend(id, settings.backends[id], snapshot())

    return router


def _zone(id: str, settings: Settings) -> dict[str, Any]:
    zone = settings.zones[id]
    inside = sorted(name for name, backend in settings.backends.items() if backend.zone == id)
    return {"id": id, "ceiling": zone.ceiling.label, "local": zone.local, "backends": inside}


def _backend(id: str, backend: AnyBackend, now: Snapshot) -> dict[str, Any]:
    return {
        "id": id,
        "kind": backend.kind,
        "zone": backend.zone,
        "urls": list(backend.replicas(id).values()) if isinstance(backend, VllmSettings) else _urls(backend),
        "models": [backend.model] if isinstance(backend, VllmSettings) else list(backend.models),
        "max_concurrent": backend.max_concurrent,
        "busy": now.busy.get(id, 0),
        "down": id in now.down,
    }


def _urls(backend: AnyBackend) -> list[str]:
    """None for a provider that litellm knows the way to."""
    return [] if isinstance(backend, LitellmSettings) and not backend.url else [str(backend.url)]

"""`/live`: this process runs. `/ready`: it may be sent traffic. `/metrics`: for Prometheus."""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from gateway.monitor.metrics import Metrics

JSON = "application/json"
_LIVE = msgspec.json.encode({"status": "live"})


def live() -> tuple[int, bytes]:
    """Status and JSON body of `/live`."""
    return 200, _LIVE


def readiness(checks: Mapping[str, bool], **more: msgspec.Struct) -> tuple[int, bytes]:
    """Status and JSON body of `/ready`. `checks` names what must hold, `more` is for people."""
    return 200 if all(checks.values()) else 503, msgspec.json.encode({"checks": checks, **more})


def health_router(
    ready: Callable[[], tuple[int, bytes]], metrics: Metrics, backlog: Callable[[], int]
) -> APIRouter:
    """`ready` gives status and body of `/ready`; nothing here waits for anything."""
    router = APIRouter(tags=["health"])
    metrics.follow(metrics.ledger_backlog, backlog)

    @router.get("/live")
    async def is_live() -> Response:
        status, body = live()
        return Response(body, status, media_type=JSON)

    @router.get("/ready")
    async def is_ready() -> Response:
        status, body = ready()
        return Response(body, status, media_type=JSON)

    @router.get("/metrics")
    async def scrape() -> Response:
        # Takes milliseconds, which requests in flight need not wait for.
        return Response(await asyncio.to_thread(metrics.render), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router

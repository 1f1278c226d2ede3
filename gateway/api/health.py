"""`/live`: this process runs. `/ready`: it may be sent traffic. `/metrics`: for Prometheus."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from gateway.monitor.metrics import Metrics


def health_router(
    ready: Callable[[], Mapping[str, bool]], metrics: Metrics, backlog: Callable[[], int]
) -> APIRouter:
    """`ready` names what must hold; nothing here waits for anything."""
    router = APIRouter(tags=["health"])

    @router.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @router.get("/ready")
    async def is_ready() -> JSONResponse:
        checks = dict(ready())
        return JSONResponse({"checks": checks}, status_code=200 if all(checks.values()) else 503)

    @router.get("/metrics")
    async def scrape() -> Response:
        metrics.ledger_backlog.set(backlog())
        return Response(metrics.render(), media_type="text/plain; version=0.0.4")

    return router

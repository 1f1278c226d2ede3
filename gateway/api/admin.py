"""`/admin`: everything that is changed while the gateway runs, one file for each noun.

Every route asks for a key with a role. Changes are made in one transaction with their row of the audit log,
and are in force in this process when they are answered, in all others within two seconds.
"""

from fastapi import APIRouter, FastAPI, Request, Response

from gateway.api import admin_adapters
from gateway.api.admin_adapters import adapters_router
from gateway.api.admin_audit import audit_router
from gateway.api.admin_backends import backends_router, zones_router
from gateway.api.admin_budgets import Standings, budgets_router
from gateway.api.admin_fleet import fleet_router
from gateway.api.admin_keys import keys_router
from gateway.api.admin_policies import policies_router, rollout_router
from gateway.api.admin_prices import prices_router
from gateway.api.admin_privacy import privacy_router
from gateway.api.admin_teams import projects_router, teams_router
from gateway.api.desk import REFUSALS, Desk
from gateway.api.errors import render
from gateway.errors import ApiError
from gateway.fleet import Fleet
from gateway.ledger.database import StoreUnavailable
from gateway.settings import Settings


def admin_router(desk: Desk, fleet: Fleet, standings: Standings, settings: Settings) -> APIRouter:
    router = APIRouter(prefix="/admin", responses=REFUSALS)
    for noun in (
        teams_router(desk),
        projects_router(desk),
        keys_router(desk),
        zones_router(desk, settings),
        backends_router(desk, settings),
        policies_router(desk),
        rollout_router(desk),
        privacy_router(desk),
        budgets_router(desk, standings),
        prices_router(desk),
        adapters_router(desk, fleet),
        fleet_router(desk, fleet),
        audit_router(desk),
    ):
        router.include_router(noun)
    return router


def install(app: FastAPI) -> None:
    admin_adapters.install(app)
    app.add_exception_handler(StoreUnavailable, _database_away)


async def _database_away(request: Request, error: Exception) -> Response:
    message = "The database cannot be reached; nothing was changed. Please try again shortly."
    return render(ApiError(message, status=503, code="database_unavailable", headers={"retry-after": "1"}))

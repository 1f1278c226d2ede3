"""`/admin/reports`: what was spent. No prompts, here or anywhere in the ledger."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime, JsonValue

from gateway.api.auth import Right
from gateway.api.desk import Desk, reading
from gateway.errors import BadRequest
from gateway.finance.reports import cost_report
from gateway.ledger.store import GroupBy
from gateway.types import Principal

EPOCH, END = datetime.fromisoformat("1970-01-01T00:00:00Z"), datetime.fromisoformat("2200-01-01T00:00:00Z")
When = Annotated[AwareDatetime | None, Query(description="ISO 8601 with a zone.")]


def reports_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/reports", tags=["reports"])
    Reader = Annotated[Principal, Depends(reading(desk, Right.READ_COSTS))]

    @router.get("/costs", response_model=dict[str, JsonValue])
    def costs(
        _: Reader,
        by: Annotated[list[GroupBy] | None, Query(description="Groups, in order.", max_length=7)] = None,
        since: When = None,
        until: When = None,
    ) -> Any:
        """Requests, tokens and cost by group, for requests with since <= start < until."""
        groups = by if by is not None else [GroupBy.TEAM, GroupBy.MODEL]
        if len(set(groups)) < len(groups):
            raise BadRequest("by: a report cannot be grouped by the same thing twice", param="by")
        for name, moment in (("since", since), ("until", until)):
            if moment is not None and not EPOCH <= moment <= END:
                raise BadRequest(f"{name}: must lie between 1970 and 2200", param=name)
        return cost_report(desk.ledger, groups, since, until).to_dict()

    return router

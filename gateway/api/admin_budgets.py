"""`/admin/budgets`: what may be spent, by whom; in force in every process within two seconds.

Those of the configuration stand in the list with origin "file" and are changed there.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, Field

from gateway.api.auth import Right
from gateway.api.desk import (
    Acting,
    After,
    Desk,
    Limit,
    Page,
    Removed,
    View,
    changing,
    page,
    posting,
    reading,
    tagged,
    viewed,
)
from gateway.control.records import BudgetTerms, Kind, Slug
from gateway.control.store import Conflict, Transaction
from gateway.errors import BadRequest
from gateway.ledger.budgets.budget import Budget
from gateway.ledger.prices import usd
from gateway.ledger.store import BudgetStanding
from gateway.types import Principal


class NewBudget(BudgetTerms):
    id: Slug


class BudgetView(BudgetTerms, View): ...


class BudgetState(BaseModel):
    """A budget in its present period. Amounts are decimal strings of US dollars."""

    id: str
    hard: bool
    period_start_ns: int = Field(description="Unix nanoseconds.")
    period_end_ns: int = Field(description="Unix nanoseconds; not included.")
    cap_usd: str = Field(description="With what was carried over.")
    spent_usd: str
    leased_usd: str = Field(description="Set aside by the gateway's processes for requests on their way.")
    share_used: float = Field(description="Spent, of the cap.")


class BudgetStates(BaseModel):
    object: Literal["list"] = "list"
    data: list[BudgetState]


Standings = Callable[[], Sequence[BudgetStanding]]


def budgets_router(desk: Desk, standings: Standings) -> APIRouter:
    router = APIRouter(prefix="/budgets", tags=["budgets"])
    Reader = Annotated[Principal, Depends(reading(desk, Right.READ_COSTS))]
    Changer = Annotated[Acting, Depends(changing(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]

    @router.get("", response_model=Page[BudgetView])
    def list_budgets(_: Reader, after: After = "", limit: Limit = 50) -> Any:
        """The budgets that are changed here, by id. `/admin/budgets/state` has the configuration's too."""
        return page(desk, Kind.BUDGET, after, limit)

    @router.get("/state", response_model=BudgetStates)
    def state(_: Reader) -> Any:
        """How far each budget is used in its present period."""
        return {"object": "list", "data": [_shown(found) for found in standings()]}

    @router.post("", status_code=201, response_model=BudgetView)
    def create_budget(asked: NewBudget, act: Poster, response: Response) -> Any:
        """Create a budget. What its scope has spent in the present period counts from the first."""
        view = act.create(Kind.BUDGET, asked, lambda changes: _check(desk, asked.id, asked, changes))
        return tagged(response, view)

    @router.get("/{id}", response_model=BudgetView)
    def get_budget(id: Slug, _: Reader, response: Response) -> Any:
        """One budget."""
        return tagged(response, viewed(desk.store.get(Kind.BUDGET, id)))

    @router.put("/{id}", response_model=BudgetView)
    def replace_budget(id: Slug, asked: BudgetTerms, act: Changer, response: Response) -> Any:
        """Replace all that is said of a budget. Give `if-match`, lest another's change be lost."""
        view = act.replace(Kind.BUDGET, id, asked, lambda changes, _: _check(desk, id, asked, changes))
        return tagged(response, view)

    @router.delete("/{id}", response_model=Removed)
    def delete_budget(id: Slug, act: Changer) -> Any:
        """Delete a budget: from then on it refuses nothing."""
        return act.remove(Kind.BUDGET, id)

    return router


def _check(desk: Desk, id: str, asked: BudgetTerms, changes: Transaction) -> None:
    if id in desk.file_budgets:
        raise Conflict(f"The budget {id!r} stands in the configuration: change it there.", code="file_budget")
    keys, teams = {key.id for key in desk.file_keys}, {key.team for key in desk.file_keys}
    if asked.key is not None and asked.key not in keys and changes.find(Kind.KEY, asked.key) is None:
        raise BadRequest(f"There is no key {asked.key!r}.", param="key", code="key_not_found")
    if asked.team is not None and asked.team not in teams and changes.find(Kind.TEAM, asked.team) is None:
        raise BadRequest(f"There is no team {asked.team!r}.", param="team", code="team_not_found")


def _shown(found: BudgetStanding) -> dict[str, Any]:
    budget: Budget = found.budget
    standing = found.standing
    return {
        "id": budget.id,
        "hard": budget.hard,
        "period_start_ns": found.window.start_ns,
        "period_end_ns": found.window.end_ns,
        "cap_usd": usd(standing.cap_nano),
        "spent_usd": usd(standing.spent_nano),
        "leased_usd": usd(standing.leased_nano),
        "share_used": standing.spent_nano / standing.cap_nano if standing.cap_nano else 1.0,
    }

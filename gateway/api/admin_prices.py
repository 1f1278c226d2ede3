"""`/admin/prices`: prices of one's own, dated; in force in every process within two seconds.

A price holds for calls that begin while it does. Those that were recorded at an unknown price before are
priced by `headgate prices rerate`.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

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
from gateway.control.records import Kind, PriceTerms, Slug
from gateway.control.store import Conflict
from gateway.errors import BadRequest
from gateway.types import Principal


class NewPrice(PriceTerms):
    id: Slug


class PriceView(PriceTerms, View): ...


def prices_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/prices", tags=["prices"])
    Reader = Annotated[Principal, Depends(reading(desk, Right.READ_COSTS))]
    Changer = Annotated[Acting, Depends(changing(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]

    @router.get("", response_model=Page[PriceView])
    def list_prices(_: Reader, after: After = "", limit: Limit = 50) -> Any:
        """The prices that are set here, by id."""
        return page(desk, Kind.PRICE, after, limit)

    @router.post("", status_code=201, response_model=PriceView)
    def create_price(asked: NewPrice, act: Poster, response: Response) -> Any:
        """Set what a model costs from a day on."""
        return tagged(response, act.create(Kind.PRICE, asked, lambda _: _check(desk, asked.id, asked)))

    @router.get("/{id}", response_model=PriceView)
    def get_price(id: Slug, _: Reader, response: Response) -> Any:
        """One price."""
        return tagged(response, viewed(desk.store.get(Kind.PRICE, id)))

    @router.put("/{id}", response_model=PriceView)
    def replace_price(id: Slug, asked: PriceTerms, act: Changer, response: Response) -> Any:
        """Replace a price. What was charged by the old one stays as it is."""
        view = act.replace(Kind.PRICE, id, asked, lambda *_: _check(desk, id, asked))
        return tagged(response, view)

    @router.delete("/{id}", response_model=Removed)
    def delete_price(id: Slug, act: Changer) -> Any:
        """Delete a price: the configuration's or the public one holds again."""
        return act.remove(Kind.PRICE, id)

    return router


def _check(desk: Desk, id: str, asked: PriceTerms) -> None:
    if asked.currency != "USD" and asked.currency not in desk.currencies:
        raise BadRequest(
            f"There are no rates of {asked.currency}: give them under `currencies` in the configuration.",
            param="currency",
            code="unknown_currency",
        )
    for other in desk.store.read([Kind.PRICE]):
        same = (other.body["model"], other.body["since"]) == (asked.model, asked.since.isoformat())
        if same and other.id != id:
            raise Conflict(
                f"The price {other.id!r} of {asked.model!r} begins on that day too.",
                code="already_exists",
                param="since",
            )

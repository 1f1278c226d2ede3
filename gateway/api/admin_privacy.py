"""`/admin/privacy`: dictionaries and patterns that raise a request's class, for one team or for all."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import Field

from gateway.api.desk import (
    Acting,
    After,
    Desk,
    Limit,
    OfTeam,
    Page,
    Removed,
    View,
    changing,
    paged,
    reading,
    tagged,
    viewed,
)
from gateway.control.records import Dictionary, Kind, Label, Pattern, Record, Slug
from gateway.control.store import Stored, Transaction
from gateway.errors import BadRequest
from gateway.privacy.written import check_pattern
from gateway.types import Principal


class DictionaryView(View):
    """A dictionary without its terms: who asks for one by its id gets them."""

    team: Slug | None
    privacy: Label
    count: int = Field(description="Of its terms.")


class WholeDictionaryView(Dictionary, View): ...


class PatternView(Pattern, View): ...


def privacy_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/privacy", tags=["privacy"])
    Reader = Annotated[Principal, Depends(reading(desk))]
    Changer = Annotated[Acting, Depends(changing(desk))]

    @router.get("/dictionaries", response_model=Page[DictionaryView])
    def list_dictionaries(_: Reader, after: After = "", limit: Limit = 50, team: OfTeam = "") -> Any:
        """All dictionaries, by id, without their terms."""
        found = desk.store.page(Kind.DICTIONARY, after=after, limit=limit + 1, team=team)
        return paged([viewed(one) | {"count": len(one.body["terms"])} for one in found], limit)

    @router.get("/dictionaries/{id}", response_model=WholeDictionaryView)
    def get_dictionary(id: Slug, _: Reader, response: Response) -> Any:
        """One dictionary with its terms."""
        return tagged(response, viewed(desk.store.get(Kind.DICTIONARY, id)))

    @router.put("/dictionaries/{id}", response_model=DictionaryView)
    def put_dictionary(id: Slug, asked: Dictionary, act: Changer, response: Response) -> Any:
        """Create or replace a dictionary. All processes classify by it within two seconds."""
        desk.check_label(asked.privacy, "privacy")
        view = act.change(lambda changes: _put(changes, Kind.DICTIONARY, id, asked, act.if_match))
        return tagged(response, view | {"count": len(asked.terms)})

    @router.delete("/dictionaries/{id}", response_model=Removed)
    def delete_dictionary(id: Slug, act: Changer) -> Any:
        """Delete a dictionary."""
        return act.carry_out(lambda changes: _removed(changes, Kind.DICTIONARY, id, act.if_match))

    @router.get("/patterns", response_model=Page[PatternView])
    def list_patterns(_: Reader, after: After = "", limit: Limit = 50, team: OfTeam = "") -> Any:
        """All patterns, by id."""
        found = desk.store.page(Kind.PATTERN, after=after, limit=limit + 1, team=team)
        return paged([viewed(one) for one in found], limit)

    @router.get("/patterns/{id}", response_model=PatternView)
    def get_pattern(id: Slug, _: Reader, response: Response) -> Any:
        """One pattern."""
        return tagged(response, viewed(desk.store.get(Kind.PATTERN, id)))

    @router.put("/patterns/{id}", response_model=PatternView)
    def put_pattern(id: Slug, asked: Pattern, act: Changer, response: Response) -> Any:
        """Create or replace a pattern; 400 says why one is refused."""
        desk.check_label(asked.privacy, "privacy")
        try:
            check_pattern(asked.regex)
        except ValueError as error:
            raise BadRequest(f"regex: {error}", param="regex", code="pattern_refused") from None
        return tagged(
            response, act.change(lambda changes: _put(changes, Kind.PATTERN, id, asked, act.if_match))
        )

    @router.delete("/patterns/{id}", response_model=Removed)
    def delete_pattern(id: Slug, act: Changer) -> Any:
        """Delete a pattern."""
        return act.carry_out(lambda changes: _removed(changes, Kind.PATTERN, id, act.if_match))

    return router


def _put(changes: Transaction, kind: Kind, id: str, asked: Record, if_match: str) -> Stored:
    body = asked.model_dump(mode="json")
    if body["team"] is not None and changes.find(Kind.TEAM, body["team"]) is None:
        raise BadRequest(f"There is no team {body['team']!r}.", param="team", code="team_not_found")
    before = changes.find(kind, id)
    if before is None and if_match:
        changes.get(kind, id)  # raises NotFound: there is none that could be the expected version
    return changes.create(kind, id, body) if before is None else changes.replace(before, body, if_match)


def _removed(changes: Transaction, kind: Kind, id: str, if_match: str) -> dict[str, Any]:
    changes.remove(changes.get(kind, id), if_match)
    return {"id": id, "deleted": True}

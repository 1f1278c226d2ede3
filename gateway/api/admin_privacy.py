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
    page,
    paged,
    reading,
    tagged,
    viewed,
)
from gateway.control.records import Dictionary, Kind, Label, Pattern, Record, RuleName, Slug
from gateway.control.rules import dictionary_rule, pattern_rule
from gateway.control.store import Conflict, Stored, Transaction
from gateway.errors import BadRequest, ConfigError
from gateway.privacy.rules import Rules, compile_rules
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
    def get_dictionary(id: RuleName, _: Reader, response: Response) -> Any:
        """One dictionary with its terms."""
        return tagged(response, viewed(desk.store.get(Kind.DICTIONARY, id)))

    @router.put("/dictionaries/{id}", response_model=DictionaryView)
    def put_dictionary(id: RuleName, asked: Dictionary, act: Changer, response: Response) -> Any:
        """Create or replace a dictionary. All processes classify by it within two seconds."""
        desk.check_label(asked.privacy, "privacy")
        _check(Rules(dictionaries=(dictionary_rule(id, asked, desk.scale),)), "terms")
        view = act.change(lambda changes: _put(changes, Kind.DICTIONARY, id, asked, act.if_match))
        return tagged(response, view | {"count": len(asked.terms)})

    @router.delete("/dictionaries/{id}", response_model=Removed)
    def delete_dictionary(id: RuleName, act: Changer) -> Any:
        """Delete a dictionary."""
        return act.remove(Kind.DICTIONARY, id)

    @router.get("/patterns", response_model=Page[PatternView])
    def list_patterns(_: Reader, after: After = "", limit: Limit = 50, team: OfTeam = "") -> Any:
        """All patterns, by id."""
        return page(desk, Kind.PATTERN, after, limit, team)

    @router.get("/patterns/{id}", response_model=PatternView)
    def get_pattern(id: RuleName, _: Reader, response: Response) -> Any:
        """One pattern."""
        return tagged(response, viewed(desk.store.get(Kind.PATTERN, id)))

    @router.put("/patterns/{id}", response_model=PatternView)
    def put_pattern(id: RuleName, asked: Pattern, act: Changer, response: Response) -> Any:
        """Create or replace a pattern; 400 says why one is refused."""
        desk.check_label(asked.privacy, "privacy")
        _check(Rules(patterns=(pattern_rule(id, asked, desk.scale),)), "pattern")
        return tagged(
            response, act.change(lambda changes: _put(changes, Kind.PATTERN, id, asked, act.if_match))
        )

    @router.delete("/patterns/{id}", response_model=Removed)
    def delete_pattern(id: RuleName, act: Changer) -> Any:
        """Delete a pattern."""
        return act.remove(Kind.PATTERN, id)

    return router


def _check(rules: Rules, param: str) -> None:
    """Raises BadRequest with every reason why a rule is turned down."""
    try:
        compile_rules(rules)
    except ConfigError as error:
        raise BadRequest("; ".join(error.problems), param=param, code="rule_refused") from None


def _put(changes: Transaction, kind: Kind, id: str, asked: Record, if_match: str) -> Stored:
    body = asked.model_dump(mode="json")
    if body["team"] is not None and changes.find(Kind.TEAM, body["team"]) is None:
        raise BadRequest(f"There is no team {body['team']!r}.", param="team", code="team_not_found")
    other = Kind.PATTERN if kind is Kind.DICTIONARY else Kind.DICTIONARY
    if changes.find(other, id) is not None:
        raise Conflict(f"A {other.value} is called {id!r}: findings are told apart by it.", param="id")
    before = changes.find(kind, id)
    if before is None and if_match:
        changes.get(kind, id)  # raises NotFound: there is none that could be the expected version
    return changes.create(kind, id, body) if before is None else changes.replace(before, body, if_match)

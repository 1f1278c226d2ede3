"""What all of `/admin` shares: who asks with which right, pages, versions, and changes made once."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, Protocol, TypeVar

import msgspec
from fastapi import Depends, Header, Query, Request, Response
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field

from gateway.admission import Keys
from gateway.api.auth import Right, key_with
from gateway.control.follow import Follower
from gateway.control.policies import Policies
from gateway.control.records import Kind
from gateway.control.store import Author, ControlStore, Once, Operation, Stored, Transaction
from gateway.errors import BadRequest
from gateway.privacy.classify import Classifier
from gateway.settings import KeySettings
from gateway.types import Principal
from router_policies.privacy import Scale
from router_policies.types import Snapshot

T = TypeVar("T")
FOLLOWED_S = 5.0  # an answer waits so long for its own process to have followed the change

_bearer = HTTPBearer(auto_error=False, description="A key with a role: owner, operator, finance or viewer.")
_WORDS = r"^[ -~]*$"  # printable ASCII: it is a header
Reason = Annotated[
    str,
    Header(alias="x-headgate-reason", max_length=500, pattern=_WORDS, description="Why, for the audit log."),
]
IdempotencyKey = Annotated[
    str,
    Header(
        alias="idempotency-key",
        max_length=200,
        pattern=_WORDS,
        description="The same request with the same key is carried out once in 24 h; secrets are shown once.",
    ),
]
IfMatch = Annotated[
    str,
    Header(
        alias="if-match", max_length=64, pattern=_WORDS, description="ETag that the record must still have."
    ),
]
Limit = Annotated[int, Query(ge=1, le=200, description="Records on a page.")]
After = Annotated[
    str,
    Query(max_length=200, pattern=_WORDS, description="`last_id` of the page before; empty: the first page."),
]
OfTeam = Annotated[str, Query(max_length=64, pattern=_WORDS, description="Only those of this team.")]


class Fault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Envelope(BaseModel):
    """OpenAI's error envelope."""

    error: Fault


REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Envelope, "description": "The request is at fault; nothing was changed."},
    503: {"model": Envelope, "description": "The database cannot be reached; nothing was changed."},
}


class View(BaseModel):
    """What every record shows besides its own fields."""

    id: str
    version: int = Field(description="Of the record; also its ETag.")
    created_at: int = Field(description="Unix seconds.")
    changed_at: int = Field(description="Unix seconds.")


class Page(BaseModel, Generic[T]):
    """Records by id. The next page comes with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool
    first_id: str | None
    last_id: str | None


class Removed(BaseModel):
    id: str
    deleted: bool = True


class Desk(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the gateway that `/admin` works with."""

    store: ControlStore
    follower: Follower
    keys: Keys
    file_keys: Sequence[KeySettings]
    file_budgets: frozenset[str]  # ids
    currencies: frozenset[str]  # with dated rates
    policies: Policies
    file_policy: Mapping[str, Any]  # the document
    classifier_of: Callable[[str], Classifier]
    scale: Scale
    snapshot: Callable[[], Snapshot]

    def admit(self, request: Request, right: Right) -> Principal:
        """Raises Unauthenticated, Forbidden."""
        return key_with(self.keys, right)(request)

    def check_label(self, label: str | None, param: str = "privacy_floor") -> None:
        """Raises BadRequest where it is no class of the scale."""
        if label is None:
            return
        try:
            self.scale.parse(label)
        except ValueError as error:
            raise BadRequest(f"{param}: {error}", param=param, code="unknown_privacy_class") from None


class Named(Protocol):
    """What a POST says of a new record: a model with an id."""

    id: str

    def model_dump(self, *, mode: str, exclude: set[str]) -> dict[str, Any]: ...


class Acting(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may change things, and the request that asks for a change."""

    desk: Desk
    principal: Principal
    author: Author
    once: Once | None
    if_match: str

    def change(self, operation: Callable[[Transaction], Stored]) -> dict[str, Any]:
        """The view of the record that `operation` left behind, once this process follows the change."""
        return self.carry_out(lambda changes: viewed(operation(changes)))

    def create(
        self, kind: Kind, asked: "Named", check: Callable[[Transaction], object] = lambda changes: None
    ) -> dict[str, Any]:
        """The view of a new record. `check` raises what forbids it, within the transaction."""
        body = asked.model_dump(mode="json", exclude={"id"})

        def created(changes: Transaction) -> Stored:
            check(changes)
            return changes.create(kind, asked.id, body)

        return self.change(created)

    def replace(
        self,
        kind: Kind,
        id: str,
        asked: BaseModel,
        check: Callable[[Transaction, Stored], object] = lambda changes, before: None,
    ) -> dict[str, Any]:
        """The view of a record of which all is said anew. `check` sees it as it was before."""

        def replaced(changes: Transaction) -> Stored:
            before = changes.get(kind, id)
            check(changes, before)
            return changes.replace(before, asked.model_dump(mode="json"), self.if_match)

        return self.change(replaced)

    def remove(
        self, kind: Kind, id: str, check: Callable[[Transaction], object] = lambda changes: None
    ) -> dict[str, Any]:
        def gone(changes: Transaction) -> dict[str, Any]:
            check(changes)
            return removed(changes, changes.get(kind, id), self.if_match)

        return self.carry_out(gone)

    def carry_out(self, operation: Operation) -> dict[str, Any]:
        """The answer of `operation`: carried out once, audited. Blocks; not for the event loop's thread."""
        answer, revision = self.desk.store.once(self.author, self.once, operation)
        if revision:
            self.desk.follower.reached(revision, FOLLOWED_S)
        return answer


def reading(desk: Desk, right: Right = Right.READ) -> Callable[..., Principal]:
    """A dependency: who may read."""

    def read(request: Request, _: Annotated[Any, Depends(_bearer)] = None) -> Principal:
        return desk.admit(request, right)

    return read


def changing(desk: Desk) -> Callable[..., Acting]:
    """A dependency: who may change what is there (PUT, DELETE)."""

    def change(
        request: Request,
        reason: Reason = "",
        if_match: IfMatch = "",
        _: Annotated[Any, Depends(_bearer)] = None,
    ) -> Acting:
        principal = desk.admit(request, Right.CHANGE)
        author = Author(principal.key_id, reason)
        return Acting(desk=desk, principal=principal, author=author, once=None, if_match=if_match)

    return change


def posting(desk: Desk) -> Callable[..., Awaitable[Acting]]:
    """A dependency: who may make something or set it going (POST)."""

    async def post(
        request: Request,
        reason: Reason = "",
        idempotency_key: IdempotencyKey = "",
        if_match: IfMatch = "",
        _: Annotated[Any, Depends(_bearer)] = None,
    ) -> Acting:
        principal = desk.admit(request, Right.CHANGE)
        route, once = f"{request.method} {request.url.path}", None
        if idempotency_key:
            asked = hashlib.sha256(await request.body() + if_match.encode()).hexdigest()
            once = Once(route=route, key=idempotency_key, asked=asked)
        author = Author(principal.key_id, reason)
        return Acting(desk=desk, principal=principal, author=author, once=once, if_match=if_match)

    return post


def page(desk: Desk, kind: Kind, after: str, limit: int, team: str = "") -> dict[str, Any]:
    """Records by id, as `/admin` shows them."""
    return paged(
        [viewed(one) for one in desk.store.page(kind, after=after, limit=limit + 1, team=team)], limit
    )


def removed(changes: Transaction, before: Stored, if_match: str) -> dict[str, Any]:
    """Deletes a record; the answer to that."""
    changes.remove(before, if_match)
    return {"id": before.id, "deleted": True}


def viewed(stored: Stored) -> dict[str, Any]:
    """A record as `/admin` shows it. What its view's model does not name is left out there."""
    about = {"id": stored.id, "version": stored.version}
    return {**stored.body, **about, "created_at": stored.created_at, "changed_at": stored.changed_at}


def tagged(response: Response, view: dict[str, Any]) -> dict[str, Any]:
    """`view`, with its version as the ETag of the response."""
    response.headers["etag"] = f'"{view["version"]}"'
    return view


def paged(views: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of up to `limit`; `views` holds one more where there are more."""
    shown = list(views[:limit])
    return {
        "object": "list",
        "data": shown,
        "has_more": len(views) > limit,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
    }

"""`/admin/keys`: client keys. A secret is shown once, when it is made, and kept as its hash."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from gateway.admission import hash_key, new_key
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
    posting,
    reading,
    removed,
    tagged,
    viewed,
)
from gateway.control import keys
from gateway.control.records import KeyTerms, Kind, Role, Slug
from gateway.control.store import Conflict, Stored, Transaction
from gateway.errors import Forbidden, NotFound
from gateway.settings import KeySettings
from gateway.types import Principal

MONTH_S = 31 * 86_400


class NewKey(KeyTerms):
    id: Slug = Field(description="Its name in logs, policies and reports.")


class KeyView(KeyTerms, View):
    """A key without its secret. One of `origin` file stands in the configuration and is changed there."""

    prefix: str | None = Field(description="The beginning of the secret.")
    origin: Literal["database", "file"] = "database"
    former_until: int | None = Field(
        None, description="Until when (Unix seconds) the secret before it is good."
    )


class MadeKey(KeyView):
    """A key with its secret. A repeat under the same Idempotency-Key shows none."""

    key: str | None = Field(description="The secret: keep it, it is not stored.")


class Rotation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    overlap_s: Annotated[int, Field(ge=0, le=MONTH_S)] = Field(
        3600, description="Seconds for which the old secret is still good; 0: none."
    )


def keys_router(desk: Desk) -> APIRouter:  # noqa: C901 - a list of handlers
    router = APIRouter(prefix="/keys", tags=["keys"])
    Reader = Annotated[Principal, Depends(reading(desk))]
    Changer = Annotated[Acting, Depends(changing(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]
    of_file = {key.id: _of_file(key) for key in desk.file_keys}

    @router.get("", response_model=Page[KeyView])
    def list_keys(
        _: Reader,
        after: After = "",
        limit: Limit = 50,
        team: OfTeam = "",
        origin: Annotated[Literal["database", "file"] | None, Query(description="Only those of it.")] = None,
    ) -> Any:
        """All keys, by id: those of the database and those of the configuration."""
        views = [v for id, v in of_file.items() if id > after and team in ("", v["team"])]
        if origin == "database":
            views = []
        if origin != "file":
            views += map(_viewed, desk.store.page(Kind.KEY, after=after, limit=limit + 1, team=team))
        return paged(sorted(views, key=lambda view: view["id"]), limit)

    @router.post("", status_code=201, response_model=MadeKey)
    def create_key(asked: NewKey, act: Poster, response: Response) -> Any:
        """Make a key. Its secret is in this answer and nowhere else."""
        desk.check_label(asked.privacy_floor)
        _check_role(act, asked.role)
        terms = KeyTerms(**asked.model_dump(exclude={"id"}))
        secret = new_key()

        def made(changes: Transaction) -> dict[str, Any]:
            if asked.id in of_file:
                raise Conflict(
                    f"The configuration has a key {asked.id!r}.", code="already_exists", param="id"
                )
            return _viewed(keys.create(changes, asked.id, terms, secret, hash_key)) | {"key": secret}

        return tagged(response, act.carry_out(made))

    @router.get("/{id}", response_model=KeyView)
    def get_key(id: Slug, _: Reader, response: Response) -> Any:
        """One key."""
        return tagged(response, of_file.get(id) or _viewed(desk.store.get(Kind.KEY, id)))

    @router.put("/{id}", response_model=KeyView)
    def replace_key(id: Slug, asked: KeyTerms, act: Changer, response: Response) -> Any:
        """Replace all that a key may do; its secret stays."""
        desk.check_label(asked.privacy_floor)
        _check_role(act, asked.role)

        def replaced(changes: Transaction) -> dict[str, Any]:
            return _viewed(keys.replace(changes, _own(changes, act, id), asked, act.if_match))

        return tagged(response, act.carry_out(replaced))

    @router.post("/{id}/rotate", response_model=MadeKey)
    def rotate_key(id: Slug, asked: Rotation, act: Poster, response: Response) -> Any:
        """Give a key a new secret; the old one stays good for a while."""
        secret = new_key()

        def rotated(changes: Transaction) -> dict[str, Any]:
            before = _own(changes, act, id)
            stored = keys.rotate(changes, before, asked.overlap_s, secret, hash_key, act.if_match)
            return _viewed(stored) | {"key": secret}

        return tagged(response, act.carry_out(rotated))

    @router.delete("/{id}", response_model=Removed)
    def delete_key(id: Slug, act: Changer) -> Any:
        """Delete a key; it is refused at once. To keep its name taken, disable it instead."""

        return act.carry_out(lambda changes: removed(changes, _own(changes, act, id), act.if_match))

    def _own(changes: Transaction, act: Acting, id: str) -> Stored:
        """The key, if it is one that `act` may change."""
        found = changes.find(Kind.KEY, id)
        if found is None and id in of_file:
            raise Conflict(
                f"The key {id!r} stands in the configuration: change it there.", code="key_of_file"
            )
        if found is None:
            raise NotFound(f"There is no key {id!r}.", code="key_not_found", param="id")
        _check_role(act, found.body["role"])
        return found

    return router


def _check_role(act: Acting, role: str | None) -> None:
    """Only owners deal in keys that have a role."""
    if role is not None and act.principal.role != Role.OWNER:
        raise Forbidden("Only an owner may deal in keys that have a role.", param="role", code="owner_only")


def _viewed(stored: Stored) -> dict[str, Any]:
    view = viewed(stored)
    former = view.pop("former")
    del view["sha256"]
    return view | {"origin": "database", "former_until": max((f["until"] for f in former), default=None)}


def _of_file(key: KeySettings) -> dict[str, Any]:
    terms = KeyTerms(
        team=key.team,
        expires_at=None,
        models=None,
        routes=None,
        role=Role.OWNER if key.admin else None,
        privacy_floor=key.privacy_floor.label if key.privacy_floor is not None else None,
        may_lower_privacy=key.may_lower_privacy,
        limits=None,
    )
    about = {"id": key.id, "tags": key.tags, "origin": "file", "prefix": None}
    return terms.model_dump(mode="json") | about | {"version": 0, "created_at": 0, "changed_at": 0}

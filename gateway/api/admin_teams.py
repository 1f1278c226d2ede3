"""`/admin/teams` and `/admin/projects`: who requests are booked to."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from gateway.api.auth import Right
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
    posting,
    reading,
    tagged,
    viewed,
)
from gateway.control.records import Kind, Project, Slug, Team
from gateway.control.store import Conflict, Stored, Transaction
from gateway.errors import BadRequest
from gateway.types import Principal


class NewTeam(Team):
    id: Slug


class TeamView(Team, View): ...


class NewProject(Project):
    id: Slug


class ProjectView(Project, View): ...


def teams_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/teams", tags=["teams"])
    Reader = Annotated[Principal, Depends(reading(desk, Right.READ_COSTS))]
    Changer = Annotated[Acting, Depends(changing(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]

    @router.get("", response_model=Page[TeamView])
    def list_teams(_: Reader, after: After = "", limit: Limit = 50) -> Any:
        """All teams, by id."""
        return page(desk, Kind.TEAM, after, limit)

    @router.post("", status_code=201, response_model=TeamView)
    def create_team(asked: NewTeam, act: Poster, response: Response) -> Any:
        """Create a team."""
        desk.check_label(asked.privacy_floor)
        return tagged(response, act.create(Kind.TEAM, asked))

    @router.get("/{id}", response_model=TeamView)
    def get_team(id: Slug, _: Reader, response: Response) -> Any:
        """One team."""
        return tagged(response, viewed(desk.store.get(Kind.TEAM, id)))

    @router.put("/{id}", response_model=TeamView)
    def replace_team(id: Slug, asked: Team, act: Changer, response: Response) -> Any:
        """Replace all that is said of a team. Give `if-match`, lest another's change be lost."""
        desk.check_label(asked.privacy_floor)
        return tagged(response, act.replace(Kind.TEAM, id, asked))

    @router.delete("/{id}", response_model=Removed)
    def delete_team(id: Slug, act: Changer) -> Any:
        """Delete a team that has neither keys nor projects."""

        def unused(changes: Transaction) -> None:
            for kind in (Kind.KEY, Kind.PROJECT):
                if changes.has_of_team(kind, id):
                    raise Conflict(f"The team {id!r} still has a {kind.value}.", code="team_in_use")

        return act.remove(Kind.TEAM, id, unused)

    return router


def projects_router(desk: Desk) -> APIRouter:
    router = APIRouter(prefix="/projects", tags=["projects"])
    Reader = Annotated[Principal, Depends(reading(desk, Right.READ_COSTS))]
    Changer = Annotated[Acting, Depends(changing(desk))]
    Poster = Annotated[Acting, Depends(posting(desk))]

    @router.get("", response_model=Page[ProjectView])
    def list_projects(_: Reader, after: After = "", limit: Limit = 50, team: OfTeam = "") -> Any:
        """All projects, by id."""
        return page(desk, Kind.PROJECT, after, limit, team)

    @router.post("", status_code=201, response_model=ProjectView)
    def create_project(asked: NewProject, act: Poster, response: Response) -> Any:
        """Create a project of a team."""
        desk.check_label(asked.privacy_floor)
        view = act.create(Kind.PROJECT, asked, lambda changes: _check_team(changes, asked.team))
        return tagged(response, view)

    @router.get("/{id}", response_model=ProjectView)
    def get_project(id: Slug, _: Reader, response: Response) -> Any:
        """One project."""
        return tagged(response, viewed(desk.store.get(Kind.PROJECT, id)))

    @router.put("/{id}", response_model=ProjectView)
    def replace_project(id: Slug, asked: Project, act: Changer, response: Response) -> Any:
        """Replace all that is said of a project. Its keys stay with the team that they were made for."""
        desk.check_label(asked.privacy_floor)

        def stays(_: Transaction, before: Stored) -> None:
            if asked.team != before.body["team"]:
                raise BadRequest("A project stays with its team.", param="team")

        return tagged(response, act.replace(Kind.PROJECT, id, asked, stays))

    @router.delete("/{id}", response_model=Removed)
    def delete_project(id: Slug, act: Changer) -> Any:
        """Delete a project that has no keys."""

        def unused(changes: Transaction) -> None:
            if changes.holds(Kind.KEY, "project", id):
                raise Conflict(f"The project {id!r} still has a key.", code="project_in_use")

        return act.remove(Kind.PROJECT, id, unused)

    return router


def _check_team(changes: Transaction, team: str) -> None:
    if changes.find(Kind.TEAM, team) is None:
        raise BadRequest(f"There is no team {team!r}: create it first.", param="team", code="team_not_found")

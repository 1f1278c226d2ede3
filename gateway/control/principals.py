"""From keys, their projects and teams to who is asking."""

from collections.abc import Iterable, Iterator

import msgspec

from gateway.control.records import Key, Role
from gateway.control.state import ControlState
from gateway.settings import KeySettings, Settings
from gateway.types import Principal
from router_policies.privacy import PrivacyClass

FOREVER = float("inf")


class Admitted(msgspec.Struct, frozen=True, kw_only=True):
    """A hash that lets somebody in, until a time in Unix seconds."""

    digest: str
    principal: Principal
    until: float = FOREVER


def of_file(settings: Settings) -> Iterator[tuple[str, Principal]]:
    """The keys of the configuration, by hash: they are there whatever the database says."""
    for key in settings.keys:
        yield key.sha256, _of_file(key, settings)


def of_state(state: ControlState, settings: Settings) -> tuple[list[Admitted], list[str]]:
    """The keys of the database, less those that are disabled or whose id the configuration has taken.

    And what is wrong with those that cannot be used: one whose floor is not on the scale must not be admitted
    with a lower one.
    """
    taken = {key.id for key in settings.keys}
    admitted: list[Admitted] = []
    faults = []
    for id, key in state.keys.items():
        if id in taken or not _is_open(key, state):
            continue
        try:
            admitted += _hashes(key, _of_key(id, key, state, settings))
        except ValueError as error:
            faults.append(f"key {id}: {error}; it is not admitted")
    return admitted, faults


def _hashes(key: Key, principal: Principal) -> Iterator[Admitted]:
    until = FOREVER if key.expires_at is None else key.expires_at
    yield Admitted(digest=key.sha256, principal=principal, until=until)
    for former in key.former:
        yield Admitted(digest=former.sha256, principal=principal, until=min(until, former.until))


def _is_open(key: Key, state: ControlState) -> bool:
    """Whether neither the key nor its project or team is disabled. A missing team or project closes it."""
    team = state.teams.get(key.team)
    if key.disabled or team is None or team.disabled:
        return False
    if key.project is None:
        return True
    project = state.projects.get(key.project)
    return project is not None and not project.disabled and project.team == key.team


def _of_key(id: str, key: Key, state: ControlState, settings: Settings) -> Principal:
    team = state.teams[key.team]
    project = state.projects[key.project] if key.project else None
    labels = (key.privacy_floor, team.privacy_floor, project.privacy_floor if project else None)
    floors = [settings.scale.parse(label) for label in labels if label is not None]
    return Principal(
        key_id=id,
        team=key.team,
        project=key.project or "",
        tags=frozenset((*key.tags, *team.tags, *(project.tags if project else ()))),
        privacy_floor=_floor(floors, key.team, settings),
        may_lower_privacy=key.may_lower_privacy,
        models=None if key.models is None else frozenset(key.models),
        routes=None if key.routes is None else frozenset(key.routes),
        role=key.role.value if key.role else "",
        limits=key.limits.rates if key.limits else None,
        team_limits=team.limits.rates if team.limits else None,
    )


def _of_file(key: KeySettings, settings: Settings) -> Principal:
    return Principal(
        key_id=key.id,
        team=key.team,
        tags=frozenset(key.tags),
        privacy_floor=_floor([key.privacy_floor], key.team, settings),
        may_lower_privacy=key.may_lower_privacy,
        role=Role.OWNER.value if key.admin else "",
    )


def _floor(floors: Iterable[PrivacyClass | None], team: str, settings: Settings) -> PrivacyClass:
    """The highest of these and of the team's in the configuration, which holds for all keys of that team."""
    of_team = settings.teams.get(team)
    known = (settings.scale.lowest, of_team.privacy_floor if of_team else None, *floors)
    return max(floor for floor in known if floor is not None)

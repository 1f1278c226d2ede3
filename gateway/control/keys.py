"""The life of a key: made, shown once, rotated with an overlap."""

from collections.abc import Callable
from typing import Any

from gateway.control.records import Key, KeyTerms, Kind
from gateway.control.state import record_of
from gateway.control.store import Conflict, Stored, Transaction
from gateway.errors import BadRequest

SHOWN = 10  # characters of a key that it is known by, "hg_" among them
Hash = Callable[[str], str]


def create(changes: Transaction, id: str, terms: KeyTerms, secret: str, hashed: Hash) -> Stored:
    """Raises BadRequest where the team or project is unknown, Conflict where the id is taken."""
    check_home(changes, terms)
    key = Key(**dict(terms), prefix=secret[:SHOWN], sha256=hashed(secret))
    return changes.create(Kind.KEY, id, key.model_dump(mode="json"))


def replace(changes: Transaction, before: Stored, terms: KeyTerms, if_match: str) -> Stored:
    """New terms for the same secret. Raises ApiError."""
    check_home(changes, terms)
    return changes.replace(before, {**before.body, **terms.model_dump(mode="json")}, if_match)


def rotate(
    changes: Transaction, before: Stored, overlap_s: int, secret: str, hashed: Hash, if_match: str
) -> Stored:
    """A new secret; the old one is good for another `overlap_s` seconds. Raises ApiError."""
    key = record_of(before)
    assert isinstance(key, Key)  # noqa: S101 - by its kind
    now = changes.now
    former = [old for old in key.former if old.until > now]
    if len(former) > 8:
        raise Conflict("Nine former secrets of this key are still good: disable it, or wait.")
    body: dict[str, Any] = {
        **before.body,
        "prefix": secret[:SHOWN],
        "sha256": hashed(secret),
        "former": [old.model_dump() for old in former],
    }
    if overlap_s:
        body["former"].append({"sha256": key.sha256, "until": now + overlap_s})
    return changes.replace(before, body, if_match, "rotate")


def check_home(changes: Transaction, terms: KeyTerms) -> None:
    """A key belongs to a team that exists, and to a project of it."""
    if changes.find(Kind.TEAM, terms.team) is None:
        raise BadRequest(
            f"There is no team {terms.team!r}: create it first.", param="team", code="team_not_found"
        )
    project = changes.find(Kind.PROJECT, terms.project) if terms.project else None
    if terms.project and (project is None or project.body["team"] != terms.team):
        raise BadRequest(
            f"The team {terms.team!r} has no project {terms.project!r}.",
            param="project",
            code="project_not_found",
        )

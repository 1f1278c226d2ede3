"""All that the control plane says at one instant, as other parts of the process read it."""

from collections.abc import Iterable, Mapping

import msgspec
from pydantic import ValidationError

from gateway.control.records import (
    ROLLOUT_ID,
    BudgetTerms,
    Dictionary,
    Key,
    Kind,
    Pattern,
    PolicyVersion,
    PriceTerms,
    Project,
    Record,
    Rollout,
    Team,
)
from gateway.control.store import ControlStore, Stored
from gateway.errors import HeadgateError


class ControlState(msgspec.Struct, frozen=True, kw_only=True):
    """Records by id. Of the policies it holds those that are in force."""

    revision: int = 0  # of the last change in it, or of a later one
    teams: Mapping[str, Team] = {}
    projects: Mapping[str, Project] = {}
    keys: Mapping[str, Key] = {}
    rollout: Rollout = Rollout()
    policies: Mapping[str, PolicyVersion] = {}
    dictionaries: Mapping[str, Dictionary] = {}
    patterns: Mapping[str, Pattern] = {}
    budgets: Mapping[str, BudgetTerms] = {}
    prices: Mapping[str, PriceTerms] = {}


class Unreadable(HeadgateError):
    """A record is not one that this version knows: a newer one wrote it."""


_MODELS: Mapping[str, type[Record]] = {
    Kind.TEAM: Team,
    Kind.PROJECT: Project,
    Kind.KEY: Key,
    Kind.POLICY: PolicyVersion,
    Kind.ROLLOUT: Rollout,
    Kind.DICTIONARY: Dictionary,
    Kind.PATTERN: Pattern,
    Kind.BUDGET: BudgetTerms,
    Kind.PRICE: PriceTerms,
}


def record_of(stored: Stored) -> Record:
    """Raises Unreadable."""
    try:
        return _MODELS[stored.kind].model_validate(stored.body)
    except (KeyError, ValidationError) as error:
        count = error.error_count() if isinstance(error, ValidationError) else 1
        raise Unreadable(f"the {stored.kind} {stored.id!r} has {count} unknown fields or values") from None


def read_state(store: ControlStore) -> ControlState:
    """The state as of now. Raises StoreUnavailable, Unreadable."""
    revision = store.revision()  # first: what is read may be newer, and is then read once more
    kinds = [kind for kind in Kind if kind is not Kind.POLICY]
    records = store.read(kinds)
    rollout = _of_kind(records, Kind.ROLLOUT).get(ROLLOUT_ID, Rollout())
    assert isinstance(rollout, Rollout)  # noqa: S101 - by its kind
    versions = [store.get(Kind.POLICY, label) for label in (rollout.active, rollout.candidate) if label]
    return msgspec.structs.replace(
        ControlState(revision=revision, rollout=rollout),
        teams=_of_kind(records, Kind.TEAM),
        projects=_of_kind(records, Kind.PROJECT),
        keys=_of_kind(records, Kind.KEY),
        policies=_of_kind(versions, Kind.POLICY),
        dictionaries=_of_kind(records, Kind.DICTIONARY),
        patterns=_of_kind(records, Kind.PATTERN),
        budgets=_of_kind(records, Kind.BUDGET),
        prices=_of_kind(records, Kind.PRICE),
    )


def _of_kind(records: Iterable[Stored], kind: Kind) -> dict[str, Record]:
    return {stored.id: record_of(stored) for stored in records if stored.kind == kind}

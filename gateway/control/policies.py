"""Policies in force, and the life of a version: draft, verified, tested, active.

A version never changes; its name says so: `name@version`, as the ledger has it in its rows. A request is
decided by one whole policy, which is read once: see `Policies.__call__`.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from gateway.control.audit import canonical, digest
from gateway.control.records import ROLLOUT_ID, Kind, PolicyVersion, Rollout
from gateway.control.state import ControlState, record_of
from gateway.control.store import Conflict, Stored, Transaction
from gateway.errors import ApiError, BadRequest, NotReady
from router_policies.cases import parse_cases, run_cases
from router_policies.compiled import CompiledPolicy
from router_policies.errors import PolicyError

KEPT = 100  # versions that one can roll back through
WHOLE = 100.0  # percent

Prove = Callable[[object, str], CompiledPolicy]
"""`router_policies.load` with this process's catalog: the policy, or PolicyError naming what is unsafe."""


class InForce(msgspec.Struct, frozen=True, kw_only=True):
    """The policy that decides, and one that decides a share of the requests."""

    stable: CompiledPolicy
    candidate: CompiledPolicy | None = None
    percent: float = 0.0
    by_key: bool = False

    def choose(self, call_id: str, key_id: str) -> CompiledPolicy:
        """The same one for the same call or, `by_key`, for all calls of a key."""
        if self.candidate is None:
            return self.stable
        drawn = f"{self.candidate.label} {key_id if self.by_key else call_id}"
        share = zlib.crc32(drawn.encode("utf-8", "replace")) * WHOLE / 2**32
        return self.candidate if share < self.percent else self.stable


class Policies:
    """Which policy decides, in this process."""

    def __init__(self, of_file: CompiledPolicy, prove: Prove) -> None:
        self.of_file, self.prove = of_file, prove
        self._in_force: InForce | None = None
        self._compiled: dict[str, CompiledPolicy] = {}  # by the version's hash

    def __call__(self, call_id: str, key_id: str) -> CompiledPolicy:
        """Raises NotReady while nobody knows whether the file's policy is the one in force."""
        in_force = self._in_force
        if in_force is None:
            raise NotReady("which policy is in force")
        return in_force.choose(call_id, key_id)

    @property
    def ready(self) -> bool:
        return self._in_force is not None

    @property
    def stable(self) -> CompiledPolicy:
        """The one in force; until that is known the file's."""
        return self._in_force.stable if self._in_force else self.of_file

    def follow(self, state: ControlState) -> list[str]:
        """Puts what `state` says into force, whole or not at all, and says why not. From one thread."""
        rollout = state.rollout
        try:
            stable = self._of(state, rollout.active) if rollout.active else self.of_file
            candidate = self._of(state, rollout.candidate) if rollout.candidate else None
        except PolicyError as error:
            return [f"policy {error}"]
        self._in_force = InForce(
            stable=stable, candidate=candidate, percent=rollout.percent, by_key=rollout.by == "key"
        )
        in_use = {state.policies[label].sha256 for label in (rollout.active, rollout.candidate) if label}
        self._compiled = {key: policy for key, policy in self._compiled.items() if key in in_use}
        return []

    def _of(self, state: ControlState, label: str) -> CompiledPolicy:
        version = state.policies[label]
        if version.sha256 not in self._compiled:
            self._compiled[version.sha256] = self.prove(version.document, label)
        return self._compiled[version.sha256]


def create(
    changes: Transaction, document: dict[str, Any], cases: Sequence[dict[str, Any]], of_file: str
) -> Stored:
    """A draft. Raises BadRequest where it has no name and version; Conflict where they are taken."""
    name, version = document.get("name"), document.get("version")
    if not isinstance(name, str) or type(version) is not int or not 0 < version < 2**53 or len(name) > 64:
        raise BadRequest("document: needs a name and a version, a whole number from 1", param="document")
    label = f"{name}@{version}"
    if not label.isascii() or not label.isprintable() or "/" in label:
        raise BadRequest("document.name: small letters, digits, '.', '_' and '-'", param="document")
    if label == of_file:
        raise Conflict(f"{label} is the configuration's policy; raise the version.", code="already_exists")
    body = {"document": document, "cases": list(cases)}
    return changes.create(Kind.POLICY, label, {**body, "sha256": _digest(body), "state": "draft"})


def _digest(body: dict[str, Any]) -> str:
    try:
        return digest(canonical(body))
    except ValueError as error:
        raise BadRequest(f"The policy {error}.", param="document") from None


def verify(changes: Transaction, label: str, prove: Prove) -> Stored:
    """Proves a version safe. Raises ApiError 400 naming every path that is not."""
    stored = changes.get(Kind.POLICY, label)
    _proved(stored, prove)
    return _moved(changes, stored, "verified") if stored.body["state"] == "draft" else stored


def test(changes: Transaction, label: str, prove: Prove) -> Stored:
    """Proves it and runs its cases. Raises ApiError 400 naming those that fail."""
    stored = changes.get(Kind.POLICY, label)
    policy = _proved(stored, prove)
    try:
        failures = run_cases(policy, parse_cases(stored.body["cases"], f"{label}, cases", policy.scale))
    except PolicyError as error:
        raise _refused(error) from None
    if failures:
        raise BadRequest("\n".join(map(str, failures)), code="policy_tests_failed")
    return stored if stored.body["state"] == "tested" else _moved(changes, stored, "tested")


def activate(
    changes: Transaction,
    label: str,
    prove: Prove,
    *,
    percent: float = WHOLE,
    by: Literal["call", "key"] = "call",
    if_match: str = "",
) -> Stored:
    """Puts a version into force, after its proof and its cases; below 100 % beside the one that is.

    Raises ApiError: 400 where it is unsafe or its cases fail, then nothing changes; 412 for `if_match`, which
    names the version of the rollout.
    """
    test(changes, label, prove)
    before, rollout = _rollout(changes)
    if percent < WHOLE:
        if label == rollout.active:
            raise Conflict(f"{label} decides everything; activate another version beside it.")
        after = rollout.model_copy(update={"candidate": label, "percent": percent, "by": by})
    elif label == rollout.active and not rollout.candidate:
        return before or _keep_rollout(changes, before, rollout, if_match, "activate")
    else:
        history = rollout.history if label == rollout.active else (*rollout.history, rollout.active)
        after = Rollout(active=label, history=history[-KEPT:])
    return _keep_rollout(changes, before, after, if_match, "activate")


def roll_back(changes: Transaction, if_match: str = "") -> Stored:
    """Ends a roll-out by percentage; else goes back to what was in force before. Raises Conflict, 412."""
    before, rollout = _rollout(changes)
    if rollout.candidate:
        after = Rollout(active=rollout.active, history=rollout.history)
    elif rollout.history:
        after = Rollout(active=rollout.history[-1], history=rollout.history[:-1])
    else:
        raise Conflict("Nothing was in force before: there is nothing to go back to.", code="no_previous")
    return _keep_rollout(changes, before, after, if_match, "rollback")


def _rollout(changes: Transaction) -> tuple[Stored | None, Rollout]:
    before = changes.find(Kind.ROLLOUT, ROLLOUT_ID)
    if before is None:
        return None, Rollout()
    rollout = record_of(before)
    assert isinstance(rollout, Rollout)  # noqa: S101 - by its kind
    return before, rollout


def _keep_rollout(
    changes: Transaction, before: Stored | None, after: Rollout, if_match: str, action: str
) -> Stored:
    body = after.model_dump(mode="json")
    if before is not None:
        return changes.replace(before, body, if_match, action)
    if if_match.strip('"') not in ("", "*", "0"):
        raise ApiError("Nothing was ever rolled out.", status=412, code="precondition_failed")
    return changes.create(Kind.ROLLOUT, ROLLOUT_ID, body, action)


def _moved(changes: Transaction, stored: Stored, state: str) -> Stored:
    action = {"verified": "verify", "tested": "test"}[state]
    return changes.replace(stored, {**stored.body, "state": state}, action=action)


def _proved(stored: Stored, prove: Prove) -> CompiledPolicy:
    version = record_of(stored)
    assert isinstance(version, PolicyVersion)  # noqa: S101 - by its kind
    try:
        return prove(version.document, stored.id)
    except PolicyError as error:
        raise _refused(error) from None


def _refused(error: PolicyError) -> BadRequest:
    return BadRequest(str(error), code="policy_refused", param="document")

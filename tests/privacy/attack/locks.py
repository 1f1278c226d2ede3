"""The locks on the door (DECISIONS 5), lifted one after the other: each that is left must hold alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from gateway import app, pipeline
from gateway.settings import Settings, read_yaml
from router_policies.compile import compile_policy
from router_policies.compiled import CompiledPolicy
from router_policies.decide import decide
from router_policies.schema import parse
from router_policies.types import Catalog, Decision, Denial, Facts, Permit, PrivacyClass, Snapshot


def _load_unproved(settings: Settings, catalog: Catalog) -> CompiledPolicy:
    policy, misfits = compile_policy(parse(read_yaml(settings.policy), "attack"), catalog)
    assert not misfits
    return policy


def _decide_blindly(policy: CompiledPolicy, facts: Facts, snapshot: Snapshot) -> Decision | Denial:
    """As if everything were public; the permits tell the truth."""
    verdict = decide(policy, replace(facts, privacy=PrivacyClass.PUBLIC), snapshot)
    if isinstance(verdict, Denial):
        return verdict
    shadow = verdict.shadow
    return replace(
        verdict,
        privacy=facts.privacy,
        shadow=shadow and replace(shadow, permit=_true(shadow.permit, facts)),
        candidates=tuple(replace(c, permit=_true(c.permit, facts)) for c in verdict.candidates),
    )


def _true(permit: Permit | None, facts: Facts) -> Permit | None:
    return permit and replace(permit, privacy=facts.privacy)


@contextmanager
def unproved() -> Iterator[None]:
    """Policies that lead above a ceiling load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "load_policy", _load_unproved)
        yield


@contextmanager
def undecided() -> Iterator[None]:
    """And `decide` sends requests there."""
    with unproved(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "decide", _decide_blindly)
        yield

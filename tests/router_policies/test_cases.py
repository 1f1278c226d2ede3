"""`router_policies.cases` and `explain`: a policy's own tests, and why a request goes where it goes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_policies.cases import Given, parse_cases, run_cases
from router_policies.compiled import CompiledPolicy
from router_policies.decide import decide
from router_policies.errors import PolicyError
from router_policies.explain import explain
from router_policies.load import load
from router_policies.privacy import DEFAULT_SCALE
from router_policies.types import BackendInfo, Catalog, Decision, Feature, PrivacyClass, Zone

ZONES = {
    "home": Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True),
    "cloud": Zone(name="cloud", ceiling=PrivacyClass.INTERNAL),
}
CATALOG = Catalog(
    backends={
        "gpu": BackendInfo(name="gpu", zone=ZONES["home"], models=("small",), adapters=True),
        "spare": BackendInfo(
            name="spare", zone=ZONES["home"], models=("small",), features=frozenset({Feature.STREAM})
        ),
        "rented": BackendInfo(name="rented", zone=ZONES["cloud"], models=("*",)),
    }
)
DOCUMENT: dict[str, Any] = {
    "name": "p",
    "version": 1,
    "routes": [
        {"name": "blocked", "match": {"team": "interns", "model": "gpt-4*"}, "deny": {"message": "No."}},
        {
            "name": "private",
            "match": {"privacy": {"at_least": "confidential"}},
            "targets": [{"backend": "gpu", "model": "small"}, {"backend": "spare", "model": "small"}],
        },
        {
            "name": "tools",
            "match": {"features": "tools", "tags": "agents", "privacy": {"at_most": "internal"}},
            "targets": [{"backend": "rented"}],
        },
        {
            "name": "rest",
            "match": {
                "model": "gpt-*",
                "prompt_tokens": {"at_most": 1000},
                "privacy": {"at_most": "internal"},
            },
            "targets": [{"backend": "rented"}],
        },
    ],
}
POLICY: CompiledPolicy = load(DOCUMENT, "test", CATALOG)


def problems(**case: Any) -> list[str]:
    cases = parse_cases([{"name": "one", **case}], "cases", DEFAULT_SCALE)
    return [failure.problem for failure in run_cases(POLICY, cases)]


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        ({"model": "gpt-4o"}, {"route": "rest", "backends": "rented", "model": "gpt-4o"}),
        ({"model": "gpt-4o", "privacy": "restricted"}, {"backends": ["gpu", "spare"]}),
        ({"model": "gpt-4o", "privacy": "restricted", "down": "gpu"}, {"backends": ["spare"]}),
        ({"model": "gpt-4o", "privacy": "restricted", "features": "tools"}, {"backends": ["gpu"]}),
        ({"model": "gpt-4o", "team": "interns"}, {"route": "blocked", "denied": "route_denied"}),
        ({"model": "gpt-4o", "prompt_tokens": 1001}, {"denied": "model_not_found"}),
        ({"model": "x", "features": ["tools"], "tags": ["agents"]}, {"route": "tools"}),
    ],
)
def test_cases_that_hold(given: Any, expect: Any) -> None:
    """What is expected of a decision is held against the real one."""
    assert problems(given=given, expect=expect) == []


@pytest.mark.parametrize(
    ("given", "expect", "words"),
    [
        ({"model": "gpt-4o"}, {"route": "tools"}, "expected route tools, not rest"),
        ({"model": "gpt-4o"}, {"backends": ["gpu"]}, "expected backends gpu, not rented"),
        ({"model": "gpt-4o"}, {"model": "gpt-5"}, "expected model gpt-5, not gpt-4o"),
        ({"model": "gpt-4o"}, {"denied": "route_denied"}, "it goes to rented"),
        ({"model": "gpt-4o", "team": "interns"}, {"backends": ["rented"]}, "denied with route_denied"),
        ({"model": "x"}, {"denied": "route_denied"}, "not model_not_found"),
    ],
)
def test_cases_that_fail(given: Any, expect: Any, words: str) -> None:
    """What came out otherwise is said."""
    (problem,) = problems(given=given, expect=expect)
    assert words in problem


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"given": {"model": "x"}, "expect": {}}, "expect: expects nothing"),
        ({"given": {}, "expect": {"route": "r"}}, "[0].given.model"),
        ({"given": {"model": "x", "privacy": "secret"}, "expect": {"route": "r"}}, "unknown privacy class"),
        ({"given": {"model": "x"}, "expect": {"denied": "a", "model": "b"}}, "neither backends nor"),
        ({"given": {"model": "x", "teem": "a"}, "expect": {"route": "r"}}, "[0].given.teem"),
    ],
)
def test_cases_that_cannot_be_read(case: Any, words: str) -> None:
    """Every problem is listed with its path."""
    with pytest.raises(PolicyError) as caught:
        parse_cases([{"name": "one", **case}], "cases.yaml", DEFAULT_SCALE)
    assert words in str(caught.value)


@given(
    model=st.sampled_from(["gpt-4o", "gpt-3", "x"]),
    team=st.sampled_from(["interns", "other"]),
    tags=st.sets(st.sampled_from(["agents", "web"])),
    features=st.sets(st.sampled_from([Feature.TOOLS, Feature.STREAM])),
    tokens=st.sampled_from([0, 1000, 1001]),
    privacy=st.sampled_from(list(DEFAULT_SCALE)),
    down=st.sets(st.sampled_from(["gpu", "rented"])),
)
def test_an_explanation_is_what_happens(
    model: str,
    team: str,
    tags: set[str],
    features: set[Feature],
    tokens: int,
    privacy: PrivacyClass,
    down: set[str],
) -> None:
    """The route taken is the first with nothing unmet; the candidates are the targets with nothing out."""
    asked = Given(
        model=model,
        team=team,
        tags=tuple(tags),
        features=tuple(features),
        prompt_tokens=tokens,
        privacy=privacy.label,
        down=tuple(down),
        aliases={},
    )
    facts, snapshot = asked.facts(POLICY.scale), asked.snapshot()
    verdict, told = decide(POLICY, facts, snapshot), explain(POLICY, facts, snapshot)
    matching = [route.route for route in told.routes if route.matches]
    assert matching[:1] == ([verdict.route] if verdict.route else [])
    assert [route.route for route in told.routes if route.taken] == matching[:1]
    usable = tuple(target.target.split("/")[0] for target in told.targets if not target.out)
    kept = tuple(c.backend for c in verdict.candidates) if isinstance(verdict, Decision) else ()
    assert usable == told.candidates == kept
    assert told.reason == verdict.reason


def test_what_rules_a_target_out() -> None:
    """Each target says why it is left out, in the words that the ledger has too."""
    asked = Given(model="gpt-4o", privacy="restricted", features=("tools",), down=("gpu",), aliases={})
    told = explain(POLICY, asked.facts(POLICY.scale), asked.snapshot())
    assert [target.out for target in told.targets] == ["gpu/small down", "spare/small lacks tools"]
    assert (told.status, told.code) == (503, "no_backend_available")

"""The proof is sound, and accepts what is safe."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from router_policies.compile import compile_policy
from router_policies.conditions import Conditions
from router_policies.decide import decide
from router_policies.schema import parse
from router_policies.types import BackendInfo, Catalog, Facts, PrivacyClass, Snapshot
from router_policies.verify import Guard, Leak, Problem, guards, verify
from tests.router_policies.samples import (
    HOME,
    VLLM,
    accepts,
    all_targets,
    catalog,
    catalogs,
    crowds,
    document,
    documents,
    first_route,
    matches,
    privacy_on,
    reached,
    snapshots,
    variants,
)

OWN, RENTED = "targets: [{backend: vllm, model: qwen3-8b}]", "targets: [{backend: openai, model: m}]"


def findings(routes: str, *backends: BackendInfo) -> list[str]:
    compiled, _ = compile_policy(parse(document(routes), "test.yaml"), catalog(*backends))
    return [str(finding) for finding in verify(compiled)]


def test_a_leak_names_its_path_and_its_remedy() -> None:
    """Route, place among the targets, zone, class, ceiling, and the line to add."""
    targets = "[{backend: vllm, model: qwen3-8b}, {backend: openai, model: gpt-4o-mini}]"
    assert findings(f"- {{name: x, targets: {targets}}}") == [
        'route "x" → fallback 2 "openai/gpt-4o-mini" in zone "us-cloud": may receive class "restricted", '
        'the zone\'s ceiling is "internal"; add match.privacy.at_most: internal'
    ]


def test_a_target_that_no_class_may_reach_is_to_be_removed() -> None:
    """Where lowering `at_most` would empty the route, the advice is another."""
    (line,) = findings(f"- {{name: x, match: {{privacy: {{at_least: confidential}}}}, {RENTED}}}")
    assert line.endswith("no class that reaches the route may go there, so remove the target")


@pytest.mark.parametrize(
    "first",
    [
        f"- {{name: a, match: {{privacy: {{at_least: confidential}}}}, {OWN}}}",
        "- {name: a, match: {privacy: {at_least: confidential}}, deny: {message: No.}}",
        f"- {{name: a, match: {{privacy: {{at_least: restricted}}}}, {OWN}}}\n"
        f"- {{name: c, match: {{privacy: {{at_least: confidential, at_most: confidential}}}}, {OWN}}}",
        f"- {{name: a, match: {{model: 'g*', privacy: {{at_least: confidential}}}}, {OWN}}}",
    ],
)
def test_earlier_routes_that_take_the_high_classes_make_a_route_safe(first: str) -> None:
    """Private traffic is gone before a rented target is reached, whether served or denied."""
    assert findings(f"{first}\n- {{name: b, match: {{model: gpt-4}}, {RENTED}}}") == []


@pytest.mark.parametrize(
    "condition",
    [
        "endpoint: embeddings",
        "model: x",
        "key: k",
        "team: t",
        "tags: [t]",
        "features: [tools]",
        "without_features: [tools]",
        "prompt_tokens: {at_least: 1}",
        "prompt_tokens: {at_most: 9}",
    ],
)
def test_an_earlier_route_with_a_further_condition_takes_nothing_whole(condition: str) -> None:
    """What the earlier route lets pass on any one condition still reaches the rented target."""
    first = f"- {{name: a, match: {{{condition}, privacy: {{at_least: confidential}}}}, {OWN}}}"
    (line,) = findings(f"{first}\n- {{name: b, {RENTED}}}")
    assert 'route "b" → first choice "openai/m"' in line


def test_a_floor_raises_what_arrives() -> None:
    """A route's floor counts for all that takes it, so that a target below it can never be meant."""
    route = "- {name: r, match: {privacy: {at_most: internal}}, privacy_floor: confidential"
    (line,) = findings(f"{route}, {RENTED}}}")
    assert 'may receive class "confidential"' in line
    assert line.endswith("no class that reaches the route may go there, so remove the target")
    assert findings(f"{route}, {OWN}}}") == []


def test_a_later_route_protects_nothing() -> None:
    """The order counts: the first route to match wins."""
    routes = f"- {{name: b, {RENTED}}}\n- {{name: a, match: {{privacy: {{at_least: internal}}}}, {OWN}}}"
    assert [line.split(":")[0] for line in findings(routes)] == [
        'route "b" → first choice "openai/m" in zone "us-cloud"',
        'route "a"',
    ]


def test_a_zone_of_our_own_has_a_ceiling_too() -> None:
    """Local only spares the permit."""
    lab = replace(VLLM, zone=replace(HOME, ceiling=PrivacyClass.PUBLIC))
    assert "may receive class" in findings(f"- {{name: r, {OWN}}}", lab)[0]


@pytest.mark.parametrize(
    ("routes", "problem"),
    [
        (
            f"- {{name: a, {OWN}}}\n- {{name: b, match: {{model: m}}, {OWN}}}",
            'route "b": is never reached: all that it matches is taken before by "a"',
        ),
        (
            f"- {{name: a, match: {{privacy: {{at_most: internal}}}}, {OWN}}}\n"
            f"- {{name: b, match: {{privacy: {{at_least: internal}}}}, {OWN}}}\n- {{name: c, {OWN}}}",
            'route "c": is never reached: all that it matches is taken before by "a", "b"',
        ),
        (
            f"- {{name: a, match: {{features: [tools], without_features: [tools, vision]}}, {OWN}}}",
            'route "a": matches nothing: asks for requests with and without tools',
        ),
        (
            "- {name: a, targets: [{backend: vllm}, {backend: vllm, model: qwen3-8b}, {backend: vllm}]}",
            'route "a": target 3 repeats target 1, vllm/(model asked for)',
        ),
    ],
)
def test_what_was_hardly_meant_is_a_problem(routes: str, problem: str) -> None:
    """Routes that nothing can reach, and targets given twice."""
    assert findings(routes) == [problem]


MASKED = "targets: [{backend: openai, model: m, mask: true}, {backend: vllm, model: qwen3-8b}]"


def test_a_target_that_masks_is_no_leak_and_is_named_as_guarded() -> None:
    """Above its ceiling it gets only what is masked down, which `decide` sees to: the guard says so."""
    assert findings(f"- {{name: x, {MASKED}}}") == []
    (guard,) = guards_of(f"- {{name: x, {MASKED}}}")
    assert str(guard) == (
        'route "x" → "openai/m" in zone "us-cloud": of classes above "internal", up to "restricted", '
        "only what is masked down to it"
    )


def test_beside_a_target_that_masks_another_still_leaks() -> None:
    """Masking is for the target that says it."""
    (line,) = findings(f"- {{name: x, {MASKED[:-1]}, {{backend: openai, model: n}}]}}")
    assert line.startswith('route "x" → fallback 3 "openai/n"')


def test_a_target_that_never_masks_is_a_problem() -> None:
    """Its zone is open to all that can reach it: whoever wrote `mask` expected something else."""
    low = "match: {privacy: {at_most: internal}}"
    assert findings(f"- {{name: x, {low}, {MASKED}}}") == [
        'route "x": target 1 never masks: its zone is open to all classes that reach the route'
    ]
    assert guards_of(f"- {{name: x, {low}, {MASKED}}}") == ()


def guards_of(routes: str) -> tuple[Guard, ...]:
    return guards(compile_policy(parse(document(routes), "test.yaml"), catalog())[0])


def ceilings_lifted(catalog: Catalog) -> Catalog:
    """The same backends in zones that admit every class: `decide` without its own check of the ceiling."""
    lifted = {
        name: replace(backend, zone=replace(backend.zone, ceiling=PrivacyClass.RESTRICTED))
        for name, backend in catalog.backends.items()
    }
    return Catalog(backends=lifted)


@settings(max_examples=150, deadline=None)
@given(documents(), catalogs, crowds, snapshots)
def test_whatever_decide_could_leak_verify_refuses(
    policy: Any, catalog: Catalog, crowd: list[Facts], snapshot: Snapshot
) -> None:
    """With the ceiling check of `decide` disabled, each candidate above its true ceiling is refused; or it is
    one that masks, and named as resting on that check."""
    parsed = parse(policy, "generated")
    unguarded, _ = compile_policy(parsed, ceilings_lifted(catalog))
    told = [*found_in(policy, catalog), *guards(compile_policy(parsed, catalog)[0])]
    leaks = {(f.route, f.target.split("/")[0]) for f in told if isinstance(f, Leak | Guard)}
    floors = {route.name: route.privacy_floor for route in unguarded.routes}
    for request in crowd:
        found = decide(unguarded, request, snapshot)
        for candidate in reached(found):
            if catalog.backends[candidate.backend].zone.ceiling < max(request.privacy, floors[found.route]):
                assert (found.route, candidate.backend) in leaks


@settings(max_examples=150, deadline=None)
@given(documents(), catalogs, crowds, snapshots)
def test_each_target_that_a_class_can_reach_is_proved(
    policy: Any, catalog: Catalog, crowd: list[Facts], snapshot: Snapshot
) -> None:
    """Read plainly, without index, strategies or draws: each target of the route that a request meets is in a
    zone open to its class, or is reported at its place, as a leak, or as guarded if it masks and only then;
    a route that is met was not said to be dead, nor a target that would mask to do so never."""
    found = found_in(policy, catalog)
    leaks = {(f.route, f.position) for f in found if isinstance(f, Leak)}
    dead = {f.route for f in found if isinstance(f, Problem) and f.text.startswith(("is never", "matches"))}
    idle = {(f.route, f.text.split(":")[0]) for f in found if isinstance(f, Problem)}
    guarded = {(g.route, g.position) for g in guards(compile_policy(parse(policy, "generated"), catalog)[0])}
    for request in crowd:
        route = first_route(policy, request, snapshot.down)
        assert route is None or route["name"] not in dead
        for position, target in enumerate(all_targets(route or {}), start=1):
            if catalog.backends[target["backend"]].zone.ceiling < privacy_on(route or {}, request):
                place = (route and route["name"], position)
                assert place in (guarded if target.get("mask") else leaks)
                assert (place[0], f"target {position} never masks") not in idle


@pytest.mark.parametrize(
    ("mine", "theirs", "covered"),
    [
        ({"team": ["a", "b"]}, {"team": ["a"]}, True),
        ({"team": ["a"]}, {"team": ["a", "b"]}, False),
        ({"team": ["a"]}, {}, False),
        ({"model": ["a*"]}, {"model": ["ab", "abc*"]}, True),
        ({"model": ["ab"]}, {"model": ["a"]}, False),
        ({"model": ["ab*"]}, {"model": ["a*"]}, False),
        ({"model": ["ab"]}, {"model": ["ab*"]}, False),
        ({"model": ["*"]}, {}, True),
        ({"tags": ["x"]}, {"tags": ["x", "y"]}, True),
        ({"tags": ["x", "y"]}, {"tags": ["x"]}, False),
        ({"prompt_tokens": {"at_least": 2}}, {"prompt_tokens": {"at_least": 2, "at_most": 9}}, True),
        ({"prompt_tokens": {"at_most": 8}}, {"prompt_tokens": {"at_least": 2, "at_most": 9}}, False),
    ],
)
def test_covering_is_decided_condition_by_condition(mine: Any, theirs: Any, covered: bool) -> None:
    """Lists that hold each other or only overlap, wildcards over names and over wildcards, open ranges."""
    assert conditions(mine).cover(conditions(theirs)) is covered


@settings(max_examples=200, deadline=None)
@given(st.data(), crowds)
def test_what_is_covered_takes_nothing_more(data: st.DataObject, crowd: list[Facts]) -> None:
    """Where one match covers another, privacy aside, a request that meets the other meets the one; and a
    match is covered by itself and by itself less a condition."""
    match = without_privacy(data.draw(matches))
    other = without_privacy(data.draw(variants(match)))
    one, another = conditions(match), conditions(other)
    if one.cover(another):
        assert all(accepts(match, request) for request in crowd if accepts(other, request))
    assert one.cover(one)
    for key in match:
        assert conditions({k: v for k, v in match.items() if k != key}).cover(one)


def without_privacy(match: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in match.items() if key != "privacy"}


def conditions(match: dict[str, Any]) -> Conditions:
    routes = [{"name": "r", "match": match, "deny": {"message": "No."}}]
    parsed = parse({"name": "p", "version": 1, "routes": routes}, "generated")
    return compile_policy(parsed, Catalog(backends={}))[0].routes[0].conditions


def found_in(policy: Any, catalog: Catalog) -> tuple[Leak | Problem, ...]:
    return verify(compile_policy(parse(policy, "generated"), catalog)[0])

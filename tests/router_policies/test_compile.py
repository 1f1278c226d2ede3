"""What the catalog cannot serve is found when the policy is compiled."""

import pytest
from msgspec.structs import replace

from router_policies.compile import compile_policy
from router_policies.schema import parse
from router_policies.types import Feature, PrivacyClass
from tests.router_policies.samples import OPENAI, VLLM, catalog, document

TEXT_ONLY = replace(
    VLLM, name="text", features=frozenset({Feature.STREAM}), endpoints=frozenset({"completions"})
)
FIXED = replace(OPENAI, name="fixed", models=("gpt-4o", "gpt-4o-mini"))


def misfits(routes: str) -> tuple[str, ...]:
    return compile_policy(parse(document(routes), "test.yaml"), catalog(VLLM, OPENAI, TEXT_ONLY, FIXED))[1]


def test_a_policy_may_require_detectors() -> None:
    """One that the configuration does not switch on is named, with those that are on."""
    wanted = {**document("- {name: r, targets: [{backend: vllm}]}"), "requires": ["structured", "names"]}
    with_names = replace(catalog(), detectors=frozenset({"structured", "names"}))
    without = replace(catalog(), detectors=frozenset({"structured"}))
    parsed = parse(wanted, "test.yaml")
    assert compile_policy(parsed, with_names)[1] == ()
    assert compile_policy(parsed, without)[1] == (
        'requires[1]: no detector "names" is switched on; there are: structured',
    )


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("targets: [{backend: opnai}]", '.backend: unknown backend "opnai", did you mean "openai"?'),
        (
            "targets: [{backend: fixed, model: gpt-4o-min}]",
            '.model: backend "fixed" does not serve "gpt-4o-min", did you mean "gpt-4o-mini"?',
        ),
        (
            "targets: [{backend: openai, adapter: support@stable}]",
            '.adapter: backend "openai" cannot load adapters',
        ),
        (
            "targets: [{backend: vllm, model: support@stable}]",
            '.model: "support@stable" is an adapter; write adapter: support@stable',
        ),
        (
            "match: {features: [tools, vision]}, targets: [{backend: text}]",
            '.backend: "text" lacks what the route matches on: tools, vision',
        ),
        (
            "match: {endpoint: embeddings}, targets: [{backend: text}]",
            '.backend: "text" serves none of the endpoints that the route matches on',
        ),
        (
            'match: {model: [gpt-3, "claude-*"]}, targets: [{backend: fixed}]',
            '.backend: "fixed" serves none of the models that the route passes on to it',
        ),
    ],
)
def test_a_target_that_can_never_serve_is_a_problem(route: str, problem: str) -> None:
    """Unknown backends and models, adapters where none load, and routes that match what the target lacks."""
    assert misfits(f"- {{name: r, {route}}}") == (f"routes[0].targets[0]{problem}",)


@pytest.mark.parametrize(
    "route",
    [
        "targets: [{backend: vllm, model: qwen3-8b}, {backend: vllm, adapter: support@0123456789ab}]",
        "targets: [{backend: openai, model: anything}, {backend: openai}]",
        "match: {model: support@stable}, targets: [{backend: vllm}]",
        'match: {model: "gpt-*"}, targets: [{backend: fixed}]',
        "match: {endpoint: [completions, embeddings]}, targets: [{backend: text}]",
        "match: {features: [stream]}, targets: [{backend: text}]",
    ],
)
def test_a_target_that_may_serve_is_none(route: str) -> None:
    """Nothing is refused that some request could make use of."""
    assert misfits(f"- {{name: r, {route}}}") == ()


@pytest.mark.parametrize(
    ("targets", "above"),
    [
        ("{backend: openai, model: m}, {backend: vllm, model: qwen3-8b}", None),
        ("{backend: openai, model: m, mask: true}, {backend: vllm, model: qwen3-8b}", PrivacyClass.INTERNAL),
        ("{backend: vllm, model: qwen3-8b, mask: true}", PrivacyClass.RESTRICTED),
    ],
)
def test_masking_is_worth_its_while_above_the_lowest_ceiling(
    targets: str, above: PrivacyClass | None
) -> None:
    """Of the targets that mask; where there is none, never."""
    compiled, _ = compile_policy(parse(document(f"- {{name: r, targets: [{targets}]}}"), "t"), catalog())
    assert compiled.masks_above is above


def test_positions_are_those_of_the_document() -> None:
    """A target with an unknown backend is left out, and those after it keep their numbers."""
    routes = "- {name: r, targets: [{backend: nowhere}, {backend: openai, model: gpt-4o}]}"
    policy, problems = compile_policy(parse(document(routes), "test.yaml"), catalog())
    assert len(problems) == 1
    assert [t.chosen for t in policy.routes[0].targets] == ["openai/gpt-4o (fallback 2 of 2)"]

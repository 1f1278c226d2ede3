"""The index finds the route that trying each in turn would find."""

from typing import Any

import pytest
from hypothesis import given, settings

from router_policies.compile import compile_policy
from router_policies.schema import parse
from router_policies.types import Catalog, Facts, Feature, PrivacyClass, Snapshot
from tests.router_policies.samples import catalogs, crowds, document, documents, facts, first_route, snapshots


@settings(max_examples=100, deadline=None)
@given(documents(), catalogs, crowds, snapshots)
def test_the_index_agrees_with_the_plain_reading(
    policy: Any, catalog: Catalog, crowd: list[Facts], snapshot: Snapshot
) -> None:
    """For any document and request, it is the first route whose `match` holds, read without any index."""
    compiled, _ = compile_policy(parse(policy, "generated"), catalog)
    for request in crowd:
        number = compiled.index.first(request, request.privacy, snapshot.down)
        expected = first_route(policy, request, snapshot.down)
        assert (None if number is None else compiled.routes[number].name) == (expected and expected["name"])


@pytest.mark.parametrize(
    ("match", "met", "unmet"),
    [
        ("endpoint: embeddings", {"endpoint": "embeddings"}, {"endpoint": "completions"}),
        ("model: gpt-4", {"model": "gpt-4"}, {"model": "gpt-4o"}),
        ('model: "gpt-4*"', {"model": "gpt-4"}, {"model": "gpt-3"}),
        ('model: ["*"]', {"model": ""}, None),
        ("key: [a, b]", {"key_id": "b"}, {"key_id": "c"}),
        ("team: a", {"team": "a"}, {"team": "A"}),
        ("tags: [a, b]", {"tags": frozenset("abc")}, {"tags": frozenset("a")}),
        ("features: [tools]", {"features": frozenset({Feature.TOOLS})}, {}),
        ("without_features: [tools]", {}, {"features": frozenset({Feature.TOOLS})}),
        ("prompt_tokens: {at_least: 5}", {"prompt_tokens": 5}, {"prompt_tokens": 4}),
        ("prompt_tokens: {at_most: 5}", {"prompt_tokens": 5}, {"prompt_tokens": 6}),
        ("prompt_tokens: {at_most: 0}", {"prompt_tokens": 0}, {"prompt_tokens": 1}),
        ("privacy: {at_least: internal}", {}, {"privacy": PrivacyClass.PUBLIC}),
        ("privacy: {at_most: internal}", {}, {"privacy": PrivacyClass.CONFIDENTIAL}),
        ("project: [a, b]", {"project": "b"}, {}),
        ("task: sort", {"task": "sort"}, {"task": "Sort"}),
        ("language: [de, fr]", {"language": "fr"}, {}),
        ("metadata: {region: [eu, ch]}", {"metadata": {"region": "ch"}}, {"metadata": {"region": "us"}}),
        ("metadata: {a: x, b: y}", {"metadata": {"a": "x", "b": "y"}}, {"metadata": {"a": "x"}}),
        ("findings: [email, iban]", {"findings": frozenset({"iban"})}, {"findings": frozenset({"phone"})}),
        ("without_findings: [email]", {"findings": frozenset({"iban"})}, {"findings": frozenset({"email"})}),
        ("output_tokens: {at_most: 5}", {"output_tokens": 5}, {}),
        ("output_tokens: {at_least: 5}", {}, {"output_tokens": 4}),
        ("budget: {at_least: 0.8}", {"budget_used": 0.8}, {"budget_used": 0.79}),
        ("budget: {at_most: 0.8}", {"budget_used": 0.8}, {"budget_used": 0.81}),
        ("time: {days: mon}", {"at_s": 4 * 86400.0}, {"at_s": 4 * 86400.0 - 1}),
        ('time: {days: mon, hours: "22:00-06:00"}', {"at_s": 5 * 86400 + 21599}, {"at_s": 5 * 86400 + 21600}),
        ('time: {days: sun, hours: "22:00-06:00"}', {"at_s": 4 * 86400 + 1}, {"at_s": 4 * 86400 + 21600}),
        ('time: {hours: "05:30-24:00", zone: Asia/Kolkata}', {"at_s": 0.0}, {"at_s": -1.0}),
    ],
)
def test_each_condition_holds_and_fails(
    match: str, met: dict[str, Any], unmet: dict[str, Any] | None
) -> None:
    """One request that meets the condition and one that just does not."""
    parsed = parse(document(f"- {{name: r, match: {{{match}}}, deny: {{message: No.}}}}"), "test.yaml")
    index = compile_policy(parsed, Catalog(backends={}))[0].index
    yes = facts(**met)
    assert index.first(yes, yes.privacy) == 0
    if unmet is not None:
        no = facts(**unmet)
        assert index.first(no, no.privacy) is None

"""The policy document: what it accepts, and how it says what is wrong."""

from typing import Any

import pytest

from router_policies.errors import PolicyError
from router_policies.schema import FALLBACK_ON, UNBOUNDED, UNLIMITED, parse
from router_policies.types import ErrorClass, Feature, PrivacyClass
from tests.router_policies.samples import document


def problems(value: object) -> tuple[str, ...]:
    with pytest.raises(PolicyError) as caught:
        parse(value, "test.yaml")
    assert caught.value.source == "test.yaml"
    assert all(f"  - {problem}" in str(caught.value) for problem in caught.value.problems)
    return caught.value.problems


def in_route(route: str) -> tuple[str, ...]:
    """Problems of a document with one route, of which everything below `name` is given."""
    return problems(document(f"- {{name: r, {route}}}"))


def test_the_whole_language_is_read() -> None:
    """Every key of a route arrives in its type, with a single word as good as a list of one."""
    route = parse(
        document("""
        - name: everything
          match:
            endpoint: chat/completions
            model: [support-intents, "gpt-*"]
            key: k1
            team: [a, b]
            tags: [urgent]
            features: tools
            without_features: [vision]
            prompt_tokens: {at_least: 1, at_most: 4000}
            privacy: {at_least: confidential, at_most: restricted}
            project: [p1, p2]
            metadata: {region: [eu, ch], tier: gold}
            task: sort
            language: de
            output_tokens: {at_most: 500}
            findings: email
            without_findings: [iban]
            time: {days: [mon, FRI], hours: ["08:00-12:00", "22:00-06:00"], zone: Europe/Berlin}
            budget: {at_least: 0.8}
            down: b1
            up: [b2]
          targets:
            - {backend: vllm, adapter: support-intents@stable}
            - {backend: openai, model: gpt-4o-mini}
            - {backend: openai}
          fallback_on: [timeout, not_found]
          retry: {attempts: 2, on: [connection, timeout], backoff_ms: 50, max_backoff_ms: 900}
          hedge: {after_ms: 800}
          deadline_s: 12.5
        """),
        "test.yaml",
    ).routes[0]
    assert route.match.endpoint == ("chat/completions",)
    assert route.match.model == ("support-intents", "gpt-*")
    assert (route.match.key, route.match.team, route.match.tags) == (("k1",), ("a", "b"), ("urgent",))
    assert route.match.features == (Feature.TOOLS,)
    assert route.match.without_features == (Feature.VISION,)
    assert (route.match.prompt_tokens.at_least, route.match.prompt_tokens.at_most) == (1, 4000)
    assert route.match.privacy.at_least is PrivacyClass.CONFIDENTIAL
    assert (route.match.project, route.match.task) == (("p1", "p2"), ("sort",))
    assert route.match.language == ("de",)
    assert route.match.metadata == {"region": ("eu", "ch"), "tier": ("gold",)}
    assert (route.match.output_tokens.at_least, route.match.output_tokens.at_most) == (0, 500)
    assert (route.match.findings, route.match.without_findings) == (("email",), ("iban",))
    assert route.match.time is not None
    assert (route.match.time.days, route.match.time.zone) == (("mon", "fri"), "Europe/Berlin")
    assert (route.match.budget.at_least, route.match.down, route.match.up) == (0.8, ("b1",), ("b2",))
    assert [(t.backend, t.model, t.adapter) for t in route.targets] == [
        ("vllm", "", "support-intents@stable"),
        ("openai", "gpt-4o-mini", ""),
        ("openai", "", ""),
    ]
    assert route.fallback_on == (ErrorClass.TIMEOUT, ErrorClass.NOT_FOUND)
    assert (route.retry.attempts, route.retry.on) == (2, (ErrorClass.CONNECTION, ErrorClass.TIMEOUT))
    assert (route.retry.backoff_ms, route.retry.max_backoff_ms) == (50, 900)
    assert route.hedge is not None
    assert (route.hedge.after_ms, route.deadline_s) == (800, 12.5)


def test_what_is_not_given_has_the_declared_defaults() -> None:
    """A bare route matches all classes and lengths and falls back on exactly the four declared errors."""
    route = parse(document("- {name: r, targets: [{backend: b}]}"), "test.yaml").routes[0]
    assert route.fallback_on == FALLBACK_ON
    assert set(FALLBACK_ON) == {"connection", "timeout", "rate_limit", "server_error"}
    assert (route.retry.attempts, route.hedge, route.deadline_s) == (0, None, None)
    assert (route.match.prompt_tokens.at_least, route.match.prompt_tokens.at_most) == (0, UNBOUNDED)
    assert (route.match.privacy.at_least, route.match.privacy.at_most) == (0, UNLIMITED)
    retry = parse(document("- {name: r, targets: [{backend: b}], retry: {attempts: 3}}"), "t").routes[0].retry
    assert set(retry.on) == {"connection", "rate_limit", "server_error"}
    assert (retry.attempts, retry.backoff_ms, retry.max_backoff_ms) == (3, 100, 5000)
    deny = parse(document("- {name: r, deny: {message: No.}}"), "test.yaml").routes[0].deny
    assert deny is not None
    assert (deny.status, deny.code) == (403, "route_denied")


def test_all_problems_are_told_at_once() -> None:
    """Wrong keys, wrong values and contradictions come in one error, each with its path."""
    broken = {
        "name": "Support!",
        "version": True,
        "routes": [
            {"name": "a", "match": {"modle": "x"}, "targets": [{"backend": ""}]},
            {"name": "a", "targets": [{"backend": "b", "model": "m", "adapter": "x@stable"}], "deny": {}},
            "nonsense",
        ],
    }
    assert problems(broken) == (
        "name: 'Support!' should be small letters, digits, '.', '_' and '-', at most 64",
        "version: should be a whole number",
        'routes[0].match.modle: unknown key, did you mean "model"?',
        "routes[0].targets[0].backend: should not be empty",
        "routes[1].deny.message: is required",
        "routes[2]: should be a mapping",
        'routes[1].name: "a" is already the name of routes[0]',
        "routes[1]: has both targets and deny; keep one",
        "routes[1].targets[0]: has both a model and an adapter; an adapter knows its base",
    )


@pytest.mark.parametrize(
    ("misspelt", "path", "meant"),
    [
        ({"routes": [{"targets": [{"masks": True}]}]}, "routes[0].targets[0].masks", "mask"),
        ({"naem": 1}, "naem", "name"),
        ({"routes": [{"fallback": 1}]}, "routes[0].fallback", "fallback_on"),
        ({"routes": [{"match": {"teams": 1}}]}, "routes[0].match.teams", "team"),
        ({"routes": [{"match": {"privacy": {"atmost": 1}}}]}, "routes[0].match.privacy.atmost", "at_most"),
        (
            {"routes": [{"match": {"prompt_tokens": {"least": 1}}}]},
            "routes[0].match.prompt_tokens.least",
            "at_least",
        ),
        ({"routes": [{"targets": [{"backends": 1}]}]}, "routes[0].targets[0].backends", "backend"),
        ({"routes": [{"deny": {"mesage": 1}}]}, "routes[0].deny.mesage", "message"),
        ({"routes": [{"retry": {"attempt": 1}}]}, "routes[0].retry.attempt", "attempts"),
        ({"routes": [{"hedge": {"after": 1}}]}, "routes[0].hedge.after", "after_ms"),
        ({"routes": [{"deadline_ms": 1}]}, "routes[0].deadline_ms", "deadline_s"),
        ({"routes": [{"match": {"time": {"hour": 1}}}]}, "routes[0].match.time.hour", "hours"),
        (
            {"routes": [{"targets": [{"group": {"targets": [{"wait": 1}]}}]}]},
            "routes[0].targets[0].group.targets[0].wait",
            "weight",
        ),
        ({"routes": [{"canary": {"shares": 1}}]}, "routes[0].canary.shares", "share"),
        (
            {"routes": [{"shadow": {"target": {"bakend": 1}}}]},
            "routes[0].shadow.target.bakend",
            "backend",
        ),
        ({"routes": [{"cap": {"output": 1}}]}, "routes[0].cap.output", "output_tokens"),
        ({"routes": [{"override": {"temprature": 1}}]}, "routes[0].override.temprature", "temperature"),
    ],
)
def test_an_unknown_key_is_an_error_with_a_suggestion(misspelt: Any, path: str, meant: str) -> None:
    """In every part of the document, a key that is not known names the known one that is close to it."""
    assert f'{path}: unknown key, did you mean "{meant}"?' in problems(misspelt)


@pytest.mark.parametrize(
    ("route", "problem"),
    [
        ("match: {features: [tool]}, targets: [{backend: b}]", 'did you mean "tools"?'),
        ("match: {privacy: {at_most: secret}}, targets: [{backend: b}]", "known are confidential, internal"),
        (
            "match: {privacy: {at_most: 2}}, targets: [{backend: b}]",
            "routes[0].match.privacy.at_most: unknown",
        ),
        (
            "match: {privacy: {at_least: restricted, at_most: public}}, targets: [{backend: b}]",
            "routes[0].match.privacy: at_least is above at_most",
        ),
        (
            "match: {prompt_tokens: {at_least: 9, at_most: 2}}, targets: [{backend: b}]",
            "routes[0].match.prompt_tokens: at_least is above at_most",
        ),
        ("match: {prompt_tokens: {at_least: -1}}, targets: [{backend: b}]", "greater than or equal to 0"),
        ('match: {model: "gpt-*-mini"}, targets: [{backend: b}]', "only one * at the very end"),
        ('match: {model: "gpt-**"}, targets: [{backend: b}]', "only one * at the very end"),
        ("match: {model: 4}, targets: [{backend: b}]", "routes[0].match.model: should be a list"),
        ("match: {key: [7]}, targets: [{backend: b}]", "routes[0].match.key[0]: should be text"),
        ("match: {team: []}, targets: [{backend: b}]", "routes[0].match.team: should not be empty"),
        ("targets: []", "routes[0].targets: should not be empty"),
        ("targets: [{backend: b, adapter: support}]", "write name@alias or name@<12 hex digits>"),
        ("targets: [{backend: b}], fallback_on: [timeouts]", 'did you mean "timeout"?'),
        ("targets: [{backend: b, mask: 'yes'}]", "routes[0].targets[0].mask: should be true or false"),
        ("deny: {message: No., status: 200}", "routes[0].deny.status: "),
        ("deny: {message: No.}, fallback_on: []", "routes[0].fallback_on: has no meaning"),
        ("deny: {message: No.}, retry: {attempts: 1}", "routes[0].retry: has no meaning"),
        ("deny: {message: No.}, hedge: {after_ms: 9}", "routes[0].hedge: has no meaning"),
        ("deny: {message: No.}, deadline_s: 9", "routes[0].deadline_s: has no meaning"),
        ("targets: [{backend: b}], retry: {}", "routes[0].retry.attempts: is required"),
        ("targets: [{backend: b}], retry: {attempts: 6}", "routes[0].retry.attempts: "),
        (
            "targets: [{backend: b}], retry: {attempts: 1, backoff_ms: 6000}",
            "backoff_ms is above max_backoff_ms",
        ),
        ("targets: [{backend: b}], retry: {attempts: 1, on: []}", "routes[0].retry.on: should not be empty"),
        (
            "targets: [{backend: b}], retry: {attempts: 1, on: [timeout, content_policy]}",
            "routes[0].retry.on[1]: content_policy is never retried: the same provider would say no",
        ),
        (
            "targets: [{backend: b}], retry: {attempts: 1, on: refused}",
            "routes[0].retry.on[0]: refused is never retried: the request itself is at fault",
        ),
        (
            "targets: [{backend: b}], retry: {attempts: 1, on: timeout, 'on': timeout}",
            "Keys should be strings",
        ),
        ("targets: [{model: m}]", "routes[0].targets[0].backend: is required"),
        (
            "targets: [{backend: b, group: {strategy: ordered, targets: [{backend: b}]}}]",
            "routes[0].targets[0].backend: has no meaning beside a group",
        ),
        (
            "targets: [{group: {strategy: cheapest, targets: [{backend: b, weight: 2}]}}]",
            "routes[0].targets[0].group.targets[0].weight: only strategies weighted and sticky",
        ),
        (
            "targets: [{group: {strategy: weighted, by: user, targets: [{backend: b}]}}]",
            "routes[0].targets[0].group.by: only strategy sticky",
        ),
        ("targets: [{backend: b}], shadow: {share: 1, target: {backend: b, model: m, adapter: x@y}}", "both"),
        ("match: {time: {zone: Berlin}}, targets: [{backend: b}]", "unknown time zone 'Berlin'"),
        ('match: {time: {hours: "08:00-08:00"}}, targets: [{backend: b}]', "is not a span of hours"),
        ('match: {time: {hours: "24:00-08:00"}}, targets: [{backend: b}]', "is not a span of hours"),
        ("deny: {message: No.}, canary: {}", "routes[0].canary: has no meaning on a route that denies"),
        ("targets: [{backend: b}], hedge: {after_ms: 0}", "routes[0].hedge.after_ms: "),
        ("targets: [{backend: b}], deadline_s: 0", "routes[0].deadline_s: "),
        ("targets: [{backend: b}], deadline_s: .nan, hedge: {after_ms: 1}", "routes[0].deadline_s: "),
        (
            f"targets: [{{backend: b}}], deadline_s: 1{'0' * 400}, hedge: {{after_ms: 1}}",
            "routes[0].deadline_s: ",
        ),
        (
            f"targets: [{{backend: b}}], deadline_s: 1, hedge: {{after_ms: 1{'0' * 400}}}",
            "before the hedge starts",
        ),
        ("targets: [{backend: b}], deadline_s: 2, hedge: {after_ms: 2000}", "before the hedge starts"),
        ("match: {}", "routes[0]: needs either targets or deny"),
        ("deny: null", "routes[0]: needs either targets or deny"),
    ],
)
def test_a_wrong_value_is_named_with_its_path(route: str, problem: str) -> None:
    """Each rule of the language, broken, is told at the place where it is broken."""
    assert any(problem in line for line in in_route(route))


@pytest.mark.parametrize(
    "empty",
    [
        "match:",
        "match: {model: }",
        "match: {privacy: }",
        "match: {privacy: {at_most: }}",
        "match: {tags: }",
        "retry: ",
        "retry: {attempts: 1, on: }",
        "hedge: ",
        "hedge: {after_ms: }",
        "deadline_s: ",
    ],
)
def test_a_key_with_nothing_behind_it_never_means_anything(empty: str) -> None:
    """Whoever leaves a condition empty is told so, and does not get a route that matches everything."""
    assert in_route(f"{empty}, targets: [{{backend: b}}]")


def test_a_bare_on_is_the_key_that_it_looks_like() -> None:
    """PyYAML reads `on:` as true; quoted or bare, alone or in a list, it says what is retried."""
    for on in ("on: timeout", "on: [timeout]", "'on': timeout"):
        routes = document(f"- {{name: r, targets: [{{backend: b}}], retry: {{attempts: 1, {on}}}}}")
        assert parse(routes, "test.yaml").routes[0].retry.on == (ErrorClass.TIMEOUT,)


@pytest.mark.parametrize("value", [None, [], "text", 3, {}, {"routes": None}, {"routes": {"a": 1}}, {1: 2}])
def test_a_document_of_the_wrong_shape_is_refused_without_a_crash(value: object) -> None:
    """Whatever YAML can give, the answer is a PolicyError that lists something."""
    assert problems(value)

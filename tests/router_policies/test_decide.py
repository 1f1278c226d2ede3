"""Where requests go, and what is said when they go nowhere."""

import re
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from router_policies.compile import compile_policy
from router_policies.decide import decide
from router_policies.names import SLUG, tuned_adapter, tuned_alias, tuned_model
from router_policies.schema import parse
from router_policies.types import (
    BackendInfo,
    Candidate,
    Catalog,
    Decision,
    Denial,
    ErrorClass,
    Facts,
    Feature,
    Permit,
    PrivacyClass,
    Resilience,
    Snapshot,
    shadow_id,
)
from router_policies.verify import verify
from tests.router_policies.samples import (
    OPENAI,
    RELEASE,
    SNAPSHOT,
    VLLM,
    all_targets,
    catalog,
    catalogs,
    crowds,
    document,
    documents,
    facts,
    loaded,
    reached,
    snapshots,
)

SUPPORT = """
- name: private
  match: {privacy: {at_least: confidential}}
  targets: [{backend: vllm, adapter: support-intents@stable}]
- name: support
  match: {model: support-intents}
  targets:
    - {backend: vllm, adapter: support-intents@stable}
    - {backend: openai, model: gpt-4o-mini}
  fallback_on: [timeout]
- name: as-asked
  match: {model: ["gpt-*", "support-intents@*"]}
  targets: [{backend: vllm}, {backend: openai}]
"""


def decided(routes: str, snapshot: Snapshot = SNAPSHOT, **given: Any) -> Decision:
    found = decide(loaded(routes), facts(**given), snapshot)
    assert isinstance(found, Decision), found
    return found


def denied(routes: str, snapshot: Snapshot = SNAPSHOT, **given: Any) -> Denial:
    found = decide(loaded(routes), facts(**given), snapshot)
    assert isinstance(found, Denial), found
    return found


def test_targets_become_candidates_in_their_order() -> None:
    """First choice, then fallbacks; the adapter goes upstream under its immutable name."""
    decision = decided(SUPPORT, model="support-intents")
    assert [(c.backend, c.zone, c.model, c.adapter) for c in decision.candidates] == [
        ("vllm", "home", RELEASE, RELEASE),
        ("openai", "us-cloud", "gpt-4o-mini", None),
    ]
    assert (decision.route, decision.policy) == ("support", "test@1")
    assert decision.fallback_on == {ErrorClass.TIMEOUT}
    assert decision.reason == "route support: vllm/support-intents@stable (first choice of 2)"


def test_how_candidates_are_called_comes_with_the_decision() -> None:
    """Retries, hedge and deadline in seconds, as the route has them; a route that is silent asks for none."""
    found = decided("""
        - name: r
          targets: [{backend: vllm}, {backend: openai}]
          match: {privacy: {at_most: internal}}
          retry: {attempts: 2, on: timeout, backoff_ms: 50, max_backoff_ms: 900}
          hedge: {after_ms: 800}
          deadline_s: 12.5
        """).resilience
    assert found == Resilience(
        retries=2,
        retry_on=frozenset({ErrorClass.TIMEOUT}),
        backoff_s=0.05,
        max_backoff_s=0.9,
        hedge_after_s=0.8,
        deadline_s=12.5,
    )
    silent = decided(SUPPORT).resilience
    assert (silent.retries, silent.hedge_after_s, silent.deadline_s) == (0, None, None)


def test_only_candidates_outside_our_zones_carry_a_permit() -> None:
    """The permit names the call, the backend, the zone, the class and the policy that it was minted for."""
    own, rented = decided(SUPPORT, model="support-intents").candidates
    assert own.permit is None
    assert rented.permit == Permit(
        id="call-1.2",
        call_id="call-1",
        backend="openai",
        zone="us-cloud",
        model="gpt-4o-mini",
        privacy=PrivacyClass.INTERNAL,
        policy="test@1",
    )


def test_only_the_holder_may_go_on() -> None:
    """What goes on from a response goes to the backend that has it, or nowhere, and never above a ceiling."""
    held = decided(SUPPORT, model="support-intents", holder="openai")
    assert [c.backend for c in held.candidates] == ["openai"]
    elsewhere = denied(SUPPORT, model="support-intents", holder="gone")
    assert (elsewhere.status, elsewhere.code) == (400, "previous_response_elsewhere")
    assert "does not have the earlier response" in elsewhere.reason


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (Snapshot(), "vllm/support-intents@stable not released yet"),
        (replace(SNAPSHOT, down=frozenset({"vllm"})), "vllm/support-intents@stable down"),
    ],
)
def test_what_is_ruled_out_is_told_in_the_reason(snapshot: Snapshot, reason: str) -> None:
    """An adapter that is not served and a backend that is down are passed over, and the line says so."""
    decision = decided(SUPPORT, snapshot, model="support-intents")
    assert [c.backend for c in decision.candidates] == ["openai"]
    assert decision.reason == f"route support: {reason}; falls to openai/gpt-4o-mini (fallback 2 of 2)"


def test_a_backend_that_lacks_a_feature_is_passed_over() -> None:
    """A request with tools skips the backend without them, and the reason names the feature."""
    plain = replace(VLLM, features=frozenset({Feature.STREAM}))
    policy = loaded(
        "- {name: r, match: {privacy: {at_most: internal}}, targets: [{backend: vllm}, {backend: openai}]}",
        plain,
        OPENAI,
    )
    decision = decide(policy, facts(model="qwen3-8b", features=frozenset({Feature.TOOLS})), SNAPSHOT)
    assert decision.reason == (
        "route r: vllm/(model asked for) lacks tools; falls to openai/(model asked for) (fallback 2 of 2)"
    )


@pytest.mark.parametrize(
    ("asked", "backends", "model", "adapter"),
    [
        ("gpt-4o", ["openai"], "gpt-4o", None),
        ("support-intents@stable", ["vllm", "openai"], RELEASE, RELEASE),
        (RELEASE, ["vllm", "openai"], RELEASE, RELEASE),
        ("support-intents@canary", ["openai"], "support-intents@canary", None),
    ],
)
def test_the_model_asked_for_is_passed_on(
    asked: str, backends: list[str], model: str, adapter: str | None
) -> None:
    """A target with neither model nor adapter serves what the client named, also an adapter of ours."""
    decision = decided(SUPPORT, model=asked)
    assert [c.backend for c in decision.candidates] == backends
    assert (decision.candidates[0].model, decision.candidates[0].adapter) == (model, adapter)


def test_a_pinned_adapter_needs_no_alias() -> None:
    """An immutable name goes upstream as it is, whatever the aliases say."""
    pinned = f"- {{name: r, targets: [{{backend: vllm, adapter: {RELEASE}}}]}}"
    candidate = decided(pinned, Snapshot()).candidates[0]
    assert (candidate.model, candidate.adapter) == (RELEASE, RELEASE)


def test_the_first_matching_route_has_the_last_word() -> None:
    """Its targets are out, a later route would serve, and yet the request is denied."""
    denial = denied(
        "- {name: a, match: {privacy: {at_least: internal}}, targets: [{backend: vllm, model: qwen3-8b}]}\n"
        "- {name: b, targets: [{backend: openai}]}",
        replace(SNAPSHOT, down=frozenset({"vllm"})),
    )
    assert (denial.route, denial.status, denial.code) == ("a", 503, "no_backend_available")
    assert denial.reason == "route a: vllm/qwen3-8b down; no target is left"


def test_no_route_is_told_in_the_words_of_openai() -> None:
    """A model that nobody routes gets the 404 that OpenAI's SDKs know."""
    denial = denied(SUPPORT, model="claude")
    assert (denial.route, denial.status, denial.code) == (None, 404, "model_not_found")
    assert denial.message == "The model `claude` does not exist or you do not have access to it."
    assert denial.reason == "no route matches"


def test_no_route_for_the_class_is_told_as_privacy() -> None:
    """The same request at a lower class would be routed: the client hears of the class, and what to do."""
    cloud = "- {name: cloud, match: {privacy: {at_most: internal}}, targets: [{backend: openai}]}"
    denial = denied(cloud, privacy=PrivacyClass.RESTRICTED)
    assert (denial.route, denial.status, denial.code) == (None, 403, "privacy_no_permitted_backend")
    assert "classed restricted" in denial.message
    assert "Remove the sensitive content" in denial.message
    assert denial.reason == "no route matches class restricted; route cloud would match internal"


def test_a_lower_class_that_would_be_denied_is_no_way_out() -> None:
    """A route that denies is nothing that lowering the class could help to reach."""
    no = "- {name: never, match: {privacy: {at_most: internal}}, deny: {message: No.}}"
    assert denied(no, privacy=PrivacyClass.RESTRICTED).code == "model_not_found"


def test_a_route_that_denies_answers_as_it_says() -> None:
    """Message, status and code are the route's own."""
    denial = denied(
        "- {name: no-images, match: {features: vision}, deny: {message: No., status: 415, code: no_images}}",
        features=frozenset({Feature.VISION}),
    )
    assert (denial.status, denial.code, denial.message) == (415, "no_images", "No.")
    assert denial.reason == "route no-images: denies what it matches"


@pytest.mark.parametrize(
    ("target", "given", "status", "code"),
    [
        ("{backend: vllm, adapter: other@stable}", {}, 503, "no_backend_available"),
        (
            "{backend: vllm, model: qwen3-8b}",
            {"features": frozenset({Feature.AUDIO})},
            400,
            "unsupported_feature",
        ),
        ("{backend: vllm, model: qwen3-8b}", {"endpoint": "embeddings"}, 400, "unsupported_endpoint"),
        ("{backend: vllm}", {"model": "gpt-4o"}, 404, "model_not_found"),
        ("{backend: vllm}", {"model": "other@stable"}, 404, "model_not_found"),
    ],
)
def test_each_obstacle_has_its_answer(target: str, given: dict[str, Any], status: int, code: str) -> None:
    """What rules the only target out decides what the client is told."""
    limited = replace(VLLM, features=frozenset({Feature.TOOLS}), endpoints=frozenset({"chat/completions"}))
    denial = decide(loaded(f"- {{name: r, targets: [{target}]}}", limited), facts(**given), SNAPSHOT)
    assert isinstance(denial, Denial)
    assert (denial.status, denial.code) == (status, code)


@pytest.mark.parametrize(
    ("down", "status", "code"),
    [({"openai"}, 403, "privacy_no_permitted_backend"), ({"vllm"}, 503, "no_backend_available")],
)
def test_what_may_pass_with_time_is_answered_first(down: set[str], status: int, code: str) -> None:
    """One target forbidden and one down: try again. Forbidden and unfit: the class is the reason."""
    routes = "- {name: r, targets: [{backend: openai, model: m}, {backend: vllm, model: qwen3-8b}]}"
    features = frozenset({Feature.TOOLS} if down == {"openai"} else set())
    limited = replace(VLLM, features=frozenset())
    unsafe, _ = compile_policy(parse(document(routes), "test.yaml"), catalog(limited, OPENAI))
    request = facts(privacy=PrivacyClass.RESTRICTED, features=features)
    denial = decide(unsafe, request, Snapshot(down=frozenset(down)))
    assert isinstance(denial, Denial)
    assert (denial.status, denial.code) == (status, code)


def test_a_ceiling_holds_even_in_a_policy_that_was_never_verified() -> None:
    """Compiled without its proof, a leaking policy still gives no candidate above the ceiling."""
    leaking = parse(document("- {name: r, targets: [{backend: openai, model: m}]}"), "test.yaml")
    unsafe, _ = compile_policy(leaking, catalog())
    denial = decide(unsafe, facts(privacy=PrivacyClass.RESTRICTED), SNAPSHOT)
    assert isinstance(denial, Denial)
    assert denial.code == "privacy_no_permitted_backend"
    assert denial.reason == (
        "route r: openai/m stands in zone us-cloud, closed to class restricted; no target is left"
    )


def test_a_route_raises_the_class_to_its_floor() -> None:
    """The decision, its permits and a denial have the class that the route gives; a higher one stays."""
    routes = (
        "- {name: r, match: {privacy: {at_most: internal}}, privacy_floor: internal,"
        " targets: [{backend: openai, model: m}]}"
    )
    decision = decide(loaded(routes), facts(privacy=PrivacyClass.PUBLIC), SNAPSHOT)
    assert isinstance(decision, Decision)
    assert decision.privacy is PrivacyClass.INTERNAL
    assert [c.permit and c.permit.privacy for c in decision.candidates] == [PrivacyClass.INTERNAL]
    leaking = parse(document(routes.replace("privacy_floor: internal", "privacy_floor: restricted")), "t")
    denial = decide(compile_policy(leaking, catalog())[0], facts(), SNAPSHOT)
    assert (denial.privacy, type(denial)) == (PrivacyClass.RESTRICTED, Denial)


MASKING = "- {name: r, targets: [{backend: openai, model: m, mask: true}, {backend: vllm, model: qwen3-8b}]}"


def test_above_the_ceiling_a_masking_target_gets_what_is_masked_down_to_it() -> None:
    """Its permit is for what is left; our own target gets the request as it is; the reason tells of it."""
    kinds = {"payment_card": 2, "email": 1}
    given = {"privacy": PrivacyClass.RESTRICTED, "masked": PrivacyClass.INTERNAL, "masked_kinds": kinds}
    decision = decided(MASKING, **given)
    rented, own = decision.candidates
    assert (rented.masked, own.masked) == (True, False)
    assert rented.permit is not None
    assert rented.permit.privacy is PrivacyClass.INTERNAL
    assert decision.reason == (
        "route r: openai/m (first choice of 2); masked for openai: 1 email, 2 payment_card"
    )


@pytest.mark.parametrize(
    ("masked", "left"),
    [(None, "restricted"), (PrivacyClass.CONFIDENTIAL, "confidential")],
)
def test_a_masking_target_gets_nothing_that_is_not_masked_down(
    masked: PrivacyClass | None, left: str
) -> None:
    """Where nothing can be masked, or what is left is still above the ceiling, our own target is chosen."""
    decision = decided(MASKING, privacy=PrivacyClass.RESTRICTED, masked=masked)
    assert [c.backend for c in decision.candidates] == ["vllm"]
    assert decision.reason == (
        "route r: openai/m stands in zone us-cloud, closed to class restricted, and to "
        f"{left}, which is left of it when masked; falls to vllm/qwen3-8b (fallback 2 of 2)"
    )


def test_within_the_ceiling_nothing_is_masked() -> None:
    """A masking target is a plain one for requests that it may have anyway."""
    decision = decided(MASKING, privacy=PrivacyClass.INTERNAL, masked=PrivacyClass.PUBLIC)
    assert not any(c.masked for c in decision.candidates)
    assert "masked" not in decision.reason


def test_a_long_list_of_obstacles_stays_a_short_line() -> None:
    """After three targets the reason counts the rest."""
    rented = [replace(OPENAI, name=f"o{i}") for i in range(6)]
    targets = ", ".join(f"{{backend: {b.name}, model: m}}" for b in rented)
    routes = f"- {{name: r, match: {{privacy: {{at_most: internal}}}}, targets: [{targets}]}}"
    snapshot = Snapshot(down=frozenset(f"o{i}" for i in range(5)))
    decision = decide(loaded(routes, *rented), facts(), snapshot)
    assert decision.reason == (
        "route r: o0/m down; o1/m down; o2/m down; 2 more ruled out; falls to o5/m (fallback 6 of 6)"
    )


@pytest.mark.parametrize(
    "model", ["gpt-jane@example.org\nroute x: forged", "jane@example.org\n{privacy} {0}"]
)
def test_the_reason_repeats_nothing_that_the_client_wrote(model: str) -> None:
    """The reason goes into the ledger: a model name with a person or a line break in it does not."""
    found = decide(loaded(SUPPORT), facts(model=model, call_id="\n", team="\n"), SNAPSHOT)
    assert "jane" not in found.reason
    assert "\n" not in found.reason


@settings(max_examples=100, deadline=None)
@given(documents(), catalogs, crowds, snapshots)
def test_no_candidate_is_ever_above_its_ceiling(
    policy: Any, catalog: Catalog, crowd: list[Facts], snapshot: Snapshot
) -> None:
    """For any policy, verified or not: no candidate's zone is closed to the class of what it is sent, masked
    where a target says so and there is need, none is down or unfit, and a permit is there exactly where the
    zone is not ours, made out for this request and that candidate; all of which goes for a shadow too."""
    compiled, _ = compile_policy(parse(policy, "generated"), catalog)
    floors = {route.name: route.privacy_floor for route in compiled.routes}
    masking = {(r["name"], t["backend"]) for r in policy["routes"] for t in all_targets(r) if t.get("mask")}
    for request in crowd:
        found = decide(compiled, request, snapshot)
        for candidate in reached(found):
            assert found.privacy >= request.privacy
            shadowed = isinstance(found, Decision) and candidate is found.shadow
            raised = replace(
                request,
                call_id=shadow_id(request.call_id) if shadowed else request.call_id,
                privacy=found.privacy,
                masked=None if request.masked is None else max(request.masked, floors[found.route]),
            )
            _is_in_order(candidate, catalog.backends[candidate.backend], raised, snapshot)
            assert not candidate.masked or (found.route, candidate.backend) in masking


@settings(max_examples=50, deadline=None)
@given(documents(), catalogs, crowds, snapshots)
def test_hedges_and_retries_lead_nowhere_new(
    policy: Any, catalog: Catalog, crowd: list[Facts], snapshot: Snapshot
) -> None:
    """A hedge stays within the ceilings because it runs on the route's own candidates: with or without one,
    and retries and a deadline, proof, candidates, permits and denials are the same to the letter."""
    extras = {"retry": {"attempts": 5}, "hedge": {"after_ms": 1}, "deadline_s": 1}
    routes = [route | extras if "targets" in route else route for route in policy["routes"]]
    plain, _ = compile_policy(parse(policy, "generated"), catalog)
    hedged, _ = compile_policy(parse(policy | {"routes": routes}, "generated"), catalog)
    assert verify(plain) == verify(hedged)
    for request in crowd:
        expected, found = decide(plain, request, snapshot), decide(hedged, request, snapshot)
        if isinstance(found, Decision) and isinstance(expected, Decision):
            assert found.resilience.hedge_after_s == 0.001
            found = replace(found, resilience=expected.resilience)
        assert found == expected


def _is_in_order(candidate: Candidate, backend: BackendInfo, request: Facts, snapshot: Snapshot) -> None:
    assert candidate.masked == (request.privacy > backend.zone.ceiling)
    sent = request.masked if candidate.masked else request.privacy
    assert sent is not None
    assert backend.zone.ceiling >= sent
    assert candidate.zone == backend.zone.name
    assert candidate.backend not in snapshot.down
    assert request.features <= backend.features
    assert request.endpoint in backend.endpoints
    assert candidate.adapter in (None, "s@0123456789ab")
    assert (candidate.ceiling, candidate.local) == (backend.zone.ceiling, backend.zone.local)
    assert candidate.permit == (
        None
        if backend.zone.local
        else Permit(
            id=candidate.permit.id if candidate.permit else "",
            call_id=request.call_id,
            backend=backend.name,
            zone=backend.zone.name,
            model=candidate.model,
            privacy=sent,
            policy="p@1",
        )
    )


TUNED = tuned_model("llama-8b", "support", "Desk bot", "abc123")
TUNED_ALIAS = f"{tuned_adapter(TUNED)}@stable"
OWN = "[{name: own, match: {model: ['ft:*', 'ft.*']}, targets: [{backend: vllm}]}]"


@pytest.mark.parametrize(
    ("asked", "team", "answered"),
    [
        (TUNED, "support", True),
        (f"{TUNED}:ckpt-step-12", "support", True),
        (TUNED, "legal", False),  # another team's
        (TUNED.replace("support", "legal"), "legal", False),  # no such model
        (TUNED.replace("llama-8b", "llama-9b"), "support", False),
        (TUNED.replace("desk-bot", "desk"), "support", False),
        ("ft:llama-8b", "support", False),
        (TUNED_ALIAS, "support", False),  # past its name
        (f"{tuned_adapter(TUNED)}@0123456789ab", "support", False),
    ],
)
def test_fine_tuned_models_answer_to_their_name_and_team(asked: str, team: str, answered: bool) -> None:
    """`ft:…` leads to its adapter by the whole of the name, and no other team's; its alias does not."""
    release = f"{tuned_adapter(TUNED)}@0123456789ab"
    found = decide(loaded(OWN), facts(model=asked, team=team), Snapshot(aliases={TUNED_ALIAS: release}))
    assert isinstance(found, Decision) == answered
    if isinstance(found, Decision):
        assert [candidate.adapter for candidate in found.candidates] == [release]


@pytest.mark.parametrize("suffix", ["", "Ünï çødé", "x" * 64, "a:b:c", "-.-", "..", "A" * 63 + "."])
def test_any_suffix_makes_a_name(suffix: str) -> None:
    """Whatever a client writes, the adapter's name is one that a replica takes."""
    name = tuned_model("org/Base-8B", "team", suffix, "0a1b")
    assert re.fullmatch(SLUG, tuned_adapter(name))
    assert tuned_alias(name, "team") == f"{tuned_adapter(name)}@stable"

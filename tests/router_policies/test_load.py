"""A policy that could break a ceiling does not load; the shipped examples do, and route as they say."""

from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

import router_policies
from router_policies.compiled import CompiledPolicy
from router_policies.decide import decide
from router_policies.errors import PolicyError
from router_policies.load import load
from router_policies.types import Decision, Denial, Feature, PrivacyClass
from tests.router_policies.samples import MISTRAL, OPENAI, SNAPSHOT, VLLM, catalog, document, facts

AT_NIGHT = datetime(2026, 3, 4, 1, 30, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()  # a Wednesday
EXAMPLES = sorted((Path(router_policies.__file__).parent / "examples").glob("*.yaml"))


def example(name: str) -> CompiledPolicy:
    path = next(path for path in EXAMPLES if path.stem == name)
    return load(yaml.safe_load(path.read_text()), path.name, catalog(VLLM, OPENAI, MISTRAL))


def test_misfits_and_leaks_are_told_together() -> None:
    """What the catalog cannot serve does not hide what would leak."""
    routes = """
    - {name: a, match: {model: m}, targets: [{backend: nowhere}, {backend: openai}]}
    - {name: b, match: {model: m}, targets: [{backend: vllm}]}
    """
    with pytest.raises(PolicyError) as caught:
        load(document(routes), "test.yaml", catalog())
    misfit, wrong_model, leak, dead = caught.value.problems
    assert misfit.startswith("routes[0].targets[0].backend: unknown backend")
    assert wrong_model.startswith('routes[1].targets[0].backend: "vllm" serves none')
    assert leak.startswith('route "a" → fallback 2 "openai/(model asked for)" in zone "us-cloud"')
    assert dead.startswith('route "b": is never reached')


def test_a_document_that_cannot_be_read_does_not_load() -> None:
    """The schema's problems come through under the source's name."""
    with pytest.raises(PolicyError, match=r"^test\.yaml:\n  - version: is required"):
        load({"name": "p", "routes": [{"name": "r", "deny": {"message": "No."}}]}, "test.yaml", catalog())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_loads_under_its_own_name(path: Path) -> None:
    """The usual patterns of the field pass the proof."""
    assert example(path.stem).label == f"{path.stem}@1"


@pytest.mark.parametrize(
    ("name", "given", "route", "backends"),
    [
        ("private-stays-home", {}, "the-rest", ["openai", "vllm"]),
        ("private-stays-home", {"privacy": PrivacyClass.CONFIDENTIAL}, "private", ["vllm"]),
        ("own-first", {"model": "support-intents"}, "support", ["vllm", "vllm", "openai"]),
        (
            "own-first",
            {"model": "support-intents", "privacy": PrivacyClass.RESTRICTED},
            "support-confidential",
            ["vllm", "vllm"],
        ),
        ("own-first", {"model": "gpt-4o"}, "as-asked", ["openai"]),
        ("own-first", {"model": "qwen3-8b", "privacy": PrivacyClass.RESTRICTED}, "our-own-models", ["vllm"]),
        ("tools-to-large", {"features": frozenset({Feature.TOOLS})}, "tool-users", ["openai", "openai"]),
        ("tools-to-large", {"prompt_tokens": 4001}, "long-prompts", ["openai"]),
        ("tools-to-large", {"prompt_tokens": 4000}, "short-and-plain", ["vllm", "openai"]),
        (
            "tools-to-large",
            {"features": frozenset({Feature.TOOLS}), "privacy": PrivacyClass.RESTRICTED},
            "private",
            ["vllm"],
        ),
        ("budget-downgrade", {"budget_used": 0.79}, "the-rest", ["openai", "openai"]),
        ("budget-downgrade", {"budget_used": 0.8}, "nearly-spent", ["openai", "vllm"]),
        ("cheap-first", {"task": "classify"}, "bulk", ["vllm", "openai", "openai"]),
        ("cheap-first", {"at_s": AT_NIGHT}, "off-hours", ["vllm", "openai", "openai"]),
        ("cheap-first", {"at_s": AT_NIGHT + 8 * 3600}, "the-rest", ["openai", "openai"]),
        ("canary", {"model": "support-intents", "user": "ann"}, "support", ["vllm", "vllm"]),
        ("shadow", {}, "the-rest", ["openai"]),
        ("regional", {"project": "shop-de"}, "european-projects", ["mistral"]),
        ("regional", {"metadata": {"region": "ch"}}, "european-customers", ["mistral"]),
        ("regional", {"metadata": {"region": "us"}}, "the-rest", ["openai", "mistral"]),
    ],
)
def test_the_examples_route_as_they_say(
    name: str, given: dict[str, Any], route: str, backends: list[str]
) -> None:
    """Each example sends its requests where its comments promise."""
    decision = decide(example(name), facts(**given), SNAPSHOT)
    assert isinstance(decision, Decision)
    assert (decision.route, [c.backend for c in decision.candidates]) == (route, backends)


def test_the_example_in_time_says_how() -> None:
    """A slow model of ours is raced by the rented one; what is confidential is only asked at home again."""
    open_, private = (
        decide(example("in-time"), facts(privacy=privacy), SNAPSHOT)
        for privacy in (PrivacyClass.INTERNAL, PrivacyClass.CONFIDENTIAL)
    )
    assert isinstance(open_, Decision)
    assert [c.backend for c in open_.candidates] == ["vllm", "openai"]
    assert (open_.resilience.retries, open_.resilience.hedge_after_s) == (1, 0.8)
    assert open_.resilience.deadline_s == 10
    assert isinstance(private, Decision)
    assert [c.backend for c in private.candidates] == ["vllm"]
    assert (private.resilience.retries, private.resilience.hedge_after_s) == (3, None)


@pytest.mark.parametrize(
    ("masked", "backends"),
    [(PrivacyClass.PUBLIC, ["openai", "vllm"]), (PrivacyClass.RESTRICTED, ["vllm"]), (None, ["vllm"])],
)
def test_the_example_masked_abroad_masks(masked: PrivacyClass | None, backends: list[str]) -> None:
    """What can be masked down goes to the rented model so, and what cannot is answered at home."""
    request = facts(privacy=PrivacyClass.RESTRICTED, masked=masked)
    decision = decide(example("masked-abroad"), request, SNAPSHOT)
    assert isinstance(decision, Decision)
    assert [c.backend for c in decision.candidates] == backends
    assert [c.masked for c in decision.candidates] == [c == "openai" for c in backends]


def test_the_examples_deny_as_they_say() -> None:
    """No images in own-first, and a rented model is no place for what is confidential."""
    images = decide(example("own-first"), facts(features=frozenset({Feature.VISION})), SNAPSHOT)
    private = decide(example("own-first"), facts(privacy=PrivacyClass.CONFIDENTIAL), SNAPSHOT)
    assert isinstance(images, Denial)
    assert images.message == "Images are not allowed here."
    assert isinstance(private, Denial)
    assert private.code == "privacy_no_permitted_backend"

"""The published JSON Schema agrees with what `parse` reads, as far as a schema can say it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from jsonschema import Draft202012Validator

import router_policies
from router_policies.errors import PolicyError
from router_policies.json_schema import policy_schema
from router_policies.privacy import scale_of
from router_policies.schema import parse
from tests.router_policies.samples import documents

EXAMPLES = sorted((Path(router_policies.__file__).parent / "examples").glob("*.yaml"))
VALIDATOR = Draft202012Validator(policy_schema())


def as_json(node: Any) -> Any:
    """What an editor sees of YAML: there a bare `on` is a word, which PyYAML takes for true."""
    if isinstance(node, dict):
        return {"on" if key is True else key: as_json(value) for key, value in node.items()}
    return [as_json(item) for item in node] if isinstance(node, list | tuple) else node


def route(**keys: Any) -> dict[str, Any]:
    shown = {"name": "r", "targets": [{"backend": "b"}]} | keys
    return {"name": "p", "version": 1, "routes": [{k: v for k, v in shown.items() if v is not ...}]}


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(policy_schema())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_examples_fit(path: Path) -> None:
    """An editor finds no fault with what ships."""
    assert list(VALIDATOR.iter_errors(as_json(yaml.safe_load(path.read_text())))) == []


@settings(max_examples=60, deadline=None)
@given(documents())
def test_what_parse_reads_fits(document: Any) -> None:
    """Whatever is generated for the other tests parses, and fits the schema."""
    parse(document, "generated")
    assert list(VALIDATOR.iter_errors(document)) == []


@pytest.mark.parametrize(
    "broken",
    [
        route(nmae="x"),
        route(targets=...),
        route(deny={"message": "No."}),
        route(targets=[]),
        route(targets=[{"model": "m"}]),
        route(targets=[{"backend": "b", "group": {"strategy": "ordered", "targets": [{"backend": "b"}]}}]),
        route(targets=[{"group": {"strategy": "random", "targets": [{"backend": "b"}]}}]),
        route(targets=[{"group": {"strategy": "ordered", "targets": []}}]),
        route(targets=[{"group": {"strategy": "weighted", "targets": [{"backend": "b", "weight": 0}]}}]),
        route(targets=[{"backend": "b", "weight": 1}]),
        route(match={"teem": "a"}),
        route(match={"team": []}),
        route(match={"team": None}),
        route(match={"features": ["toools"]}),
        route(match={"privacy": {"at_least": "secret"}}),
        route(match={"prompt_tokens": {"at_least": -1}}),
        route(match={"output_tokens": {"at_most": "many"}}),
        route(match={"metadata": {}}),
        route(match={"metadata": {"a": 1}}),
        route(match={"time": {"hours": "8-18"}}),
        route(match={"time": {"days": ["monday"]}}),
        route(match={"time": None}),
        route(match={"budget": {"at_least": -0.1}}),
        route(canary={"share": 0, "targets": [{"backend": "b"}]}),
        route(canary={"share": 0.5, "by": "team", "targets": [{"backend": "b"}]}),
        route(shadow={"share": 0.5}),
        route(shadow={"share": 1.5, "target": {"backend": "b"}}),
        route(cap={"output_tokens": 0}),
        route(override={"temperature": 3}),
        route(override={"stop": "x"}),
        route(deadline_s=0),
        {"name": "Big Name", "version": 1, "routes": [{"name": "r", "deny": {"message": "No."}}]},
        {"name": "p", "version": "1", "routes": [{"name": "r", "deny": {"message": "No."}}]},
        {"name": "p", "version": 1, "routes": []},
    ],
    ids=str,
)
def test_what_parse_refuses_does_not_fit(broken: Any) -> None:
    """One mistake of each kind: both say no."""
    with pytest.raises(PolicyError):
        parse(broken, "broken")
    assert not VALIDATOR.is_valid(broken)


def test_a_deployment_has_its_own_classes() -> None:
    """The schema knows the scale that it is asked for."""
    labels = ("public", "internal", "confidential", "restricted", "sealed")
    own = Draft202012Validator(policy_schema(scale_of(labels)))
    sealed = route(match={"privacy": {"at_least": "sealed"}})
    assert own.is_valid(sealed)
    assert not VALIDATOR.is_valid(sealed)

"""`gateway.monitor.genai`: backends, operations and errors under the conventions' names."""

import pytest

from gateway.monitor.genai import Upstream, error_type, named_models, operation, upstreams
from gateway.settings import Settings
from gateway.types import Outcome
from router_policies.types import ErrorClass
from tests.ledger.samples import entry
from tests.test_settings import GOOD, changed


def test_backends_by_their_names() -> None:
    """The provider's well-known name, and the address that the configuration gives; no URL, no address."""
    document = changed(backends__gemini={**GOOD["backends"]["claude"], "provider": "gemini"})
    assert upstreams(Settings.model_validate(document)) == {
        "own": Upstream(provider="vllm", host="10.0.0.7", port=8000),
        "rented": Upstream(provider="openai", host="api.example.com", port=443),
        "claude": Upstream(provider="anthropic"),
        "gemini": Upstream(provider="gcp.gemini"),
    }


def test_models_that_labels_may_name() -> None:
    """Those of the configuration; a wildcard names none."""
    assert named_models(Settings.model_validate(GOOD)) == {"base", "c"}


@pytest.mark.parametrize(
    ("endpoint", "name"),
    [
        ("chat/completions", "chat"),
        ("responses", "chat"),
        ("completions", "text_completion"),
        ("embeddings", "embeddings"),
    ],
)
def test_operations(endpoint: str, name: str) -> None:
    """Each endpoint has a well-known name."""
    assert operation(endpoint) == name


def test_error_types() -> None:
    """None where it went well; else the class of the last error, or how the call ended."""
    assert error_type(entry("a")) == ""
    assert error_type(entry("a", outcome=Outcome.FAILED, error_class=ErrorClass.RATE_LIMIT)) == "rate_limit"
    assert error_type(entry("a", outcome=Outcome.INTERRUPTED)) == "interrupted"

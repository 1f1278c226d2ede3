"""`headgate import litellm`: what it writes loads, is proved, and routes as litellm's configuration meant."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from gateway.admission import hash_key
from gateway.cli.from_litellm import convert
from gateway.cli.main import app
from gateway.errors import ConfigError
from gateway.policy_file import build_catalog, load_policy
from gateway.settings import load_settings
from router_policies.decide import decide
from router_policies.types import Decision, Denial, PrivacyClass, Snapshot
from tests.router_policies.samples import facts

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: os.environ/OPENAI_API_KEY, rpm: 60, tpm: 1000}
    model_info: {id: one, base_model: gpt-4o}
  - model_name: gpt-4o
    litellm_params: {model: gpt-4o, api_key: sk-second-key, rpm: 20, tpm: 500}
  - model_name: gpt-4o
    litellm_params: {model: azure/gpt-4o, api_base: "https://x.openai.azure.com", api_key: k}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-5, api_key: os.environ/ANTHROPIC_API_KEY}
  - model_name: own
    litellm_params:
      model: hosted_vllm/qwen3-8b
      api_base: http://10.0.0.5:8000/v1
      input_cost_per_token: 0.0000001
      output_cost_per_token: 2.5e-7
      temperature: 0.2
  - model_name: mixed
    litellm_params: {model: hosted_vllm/qwen3-8b, api_base: "http://10.0.0.5:8000/v1"}
  - model_name: mixed
    litellm_params: {model: groq/llama-3.3-70b, api_key: os.environ/GROQ_API_KEY}
  - model_name: "gpt-*"
    litellm_params: {model: openai/gpt-*, api_key: os.environ/OPENAI_API_KEY}
  - model_name: "anthropic/*"
    litellm_params: {model: anthropic/*, api_key: os.environ/ANTHROPIC_API_KEY}
router_settings:
  routing_strategy: simple-shuffle
  num_retries: 9
  timeout: 30
  fallbacks: [{gpt-4o: [claude]}]
  model_group_alias: {best: gpt-4o}
  cooldown_time: 30
litellm_settings:
  drop_params: true
  default_fallbacks: [own]
general_settings:
  master_key: sk-1234
  database_url: postgresql://x
guardrails: []
"""
ENVIRONMENT = dict.fromkeys(
    ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GROQ_API_KEY", "OPENAI_2_API_KEY"), "a-secret"
)


def imported(folder: Path, config: str = CONFIG) -> str:
    (folder / "config.yaml").write_text(config)
    arguments = ["import", "litellm", str(folder / "config.yaml"), "--out", str(folder / "out")]
    found = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


def decided(folder: Path, model: str, privacy: PrivacyClass = PrivacyClass.INTERNAL) -> Decision | Denial:
    settings = load_settings(folder / "out" / "headgate.yaml", ENVIRONMENT)
    policy = load_policy(settings, build_catalog(settings))
    return decide(policy, facts(model=model, privacy=privacy), Snapshot())


def places(found: Decision | Denial) -> list[tuple[str, str]]:
    assert isinstance(found, Decision), found
    return [(c.backend, c.model) for c in found.candidates]


def test_what_is_written_loads_and_is_proved(tmp_path: Path) -> None:
    """With the environment that it asks for, and without a secret of the old file in it."""
    told = imported(tmp_path)
    assert "routes, every path within its zone's ceiling" in told
    assert places(decided(tmp_path, "claude")) == [
        ("anthropic", "claude-sonnet-4-5"),
        ("hosted_vllm", "qwen3-8b"),
    ]
    written = "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert "sk-second-key" not in written
    assert "sk-1234" not in written
    settings = load_settings(tmp_path / "out" / "headgate.yaml", ENVIRONMENT)
    assert (settings.keys[0].sha256, settings.keys[0].admin) == (hash_key("sk-1234"), True)
    assert {backend.total_s for backend in settings.backends.values()} == {30.0}
    assert settings.prices["qwen3-8b"][0].input == Decimal("0.1")
    rate = next(rule for rule in settings.limits.rates if rule.route == "gpt-4o")
    assert (rate.requests_per_minute, rate.tokens_per_minute) == (80, 1500)


def test_routes_as_they_were_meant(tmp_path: Path) -> None:
    """Deployments of a name by weight, then its fallbacks; aliases; names before wildcards; retries."""
    imported(tmp_path)
    for model in ("gpt-4o", "best"):
        found = decided(tmp_path, model)
        first = places(found)
        assert sorted(first[:2]) == [("openai", "gpt-4o"), ("openai-2", "gpt-4o")]
        assert first[2:] == [("anthropic", "claude-sonnet-4-5")]
        assert isinstance(found, Decision)
        assert found.resilience.retries == 5
    assert places(decided(tmp_path, "gpt-4o-mini"))[0] == ("openai", "gpt-4o-mini")
    policy = yaml.safe_load((tmp_path / "out" / "policy.yaml").read_text())
    gpt = next(route for route in policy["routes"] if route["name"] == "gpt-4o")
    assert [m["weight"] for m in gpt["targets"][0]["group"]["targets"]] == [60, 20]


def test_private_requests_stay_on_local_deployments(tmp_path: Path) -> None:
    """litellm knows no classes: what is confidential is answered where a model has a deployment of one's own,
    and refused where it has none."""
    imported(tmp_path)
    assert places(decided(tmp_path, "mixed", PrivacyClass.CONFIDENTIAL)) == [("hosted_vllm", "qwen3-8b")]
    assert places(decided(tmp_path, "own", PrivacyClass.RESTRICTED)) == [("hosted_vllm", "qwen3-8b")]
    assert ("groq", "llama-3.3-70b") in places(decided(tmp_path, "mixed"))


def test_what_has_no_counterpart_is_listed(tmp_path: Path) -> None:
    """Every key of the old file that says something we do not take over, by its path."""
    told = imported(tmp_path)
    for line in (
        "model_list[2]: azure: no such provider here",
        "model_list[0].model_info.base_model",
        "model_list[4].litellm_params.temperature",
        "model_list[8]: anthropic/* stands for anthropic/*, which renames models",
        "router_settings.cooldown_time",
        "litellm_settings.drop_params",
        "general_settings.database_url",
        "guardrails",
    ):
        assert f"no counterpart: {line}\n" in told
    assert "to do: backends.openai-2: put its key into the environment as OPENAI_2_API_KEY" in told


@pytest.mark.parametrize(
    ("strategy", "ours"),
    [
        ("least-busy", "least_busy"),
        ("latency-based-routing", "fastest"),
        ("cost-based-routing", "cheapest"),
        ("usage-based-routing-v2", "least_busy"),
    ],
)
def test_strategies(strategy: str, ours: str) -> None:
    """Each has ours, or the nearest one and a line that says so."""
    given = yaml.safe_load(CONFIG) | {"router_settings": {"routing_strategy": strategy}}
    found = convert(given, {})
    gpt = next(route for route in found.policy["routes"] if route["name"] == "gpt-4o")
    assert gpt["targets"][0]["group"]["strategy"] == ours
    lost = any("routing_strategy" in line for line in found.without_counterpart)
    assert lost == strategy.startswith("usage")


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """Who has a configuration keeps it."""
    imported(tmp_path)
    with pytest.raises(ConfigError, match="is there already"):
        imported(tmp_path)


@pytest.mark.parametrize(
    "config", ["[]", "model_list: []", "model_list: [{model_name: x}]", "model_list: [3]"]
)
def test_what_is_no_configuration(tmp_path: Path, config: Any) -> None:
    """An error that says so, and no file."""
    with pytest.raises(ConfigError):
        imported(tmp_path, config)
    assert not (tmp_path / "out" / "headgate.yaml").exists()

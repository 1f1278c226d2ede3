"""The configurations that ship load as they are: the example for users, and the one that the demo writes."""

from pathlib import Path

import pytest

from gateway.demo.config import Keys, write
from gateway.policy_file import build_catalog, load_policy
from gateway.settings import Settings, load_settings

EXAMPLE = Path(__file__).parents[1] / "deploy" / "example" / "headgate.yaml"
ENVIRONMENT = dict.fromkeys(
    (
        "VLLM_API_KEY",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "HEADGATE_DEMO_VLLM_KEY",
        "HEADGATE_DEMO_RENTED_KEY",
    ),
    "secret-of-the-environment",
)


def example(folder: Path) -> Path:
    return EXAMPLE


def demo(folder: Path) -> Path:
    return write(folder, port=0, vllm_url="http://127.0.0.1:1", rented_url="http://127.0.0.1:2", keys=Keys())


@pytest.fixture(params=[example, demo])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    return load_settings(request.param(tmp_path), ENVIRONMENT)


def test_loads_and_its_policy_is_proved(settings: Settings) -> None:
    """Every key is known, every target exists, and no path leads above a zone's ceiling."""
    policy = load_policy(settings, build_catalog(settings))
    assert policy.routes


def test_every_secret_comes_from_the_environment(settings: Settings) -> None:
    """Each backend names a variable, so the files can be shown to anybody."""
    assert {b.api_key.get_secret_value() for b in settings.backends.values()} == {"secret-of-the-environment"}


def test_the_demo_writes_hashes_of_its_keys_only(tmp_path: Path) -> None:
    """None of the keys that the demo mints stands in what it writes."""
    keys = Keys()
    write(tmp_path, port=0, vllm_url="http://127.0.0.1:1", rented_url="http://127.0.0.1:2", keys=keys)
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert not any(key in written for key in (keys.app, keys.people, keys.admin))

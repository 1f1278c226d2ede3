"""What the tests of backends share: a running fake provider, and OpenAI's own description of its API."""

import gzip
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from gateway.backends.fake import FakeProvider

Conforms = Callable[[str, Any], None]
SHARED_DATA = Path(__file__).parents[3] / "shared" / "data"

# Where litellm's types meet pydantic, at the first call in a process; nothing that we could do otherwise.
_LITELLM_WARNING = "ignore:Item '.*' on TypedDict class .* is using the `ReadOnly` qualifier:UserWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name.startswith("test_cloud"):
            item.add_marker(pytest.mark.filterwarnings(_LITELLM_WARNING))


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    """A fake provider with no options, listening."""
    fake = FakeProvider()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture(scope="session")
def conforms() -> Conforms:
    """conforms(name, value): fails unless the value fits that schema of OpenAI's API description."""
    path = SHARED_DATA / "openai" / "openapi.yaml.gz"
    if not path.exists():
        pytest.skip(f"no {path}: OpenAI's API description is not part of the project")
    described = _without_nullable(yaml.load(gzip.decompress(path.read_bytes()), Loader=yaml.CSafeLoader))

    def check(name: str, value: Any) -> None:
        schema = {"$ref": f"#/components/schemas/{name}", "components": described["components"]}
        jsonschema.Draft202012Validator(schema).validate(value)

    return check


def _without_nullable(node: Any) -> Any:
    """OpenAPI 3.0's `nullable`, which the description still uses here and there, in JSON Schema's words."""
    if isinstance(node, list):
        return [_without_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node
    rest = {key: _without_nullable(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [rest, {"type": "null"}]} if node.get("nullable") is True else rest

"""What the tests of backends share: a running fake provider, and OpenAI's own description of its API."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway.backends.fake import FakeProvider
from tests.support.openai_schema import assert_valid

Conforms = Callable[[str, Any], None]

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
    return lambda name, value: assert_valid(value, name)

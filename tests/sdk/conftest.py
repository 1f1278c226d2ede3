"""One gateway with stand-ins for all SDK tests."""

from collections.abc import Iterator

import openai
import pytest

from tests.support.stack import KEY, Stack, running_stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("sdk")) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stack.url, api_key=KEY, max_retries=0, timeout=20) as sdk:
        yield sdk


@pytest.fixture(autouse=True)
def _nothing_scripted(stack: Stack) -> Iterator[None]:
    yield
    assert not stack.rented._script, "a scripted behaviour was left over: the test did not reach the provider"

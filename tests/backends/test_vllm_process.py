"""Supervision of one vLLM process, with a stand-in for vLLM's module that can be made to misbehave."""

import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.backends.vllm_process import VllmFailed, VllmProcess
from tests.support.vllm import RunningVllm, free_port
from tests.support.waiting import until

SERVER = """
import http.server, os, pathlib, sys, threading
print("loading the model", flush=True)
port = int(sys.argv[sys.argv.index("--port") + 1])
asked = []
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        asked.append(self.path)
        self.answer(200 if len(asked) > 2 else 503)
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        key = self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        print("warm-up after", len(asked), flush=True)
        self.answer(200 if key else 401)
    def answer(self, status):
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
STUBBORN = """
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which a child inherits
child = subprocess.Popen([sys.executable, "-c", "import time; print('deaf', flush=True); time.sleep(600)"])
print("child", child.pid, flush=True)
signal.pause()
"""
ORPHANING = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
raise SystemExit(3)
"""


MODULES = (
    "vllm/__init__.py",
    "vllm/entrypoints/__init__.py",
    "vllm/entrypoints/openai/__init__.py",
    "vllm/entrypoints/openai/api_server.py",
    "vllm/lora/__init__.py",
    "vllm/lora/ops/__init__.py",
    "vllm/lora/ops/torch_ops/__init__.py",
    "vllm/lora/ops/torch_ops/lora_ops.py",
    "vllm/lora/punica_wrapper/__init__.py",
    "vllm/lora/punica_wrapper/punica_cpu.py",
)


class StandIn:
    """Makes processes whose `vllm.entrypoints.openai.api_server` is a given source, and stops them all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.made: list[VllmProcess] = []

    def __call__(self, source: str, **options: int) -> VllmProcess:
        for module in MODULES:
            file = self._folder / "python" / module
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(source if file.stem == "api_server" else "bgmv_shrink = None")
        process = VllmProcess(
            self._folder,
            "tiny",
            free_port(),
            log_path=self._folder / "logs" / "vllm.log",
            api_key="sk-secret",
            environment={"PYTHONPATH": str(self._folder / "python")},
            **options,
        )
        self.made.append(process)
        return process


@pytest.fixture
async def stand_in(tmp_path: Path) -> AsyncIterator[StandIn]:
    made = StandIn(tmp_path)
    yield made
    for process in made.made:
        await process.stop(timeout_s=0.2)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def command_line(process: VllmProcess) -> bytes:
    return Path(f"/proc/{process.pid}/cmdline").read_bytes()


async def child_of(process: VllmProcess) -> int:
    await until(lambda: "child " in process.log_tail())
    return int(process.log_tail().partition("child ")[2].split()[0])


async def test_ready_means_warm(stand_in: StandIn) -> None:
    """It is ready when it is healthy and has answered a completion, with the key; progress is reported."""
    process = stand_in(SERVER)
    seen: list[str] = []
    process.start()
    assert await process.wait_ready(lambda seconds, line: seen.append(line)) > 0
    assert "warm-up after 3" in process.log_tail()
    assert "loading the model" in seen
    assert seen[-1] == "warming up"
    await process.stop()
    assert process.pid is None


async def test_secret_is_not_on_the_command_line(stand_in: StandIn) -> None:
    """Every user of the machine can read a process's arguments; the key is not among them."""
    process = stand_in(SERVER)
    process.start()
    await process.wait_ready()
    arguments = command_line(process)
    assert b"--enable-lora" in arguments
    assert b"sk-secret" not in arguments


async def test_early_end_shows_the_log(stand_in: StandIn) -> None:
    """A server that ends while it starts is an error at once, with its exit status and last words."""
    process = stand_in("import sys; print('no such model'); sys.exit(7)")
    process.start()
    with pytest.raises(VllmFailed, match=r"(?s)exit status 7.*no such model"):
        await process.wait_ready()
    await process.stop()


async def test_never_ready(stand_in: StandIn) -> None:
    """A server that hangs while it starts is given up after the time-out."""
    process = stand_in("import signal; print('stuck', flush=True); signal.pause()")
    process.start()
    with pytest.raises(VllmFailed, match="was not ready"):
        await process.wait_ready(timeout_s=0.3)


async def test_stop_takes_the_whole_group(stand_in: StandIn) -> None:
    """Server and engine that ignore the polite request are killed, both, in the given time."""
    process = stand_in(STUBBORN)
    process.start()
    child = await child_of(process)
    await until(lambda: "deaf" in process.log_tail())
    server = process.pid
    started = time.monotonic()
    await process.stop(timeout_s=0.2)
    assert time.monotonic() - started < 10
    assert server is not None
    await until(lambda: not alive(child) and not alive(server))
    await process.stop()  # again is no error


async def test_orphaned_engine_is_stopped(stand_in: StandIn) -> None:
    """An engine whose server has died is killed too, or it would hold memory and port."""
    process = stand_in(ORPHANING)
    process.start()
    child = await child_of(process)
    await until(lambda: process.pid is None)
    assert alive(child)
    await process.stop()
    await until(lambda: not alive(child))


async def test_starts_once(stand_in: StandIn) -> None:
    """A second start while it runs is an error, after a stop it is not."""
    process = stand_in("import signal; signal.pause()")
    process.start()
    with pytest.raises(VllmFailed, match="runs already"):
        process.start()
    await process.stop()
    process.start()
    await process.stop()


def test_rank_is_one_that_vllm_takes(stand_in: StandIn) -> None:
    """vLLM takes certain ranks only; more than the largest is refused before anything starts."""
    with pytest.raises(VllmFailed, match="up to 512"):
        stand_in("", max_lora_rank=513)


async def test_real_vllm(vllm: RunningVllm) -> None:
    """The real server got ready through the same code, and its key is not in its command line."""
    assert vllm.process.pid is not None
    assert os.getpgid(vllm.process.pid) == vllm.process.pid
    assert vllm.api_key.encode() not in command_line(vllm.process)

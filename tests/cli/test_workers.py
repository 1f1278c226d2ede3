"""`headgate serve --workers N` as a process: spread, replaced, drained, never left behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.backends.fake import FakeProvider
from gateway.backends.fake_calls import Behaviour
from gateway.cli.workers import LONGEST_PAUSE_S, pause_s
from tests.support.running import LoopThread
from tests.support.stack import KEY, POLICY, UPSTREAM_KEY, configuration, write_config

HEADGATE = Path(sys.executable).parent / "headgate"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
LONG = " ".join(["word"] * 60)


class Gateway:
    """A supervisor and what is to be seen of it from outside."""

    def __init__(self, folder: Path, fake: FakeProvider) -> None:
        self.folder, self.fake = folder, fake
        self.process = start(folder, fake)
        assert self.process.stdout is not None
        self.url = "".join(re.findall(r"http://\S+?(?=/v1)", self.process.stdout.readline()))

    def stop(self) -> None:
        """Whatever state a test left it in, a failed one with workers that nobody ends included."""
        self.process.kill()
        for pid in self.served():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    def terminate(self) -> None:
        self.process.terminate()

    def press_ctrl_c(self) -> None:
        """A terminal sends it to the whole group."""
        os.killpg(self.process.pid, signal.SIGINT)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def ask(self) -> int:
        """The status of one request, on a connection of its own."""
        return httpx.post(f"{self.url}/v1/chat/completions", json=ASK, headers=HEADERS).status_code

    @contextmanager
    def stream(self) -> Iterator[Iterator[str]]:
        """The lines of a streamed answer that has begun."""
        with httpx.stream(
            "POST",
            f"{self.url}/v1/chat/completions",
            json=ASK | {"stream": True},
            headers=HEADERS,
            timeout=60,
        ) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: {")
            yield lines

    def served(self) -> dict[int, int]:
        """Bytes that each living worker has written about its requests, by its process id."""
        found: dict[int, int] = {}
        for spool in (self.folder / "var" / "spool").glob("*-*"):
            pid = int(spool.name.partition("-")[0])
            if alive(pid):
                with contextlib.suppress(FileNotFoundError):
                    found[pid] = sum(segment.stat().st_size for segment in spool.glob("*.log"))
        return found

    def metrics(self) -> dict[str, float]:
        """The totals by name, as one worker answers."""
        text = httpx.get(f"{self.url}/metrics").text
        totals: dict[str, float] = {}
        for sample in (s for family in text_string_to_metric_families(text) for s in family.samples):
            totals[sample.name] = totals.get(sample.name, 0) + sample.value
        return totals


HEADERS = {"authorization": f"Bearer {KEY}"}


def start(
    folder: Path, fake: FakeProvider, *, workers: int = 2, port: int = 0, policy: dict[str, Any] = POLICY
) -> subprocess.Popen[str]:
    """`headgate serve` with its errors in the file `log`."""
    document = configuration(fake.url, fake.url) | {"listen": {"port": port}}
    config = write_config(folder, document, policy)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [HEADGATE, "serve", "--config", config, "--workers", str(workers)],
            env={**os.environ, "UPSTREAM_KEY": UPSTREAM_KEY, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def alive(pid: int) -> bool:
    """Whether it runs: a dead one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition: Callable[[], bool], deadline_s: float = 60.0) -> None:
    """Other processes give no event to wait for."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    loop, provider = LoopThread(), FakeProvider()
    loop.run(provider.start())
    yield provider
    loop.run(provider.stop())
    loop.close()


@pytest.fixture
def gateway(tmp_path: Path, fake: FakeProvider) -> Iterator[Gateway]:
    running = Gateway(tmp_path, fake)
    try:
        assert running.url, running.log
        yield running
    finally:
        running.stop()


def test_one_gateway_of_many_processes(gateway: Gateway) -> None:
    """Connections are spread over both workers, and either gives the metrics of both. One that is killed is
    replaced: no request and no stream of the other fails, and no counter goes down.
    """
    asked = 0

    def spread() -> bool:
        nonlocal asked
        asked += 1
        assert gateway.ask() == 200
        return len(gateway.served()) == 2 and min(gateway.served().values()) > 0

    wait_for(spread)
    wait_for(lambda: gateway.metrics()["headgate_requests_total"] == asked)

    gateway.fake.script(Behaviour(reply=LONG, chunk_delay=0.1))
    before = gateway.served()
    with gateway.stream() as lines:
        (streaming,) = (pid for pid, size in gateway.served().items() if size > before[pid])
        (idle,) = set(before) - {streaming}
        os.kill(idle, signal.SIGKILL)
        wait_for(lambda: not alive(idle))
        while len(gateway.served()) < 2:
            assert gateway.ask() == 200
            assert gateway.metrics()["headgate_requests_total"] >= asked
        wait_for(spread)
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert streaming in gateway.served()
    assert idle not in gateway.served()
    assert re.findall(r"worker \d ended with -9", gateway.log)


@pytest.mark.parametrize("tell", [Gateway.terminate, Gateway.press_ctrl_c])
def test_an_orderly_end(gateway: Gateway, tell: Callable[[Gateway], None]) -> None:
    """Told to end, it lets a stream end, takes no new connection and leaves nothing behind."""
    gateway.fake.script(Behaviour(reply=LONG, chunk_delay=0.05))
    workers = set(gateway.served())
    with gateway.stream() as lines:
        tell(gateway)
        wait_for(lambda: refused(gateway.url))
        assert [line for line in lines if line][-1] == "data: [DONE]"
    assert gateway.process.wait(30) == 0
    assert not any(alive(pid) for pid in workers)
    assert not list(gateway.folder.glob("headgate-workers-*"))


def refused(url: str) -> bool:
    try:
        httpx.get(f"{url}/live")
    except httpx.TransportError:
        return True
    return False


def test_a_second_signal_waits_for_nobody(gateway: Gateway) -> None:
    """Whoever is impatient cuts requests off, and learns from the exit code that it was so."""
    gateway.fake.script(Behaviour(reply=LONG, chunk_delay=1.0))
    with gateway.stream():
        gateway.process.send_signal(signal.SIGINT)
        wait_for(lambda: refused(gateway.url))
        gateway.process.send_signal(signal.SIGINT)
        assert gateway.process.wait(10) == 1
    assert not gateway.served()


def test_workers_do_not_outlive_their_supervisor(gateway: Gateway) -> None:
    """Killed with no chance to tell them, it is missed, and requests in flight end all the same."""
    gateway.fake.script(Behaviour(reply=LONG, chunk_delay=0.02))
    assert len(gateway.served()) == 2
    with gateway.stream() as lines:
        gateway.process.kill()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    wait_for(lambda: not gateway.served())


def test_the_port_of_another_gateway(gateway: Gateway, fake: FakeProvider, tmp_path: Path) -> None:
    """Sharing is for workers of one gateway: a second gateway on the port is refused."""
    (tmp_path / "second").mkdir()
    port = int(gateway.url.rpartition(":")[2])
    second = start(tmp_path / "second", fake, port=port)
    assert second.communicate(timeout=30)[0] == ""
    assert second.returncode == 2
    assert "cannot be taken" in (tmp_path / "second" / "log").read_text()
    assert gateway.ask() == 200


def test_a_configuration_that_cannot_be_used(tmp_path: Path, fake: FakeProvider) -> None:
    """It ends the whole with exit code 2, said once and not by every worker."""
    broken = start(tmp_path, fake, workers=8, policy={"name": "broken", "version": 1, "routes": []})
    assert broken.communicate(timeout=60)[0] == ""
    assert broken.returncode == 2
    assert (tmp_path / "log").read_text().count("policy.yaml:") == 1


def test_pauses_grow_to_a_limit() -> None:
    """None after a worker that had listened; then ever longer, ten seconds at most, whatever happens."""
    pauses = [pause_s(failures) for failures in range(2000)]
    assert pauses[0] == 0
    assert pauses[1:9] == sorted(pauses[1:9])
    assert 0 < pauses[1] < 1
    assert max(pauses) == pauses[-1] == LONGEST_PAUSE_S

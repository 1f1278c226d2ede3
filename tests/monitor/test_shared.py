"""`gateway.monitor.shared`: workers of one port answer as one, by real processes."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.monitor.metrics import SHARED_FILE
from gateway.monitor.shared import SUFFIX
from tests.support.waiting import until

Start = Callable[[int], "Worker"]


class Worker:
    """One `counting_worker` process on the given slot."""

    def __init__(self, folder: Path, slot: int) -> None:
        file = folder / f"{slot}{SUFFIX}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.monitor.counting_worker"],
            env={**os.environ, SHARED_FILE: str(file)},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def settle(self, requests: int) -> None:
        self._say(f"settle {requests}")

    def scrape(self) -> dict[str, float]:
        families = text_string_to_metric_families(self._say("scrape").decode())
        totals: dict[str, float] = {}
        for sample in (sample for family in families for sample in family.samples):
            totals[sample.name] = totals.get(sample.name, 0) + sample.value
        return totals

    def close(self) -> None:
        self._process.communicate(b"close\n", timeout=20)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.communicate(timeout=20)

    def _say(self, line: str) -> bytes:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode() + b"\n")
        self._process.stdin.flush()
        return self._process.stdout.read(int(self._process.stdout.readline()))

    @property
    def running(self) -> bool:
        return self._process.poll() is None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    workers: list[Worker] = []

    def started(slot: int) -> Worker:
        workers.append(Worker(tmp_path, slot))
        return workers[-1]

    yield started
    for worker in workers:
        if worker.running:
            worker.kill()


async def test_a_scrape_answers_for_all(start: Start) -> None:
    """Whichever worker is asked: counters are the sums, gauges too, some moments after it happened."""
    workers = [start(slot) for slot in range(3)]
    for n, worker in enumerate(workers, 1):
        worker.settle(n * 10)
    for worker in workers:
        await until(lambda worker=worker: worker.scrape()["headgate_requests_total"] == 60)
        seen = worker.scrape()
        assert seen["headgate_errors_total"] == 60
        assert seen["gen_ai_client_token_usage_count"] == 120
        assert seen["headgate_in_flight"] == 3


def test_no_counter_ever_goes_down(start: Start) -> None:
    """Not from one scrape to the next, whichever worker answers, and not when one is killed and replaced."""
    workers = [start(slot) for slot in range(3)]
    chance = random.Random(1)
    before: dict[str, float] = {}
    for step in range(120):
        workers[chance.randrange(3)].settle(chance.randrange(5))
        if step % 30 == 29:
            slot = chance.randrange(3)
            workers[slot].kill()
            workers[slot] = start(slot)
        seen = workers[chance.randrange(3)].scrape()
        del seen["headgate_in_flight"]
        assert all(seen[name] >= value for name, value in before.items())
        before = seen
    assert before["headgate_requests_total"] > 0


def test_a_dead_worker_leaves_counters_and_no_gauges(start: Start) -> None:
    """What it had counted when it was last looked at stays, as does all of one that ended in good order."""
    first, second, third = (start(slot) for slot in range(3))
    first.settle(5)
    first.scrape()
    first.kill()
    third.settle(7)
    third.close()
    seen = second.scrape()
    assert seen["headgate_requests_total"] == 12
    assert seen["headgate_in_flight"] == 1

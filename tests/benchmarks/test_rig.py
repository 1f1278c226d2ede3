"""The rig itself, on real sockets: what load.c reports is what mock.c did to it."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.outcomes import outcomes, unwell
from benchmarks.peers.process import Process
from benchmarks.peers.rig import HERE, Loaded, Mock, Rig

NEEDED = ("gcc", "taskset", "setpriv")
pytestmark = pytest.mark.skipif(not all(map(shutil.which, NEEDED)), reason=f"needs {', '.join(NEEDED)}")
CORE = min(os.sched_getaffinity(0))
REQUESTS = 2000


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("rig"), CORE)


@pytest.fixture
def mock(rig: Rig) -> Iterator[Mock]:
    with rig.mock() as running:
        yield running


def load(rig: Rig, mock: Mock, *options: str) -> Loaded:
    fields = {"user": "soak-00000000"}
    return rig.load(
        (
            *("-u", f"127.0.0.1:{mock.port}", "-c", "16", "-n", str(REQUESTS), "-m", "0.2"),
            *("-f", str(rig.folder / "unwell.txt"), *options),
            *("-b", str(rig.body("body.json", **fields)), "-s", str(rig.body("body_stream.json", **fields))),
        )
    )


def test_a_healthy_upstream_answers_everything(rig: Rig, mock: Mock) -> None:
    """Without faults nothing is counted as failed, and both ends count the same requests, each once."""
    mock.set(events=20)
    told: list[int] = []
    loaded = rig.load(
        ("-u", f"127.0.0.1:{mock.port}", "-n", "1000", "-e", "250", "-s", str(rig.body("body_stream.json"))),
        told.append,
    )
    assert (loaded.finished, loaded.failed, loaded.trouble) == (1000, 0, "")
    assert loaded.events == 1000 * 21  # with [DONE]
    assert mock.stats().posts == 1000
    assert told[-1] == 1000


def test_every_planted_fault_is_seen_and_no_other(rig: Rig, mock: Mock) -> None:
    """Straight at the mock, the failed requests are just those that it spoiled, by their numbers."""
    mock.set(events=20, delay_us=200, fault=0.1)
    loaded = load(rig, mock)
    found = outcomes(mock.planted(), unwell(rig.folder / "unwell.txt"))
    assert found["faults"] == found["failed"] == loaded.failed > REQUESTS / 20
    assert (found["unexplained_failures"], found["lies"], found["given_up"]) == (0, 0, 0)
    assert loaded.errors > 0  # resets
    assert loaded.not_ok > 0
    assert {kind for _, kind in mock.planted()} >= {"cut", "broken", "stream-cut", "stream-broken"}


def test_clients_give_up_at_every_stage(rig: Rig, mock: Mock) -> None:
    """Some leave before their request is whole, some after it, and the mock sees just the whole ones."""
    mock.set(events=20, delay_us=1000)
    loaded = load(rig, mock, "-a", "0.3")
    assert loaded.failed == 0
    assert loaded.given_up + loaded.finished == loaded.fired == REQUESTS
    left_early = loaded.fired - loaded.sent_whole
    assert 0 < left_early < loaded.given_up
    assert mock.stats().reached == loaded.sent_whole


def test_failures_are_held_against_their_faults() -> None:
    """A failure that nobody planted is found, and so is a broken stream that its client took for whole."""
    planted = [(1, "reset"), (2, "stream-cut"), (3, "status-500"), (4, "stream-broken")]
    seen = {1: "broken off", 4: "given up", 7: "status"}
    assert outcomes(planted, seen) == {
        "faults": 4,
        "given_up": 1,
        "failed": 2,
        "unexplained_failures": 1,  # 7
        "lies": 1,  # 2
    }


def test_a_paused_process_still_ends(tmp_path: Path) -> None:
    """What waits for its turn is gone after `stop`, and so are its children: none holds memory any more."""
    process = Process(["sh", "-c", "sleep 60 & echo started; wait"], CORE, tmp_path / "output.txt")
    while not (tmp_path / "output.txt").read_text():
        process.check()
    process.pause()
    assert process.rss_mb() > 0
    process.stop()
    deadline = time.monotonic() + 5
    while process.rss_mb() and time.monotonic() < deadline:
        pass  # a signal that was sent takes a moment to be obeyed
    assert process.rss_mb() == 0


def test_cpu_time_is_finer_than_a_tick(tmp_path: Path) -> None:
    """A few milliseconds of work show, where the 10 ms ticks of /proc would say nothing or 10 ms."""
    work = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; echo done; sleep 60"
    process = Process(["sh", "-c", work], CORE, tmp_path / "output.txt")
    try:
        while not (tmp_path / "output.txt").read_text():
            process.check()
        nanoseconds = round(process.cpu_s() * 1e9)
        assert nanoseconds > 500_000
        assert nanoseconds % 10_000_000
    finally:
        process.stop()


def test_both_tools_build_without_a_warning(tmp_path: Path) -> None:
    """The C is clean under -Wall -Wextra."""
    for tool in ("mock", "load"):
        subprocess.run(
            ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / tool, HERE / f"{tool}.c"],
            check=True,
        )

"""`gateway.monitor.access_log`: every line once, none with content, and no request ever waits for it."""

import os
import subprocess
import sys
import timeit
from pathlib import Path

import msgspec
import pytest

from gateway.errors import ConfigError
from gateway.monitor import access_log
from gateway.monitor.access_log import AccessLog, line
from gateway.types import Outcome
from router_policies.types import ErrorClass
from tests.ledger.samples import STARTED_NS, entry
from tests.support.waiting import until


class Dropped:
    """Counts as the metric would."""

    def __init__(self) -> None:
        self.lines = 0

    def __call__(self, lines: int) -> None:
        self.lines += lines


@pytest.fixture
def dropped() -> Dropped:
    return Dropped()


def lines(file: Path) -> list[dict[str, object]]:
    return [msgspec.json.decode(text) for text in file.read_bytes().splitlines()]


def test_what_a_line_says() -> None:
    """Who, where, how and what it took, as JSON."""
    assert msgspec.json.decode(line(entry("call_1", first_byte_ms=210.50049))) == {
        "time": "2026-01-01T00:00:00.000+00:00",
        "call_id": "call_1",
        "status": 200,
        "outcome": "ok",
        "error_class": None,
        "key_id": "key-1",
        "team": "search",
        "endpoint": "chat/completions",
        "privacy": "internal",
        "policy": "default@3",
        "route": "cheap",
        "backend": "openai-main",
        "model": "gpt-4o-mini",
        "stream": True,
        "attempts": 1,
        "input_tokens": 1000,
        "output_tokens": 50,
        "cost_nano": 150_000,
        "first_byte_ms": 210.5,
        "duration_ms": 900.25,
    }


def test_a_line_stays_one_line() -> None:
    """Whatever a name holds, it cannot begin a line of its own."""
    forged = line(
        entry("a", model='m"}\n{"status": 200}', outcome=Outcome.FAILED, error_class=ErrorClass.TIMEOUT)
    )
    assert forged.count(b"\n") == 1
    assert msgspec.json.decode(forged)["model"] == 'm"}\n{"status": 200}'


def test_what_clients_wrote_is_not_in_it() -> None:
    """Neither the model asked for, nor tags, nor what a detector found, nor a policy's reason."""
    said = line(entry("a", model_asked="SECRET", tags=("SECRET",), findings={"SECRET": 1}, reason="SECRET"))
    assert b"SECRET" not in said


def test_every_line_once_and_in_order(tmp_path: Path, dropped: Dropped) -> None:
    """`close` returns when the file has all of them, requests without a row included."""
    log = AccessLog(str(tmp_path / "access.jsonl"), dropped)
    for n in range(5_000):
        log.settled(entry(f"call_{n}"))
    log.refused("call_last", STARTED_NS, 401)
    log.close()
    found = lines(tmp_path / "access.jsonl")
    assert [said["call_id"] for said in found] == [*(f"call_{n}" for n in range(5_000)), "call_last"]
    assert (found[-1]["status"], found[-1]["outcome"]) == (401, "refused")
    assert dropped.lines == 0


async def test_lines_come_without_a_close(tmp_path: Path, dropped: Dropped) -> None:
    """Whoever follows the file sees a request soon, and a file that was renamed is replaced by a new one."""
    file = tmp_path / "access.jsonl"
    log = AccessLog(str(file), dropped)
    log.settled(entry("call_1"))
    await until(lambda: file.stat().st_size > 0)
    file.rename(tmp_path / "access.jsonl.1")
    log.settled(entry("call_2"))
    await until(file.exists)
    log.close()
    assert [said["call_id"] for said in lines(tmp_path / "access.jsonl.1")] == ["call_1"]
    assert [said["call_id"] for said in lines(file)] == ["call_2"]


def test_a_full_queue_drops_and_counts(
    tmp_path: Path, dropped: Dropped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that stands still costs lines, not memory and not time: what is over the bound is counted."""
    monkeypatch.setattr(access_log, "ROOM", 10)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(pipe), dropped)
    big = entry("a", model="m" * 100_000)  # over what a pipe holds: the thread stands still on the first
    for _ in range(100):
        log.settled(big)
    assert dropped.lines >= 80
    read = 0
    os.set_blocking(reader, True)
    while read < (100 - dropped.lines) * 100_000:
        read += len(os.read(reader, 1 << 20))
    log.close()
    while more := os.read(reader, 1 << 20):
        read += len(more)
    os.close(reader)
    assert read // 100_000 == 100 - dropped.lines


def test_a_disk_that_takes_nothing(dropped: Dropped) -> None:
    """Lines that could not be written are counted, and the thread lives on."""
    log = AccessLog("/dev/full", dropped)
    log.settled(entry("a"))
    log.settled(entry("b"))
    log.close()
    assert dropped.lines == 2


def test_a_file_that_cannot_be_written(tmp_path: Path, dropped: Dropped) -> None:
    """A mistake at start, not at the first request."""
    with pytest.raises(ConfigError, match="access_log") as caught:
        AccessLog(str(tmp_path / "none" / "access.jsonl"), dropped)
    assert "No such file" in str(caught.value)


def test_standard_output() -> None:
    """`-` writes there, beside what the process itself says."""
    code = (
        "from gateway.monitor.access_log import AccessLog\nfrom tests.ledger.samples import entry\n"
        "log = AccessLog('-', print)\nlog.settled(entry('call_1'))\nlog.close()\nprint('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    said, end = done.stdout.splitlines()
    assert msgspec.json.decode(said)["call_id"] == "call_1"
    assert end == b"done"


def test_a_line_costs_the_request_next_to_nothing(tmp_path: Path, dropped: Dropped) -> None:
    """About 0.1 µs where it was measured; fifty times that is a fault and not a slow machine."""
    log = AccessLog(str(tmp_path / "access.jsonl"), dropped)
    sample = entry("a")
    seconds = min(timeit.repeat(lambda: log.settled(sample), number=500, repeat=20)) / 500
    log.close()
    assert seconds < 5e-6

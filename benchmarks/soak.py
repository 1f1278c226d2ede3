"""One gateway under a million requests, some of which go wrong at either end. Run: `make bench-soak`.

    make bench-soak REQUESTS=1000000

80 % JSON and 20 % streams of 20 chunks over 64 connections. 5 % of the clients give up: in mid-request, while
they wait or in mid-stream. 2 % of the upstream's answers are planted faults: a reset, a 500, a body or stream
cut short or reset in the middle. Every request carries a number that mock and load write down when something
happens to it, so each failure is held against the faults, not just counted.

    rss_mb, rss_growth      the most, and the end over the start, without the first 5 % of the requests
    unexplained_failures    that a client saw and nobody planted
    lies                    streams that the upstream broke off and a client took for whole
    ledger_missing, _extra  rows fewer than requests that reached the upstream, more than were sent whole
    unanswered              requests that were never answered, well or ill
    in_flight               at the end

Ends with status 1 when one of these is not 0, memory aside. The mock stands in for the provider; the ledger
takes about 1 KB of disk for each request while this runs.
"""

import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from peers.ours import HEADGATE, metric, metrics, rows
from peers.outcomes import outcomes, unwell
from peers.process import cores, run_script
from peers.report import emit, growth
from peers.rig import Loaded, Mock, Rig
from peers.running import Running, running
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

GIVE_UP, FAULTS, STREAMS = 0.05, 0.02, 0.2  # shares
WARM = 0.05
LOOKS = 200  # at the gateway's memory
MUST_BE_ZERO = ("unexplained_failures", "lies", "ledger_missing", "ledger_extra", "unanswered", "in_flight")


def main() -> None:
    requests = int(os.environ.get("REQUESTS", "1000000"))
    ours, theirs = cores()
    os.sched_setaffinity(0, {theirs})
    with tempfile.TemporaryDirectory(prefix="headgate-soak-") as name:
        folder = Path(name)
        rig = Rig(folder, theirs)
        with rig.mock() as mock, running(HEADGATE, rig, mock, ours, folder / "headgate") as gateway:
            figures = soak(gateway, mock, folder, requests)
    emit("soak", figures)
    wrong = [name for name in MUST_BE_ZERO if figures[name]]
    if wrong:
        sys.exit(f"not 0: {', '.join(wrong)}")


def soak(gateway: Running, mock: Mock, folder: Path, requests: int) -> dict[str, float]:
    gateway.settle()
    before, cpu_s = rows(folder / "headgate"), gateway.cpu_s()
    mock.set(events=20, delay_us=1000, fault=FAULTS)
    loaded, rss = load(gateway, folder, requests)
    with suppress(TimeoutError):  # the figures say what is left
        gateway.settle()
    after, reached = rows(folder / "headgate"), mock.stats().reached
    return {
        "requests": loaded.fired,
        "per_second": loaded.per_second,
        "cpu_us": round((gateway.cpu_s() - cpu_s) / loaded.fired * 1e6, 1),
        "rss_mb": round(max(rss), 1),
        "rss_growth": round(growth(rss), 4),
        **outcomes(mock.planted(), unwell(folder / "unwell.txt")),
        "ledger_rows": after.all - before.all,
        "ledger_missing": max(0, reached - (after.called - before.called)),
        "ledger_extra": max(0, after.all - before.all - loaded.sent_whole),
        "unanswered": requests - loaded.fired + loaded.unfinished,
        "in_flight": metric(metrics(gateway.port), "headgate_in_flight"),
    }


def load(gateway: Running, folder: Path, requests: int) -> tuple[Loaded, list[float]]:
    """What load.c says, and the gateway's memory in MB from when it was warm to the end."""
    rss: list[float] = []
    memory = TextColumn("requests, {task.fields[rss]:.0f} MB, left")
    with Progress(BarColumn(), MofNCompleteColumn(), memory, TimeRemainingColumn()) as progress:
        task = progress.add_task("soak", total=requests, rss=0.0)

        def look(over: int) -> None:
            now = gateway.rss_mb()
            progress.update(task, completed=over, rss=now)
            if over >= WARM * requests:
                rss.append(now)

        loaded = gateway.load(
            *("-c", "64", "-n", str(requests), "-a", str(GIVE_UP), "-m", str(STREAMS)),
            *("-e", str(max(1, requests // LOOKS)), "-f", str(folder / "unwell.txt")),
            *("-b", gateway.body("body.json", user="soak-00000000")),
            *("-s", gateway.body("body_stream.json", user="soak-00000000")),
            progress=look,
        )
    return loaded, [*rss, gateway.rss_mb()]


if __name__ == "__main__":
    run_script(main)

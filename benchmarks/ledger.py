"""What one request's ledger row costs, how fast a backlog is worked off, and what a month's report takes.

Run: `make bench-ledger`; ten million requests take 20 GB of disk and a quarter of an hour for each database.

The database is a SQLite file and, where HEADGATE_TEST_POSTGRES names one, a PostgreSQL database whose ledger
tables are dropped first. It is filled by adopting the spool of a process that is gone (`ingest_per_s`). Then
calls begin and settle at a set rate while the ledger's thread drains them:

    begin_us, settle_us    CPU of the calling thread for one call
    drain_us               CPU of all other threads for each row
    request_us             the whole process's CPU for a request: the sum of the three
    begin_p99_us           wall clock, which a busy machine makes longer; settle_p99_us likewise

CPU figures are the lowest of several rounds, those of wall clock their medians. `load/month.py` says what
the figures of a month are; `make bench-ledger ARGS="--rows 1000000"` makes
it smaller than ten million.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path

import msgspec
from load.month import month
from sqlalchemy import create_engine, text

from gateway.ledger import Ledger
from gateway.ledger.spool import BEGUN, SETTLED, Writer, claim
from gateway.ledger.store import Store
from gateway.ledger.tables import encode
from gateway.types import Entry, Outcome, Usage

OUT = Path(__file__).parent / "out" / "ledger.json"
BACKLOG = 50_000
ROUNDS, REQUESTS, BURST = 5, 6_000, 20
REQUESTS_PER_S = 2_000
TEMPLATE = Entry(
    call_id="",
    started_ns=0,
    key_id="key-1",
    team="search",
    tags=("batch", "eu"),
    endpoint="chat/completions",
    model_asked="auto",
    privacy="internal",
    findings={},
    policy="default@3",
    route="cheap",
    reason="matched cheap",
    backend="openai-main",
    zone="us",
    model="gpt-4o-mini",
    stream=True,
    attempts=1,
    status=200,
    outcome=Outcome.OK,
    usage=Usage(input_tokens=1000, cached_input_tokens=400, output_tokens=50),
    cost_nano=150_000,
    price="litellm: gpt-4o-mini",
    first_byte_ms=210.53782,
    duration_ms=900.25193,
)


def calls() -> Iterator[tuple[Entry, Entry]]:
    """Begun and settled, with ids like those of the data plane."""
    for i in count():
        now = time.time_ns()
        settled = msgspec.structs.replace(TEMPLATE, call_id=f"call_{now:016x}{i:012x}", started_ns=now)
        yield msgspec.structs.replace(settled, outcome=Outcome.LOST, status=0, first_byte_ms=None), settled


def ingest_per_s(url: str, spool_dir: Path) -> float:
    """Rows a second from the spool of a dead process into the database."""
    dead, _ = claim(spool_dir)
    writer = Writer(dead.directory)
    for begun, settled in islice(calls(), BACKLOG):
        writer.append(BEGUN, encode(begun))
        writer.append(SETTLED, encode(settled))
    writer.close()
    dead.release(remove=False)
    start = time.perf_counter()
    adopting = Ledger(url, spool_dir)
    flushed(adopting)
    took = time.perf_counter() - start
    adopting.close()
    return BACKLOG / took


def flushed(ledger: Ledger) -> None:
    if not ledger.flush(300):
        raise SystemExit(f"the database is not reached: {ledger.stats().last_failure}")


def one_round(ledger: Ledger) -> dict[str, float]:
    """REQUESTS calls in bursts at a steady rate; CPU microseconds of a call, by where they were spent."""
    source, cpu = calls(), {"begin": 0, "settle": 0}
    process, thread, due = time.process_time_ns(), time.thread_time_ns(), time.perf_counter()
    for _ in range(REQUESTS // BURST):
        burst = [next(source) for _ in range(BURST)]
        start = time.thread_time_ns()
        for begun, _ in burst:
            ledger.begin(begun)
        between = time.thread_time_ns()
        for _, settled in burst:
            ledger.settle(settled)
        cpu["settle"] += time.thread_time_ns() - between
        cpu["begin"] += between - start
        due += BURST / REQUESTS_PER_S
        time.sleep(max(0.0, due - time.perf_counter()))
    flushed(ledger)
    cpu["drain"] = (time.process_time_ns() - process) - (time.thread_time_ns() - thread)
    return {f"{name}_us": ns / REQUESTS / 1e3 for name, ns in (cpu | {"request": sum(cpu.values())}).items()}


def p99_us(ledger: Ledger) -> dict[str, float]:
    """The same load, each call timed by itself."""
    source, due = calls(), time.perf_counter()
    taken: dict[str, list[int]] = {"begin_p99_us": [], "settle_p99_us": []}
    for _ in range(REQUESTS // BURST):
        for begun, settled in [next(source) for _ in range(BURST)]:
            taken["begin_p99_us"].append(timed(ledger.begin, begun))
            taken["settle_p99_us"].append(timed(ledger.settle, settled))
        due += BURST / REQUESTS_PER_S
        time.sleep(max(0.0, due - time.perf_counter()))
    flushed(ledger)
    return {name: statistics.quantiles(ns, n=100)[98] / 1e3 for name, ns in taken.items()}


def timed(call: Callable[[Entry], None], entry: Entry) -> int:
    start = time.perf_counter_ns()
    call(entry)
    return time.perf_counter_ns() - start


def suite(url: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        figures = {"ingest_per_s": ingest_per_s(url, Path(folder) / "spool")}
        ledger = Ledger(url, Path(folder) / "spool")
        rounds = [one_round(ledger) for _ in range(ROUNDS)]
        figures |= min(rounds, key=lambda r: r["request_us"])
        waits = [p99_us(ledger) for _ in range(ROUNDS)]
        figures |= {name: statistics.median(wait[name] for wait in waits) for name in waits[0]}
        ledger.close()
    return {name: round(value, 2) for name, value in figures.items()}


def month_suite(url: str, rows: int) -> dict[str, float]:
    store = Store(url)
    store.migrate()
    figures = month(store, TEMPLATE, rows)
    store.close()
    return {name: round(value, 3) for name, value in figures.items()}


def emptied(url: str) -> str:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    engine.dispose()
    return url


def main() -> None:
    parser = argparse.ArgumentParser(description="The ledger's suite.")
    parser.add_argument("--rows", type=int, default=10_000_000, help="requests in the month")
    parser.add_argument("--month-only", action="store_true", help="leave out what one request costs")
    asked = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if not asked.month_only:
            figures |= suite(f"sqlite:///{folder}/ledger.db")
        figures |= month_suite(f"sqlite:///{folder}/month.db", asked.rows)
    if postgres := os.environ.get("HEADGATE_TEST_POSTGRES", ""):
        found = {} if asked.month_only else suite(emptied(postgres))
        found |= month_suite(emptied(postgres), asked.rows)
        figures |= {f"postgresql_{name}": value for name, value in found.items()}
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": sys.version.split()[0]}
    line = json.dumps({"suite": "ledger", "figures": figures, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()

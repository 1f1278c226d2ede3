"""Headgate beside nginx and other gateways, on one core. Run: `make bench-gateway`, about 12 minutes.

    make bench-gateway PEERS="nginx vllm-router litellm" REPS=3 ONLY=sat,big,fixed,ssat,paced SCALE=1

PEERS=all adds sglang-router, TensorZero and Portkey. What cannot be installed or started is left out with a
word why, except nginx and vllm-router, which the ratios need. SCALE shortens or lengthens every load.

    sat    64 connections, 1 KB prompts, as fast as answers come
    big    the same with 32 KB prompts
    fixed  150 requests a second on 8 connections: the latency that is added
    ssat   64 streams of 200 chunks at full speed
    paced  20 new streams a second of 100 chunks, one each 25 ms

Each repetition starts every peer afresh and warms it up. Then each kind of load visits them one after
another, the others paused, so that peers are compared within the same minute. The gateway has one core, mock
and load the other.
"""

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
from peers.catalog import DEFAULT, DIRECT, NEEDED, NGINX, NGINX_AGAIN, PEERS, Peer
from peers.install import NotInstalled, install
from peers.kinds import KINDS, Kind, Sample, measure, suits
from peers.ours import HEADGATE
from peers.process import NotRunning, cores, run_script
from peers.report import Samples, emit, figures, tables
from peers.rig import Mock, Rig
from peers.running import Running, running
from rich.console import Console

screen = Console()


class Options(msgspec.Struct, frozen=True, kw_only=True):
    peers: tuple[str, ...]
    repetitions: int
    kinds: tuple[Kind, ...]
    scale: float


def options() -> Options:
    """From the environment, where make puts what stands behind the target."""
    names = os.environ.get("PEERS", " ".join(DEFAULT)).replace(",", " ").split()
    only = os.environ.get("ONLY", ",".join(KINDS)).split(",")
    for name in (*names, *only):
        if name not in (*PEERS, *KINDS, "all"):
            sys.exit(f"unknown: {name}; peers are {', '.join(PEERS)}, kinds {', '.join(KINDS)}")
    return Options(
        peers=tuple(PEERS) if "all" in names else tuple(names),
        repetitions=int(os.environ.get("REPS", "3")),
        kinds=tuple(KINDS[name] for name in only),
        scale=float(os.environ.get("SCALE", "1")),
    )


def main() -> None:
    chosen = options()
    peers = [*lineup(chosen.peers), HEADGATE]
    ours, theirs = cores()
    os.sched_setaffinity(0, {theirs})
    with tempfile.TemporaryDirectory(prefix="headgate-bench-") as folder:
        rig = Rig(Path(folder), theirs)
        with rig.mock() as mock:
            samples = Samples(Suite(chosen, peers, rig, mock, ours).run())
    for table in tables(samples):
        screen.print(table)
    screen.print(NOTE, style="dim")
    emit("gateway", figures(samples))


NOTE = (
    "Medians. Latency is what is added to the mock's own (direct). nginx again: the machine's noise. "
    "headgate: as shipped, CPU with the ledger's drain. The mock stands in for the provider; "
    "litellm gets an eighth of the rates of fixed and paced."
)


def lineup(names: Sequence[str]) -> Iterator[Peer]:
    """Those that are here or can be had; nginx twice."""
    yield DIRECT
    for name in names:
        try:
            install(name, PEERS[name].source)
        except NotInstalled as error:
            leave_out(name, error)
            continue
        yield PEERS[name]
    if NGINX.name in names:
        yield NGINX_AGAIN


def leave_out(name: str, error: Exception) -> None:
    if name in NEEDED or name == HEADGATE.name:
        sys.exit(f"{name} is needed: {error}")
    screen.print(f"without {name}: {error}", style="yellow", markup=False, highlight=False, soft_wrap=True)


class Suite:
    """All that is measured, repetition by repetition."""

    def __init__(self, chosen: Options, peers: list[Peer], rig: Rig, mock: Mock, core: int) -> None:
        self._chosen, self._peers = chosen, peers
        self._rig, self._mock, self._core = rig, mock, core

    def run(self) -> Iterator[Sample]:
        for repetition in range(self._chosen.repetitions):
            with ExitStack() as stack:
                started = self._start_all(stack, repetition)
                for kind in self._chosen.kinds:
                    yield from self._visit(started, kind, repetition)

    def _start_all(self, stack: ExitStack, repetition: int) -> list[Running]:
        started = []
        folder = self._rig.folder / str(repetition)
        folder.mkdir()
        for peer in list(self._peers):
            home = folder / peer.name.replace(" ", "-")
            try:
                candidate = stack.enter_context(running(peer, self._rig, self._mock, self._core, home))
                with candidate.turn():
                    candidate.warm_up()
                started.append(candidate)
            except (NotRunning, TimeoutError) as error:
                leave_out(peer.name, error)
                self._peers.remove(peer)
        return started

    def _visit(self, started: list[Running], kind: Kind, repetition: int) -> Iterator[Sample]:
        for candidate in [one for one in started if suits(kind, one)]:
            try:
                sample = measure(candidate, kind, self._mock, repetition, self._chosen.scale)
            except (NotRunning, TimeoutError) as error:
                leave_out(candidate.peer.name, error)
                started.remove(candidate)
                continue
            tell(sample)
            yield sample


def tell(sample: Sample) -> None:
    streams = sample.chunks_per_second > 0
    cpu = f"{sample.chunk_us:.1f} µs/chunk" if streams else f"{sample.cpu_us:.1f} µs/request"
    screen.print(
        f"{sample.repetition + 1} {sample.kind:6} {sample.peer:13} {cpu:>20} {sample.per_second:8.0f}/s "
        f"p50 {sample.p50_ms:8.2f} ms{' – ' if sample.trouble else ''}{sample.trouble}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    run_script(main)

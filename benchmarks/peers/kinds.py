"""The loads, and one measurement of one peer under one of them.

CPU is that of the peer's whole session of processes, over all requests that ended. What a load leaves behind
counts too: for Headgate, the drain of the ledger's spool into SQLite, and the looks at /metrics that wait for
it.
"""

import msgspec

from .rig import Mock
from .running import Running


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    connections: int
    seconds: float
    body: str = "body.json"
    rate: float = 0.0  # requests a second; 0: as fast as answers come
    stream: bool = False
    events: int = 200  # of a stream
    delay_us: int = 0  # before each event


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. `rss_mb` is that after it; `warm_rss_mb` that before the repetition's first one."""

    peer: str
    kind: str
    repetition: int
    cpu_us: float  # per request
    chunk_us: float  # CPU per event of a stream
    per_second: float
    chunks_per_second: float
    p50_ms: float
    p99_ms: float
    first_p50_ms: float
    warm_rss_mb: float
    rss_mb: float
    failed: int
    trouble: str


KINDS = {
    kind.name: kind
    for kind in (
        Kind(name="sat", connections=64, seconds=4),
        Kind(name="big", connections=64, seconds=4, body="body_32k.json"),
        Kind(name="fixed", connections=8, seconds=10, rate=150),
        Kind(name="ssat", connections=64, seconds=4, stream=True),
        # 20 new streams a second that last 2.5 s each: about 50 at a time
        Kind(name="paced", connections=64, seconds=8, rate=20, stream=True, events=100, delay_us=25_000),
    )
}
SLOW = 8  # a slow peer gets this part of the rates and of the streams


def suits(kind: Kind, running: Running) -> bool:
    return running.peer.streams or not kind.stream


def measure(running: Running, kind: Kind, mock: Mock, repetition: int, scale: float) -> Sample:
    """`scale` shortens or lengthens the load. Raises NotRunning."""
    mock.set(events=kind.events, delay_us=kind.delay_us)
    with running.turn():
        before = running.cpu_s()
        loaded = running.load(*_options(running, kind, scale))
        running.settle()
        spent_us = (running.cpu_s() - before) * 1e6
        rss_mb = running.rss_mb()
    return Sample(
        peer=running.peer.name,
        kind=kind.name,
        repetition=repetition,
        cpu_us=spent_us / max(1, loaded.finished),
        chunk_us=spent_us / max(1, loaded.events),
        per_second=loaded.per_second,
        chunks_per_second=loaded.events_per_second,
        p50_ms=loaded.p50_us / 1e3,
        p99_ms=loaded.p99_us / 1e3,
        first_p50_ms=loaded.first_p50_us / 1e3,
        warm_rss_mb=running.warm_rss_mb,
        rss_mb=rss_mb,
        failed=loaded.failed,
        trouble=loaded.trouble,
    )


def _options(running: Running, kind: Kind, scale: float) -> list[str]:
    slow = running.peer.slow
    connections = kind.connections // SLOW if slow and kind.stream else kind.connections
    options = ["-c", str(connections), "-d", str(kind.seconds * scale)]
    if kind.rate:
        options += ["-r", str(kind.rate / SLOW if slow else kind.rate)]
    if kind.stream:
        return [*options, "-s", running.body("body_stream.json")]
    return [*options, "-b", running.body(kind.body)]

"""What the measurements say: figures for machines, tables for people.

A ratio or difference is taken within each repetition, where both sides saw the same minute of a drifting
machine, and its median over repetitions is the figure. nginx runs twice under two names: what differs between
the two is noise.
"""

import json
import os
import platform
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from .kinds import Sample

OUT = Path(__file__).parents[1] / "out"
OURS, NGINX, NGINX_AGAIN = "headgate", "nginx", "nginx again"
RAW = {
    "sat": ("cpu_us", "per_second", "p50_ms"),
    "big": ("cpu_us", "per_second"),
    "fixed": ("cpu_us", "p50_ms", "p99_ms"),
    "ssat": ("chunk_us", "chunks_per_second"),
    "paced": ("chunk_us", "first_p50_ms"),
}
"""Kind -> the medians that are given for each peer."""

Figures = dict[str, float]


class Samples:
    """All measurements of a run."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by = {(s.peer, s.kind, s.repetition): s for s in samples}

    @property
    def peers(self) -> list[str]:
        return list(dict.fromkeys(peer for peer, _, _ in self._by))

    def of(self, peer: str, kind: str | None = None) -> list[Sample]:
        """By repetition; of all kinds where none is named."""
        return [s for (p, k, _), s in self._by.items() if p == peer and kind in (None, k)]

    def median(self, peer: str, kind: str, field: str) -> float | None:
        values = [getattr(s, field) for s in self.of(peer, kind)]
        return statistics.median(values) if values else None

    def ratio(self, peer: str, base: str, kind: str, field: str) -> float | None:
        return self._paired(peer, base, kind, field, lambda a, b: a / b)

    def added(self, peer: str, base: str, kind: str, field: str) -> float | None:
        return self._paired(peer, base, kind, field, lambda a, b: a - b)

    def _paired(
        self, peer: str, base: str, kind: str, field: str, compare: Callable[[float, float], float]
    ) -> float | None:
        pairs = [
            (getattr(s, field), getattr(self._by[base, kind, s.repetition], field))
            for s in self.of(peer, kind)
            if (base, kind, s.repetition) in self._by
        ]
        return statistics.median(compare(a, b) for a, b in pairs if b) if any(b for _, b in pairs) else None


def figures(samples: Samples) -> Figures:
    """Only those that were measured."""
    found = {
        **_against_nginx(samples, OURS),
        "cpu_ratio_vllm_router": samples.ratio(OURS, "vllm-router", "sat", "cpu_us"),
        "cpu_ratio_litellm": samples.ratio(OURS, "litellm", "sat", "cpu_us"),
        "cpu_ratio_vllm_router_32k": samples.ratio(OURS, "vllm-router", "big", "cpu_us"),
        **_memory(samples.of(OURS)),
        "failed": float(sum(s.failed for s in samples.of(OURS))),
        **{f"noise_{name}": value for name, value in _against_nginx(samples, NGINX_AGAIN).items()},
        **_raw(samples),
    }
    return {name: round(value, 4) for name, value in found.items() if value is not None}


def growth(values: Sequence[float]) -> float:
    """How much larger the end is than the start, as a fraction: medians of five values at either end."""
    return statistics.median(values[-5:]) / statistics.median(values[:5]) - 1


def tables(samples: Samples) -> list[Table]:
    return [_requests(samples), _streams(samples)]


def emit(suite: str, found: Mapping[str, object]) -> None:
    """Writes benchmarks/out/SUITE.json and prints the same line."""
    line = json.dumps({"suite": suite, "figures": found, "machine": machine()})
    OUT.mkdir(exist_ok=True)
    (OUT / f"{suite}.json").write_text(line + "\n")
    print(line, flush=True)


def machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
        "machine": platform.machine(),
        "system": platform.release(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 1),
    }


def _against_nginx(samples: Samples, peer: str) -> dict[str, float | None]:
    return {
        "cpu_ratio_nginx": samples.ratio(peer, NGINX, "sat", "cpu_us"),
        "chunk_ratio_nginx": samples.ratio(peer, NGINX, "paced", "chunk_us"),
        "ttft_added_ms": samples.added(peer, NGINX, "paced", "first_p50_ms"),
        "added_p50_ms": samples.added(peer, NGINX, "fixed", "p50_ms"),
        "added_p99_ms": samples.added(peer, NGINX, "fixed", "p99_ms"),
    }


def _memory(samples: Sequence[Sample]) -> dict[str, float | None]:
    if not samples:
        return {}
    ends = {s.repetition: s for s in samples}  # the last of each repetition
    return {
        "rss_mb": max(s.rss_mb for s in samples),
        "rss_growth": statistics.median(s.rss_mb / s.warm_rss_mb - 1 for s in ends.values()),
    }


def _raw(samples: Samples) -> dict[str, float | None]:
    return {
        f"{peer}_{kind}_{field}".replace("-", "_").replace(" ", "_"): samples.median(peer, kind, field)
        or None
        for peer in samples.peers
        for kind, fields in RAW.items()
        for field in fields
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _requests(samples: Samples) -> Table:
    table = _table(
        "Requests",
        "CPU µs\n1 KB",
        "against\nnginx",
        "CPU µs\n32 KB",
        "a second\n64 clients",
        "added\np50 ms",
        "added\np99 ms",
        "failed",
    )
    for peer in samples.peers:
        table.add_row(
            peer,
            _number(samples.median(peer, "sat", "cpu_us"), 1),
            _number(samples.ratio(peer, NGINX, "sat", "cpu_us"), 2, " ×"),
            _number(samples.median(peer, "big", "cpu_us"), 1),
            _number(samples.median(peer, "sat", "per_second"), 0),
            _number(samples.added(peer, "direct", "fixed", "p50_ms"), 2),
            _number(samples.added(peer, "direct", "fixed", "p99_ms"), 2),
            str(sum(s.failed for s in samples.of(peer))),
        )
    return table


def _streams(samples: Samples) -> Table:
    table = _table(
        "Streams, memory",
        "CPU µs/chunk\nat full speed",
        "CPU µs/chunk\npaced",
        "against\nnginx",
        "first chunk\nadded ms",
        "RSS MB\nstart–end",
    )
    for peer in samples.peers:
        every = samples.of(peer)
        table.add_row(
            peer,
            _number(samples.median(peer, "ssat", "chunk_us"), 1),
            _number(samples.median(peer, "paced", "chunk_us"), 1),
            _number(samples.ratio(peer, NGINX, "paced", "chunk_us"), 2, " ×"),
            _number(samples.added(peer, "direct", "paced", "first_p50_ms"), 2),
            f"{every[-1].warm_rss_mb:.0f}–{every[-1].rss_mb:.0f}" if every[-1].rss_mb else "",
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    table.add_column("")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _number(value: float | None, digits: int, unit: str = "") -> str:
    return f"{value:,.{digits}f}{unit}" if value else "–"

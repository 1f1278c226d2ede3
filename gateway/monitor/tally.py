"""The numbers behind the metrics as plain values: cheap to add to, and written to a file as they are.

A `Series` holds all that is counted about the requests with the same labels. Families that show fewer labels
are summed up when somebody asks (`families.py`), so a request touches one series and no more. Times are kept
in milliseconds and in buckets at all bounds that any family shows.
"""

from bisect import bisect_left
from collections.abc import Sequence

import msgspec

# OpenTelemetry's advice for each of its histograms, in seconds.
GENAI_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_SECONDS = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
OUTPUT_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(4**n for n in range(14))
# Our own.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OVERHEAD_SECONDS = (
    0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0,
)  # fmt: skip

ALL_SECONDS = tuple(sorted({*GENAI_SECONDS, *FIRST_TOKEN_SECONDS, *OUTPUT_TOKEN_SECONDS, *SECONDS}))
MILLISECONDS = tuple(bound * 1e3 for bound in ALL_SECONDS)
OVERHEAD_MS = tuple(bound * 1e3 for bound in OVERHEAD_SECONDS)


class Histogram(msgspec.Struct, array_like=True):
    """How many values fell below each bound, and what they come to. The last count has no bound."""

    counts: list[int]
    total: float = 0.0

    def observe(self, bounds: Sequence[float], value: float) -> None:
        self.counts[bisect_left(bounds, value)] += 1
        self.total += value

    def add(self, other: "Histogram") -> None:
        self.counts = [a + b for a, b in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


def histogram(bounds: Sequence[float]) -> Histogram:
    """An empty one over `bounds`."""
    return Histogram([0] * (len(bounds) + 1))


class Labels(msgspec.Struct, frozen=True, array_like=True):
    """Words of the configuration and of this code; nothing that a client wrote."""

    route: str
    backend: str
    outcome: str
    operation: str
    provider: str
    model: str
    error_type: str
    stream: bool


class Series(msgspec.Struct, array_like=True):
    """All about the requests with the same labels. Each number only grows."""

    labels: Labels
    duration: Histogram
    first_byte: Histogram
    output_token: Histogram
    input: Histogram
    output: Histogram
    requests: int = 0
    attempts: int = 0
    retries: int = 0
    unpriced: int = 0
    cost_nano: int = 0


def new_series(labels: Labels) -> Series:
    return Series(
        labels,
        duration=histogram(MILLISECONDS),
        first_byte=histogram(MILLISECONDS),
        output_token=histogram(MILLISECONDS),
        input=histogram(TOKENS),
        output=histogram(TOKENS),
    )


class Counter(msgspec.Struct, array_like=True):
    """Counts something that no series does. Only grows."""

    name: str  # without Prometheus's `_total`
    documentation: str
    labels: dict[str, str]
    value: float = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount


class Gauge(msgspec.Struct, array_like=True):
    """What is the case at this moment in one process."""

    name: str
    documentation: str
    labels: dict[str, str]
    value: float = 0.0

    def inc(self) -> None:
        self.value += 1.0

    def dec(self) -> None:
        self.value -= 1.0

    def set(self, value: float) -> None:
        self.value = value


class Tally(msgspec.Struct):
    """All the numbers of one process."""

    pid: int
    series: list[Series] = []
    counters: list[Counter] = []
    gauges: list[Gauge] = []
    overhead: Histogram = msgspec.field(default_factory=lambda: histogram(OVERHEAD_MS))

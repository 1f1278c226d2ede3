"""Metrics of the gateway: counted on the hot path in plain objects, made Prometheus's at a scrape.

Labels come from the configuration and from this code, never from content or from what a client made up: a
model that the configuration does not name is called `other`, an adapter goes by its name without its digest.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.monitor import genai
from gateway.monitor.families import families
from gateway.monitor.genai import Upstream
from gateway.monitor.shared import SharedTally, decode, restore
from gateway.monitor.tally import (
    MILLISECONDS,
    OVERHEAD_MS,
    TOKENS,
    Counter,
    Gauge,
    Labels,
    Series,
    Tally,
    new_series,
)
from gateway.types import Entry

SHARED_FILE = "HEADGATE_METRICS"  # set by `headgate serve --workers` for each worker: where its tally is kept
OTHER = "other"
_REMEMBERED = 4096  # combinations of what entries say whose series is known


class Metrics(Collector):
    """One for each gateway. Counted in the event loop's thread, rendered in any."""

    def __init__(
        self,
        upstreams: Mapping[str, Upstream] | None = None,
        models: Collection[str] = (),
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        """`upstreams` by backend; `models` are those that may be named in labels."""
        self._upstreams, self._models = upstreams or {}, frozenset(models)
        file = environment.get(SHARED_FILE, "")
        self._tally = (restore(Path(file)) if file else None) or Tally(pid=0)
        self._tally.pid, self._tally.gauges = os.getpid(), []
        self._series = {one.labels: one for one in self._tally.series}
        self._found: dict[tuple[object, ...], Series] = {}
        self._counters = {(c.name, *c.labels.values()): c for c in self._tally.counters}
        self._errors: dict[int, Counter] = {}
        self._followed: list[tuple[Gauge, Callable[[], float]]] = []
        self.in_flight = self.gauge("headgate_in_flight", "Requests being handled.")
        self.ledger_backlog = self.gauge("headgate_ledger_backlog", "Rows not yet in the database.")
        self.registry = CollectorRegistry()
        self.registry.register(self)
        self._shared = SharedTally(Path(file), self._snapshot) if file else None

    # The hot path.

    def settled(self, entry: Entry, overhead_ms: float | None = None) -> None:
        """`overhead_ms`: the part of the time that was not spent on waiting for backends."""
        said = (
            entry.route, entry.backend, entry.model, entry.adapter,
            entry.endpoint, entry.stream, entry.outcome, entry.error_class,
        )  # fmt: skip
        series = self._found.get(said) or self._find(said, entry)
        series.requests += 1
        attempts, duration, first_byte = entry.attempts, entry.duration_ms, entry.first_byte_ms
        series.attempts += attempts
        if attempts > 1:
            series.retries += attempts - 1
        series.duration.observe(MILLISECONDS, duration)
        tokens = entry.usage.output_tokens
        if first_byte is not None:
            series.first_byte.observe(MILLISECONDS, first_byte)
            if tokens > 1 and entry.stream:
                series.output_token.observe(MILLISECONDS, (duration - first_byte) / (tokens - 1))
        if tokens:
            series.output.observe(TOKENS, tokens)
        if tokens := entry.usage.input_tokens:
            series.input.observe(TOKENS, tokens)
        if entry.cost_nano is None:
            series.unpriced += 1
        else:
            series.cost_nano += entry.cost_nano
        if overhead_ms is not None:
            self._tally.overhead.observe(OVERHEAD_MS, overhead_ms)

    def refused(self, status: int) -> None:
        counter = self._errors.get(status)
        if counter is None:
            counter = self.counter("headgate_errors", "Error answers.", status=str(status))
            self._errors[status] = counter
        counter.inc()

    # For the parts of the gateway, once.

    def counter(self, name: str, documentation: str, **labels: str) -> Counter:
        """The one with these labels; `name` without `_total`."""
        key = (name, *labels.values())
        if key not in self._counters:
            self._counters[key] = Counter(name, documentation, labels)
            self._tally.counters.append(self._counters[key])
        return self._counters[key]

    def gauge(
        self, name: str, documentation: str, read: Callable[[], float] | None = None, **labels: str
    ) -> Gauge:
        """A new one; with `read` it is asked for when somebody looks, in any thread."""
        gauge = Gauge(name, documentation, labels)
        self._tally.gauges.append(gauge)
        if read is not None:
            self.follow(gauge, read)
        return gauge

    def follow(self, gauge: Gauge, read: Callable[[], float]) -> None:
        """From now on `gauge` is what `read` gives whenever somebody looks, in any thread."""
        self._followed.append((gauge, read))

    def close(self) -> None:
        """Leaves the last numbers to the worker that takes this one's place."""
        if self._shared is not None:
            self._shared.close()

    # For whoever looks.

    def render(self) -> bytes:
        """In Prometheus's text format. Takes some milliseconds and may read files."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        return families([decode(self._snapshot())] if self._shared is None else self._shared.gather())

    def _snapshot(self) -> bytes:
        """The tally as it is. No thread can come between: encoding never lets go of the interpreter."""
        for gauge, read in self._followed:
            gauge.value = read()
        return msgspec.msgpack.encode(self._tally)

    def _find(self, said: tuple[object, ...], entry: Entry) -> Series:
        """Clients can name models without end: what they said leads to a series but is not kept for ever."""
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        labels = self._labels(entry)
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = new_series(labels)
            self._tally.series.append(series)
        self._found[said] = series
        return series

    def _labels(self, entry: Entry) -> Labels:
        upstream = self._upstreams.get(entry.backend)
        adapter = entry.adapter.partition("@")[0]
        return Labels(
            route=entry.route,
            backend=entry.backend,
            outcome=entry.outcome.value,
            operation=genai.operation(entry.endpoint),
            provider=upstream.provider if upstream else "",
            model=adapter or (entry.model if entry.model in self._models else OTHER),
            error_type=genai.error_type(entry),
            stream=entry.stream,
        )

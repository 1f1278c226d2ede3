"""Everybody who looks on at requests: metrics and speeds always, an access log and spans where configured."""

import importlib
from collections.abc import Collection
from typing import Any

from gateway.monitor.access_log import AccessLog
from gateway.monitor.genai import named_models, upstreams
from gateway.monitor.live import Speeds
from gateway.monitor.metrics import Metrics
from gateway.settings import Settings
from gateway.types import Entry


class Observers:
    """Told of each request at its end, in the event loop's thread. None of them waits for anything."""

    def __init__(self, metrics: Metrics, access_log: AccessLog | None = None, spans: Any = None) -> None:
        self.metrics, self._access_log, self._spans = metrics, access_log, spans
        self.speeds = Speeds()

    def settled(self, entry: Entry, overhead_ms: float, traceparent: str) -> None:
        """A request with a row in the ledger."""
        self.metrics.settled(entry, overhead_ms)
        self.speeds.settled(entry)
        if self._access_log is not None:
            self._access_log.settled(entry)
        if self._spans is not None:
            self._spans.settled(entry, traceparent)

    def refused(self, status: int) -> None:
        """An error was answered."""
        self.metrics.refused(status)

    def unrecorded(self, call_id: str, at_ns: int, status: int) -> None:
        """It has no row in the ledger: the key, the body or the HTTP of its request was no good."""
        if self._access_log is not None:
            self._access_log.refused(call_id, at_ns, status)

    def close(self) -> None:
        """Writes out what is waiting: blocks for some seconds at most."""
        self.metrics.close()
        if self._access_log is not None:
            self._access_log.close()
        if self._spans is not None:
            self._spans.close()


def observers(settings: Settings, models: Collection[str] = ()) -> Observers:
    """As configured. `models` may stand in labels, beside those that the backends name."""
    named = upstreams(settings)
    metrics = Metrics(named, named_models(settings) | set(models))
    dropped = metrics.counter("headgate_access_log_dropped", "Lines of the access log given up.")
    log = AccessLog(settings.access_log, dropped.inc) if settings.access_log else None
    if not settings.telemetry.otlp:
        return Observers(metrics, log)
    # Imported only where it is configured: OpenTelemetry takes time and memory to load.
    spans = importlib.import_module("gateway.monitor.spans")
    return Observers(metrics, log, spans.Spans(settings.telemetry.otlp, settings.telemetry.sample, named))

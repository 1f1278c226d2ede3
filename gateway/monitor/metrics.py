"""Prometheus metrics of the gateway, in a registry of their own, so that two gateways fit in one process."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from gateway.types import Entry

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Labels come from the configuration only, never from content or from what a client made up."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        by = ("route", "backend", "outcome")
        self._requests = Counter("headgate_requests", "Requests settled in the ledger.", by, registry=r)
        self._refused = Counter("headgate_errors", "Error answers.", ("status",), registry=r)
        self._tokens = Counter("headgate_tokens", "Tokens.", ("backend", "direction"), registry=r)
        self._cost = Counter("headgate_cost_usd", "Cost where the price is known.", ("backend",), registry=r)
        self._unpriced = Counter(
            "headgate_unpriced_requests", "Requests whose price is unknown.", ("backend",), registry=r
        )
        self._seconds = Histogram(
            "headgate_request_seconds", "Body read to last byte.", ("backend",), buckets=SECONDS, registry=r
        )
        self._first_byte = Histogram(
            "headgate_first_byte_seconds", "To the first byte.", ("backend",), buckets=SECONDS, registry=r
        )
        self.in_flight = Gauge("headgate_in_flight", "Requests being handled.", registry=r)
        self.ledger_backlog = Gauge("headgate_ledger_backlog", "Rows not yet in the database.", registry=r)

    def refused(self, status: int) -> None:
        self._refused.labels(str(status)).inc()

    def settled(self, entry: Entry) -> None:
        backend = entry.backend or "none"
        self._requests.labels(entry.route or "none", backend, entry.outcome.value).inc()
        self._tokens.labels(backend, "input").inc(entry.usage.input_tokens)
        self._tokens.labels(backend, "output").inc(entry.usage.output_tokens)
        self._seconds.labels(backend).observe(entry.duration_ms / 1e3)
        if entry.first_byte_ms is not None:
            self._first_byte.labels(backend).observe(entry.first_byte_ms / 1e3)
        if entry.cost_nano is None:
            self._unpriced.labels(backend).inc()
        else:
            self._cost.labels(backend).inc(entry.cost_nano / 1e9)

    def render(self) -> bytes:
        return generate_latest(self.registry)

"""`gateway.monitor.metrics`: what a scrape shows is what was settled, under names that operators know."""

import math
import timeit
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.monitor.genai import Upstream
from gateway.monitor.metrics import Metrics
from gateway.types import Outcome, Usage
from router_policies.types import ErrorClass
from tests.ledger.samples import entry

UPSTREAMS = {"openai-main": Upstream(provider="openai", host="api.openai.com", port=443)}
GENAI = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(UPSTREAMS, {"gpt-4o-mini"}, {})


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """The sample with exactly these labels in what a scrape answers."""
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


def test_a_settled_request_is_in_every_family(metrics: Metrics) -> None:
    """Ours by route, backend and outcome; OpenTelemetry's by operation, provider and model."""
    metrics.settled(entry("a", attempts=3), overhead_ms=0.4)
    model = GENAI | {"gen_ai_request_model": "gpt-4o-mini"}
    by_route = {"route": "cheap", "backend": "openai-main"}
    assert value(metrics, "headgate_requests_total", **by_route, outcome="ok") == 1
    assert value(metrics, "headgate_attempts_total", **by_route) == 3
    assert value(metrics, "headgate_retries_total", **by_route) == 2
    assert value(metrics, "headgate_tokens_total", backend="openai-main", direction="input") == 1000
    assert value(metrics, "headgate_tokens_total", backend="openai-main", direction="output") == 50
    assert value(metrics, "headgate_cost_usd_total", backend="openai-main") == 0.00015
    assert value(metrics, "headgate_request_seconds_sum", backend="openai-main") == 0.90025
    assert value(metrics, "headgate_first_byte_seconds_bucket", backend="openai-main", le="0.1") == 0
    assert value(metrics, "headgate_first_byte_seconds_bucket", backend="openai-main", le="0.25") == 1
    assert value(metrics, "headgate_overhead_seconds_bucket", le="0.0003") == 0
    assert value(metrics, "headgate_overhead_seconds_bucket", le="0.0005") == 1
    duration = "gen_ai_client_operation_duration_seconds"
    assert value(metrics, f"{duration}_bucket", **model, error_type="", le="0.64") == 0
    assert value(metrics, f"{duration}_bucket", **model, error_type="", le="1.28") == 1
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", **model) == 0.2105
    per_token = value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", **model)
    assert per_token == pytest.approx((900.25 - 210.5) / 49 / 1e3)
    usage = {**model, "gen_ai_token_type": "input"}
    assert value(metrics, "gen_ai_client_token_usage_bucket", **usage, le="256.0") == 0
    assert value(metrics, "gen_ai_client_token_usage_bucket", **usage, le="1024.0") == 1


def test_what_went_wrong_has_its_type(metrics: Metrics) -> None:
    """The error class of the last attempt, or how the call ended; tokens nobody used are no observation."""
    failed = {"outcome": Outcome.FAILED, "usage": Usage(), "first_byte_ms": None, "cost_nano": None}
    metrics.settled(entry("a", error_class=ErrorClass.TIMEOUT, **failed))
    metrics.settled(entry("b", outcome=Outcome.CLIENT_CLOSED))
    model = GENAI | {"gen_ai_request_model": "gpt-4o-mini"}
    for kind in ("timeout", "client_closed"):
        count = value(metrics, "gen_ai_client_operation_duration_seconds_count", **model, error_type=kind)
        assert count == 1
    assert value(metrics, "headgate_unpriced_requests_total", backend="openai-main") == 1
    assert value(metrics, "gen_ai_client_token_usage_count", **model, gen_ai_token_type="input") == 1
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count", **model) is None


def test_a_refused_request_reached_no_model(metrics: Metrics) -> None:
    """It is counted as settled and stays out of OpenTelemetry's families."""
    metrics.settled(entry("a", route="", backend="", model="", attempts=0, outcome=Outcome.REFUSED))
    metrics.refused(403)
    metrics.refused(403)
    assert value(metrics, "headgate_requests_total", route="none", backend="none", outcome="refused") == 1
    assert value(metrics, "headgate_errors_total", status="403") == 2
    assert b"gen_ai_operation_name" not in metrics.render()


def test_clients_make_no_labels(metrics: Metrics) -> None:
    """Ten thousand models that a client made up are one series, and nothing of them is kept."""
    for n in range(10_000):
        metrics.settled(entry("a", model=f"made-up-{n}", model_asked=f"made-up-{n}"))
    assert b"made-up" not in metrics.render()
    model = GENAI | {"gen_ai_request_model": "other", "error_type": ""}
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", **model) == 10_000
    assert len(metrics._found) <= 4096


def test_an_adapter_goes_by_its_name(metrics: Metrics) -> None:
    """Not by its digest, which is new with each release."""
    for digest in ("0123456789ab", "ba9876543210"):
        release = f"support@{digest}"
        metrics.settled(entry("a", model=release, adapter=release))
    model = GENAI | {"gen_ai_request_model": "support", "error_type": ""}
    assert value(metrics, "gen_ai_client_operation_duration_seconds_count", **model) == 2


def test_histograms_add_up(metrics: Metrics) -> None:
    """In each one buckets grow towards +Inf, which is the count: the finer ones below are summed rightly."""
    for n in range(200):
        metrics.settled(entry("a", duration_ms=1.7**n % 200_000, first_byte_ms=1.3**n % 20_000), n / 50)
    seen = 0
    for family in text_string_to_metric_families(metrics.render().decode()):
        if family.type == "histogram":
            for counts in _buckets(family.samples).values():
                seen += 1
                assert [bound for bound, _ in counts] == sorted(bound for bound, _ in counts)
                assert [count for _, count in counts] == sorted(count for _, count in counts)
                assert counts[-1] == (math.inf, 200)
    assert seen >= 7


def _buckets(samples: list) -> dict[tuple, list[tuple[float, float]]]:
    found: dict[tuple, list[tuple[float, float]]] = {}
    for sample in samples:
        if sample.name.endswith("_bucket"):
            rest = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
            found.setdefault((sample.name, rest), []).append((float(sample.labels["le"]), sample.value))
    return found


def test_counters_and_gauges_of_other_parts(metrics: Metrics) -> None:
    """A part asks for its own by name and labels; a gauge can be read at the scrape."""
    metrics.counter("headgate_test_events", "Events.", kind="a").inc()
    metrics.counter("headgate_test_events", "Events.", kind="a").inc(2)
    metrics.counter("headgate_test_events", "Events.", kind="b").inc()
    metrics.gauge("headgate_test_level", "Level.", lambda: 7, backend="x")
    metrics.in_flight.inc()
    assert value(metrics, "headgate_test_events_total", kind="a") == 3
    assert value(metrics, "headgate_test_events_total", kind="b") == 1
    assert value(metrics, "headgate_test_level", backend="x") == 7
    assert value(metrics, "headgate_in_flight") == 1


def test_a_scrape_in_another_thread_sees_whole_numbers(metrics: Metrics) -> None:
    """While requests are settled, each scrape shows no less than the one before, and the last one all."""

    def scrapes() -> Iterator[float]:
        for _ in range(20):
            yield value(metrics, "headgate_request_seconds_count", backend="openai-main") or 0

    with ThreadPoolExecutor(1) as threads:
        scraping = threads.submit(lambda: list(scrapes()))
        settled = 0
        while not scraping.done():
            metrics.settled(entry("a"))
            settled += 1
    seen = scraping.result()
    assert seen == sorted(seen)
    assert value(metrics, "headgate_request_seconds_count", backend="openai-main") == settled


def test_settling_costs_next_to_nothing(metrics: Metrics) -> None:
    """About 1 µs where it was measured; ten times that is a fault and not a slow machine."""
    sample = entry("a")
    seconds = min(timeit.repeat(lambda: metrics.settled(sample, 0.4), number=2000, repeat=20)) / 2000
    assert seconds < 10e-6

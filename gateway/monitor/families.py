"""Tallies as Prometheus's metric families. Runs when somebody scrapes, and not before.

`gen_ai_…` are OpenTelemetry's names, written as its exporter to Prometheus writes them; requests that reached
no backend are not in them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TypeVar

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

from gateway.monitor import tally
from gateway.monitor.tally import Counter, Gauge, Histogram, Series, Tally
from gateway.types import Outcome

NONE = "none"  # no route took the request, or no backend was reached

LabelValues = tuple[str, ...]
Counts = Iterable[tuple[LabelValues, float]]
Histograms = Iterable[tuple[LabelValues, Histogram]]
S = TypeVar("S", Counter, Gauge)

GENAI_LABELS = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")


def families(tallies: Sequence[Tally]) -> Iterator[Metric]:
    """The sums of all `tallies`."""
    series = [one for each in tallies for one in each.series]
    for name, documentation, labels, count in _COUNTS:
        yield _counter(name, documentation, labels, (row for one in series for row in count(one)))
    for name, documentation, labels, seconds, select in _TIMES:
        rows = (row for one in series for row in select(one))
        yield _histogram(name, documentation, labels, rows, tally.ALL_SECONDS, seconds, 1e3)
    rows = (row for one in series for row in _token_usage(one))
    labels = (*GENAI_LABELS, "gen_ai_token_type")
    yield _histogram(
        "gen_ai_client_token_usage", "Tokens of a request.", labels, rows, tally.TOKENS, tally.TOKENS, 1.0
    )
    yield _overhead(tallies)
    yield from _free_standing(CounterMetricFamily, [c for each in tallies for c in each.counters])
    yield from _free_standing(GaugeMetricFamily, [g for each in tallies for g in each.gauges])


def _by_route(one: Series) -> LabelValues:
    return (one.labels.route or NONE, one.labels.backend or NONE)


def _by_backend(one: Series) -> LabelValues:
    return (one.labels.backend or NONE,)


def _genai(one: Series) -> LabelValues:
    return (one.labels.operation, one.labels.provider, one.labels.model)


def _requests(one: Series) -> Counts:
    yield (*_by_route(one), one.labels.outcome), one.requests


def _attempts(one: Series) -> Counts:
    yield _by_route(one), one.attempts


def _retries(one: Series) -> Counts:
    yield _by_route(one), one.retries


def _tokens(one: Series) -> Counts:
    yield (*_by_backend(one), "input"), one.input.total
    yield (*_by_backend(one), "output"), one.output.total


def _cost(one: Series) -> Counts:
    yield _by_backend(one), one.cost_nano / 1e9


def _unpriced(one: Series) -> Counts:
    yield _by_backend(one), one.unpriced


def _duration(one: Series) -> Histograms:
    yield _by_backend(one), one.duration


def _first_byte(one: Series) -> Histograms:
    yield _by_backend(one), one.first_byte


def _operation_duration(one: Series) -> Histograms:
    if one.labels.backend:
        yield (*_genai(one), one.labels.error_type), one.duration


def _first_token(one: Series) -> Histograms:
    if one.labels.stream and one.labels.outcome == Outcome.OK:
        yield _genai(one), one.first_byte


def _output_token(one: Series) -> Histograms:
    if one.labels.stream and one.labels.outcome == Outcome.OK:
        yield _genai(one), one.output_token


def _token_usage(one: Series) -> Histograms:
    if one.labels.backend:
        yield (*_genai(one), "input"), one.input
        yield (*_genai(one), "output"), one.output


_COUNTS: tuple[tuple[str, str, tuple[str, ...], Callable[[Series], Counts]], ...] = (
    ("headgate_requests", "Requests settled in the ledger.", ("route", "backend", "outcome"), _requests),
    ("headgate_attempts", "Calls to backends, by the last one called.", ("route", "backend"), _attempts),
    ("headgate_retries", "Calls to backends after a request's first.", ("route", "backend"), _retries),
    ("headgate_tokens", "Tokens.", ("backend", "direction"), _tokens),
    ("headgate_cost_usd", "Cost where the price is known.", ("backend",), _cost),
    ("headgate_unpriced_requests", "Requests whose price is unknown.", ("backend",), _unpriced),
)  # fmt: skip

_TIMES: tuple[tuple[str, str, tuple[str, ...], Sequence[float], Callable[[Series], Histograms]], ...] = (
    ("headgate_request_seconds", "Body read to last byte.", ("backend",), tally.SECONDS, _duration),
    ("headgate_first_byte_seconds", "To the first byte.", ("backend",), tally.SECONDS, _first_byte),
    (
        "gen_ai_client_operation_duration_seconds", "Body read to last byte, where a backend was reached.",
        (*GENAI_LABELS, "error_type"), tally.GENAI_SECONDS, _operation_duration,
    ),
    (
        "gen_ai_server_time_to_first_token_seconds", "To the first byte of a stream that ended well.",
        GENAI_LABELS, tally.FIRST_TOKEN_SECONDS, _first_token,
    ),
    (
        "gen_ai_server_time_per_output_token_seconds", "For each later token of a stream that ended well.",
        GENAI_LABELS, tally.OUTPUT_TOKEN_SECONDS, _output_token,
    ),
)  # fmt: skip


def _counter(name: str, documentation: str, labels: Sequence[str], rows: Counts) -> Metric:
    sums: dict[LabelValues, float] = {}
    for values, value in rows:
        sums[values] = sums.get(values, 0.0) + value
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, value in sums.items():
        family.add_metric(values, value)
    return family


def _histogram(
    name: str,
    documentation: str,
    labels: Sequence[str],
    rows: Histograms,
    bounds: Sequence[float],
    shown: Sequence[float],
    unit: float,
) -> Metric:
    """`bounds` are those of the counts, `shown` those of the family, a total is in 1/`unit` of them."""
    sums: dict[LabelValues, Histogram] = {}
    for values, one in rows:
        sums.setdefault(values, tally.histogram(bounds)).add(one)
    family = HistogramMetricFamily(name, documentation, labels=labels)
    for values, one in sums.items():
        up_to = dict(zip((*bounds, float("inf")), accumulate(one.counts), strict=True))
        buckets = [(_number(bound), up_to[bound]) for bound in (*shown, float("inf"))]
        family.add_metric(values, buckets, one.total / unit)
    return family


def _number(value: float) -> str:
    """As the client library writes it."""
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _overhead(tallies: Iterable[Tally]) -> Metric:
    rows: Histograms = [((), each.overhead) for each in tallies]
    bounds = tally.OVERHEAD_SECONDS
    return _histogram(
        "headgate_overhead_seconds", "Time not spent on waiting for backends.", (), rows, bounds, bounds, 1e3
    )


def _free_standing(
    kind: type[CounterMetricFamily] | type[GaugeMetricFamily], samples: Iterable[S]
) -> Iterator[Metric]:
    grouped: dict[str, list[S]] = {}
    for sample in samples:
        grouped.setdefault(sample.name, []).append(sample)
    for name, group in grouped.items():
        sums: dict[LabelValues, float] = {}
        for sample in group:
            values = tuple(sample.labels.values())
            sums[values] = sums.get(values, 0.0) + sample.value
        family = kind(name, group[0].documentation, labels=tuple(group[0].labels))
        for values, value in sums.items():
            family.add_metric(values, value)
        yield family

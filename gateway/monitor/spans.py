"""OpenTelemetry spans of sampled requests, each made from its ledger entry when the request is over.

One span a request, of kind CLIENT, named and attributed after the GenAI conventions (`genai.py`), with what
only a gateway knows under `headgate.…`. It holds no content. A client that sends W3C's `traceparent` gets its
span below its own, and its sampled flag decides; of all others the configured share is taken.

Loaded only where it is configured. The SDK's own thread sends the spans in batches; what the collector does
not take in time is dropped there.
"""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gateway.monitor import genai
from gateway.monitor.genai import Upstream
from gateway.types import Entry

LONGEST_ATTRIBUTE = 256  # characters: the model asked for is the client's word
EXPORT_S = 5.0


class Spans:
    """Thread-safe."""

    def __init__(
        self,
        otlp: str,
        sample: float,
        upstreams: Mapping[str, Upstream],
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`otlp` is the collector's base URL, checked by the settings; `upstreams` by backend."""
        self._sample, self._upstreams, self._chance = sample, upstreams, chance
        session = requests.Session()
        session.trust_env = False  # a proxy of the environment would be a way out
        exporter = OTLPSpanExporter(f"{otlp}/v1/traces", timeout=EXPORT_S, session=session)
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what comes here is sampled already
            resource=Resource.create({"service.name": "headgate"}),
            span_limits=SpanLimits(max_span_attribute_length=LONGEST_ATTRIBUTE),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("headgate")
        self._w3c = TraceContextTextMapPropagator()

    def settled(self, entry: Entry, traceparent: str = "") -> None:
        """`traceparent` is the client's header; one that is malformed counts as none."""
        parent = self._w3c.extract({"traceparent": traceparent}, Context()) if traceparent else None
        if self._sampled(parent):
            self._export(entry, parent)

    def close(self) -> None:
        """Sends what is left, for some seconds at most. Blocks."""
        self._provider.shutdown()

    def _sampled(self, parent: Context | None) -> bool:
        caller = get_current_span(parent).get_span_context() if parent is not None else None
        if caller is not None and caller.is_valid:
            return caller.trace_flags.sampled
        return self._chance() < self._sample

    def _export(self, entry: Entry, parent: Context | None) -> None:
        span = self._tracer.start_span(
            f"{genai.operation(entry.endpoint)} {entry.model}".rstrip(),
            context=parent if parent is not None else Context(),
            kind=SpanKind.CLIENT,
            attributes=dict(self._attributes(entry)),
            start_time=entry.started_ns,
        )
        if genai.error_type(entry):
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=entry.started_ns + int(entry.duration_ms * 1e6))

    def _attributes(self, entry: Entry) -> Iterator[tuple[str, Any]]:
        yield "gen_ai.operation.name", genai.operation(entry.endpoint)
        yield "gen_ai.request.model", entry.model_asked
        yield "gen_ai.request.stream", entry.stream
        yield "headgate.call_id", entry.call_id
        yield "headgate.team", entry.team
        yield "headgate.key_id", entry.key_id
        yield "headgate.policy", entry.policy
        yield "headgate.route", entry.route
        yield "headgate.privacy_class", entry.privacy
        yield "headgate.outcome", entry.outcome.value
        yield "headgate.attempts", entry.attempts
        yield "http.response.status_code", entry.status
        if error_type := genai.error_type(entry):
            yield "error.type", error_type
        if entry.backend:
            yield from self._upstream(entry)
        if entry.cost_nano is not None:
            yield "headgate.cost_usd", entry.cost_nano / 1e9

    def _upstream(self, entry: Entry) -> Iterator[tuple[str, Any]]:
        """What there is only when a backend was reached."""
        yield "headgate.backend", entry.backend
        yield "headgate.zone", entry.zone
        yield "gen_ai.response.model", entry.model
        yield "gen_ai.usage.input_tokens", entry.usage.input_tokens
        yield "gen_ai.usage.output_tokens", entry.usage.output_tokens
        yield "gen_ai.usage.cache_read.input_tokens", entry.usage.cached_input_tokens
        if entry.adapter:
            yield "headgate.adapter", entry.adapter
        if entry.stream and entry.first_byte_ms is not None:
            yield "gen_ai.response.time_to_first_chunk", entry.first_byte_ms / 1e3
        if upstream := self._upstreams.get(entry.backend):
            yield "gen_ai.provider.name", upstream.provider
            if upstream.host:
                yield "server.address", upstream.host
                yield "server.port", upstream.port

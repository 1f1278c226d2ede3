"""`gateway.monitor.spans`: what a collector receives on a real socket, and what it never does."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from gateway.monitor.genai import Upstream
from gateway.monitor.spans import Spans
from gateway.types import Outcome, Usage
from router_policies.types import ErrorClass
from tests.ledger.samples import STARTED_NS, entry

UPSTREAMS = {"openai-main": Upstream(provider="openai", host="api.openai.com", port=443)}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Collector(ThreadingHTTPServer):
    """Takes OTLP over HTTP and keeps it; answers with a redirect to `elsewhere` if there is one."""

    daemon_threads = True

    def __init__(self, elsewhere: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.elsewhere = elsewhere
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        self._thread = threading.Thread(target=self.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
        scopes = [scope for request in requests for r in request.resource_spans for scope in r.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.paths.append(self.path)
        self.server.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(307 if self.server.elsewhere else 200)
        if self.server.elsewhere:
            self.send_header("location", self.server.elsewhere)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def attributes(span: Span) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in span.attributes}


def test_a_span_says_what_the_ledger_says(collector: Collector) -> None:
    """Times, names and numbers under the conventions' names, with the gateway's own beside them."""
    spans = Spans(collector.url, 1.0, UPSTREAMS)
    spans.settled(entry("call_1"))
    spans.close()
    (span,) = collector.spans
    assert collector.paths == ["/v1/traces"]
    assert (span.name, span.kind) == ("chat gpt-4o-mini", Span.SpanKind.SPAN_KIND_CLIENT)
    assert span.start_time_unix_nano == STARTED_NS
    assert span.end_time_unix_nano == STARTED_NS + 900_250_000
    assert span.status.code == Status.StatusCode.STATUS_CODE_UNSET
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "auto",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "gpt-4o-mini",
        "gen_ai.response.time_to_first_chunk": 0.2105,
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "server.address": "api.openai.com",
        "server.port": 443,
        "http.response.status_code": 200,
        "headgate.call_id": "call_1",
        "headgate.key_id": "key-1",
        "headgate.team": "search",
        "headgate.policy": "default@3",
        "headgate.route": "cheap",
        "headgate.backend": "openai-main",
        "headgate.zone": "us",
        "headgate.privacy_class": "internal",
        "headgate.outcome": "ok",
        "headgate.attempts": 1,
        "headgate.cost_usd": 0.00015,
    }


def test_what_went_wrong(collector: Collector) -> None:
    """An error has its type and its status; a refused request has no upstream and no usage."""
    spans = Spans(collector.url, 1.0, UPSTREAMS)
    nothing = {"usage": Usage(), "cost_nano": None, "first_byte_ms": None}
    spans.settled(entry("a", outcome=Outcome.FAILED, error_class=ErrorClass.TIMEOUT, status=504, **nothing))
    spans.settled(entry("b", outcome=Outcome.REFUSED, backend="", model="", zone="", status=403, **nothing))
    spans.close()
    failed, refused = sorted(collector.spans, key=lambda span: str(attributes(span)["headgate.call_id"]))
    assert failed.status.code == refused.status.code == Status.StatusCode.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "timeout"
    assert attributes(refused)["error.type"] == "refused"
    assert refused.name == "chat"
    assert not {"server.address", "gen_ai.usage.input_tokens", "headgate.cost_usd"} & set(attributes(refused))


def test_the_clients_trace_goes_on(collector: Collector) -> None:
    """Its span is the parent and its sampled flag decides, whatever the share; a malformed one does not."""
    never = Spans(collector.url, 0.0, UPSTREAMS)
    always = Spans(collector.url, 1.0, UPSTREAMS)
    never.settled(entry("theirs"), SAMPLED)
    always.settled(entry("unsampled"), UNSAMPLED)
    always.settled(entry("ours"))
    for junk in (
        "junk",
        f"00-{'0' * 32}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-x",
    ):
        never.settled(entry("junk"), junk)
    never.close()
    always.close()
    found = {str(attributes(span)["headgate.call_id"]): span for span in collector.spans}
    assert set(found) == {"theirs", "ours"}
    assert (found["theirs"].trace_id.hex(), found["theirs"].parent_span_id.hex()) == (TRACE, PARENT)
    assert found["ours"].trace_id.hex() != TRACE
    assert found["ours"].parent_span_id == b""


def test_the_share_that_is_sampled(collector: Collector) -> None:
    """Just those requests whose draw is below it."""
    draws = iter([0.0, 0.009, 0.01, 0.5, 0.999])
    spans = Spans(collector.url, 0.01, UPSTREAMS, chance=lambda: next(draws))
    for n in range(5):
        spans.settled(entry(f"call_{n}"))
    spans.close()
    assert {str(attributes(span)["headgate.call_id"]) for span in collector.spans} == {"call_0", "call_1"}


def test_no_content(collector: Collector) -> None:
    """Neither what a detector found, nor tags, nor a reason leaves; a client's model name is cut."""
    spans = Spans(collector.url, 1.0, UPSTREAMS)
    said = {"tags": ("SECRET",), "findings": {"SECRET": 1}, "reason": "SECRET", "model_asked": "m" * 9999}
    spans.settled(entry("a", **said))
    spans.close()
    (body,) = collector.bodies
    assert b"SECRET" not in body
    assert b"m" * 256 in body
    assert b"m" * 257 not in body


def test_no_way_out(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a proxy of the environment nor a redirect leads spans anywhere but to the collector."""
    redirecting = Collector(elsewhere=f"{collector.url}/v1/traces")
    monkeypatch.setenv("http_proxy", collector.url)
    monkeypatch.setenv("HTTP_PROXY", collector.url)
    monkeypatch.setenv("ALL_PROXY", collector.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    spans = Spans(redirecting.url, 1.0, UPSTREAMS)
    spans.settled(entry("a"))
    spans.close()
    redirecting.close()
    assert len(redirecting.spans) == 1
    assert collector.bodies == []


def test_nothing_is_loaded_where_nothing_is_configured() -> None:
    """The gateway as a whole imports no OpenTelemetry, which takes time and memory."""
    code = (
        "import sys, gateway.app, gateway.cli.main; print([m for m in sys.modules if 'opentelemetry' in m])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], timeout=60,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"

"""A whole gateway with everybody looking on: each request is told of once in each place, and no content."""

from pathlib import Path

import httpx
import msgspec

from tests.monitor.test_spans import SAMPLED, TRACE, Collector
from tests.support.stack import KEY, running_stack

SAID = "the otter sleeps at noon"
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": SAID}]}


def test_every_request_is_told_of_once(tmp_path: Path) -> None:
    """An answer, a bad body, a bad key and a denial: four lines, and a span for the two with a row."""
    collector, log = Collector(), tmp_path / "access.jsonl"
    changes = {"access_log": str(log), "telemetry": {"otlp": collector.url, "sample": 1.0}}
    try:
        with running_stack(tmp_path, changes=changes) as stack:
            statuses = [
                httpx.post(f"{stack.url}/chat/completions", json=body, headers=headers).status_code
                for body, headers in (
                    (ASK, {"authorization": f"Bearer {KEY}", "traceparent": SAMPLED}),
                    ({**ASK, "model": ""}, {"authorization": f"Bearer {KEY}"}),
                    (ASK, {"authorization": "Bearer sk-nobody"}),
                    (ASK, {"authorization": f"Bearer {KEY}", "x-headgate-privacy": "restricted"}),
                )
            ]
            metrics = httpx.get(f"{stack.server.url}/metrics").text
        told = [msgspec.json.decode(line) for line in log.read_bytes().splitlines()]
        spans = collector.spans
    finally:
        collector.close()
    assert statuses == [line["status"] for line in told]
    assert statuses[:3] == [200, 400, 401]
    assert [line["outcome"] for line in told] == ["ok", "refused", "refused", told[3]["outcome"]]
    assert len({line["call_id"] for line in told}) == 4
    assert len(spans) == 2
    assert spans[0].trace_id.hex() == TRACE
    assert 'headgate_errors_total{status="401"} 1.0' in metrics
    assert SAID.encode() not in log.read_bytes() + b"".join(collector.bodies)

"""`gateway.backends.wire`: what is read of passing bytes, and that nothing else changes."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.wire import StreamMeter, error_event, read_error, usage_of
from gateway.errors import StreamBroken
from gateway.types import Usage
from router_policies.types import ErrorClass

TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":" a\\ndata: [DONE]"}}],"usage":null}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9,'
    b'"prompt_tokens_details":{"cached_tokens":3}}}\n\n'
)
DONE = b"data: [DONE]\n\n"
STREAM = TOKEN + TOKEN + FINISH + USAGE + DONE


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(i % (len(data) + 1) for i in at), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def run(meter: StreamMeter, chunks: list[bytes]) -> bytes:
    return b"".join(meter.feed(chunk) for chunk in chunks)


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.booleans())
def test_any_chunking_gives_the_unchunked_result(at: list[int], strip: bool) -> None:
    """Wherever TCP cuts the stream, client bytes, usage and the end come out the same."""
    meter = StreamMeter(strip_usage=strip)
    expected = STREAM.replace(USAGE, b"") if strip else STREAM
    assert run(meter, cut(STREAM, at)) == expected
    assert meter.usage == Usage(input_tokens=7, cached_input_tokens=3, output_tokens=2)
    assert meter.done
    assert not meter.failed


def test_done_inside_content_is_not_the_end() -> None:
    """A model that writes "data: [DONE]" does not end the stream."""
    meter = StreamMeter(strip_usage=True)
    run(meter, [TOKEN])
    assert not meter.done


def test_carriage_returns_end_events_too() -> None:
    """Servers that end lines with CRLF are read the same, usage and end included."""
    meter = StreamMeter(strip_usage=True)
    out = run(meter, [STREAM.replace(b"\n\n", b"\r\n\r\n")])
    assert meter.usage is not None
    assert meter.done
    assert b'"usage":{' not in out


def test_usage_beside_content_is_noted_and_kept() -> None:
    """vLLM's continuous usage comes with content, which must not be stripped with it."""
    event = b'data: {"choices":[{"index":0,"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}}\n\n'
    meter = StreamMeter(strip_usage=True)
    assert run(meter, [event]) == event
    assert meter.usage == Usage(input_tokens=1)


def test_a_backends_own_error_event_is_seen() -> None:
    """An error event marks the stream as failed, and passes."""
    meter = StreamMeter(strip_usage=True)
    event = error_event("boom", "x")
    assert run(meter, [TOKEN, event]) == TOKEN + event
    assert meter.failed


def test_logprobs_come_as_openai_writes_them() -> None:
    """A stream's log-probabilities get the `refusal` that vLLM leaves out, each event for itself."""
    event = b'data: {"choices":[{"index":0,"delta":{},"logprobs":{"content":[]}}]}\n\n'
    assert run(StreamMeter(strip_usage=True), cut(TOKEN + event + DONE, [30, 90])) == (
        TOKEN + event.replace(b"[]}}", b'[],"refusal":null}}') + DONE
    )


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that never ends cannot fill the memory."""
    monkeypatch.setattr("gateway.backends.wire.MAX_EVENT", 100)
    with pytest.raises(StreamBroken):
        run(StreamMeter(strip_usage=False), [b"data: " + b"x" * 200])


@given(st.binary(max_size=400))
def test_no_bytes_crash_the_readers(data: bytes) -> None:
    """Rubbish from a backend is passed or ignored, never an exception."""
    run(StreamMeter(strip_usage=True), [data, b"\n\n"])
    usage_of(data)
    read_error(500, data)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage()),
        ({"usage": None}, None),
        ({}, None),
        ({"usage": {"prompt_tokens": -5, "completion_tokens": 1}}, Usage(output_tokens=1)),
        ({"usage": "many"}, None),
        ([1, 2], None),
    ],
)
def test_an_explicit_zero_is_not_missing(body: object, expected: Usage | None) -> None:
    """Zero usage is believed, absent or senseless usage is None, and nothing is negative."""
    assert usage_of(msgspec.json.encode(body)) == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, {"error": {"message": "no", "code": "model_not_found"}}, (ErrorClass.NOT_FOUND, "no")),
        (400, {"object": "error", "message": "old vLLM", "code": 400}, (ErrorClass.REFUSED, "old vLLM")),
        (400, {"error": {"message": "m", "code": "content_filter"}}, (ErrorClass.CONTENT_POLICY, "m")),
        (429, "not json", (ErrorClass.RATE_LIMIT, "the backend answered with status 429")),
        (500, {"error": "text"}, (ErrorClass.SERVER_ERROR, "the backend answered with status 500")),
        (
            503,
            {"error": {"message": None}},
            (ErrorClass.SERVER_ERROR, "the backend answered with status 503"),
        ),
    ],
)
def test_errors_are_read_from_every_envelope(
    status: int, body: object, expected: tuple[ErrorClass, str]
) -> None:
    """Nested, flat and foreign error bodies give a class and a message; a numeric code is not a code."""
    error = read_error(status, msgspec.json.encode(body))
    assert (error.error_class, error.message) == expected
    assert error.code is None or isinstance(error.code, str)

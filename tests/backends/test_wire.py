"""`gateway.backends.wire`: what is read of passing bytes, and that nothing else changes."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.backends.wire import (
    Meter,
    StreamMeter,
    answer_text,
    error_event,
    first_data,
    is_error,
    meter_for,
    read_error,
    usage_of,
)
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


def run(meter: Meter, chunks: list[bytes]) -> bytes:
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


def chat_event(said: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": said}, "logprobs": None, "finish_reason": None}
    event = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], **more}
    return b"data: " + msgspec.json.encode(event) + b"\n\n"


TALLY = {"prompt_tokens": 4, "completion_tokens": 5}
LIKE_EACH_OTHER = [
    chat_event(" token"),
    chat_event(" {brace"),
    chat_event(' "error" "usage":{ data: [DONE]'),
    chat_event(" ends in a backslash \\"),
    chat_event("error"),
    chat_event(" x", obfuscation="aXbY"),
    chat_event(" x", usage=None, error=None),
    chat_event(" x", usage=TALLY),
    chat_event(" x", error={"message": "boom"}),
    chat_event(" x", error="boom"),
    chat_event("")[:-4] + b"\n\ndata: [DONE]\n\n",
    chat_event("").replace(b'"content":""', b'"content":"a\n\ndata: [DONE]\n\nb"'),
    b'data: {"choices":[{"index":0,"delta":{"content":"","x":1},"logprobs":{"content":[]}}]}\n\n',
    b'data: {"choices":[{"index":0,"logprobs":{"content":[]},"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"index":0,"text":"a"}]}\n\n',
    b": ping\n\n",
    FINISH,
    DONE,
]


@given(st.lists(st.sampled_from(LIKE_EACH_OTHER), max_size=8), st.booleans())
def test_what_goes_by_without_a_close_look_had_nothing_to_note(events: list[bytes], strip: bool) -> None:
    """An event that is like the last one is noted, mended and stripped as in one chunk with all others."""
    apart, together = StreamMeter(strip_usage=strip), StreamMeter(strip_usage=strip)
    assert FINISH + run(apart, events) == run(together, [b"".join([FINISH, *events])])
    assert (apart.usage, apart.done, apart.failed) == (together.usage, together.done, together.failed)


def test_logprobs_come_as_openai_writes_them() -> None:
    """A stream's log-probabilities get the `refusal` that vLLM leaves out, each event for itself."""
    event = b'data: {"choices":[{"index":0,"delta":{},"logprobs":{"content":[]}}]}\n\n'
    assert run(StreamMeter(strip_usage=True), cut(TOKEN + event + DONE, [30, 90])) == (
        TOKEN + event.replace(b"[]}}", b'[],"refusal":null}}') + DONE
    )


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that never ends cannot fill the memory."""
    monkeypatch.setattr("gateway.backends.wire.meters.MAX_EVENT", 100)
    with pytest.raises(StreamBroken):
        run(StreamMeter(strip_usage=False), [b"data: " + b"x" * 200])


@given(st.binary(max_size=400))
@example(b"[" * 100_000)
@example(b'data: {"error":' + b"[" * 100_000)
@example(b'data: {"response":' + b"[" * 100_000)
@example(b'data: {"response":[],"error":"\xff"}')
@example(b'{"usage":{"x":' + b"[" * 100_000)
def test_no_bytes_crash_the_readers(data: bytes) -> None:
    """Rubbish from a backend is passed or ignored, never an exception."""
    for endpoint in ("chat/completions", "responses"):
        meter = meter_for(endpoint, strip_usage=True)
        run(meter, [data, b"\n\n"])
        assert meter.broken("x")
    usage_of(data)
    answer_text(data)
    read_error(500, data)
    is_error(first_data(data + b"\n\n") or data)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}, Usage()),
        ({"usage": None}, None),
        ({}, None),
        ({"usage": {"prompt_tokens": -5, "completion_tokens": 1}}, Usage(output_tokens=1)),
        ({"usage": "many"}, None),
        ({"usage": {"input_tokens": 0, "output_tokens": 3}}, Usage(output_tokens=3)),
        (
            {
                "usage": {
                    "input_tokens": 9,
                    "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
                    "output_tokens": 7,
                    "output_tokens_details": {"reasoning_tokens": 6},
                }
            },
            Usage(
                input_tokens=9,
                cached_input_tokens=4,
                cache_write_tokens=2,
                output_tokens=7,
                reasoning_tokens=6,
            ),
        ),
        ([1, 2], None),
    ],
)
def test_an_explicit_zero_is_not_missing(body: object, expected: Usage | None) -> None:
    """Zero usage is believed, absent or senseless usage is None, and nothing is negative."""
    assert usage_of(msgspec.json.encode(body)) == expected


@pytest.mark.parametrize(
    ("named", "tier"),
    [("flex", "flex"), ("priority", "priority"), ("default", ""), (None, ""), ("a b", ""), ("x" * 99, "")],
)
def test_the_service_tier_is_the_answers(named: str | None, tier: str) -> None:
    """Of a whole answer and of a stream; the plain tier, and what is no name, is empty."""
    said = {"usage": {"prompt_tokens": 2, "completion_tokens": 1}, "service_tier": named}
    expected = Usage(input_tokens=2, output_tokens=1, service_tier=tier)
    assert usage_of(msgspec.json.encode(said)) == expected
    meter = meter_for("chat/completions", strip_usage=True)
    run(meter, [b"data: " + msgspec.json.encode(said | {"choices": []}) + b"\n\n"])
    assert meter.usage == expected
    responses = meter_for("responses", strip_usage=False)
    event = {"type": "response.completed", "response": said}
    run(responses, [b"event: response.completed\ndata: " + msgspec.json.encode(event) + b"\n\n"])
    assert responses.usage == expected


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, {"error": {"message": "no", "code": "model_not_found"}}, (ErrorClass.NOT_FOUND, "no")),
        (400, {"object": "error", "message": "old vLLM", "code": 400}, (ErrorClass.REFUSED, "old vLLM")),
        (400, {"error": {"message": "m", "code": "content_filter"}}, (ErrorClass.CONTENT_POLICY, "m")),
        (500, {"type": "error", "message": "m", "code": "rate_limit_exceeded"}, (ErrorClass.RATE_LIMIT, "m")),
        (
            500,
            {"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "m"}}},
            (ErrorClass.CONTENT_POLICY, "m"),
        ),
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
    assert error.type != "error"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"error": {"message": "boom"}}, True),
        ({"id": "x", "choices": [], "error": "boom"}, True),
        ({"error": None, "choices": []}, False),
        ({"choices": [{"finish_reason": "error", "delta": {"content": '{"error": {}}'}}]}, False),
        ({"sequence_number": 0, "message": "boom", "type": "error"}, True),
        ({"response": {"error": {"code": "server_error"}}, "type": "response.failed"}, True),
        ({"type": "response.created", "response": {"error": None, "status": "in_progress"}}, False),
        ({"type": "response.output_text.delta", "delta": "response.failed"}, False),
    ],
)
def test_errors_are_told_from_events_that_speak_of_them(data: object, expected: bool) -> None:
    """In all wire forms, and wherever in the event the key stands."""
    assert is_error(msgspec.json.encode(data)) is expected


def test_the_first_data_of_a_stream() -> None:
    """Comments, names and ids are no data; an event that is not whole has none yet."""
    begun = b": ping\r\n\r\nevent: e\ndata: {\ndata:1}\nid: 7\n"
    assert first_data(begun) is None
    assert first_data(begun + b"\ndata: 2\n\n") == b"{\n1}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"choices": [{"message": {"content": "a"}}, {"message": {"content": None}}]}, "a\n"),
        ({"choices": [{"text": "a"}]}, "a"),
        (
            {
                "output": [
                    {"type": "reasoning"},
                    {"content": [{"text": "a"}, {"refusal": "b"}, {"text": "c"}]},
                ]
            },
            "a\n\nc",
        ),
        ({"output": "a"}, ""),
    ],
)
def test_what_an_answer_says(body: object, text: str) -> None:
    """The text of chats, completions and responses: what is counted where no usage is given."""
    assert answer_text(msgspec.json.encode(body)) == text

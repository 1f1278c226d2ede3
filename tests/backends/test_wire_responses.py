"""`gateway.backends.wire`: Responses streams, with names, numbers and the whole response at the end."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.wire import ResponsesMeter, answer_id, meter_for
from gateway.types import Usage
from tests.support.openai_schema import assert_valid

RESPONSE: dict[str, Any] = {
    "id": "resp_1",
    "object": "response",
    "created_at": 1767225600,
    "status": "in_progress",
    "error": None,
    "incomplete_details": None,
    "instructions": None,
    "model": "m",
    "output": [],
    "parallel_tool_calls": True,
    "metadata": {},
    "tool_choice": "auto",
    "tools": [],
    "temperature": 1.0,
    "top_p": 1.0,
    "usage": None,
}
TALLY = {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 3}, "output_tokens": 2}
READ = Usage(input_tokens=7, cached_input_tokens=3, output_tokens=2)


def event(kind: str, number: int, **fields: object) -> bytes:
    data = msgspec.json.encode({**fields, "sequence_number": number, "type": kind})  # as vLLM orders them
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def delta(number: int, text: str) -> bytes:
    return event("response.output_text.delta", number, delta=text, item_id="msg_1")


def ending(kind: str, number: int, **changes: object) -> bytes:
    return event(kind, number, response={**RESPONSE, **changes})


CREATED = ending("response.created", 0)
DELTAS = [
    delta(1, "a"),
    delta(2, '"response": {"type": "response.completed"} "error"'),
    delta(3, "event: response.completed\n\ndata: [DONE]"),
]
COMPLETED = ending("response.completed", 4, status="completed", usage=TALLY)
STREAM = b"".join([CREATED, *DELTAS, COMPLETED])


def fed(*chunks: bytes) -> ResponsesMeter:
    meter = ResponsesMeter()
    for chunk in chunks:
        assert meter.feed(chunk) == chunk
    return meter


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_any_chunking_gives_the_unchunked_result(at: list[int]) -> None:
    """Wherever TCP cuts the stream, client bytes, usage, count and end come out the same."""
    edges = [0, *sorted(at), len(STREAM)]
    meter = meter_for("responses", strip_usage=True)
    out = b"".join(meter.feed(STREAM[a:b]) for a, b in pairwise(edges))
    assert out == STREAM
    assert (meter.usage, meter.events, meter.done, meter.failed) == (READ, 3, True, False)


def test_text_about_the_end_is_not_the_end() -> None:
    """A model that writes what the last event looks like ends nothing."""
    meter = fed(CREATED, *DELTAS)
    assert (meter.done, meter.failed, meter.usage) == (False, False, None)


@pytest.mark.parametrize(
    ("last", "done", "failed"),
    [
        (COMPLETED, True, False),
        (ending("response.incomplete", 4, status="incomplete", usage=TALLY), True, False),
        (ending("response.failed", 4, status="failed", error={"code": "server_error"}), False, True),
        (event("error", 4, code="server_error", message="boom", param=None), False, True),
        (b'data: {"error":{"message":"a proxy between"}}\n\n', False, True),
        (ending("response.in_progress", 4), False, False),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_how_it_ended(last: bytes, done: bool, failed: bool, named: bool) -> None:
    """Each event that ends a stream is known by its data, with or without its name; no other ends it."""
    last = last if named else last[last.index(b"data:") :]
    meter = fed(CREATED, *DELTAS, last)
    assert (meter.done, meter.failed) == (done, failed)


def test_usage_that_makes_no_sense_does_not_hide_the_end() -> None:
    """A completed response is completed, whatever its usage."""
    meter = fed(CREATED, ending("response.completed", 1, usage="many"))
    assert (meter.done, meter.usage) == (True, None)


def test_deltas_are_counted_and_nothing_else() -> None:
    """Text, arguments and reasoning alike, alone in a chunk or not: about one a token."""
    arguments = event("response.function_call_arguments.delta", 5, delta="{", item_id="fc_1")
    done = event("response.output_text.done", 6, text="a", item_id="msg_1")
    assert fed(CREATED, delta(1, "a"), delta(2, "b") + arguments, done).events == 3


@pytest.mark.parametrize(
    ("after", "number"),
    [([], 1), ([DELTAS[0]], 2), ([DELTAS[0] + DELTAS[1]], 3), ([DELTAS[1], b": ping\n\n"], 3)],
)
def test_a_broken_stream_fails_with_the_response_that_was_begun(after: list[bytes], number: int) -> None:
    """The id that the client knows, the next number, status failed, and what was asked for, echoed."""
    meter = fed(CREATED, *after)
    meter.feed(b'event: response.output_text.delta\ndata: {"sequence_number":99')  # never got out
    name, data = meter.broken("The backend broke off.").decode().removesuffix("\n\n").split("\n")
    failed = msgspec.json.decode(data.removeprefix("data: "))
    assert_valid(failed, "ResponseStreamEvent")
    assert name == "event: response.failed"
    assert failed["sequence_number"] == number
    assert failed["response"]["error"] == {"code": "server_error", "message": "The backend broke off."}
    changed = {"status": "failed", "error": failed["response"]["error"]}
    assert failed["response"] == {k: v for k, v in RESPONSE.items() if k != "usage"} | changed


def test_a_stream_that_broke_before_any_response_ends_with_the_error_event() -> None:
    """No response can fail that was never begun: its id would be an invention."""
    data = fed(b": ping\n\n").broken("gone").removesuffix(b"\n\n").partition(b"\ndata: ")[2]
    assert_valid(msgspec.json.decode(data), "ResponseErrorEvent")
    assert msgspec.json.decode(data)["sequence_number"] == 0


def test_a_chat_ends_in_its_own_form() -> None:
    """Chats and completions have no named events."""
    meter = meter_for("chat/completions", strip_usage=True)
    error = msgspec.json.decode(meter.broken("gone").removeprefix(b"data: "))
    assert_valid(error, "ErrorResponse")
    assert error["error"]["message"] == "gone"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"id":"resp_1","output":[]}', "resp_1"),
        (b'{"output":[]}', ""),
        (b'{"id":7}', ""),
        (b'{"id":"a\\nb"}', ""),
        (b'{"id":"' + b"r" * 257 + b'"}', ""),
        (b"\xff", ""),
    ],
)
def test_the_id_of_an_answer(body: bytes, found: str) -> None:
    """What a later request may go on from; a backend's nonsense is no id."""
    assert answer_id(body) == found

"""The Responses API through the real OpenAI SDK for Python: it behaves as against OpenAI."""

from typing import Any

import httpx
import openai
import pytest

from gateway.backends.fake_calls import Behaviour
from tests.support.openai_schema import assert_valid
from tests.support.stack import Stack

MODEL = "gpt-4o-mini"
HELLO = "Say hello to the team."
WEATHER: list[Any] = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "Current weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    }
]
SCHEMA: Any = {
    "format": {
        "type": "json_schema",
        "name": "ticket",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"topic": {"type": "string"}, "urgent": {"type": "boolean"}},
            "required": ["topic", "urgent"],
            "additionalProperties": False,
        },
    }
}


def test_response(client: openai.OpenAI, stack: Stack) -> None:
    """A response is OpenAI's by its own schema, and the ledger has the provider's own count."""
    raw = client.responses.with_raw_response.create(
        model=MODEL, instructions="Be brief.", input=[{"role": "user", "content": HELLO}], metadata={"a": "b"}
    )
    assert_valid(raw.http_response.json(), "Response")
    answer = raw.parse()
    assert answer.output_text
    assert answer._request_id == raw.headers["x-headgate-call-id"]
    assert raw.headers["x-headgate-route"] == "rented"
    assert float(raw.headers["x-headgate-cost"]) > 0
    row = stack.rows()[-1]
    assert answer.usage is not None
    assert (row.endpoint, row.outcome, row.usage.estimated) == ("responses", "ok", False)
    assert row.usage.input_tokens == answer.usage.input_tokens > 0
    assert row.usage.output_tokens == answer.usage.output_tokens > 0


def test_stream(client: openai.OpenAI, stack: Stack) -> None:
    """Its events are OpenAI's and none is missing; the ledger has the count from the last of them."""
    events = list(client.responses.create(model=MODEL, input=HELLO, stream=True))
    for event in events:
        assert_valid(event.model_dump(mode="json", exclude_unset=True), "ResponseStreamEvent")
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    row = stack.rows()[-1]
    assert (row.stream, row.outcome, row.usage.estimated) == (True, "ok", False)
    assert row.usage.output_tokens == last.response.usage.output_tokens > 0
    assert row.cost_nano > 0


def test_tools(client: openai.OpenAI) -> None:
    """A call comes back with its arguments, and may be sent on together with its result."""
    first = client.responses.create(model=MODEL, input=HELLO, tools=WEATHER, tool_choice="required")
    (call,) = first.output
    assert call.type == "function_call"
    assert call.name == "get_weather"
    followed = client.responses.create(
        model=MODEL,
        tools=WEATHER,
        input=[
            {"role": "user", "content": HELLO},
            call.to_dict(),  # type: ignore[list-item]
            {"type": "function_call_output", "call_id": call.call_id, "output": '{"degrees": 21}'},
        ],
    )
    assert followed.output_text


def test_tools_in_a_stream(client: openai.OpenAI) -> None:
    """The SDK's stream helper puts the pieces of a call together again."""
    with client.responses.stream(model=MODEL, input=HELLO, tools=WEATHER, tool_choice="required") as stream:
        (call,) = stream.get_final_response().output
    assert call.to_dict()["name"] == "get_weather"


def test_json_schema(client: openai.OpenAI) -> None:
    """`text.format` arrives whole: the answer parses under the schema."""
    answer = client.responses.create(model=MODEL, input=HELLO, text=SCHEMA)
    assert set(httpx.Response(200, text=answer.output_text).json()) == {"topic", "urgent"}


def test_a_cut_response_is_no_failure(client: openai.OpenAI, stack: Stack) -> None:
    """`response.incomplete` is an end like any other: the client asked for no more."""
    events = list(client.responses.create(model=MODEL, input=HELLO, stream=True, max_output_tokens=16))
    assert events[-1].type == "response.incomplete"
    row = stack.rows()[-1]
    assert (row.outcome, row.usage.output_tokens, row.usage.estimated) == ("ok", 16, False)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
    ],
)
def test_what_lies_elsewhere(client: openai.OpenAI, stack: Stack, more: dict[str, Any], param: str) -> None:
    """What no class can be given to is OpenAI's 400 that names it, and reaches no provider."""
    before = stack.rented.called
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": MODEL, "input": HELLO, **more})
    assert caught.value.param == param
    assert_valid(caught.value.response.json(), "ErrorResponse")
    assert stack.rented.called == before


@pytest.mark.parametrize(
    ("status", "expected"), [(400, openai.BadRequestError), (429, openai.RateLimitError)]
)
@pytest.mark.parametrize("stream", [False, True])
def test_errors(
    client: openai.OpenAI, stack: Stack, status: int, expected: type[openai.APIStatusError], stream: bool
) -> None:
    """What the provider refuses, the SDK raises as if it had asked the provider itself."""
    error = {"message": f"told to say {status}", "type": "test_error", "param": "model", "code": "told_to"}
    stack.rented.script(Behaviour(status=status, error=error))
    with pytest.raises(expected) as caught:
        client.responses.create(model=MODEL, input=HELLO, stream=stream)
    assert caught.value.body == error


@pytest.mark.parametrize("how", ["close", "end"])
def test_a_stream_that_breaks_is_a_failed_response(client: openai.OpenAI, stack: Stack, how: Any) -> None:
    """After the first event a broken provider gives the client `response.failed`, for the response that it
    knows and with the next number, and never a completed one; the row says so and is an estimate."""
    stack.rented.script(Behaviour(break_after=8, break_how=how))
    events = list(client.responses.create(model=MODEL, input=HELLO, stream=True))
    assert_valid(events[-1].model_dump(mode="json", exclude_unset=True), "ResponseStreamEvent")
    first, last = events[0], events[-1]
    assert first.type == "response.created"
    assert last.type == "response.failed"
    assert last.response.id == first.response.id
    assert last.response.status == "failed"
    assert last.response.error is not None
    assert "broke off" in last.response.error.message
    assert [event.sequence_number for event in events] == list(range(len(events)))
    row = stack.rows()[-1]
    assert (row.outcome, row.usage.estimated) == ("interrupted", True)


def test_a_response_that_fails_is_passed_on(client: openai.OpenAI, stack: Stack) -> None:
    """The provider's own `response.failed` is the end, and ours is not added to it."""
    stack.rented.script(Behaviour(fail_after=6))
    events = list(client.responses.create(model=MODEL, input=HELLO, stream=True))
    assert [event.type for event in events].count("response.failed") == 1
    assert events[-1].type == "response.failed"
    assert stack.rows()[-1].outcome == "interrupted"


def test_a_stream_that_begins_with_an_error_has_not_begun(client: openai.OpenAI, stack: Stack) -> None:
    """Until the first event nothing has been answered: the SDK raises, as for any refusal."""
    stack.rented.script(Behaviour(fail_after=0, error={"message": "no capacity"}))
    with pytest.raises(openai.InternalServerError, match="no capacity"):
        client.responses.create(model=MODEL, input=HELLO, stream=True)
    assert stack.rows()[-1].outcome == "failed"


def test_private_content_stays_at_home(client: openai.OpenAI, stack: Stack) -> None:
    """A response's input is classified like a chat: with an identifier in it, it goes home."""
    before = stack.rented.called
    identifier = "My card is 4111 1111 1111 1111"
    raw = client.responses.with_raw_response.create(
        model=MODEL, input=[{"role": "user", "content": [{"type": "input_text", "text": identifier}]}]
    )
    assert raw.headers["x-headgate-backend"] == "home"
    assert stack.rented.called == before

"""The fake provider's Responses API: checked with OpenAI's own SDK and against its own schemas."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import jsonschema
import msgspec
import openai
import pytest

from gateway.backends.fake import FakeProvider
from gateway.backends.fake_calls import Behaviour
from gateway.backends.fake_text import NOTICE, ToolCall, echo
from tests.support.openai_schema import assert_valid

BODY: dict[str, Any] = {"model": "m", "input": "Hello"}
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [{"type": "function", "name": "weather", "parameters": WEATHER, "strict": True}]
FORMAT: Any = {"format": {"type": "json_schema", "name": "w", "schema": WEATHER, "strict": True}}
ITEMS: list[Any] = [
    {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
    {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Ulm"}'},
    {"type": "function_call_output", "call_id": "call_1", "output": '{"degrees": 21}'},
]


@pytest.fixture
async def http(provider: FakeProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider.url) as client:
        yield client


@pytest.fixture
async def client(provider: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=provider.url + "/v1", api_key="any", max_retries=0) as sdk:
        yield sdk


async def streamed(http: httpx.AsyncClient, **more: Any) -> list[Any]:
    """The events of a stream, each of which is named as it is typed."""
    answer = await http.post("/v1/responses", json={**BODY, "stream": True, **more})
    events = []
    for event in answer.text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        events.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
    return events


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.1},
        {"input": ITEMS, "tools": TOOLS},
        {"max_output_tokens": 2},
        {"top_logprobs": 2, "include": ["message.output_text.logprobs"]},
        {"tools": TOOLS, "tool_choice": "required"},
        {"tools": TOOLS, "tool_choice": {"type": "function", "name": "weather"}},
        {"text": FORMAT},
    ],
    ids=lambda extra: ",".join(extra) or "plain",
)
async def test_responses_fit_the_schema(http: httpx.AsyncClient, extra: Any) -> None:
    """Whole and in events they are what OpenAI's description says; the events number themselves from zero,
    and the last of them holds what the same request gets without a stream."""
    whole = (await http.post("/v1/responses", json={**BODY, **extra})).json()
    assert_valid(whole, "Response")
    events = await streamed(http, **extra)
    for event in events:
        assert_valid(event, "ResponseStreamEvent")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    last = events[-1]["response"]
    assert events[-1]["type"] == f"response.{last['status']}"
    assert said(last) == said(whole)
    assert last["usage"]["output_tokens"] == whole["usage"]["output_tokens"] > 0


def said(response: Any) -> list[Any]:
    """The output without its ids."""
    return [{k: v for k, v in item.items() if k not in ("id", "call_id")} for item in response["output"]]


async def test_a_stream_adds_up(client: openai.AsyncOpenAI) -> None:
    """The SDK's stream helper, which puts a response together from its events, finds nothing amiss."""
    async with client.responses.stream(model="m", input="Hello") as stream:
        deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert "".join(deltas) == final.output_text == NOTICE
    assert final.usage is not None
    assert (final.usage.input_tokens, final.usage.output_tokens) == (9, len(deltas))


async def test_a_demanded_tool_is_called(client: openai.AsyncOpenAI) -> None:
    """With arguments that fit its schema, whole and in a stream; `auto` gets text."""
    answer = await client.responses.create(model="m", input="Hi", tools=TOOLS, tool_choice="required")
    call = answer.output[0]
    assert call.type == "function_call"
    assert call.name == "weather"
    jsonschema.validate(msgspec.json.decode(call.arguments), WEATHER)
    async with client.responses.stream(model="m", input="Hi", tools=TOOLS, tool_choice="required") as stream:
        assert (await stream.get_final_response()).output[0].to_dict()["arguments"] == call.arguments
    auto = await client.responses.create(model="m", input="Hi", tools=TOOLS)
    assert auto.output_text == NOTICE


async def test_structured_output_fits_its_schema(client: openai.AsyncOpenAI) -> None:
    """`text.format` with a schema gets JSON that validates against it."""
    answer = await client.responses.create(model="m", input="Hi", text=FORMAT)
    jsonschema.validate(msgspec.json.decode(answer.output_text), WEATHER)


async def test_a_cut_response_is_incomplete(http: httpx.AsyncClient) -> None:
    """At `max_output_tokens` it ends as incomplete, with the reason, and never as completed."""
    last = (await streamed(http, max_output_tokens=3))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert last["response"]["usage"]["output_tokens"] == 3


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": "Hi"}, "model"),
        ({"model": "m"}, "input"),
        ({**BODY, "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"model": "m", "input": 7}, None),
    ],
)
async def test_errors_fit_the_schema(http: httpx.AsyncClient, body: Any, param: str | None) -> None:
    """Whatever is wrong with a request, the answer is OpenAI's envelope."""
    answer = await http.post("/v1/responses", json=body)
    assert answer.status_code == 400
    assert_valid(answer.json(), "ErrorResponse")
    assert answer.json()["error"]["param"] == param


async def test_what_a_provider_may_leave_out(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """Usage and the last event can be missing, and a stream can end early."""
    provider.script(Behaviour(omit_usage=True, times=2), Behaviour(omit_done=True), Behaviour(break_after=5))
    assert "usage" not in (await http.post("/v1/responses", json=BODY)).json()
    assert "usage" not in (await streamed(http))[-1]["response"]
    assert (await streamed(http))[-1]["type"] == "response.output_item.done"
    with pytest.raises(httpx.RemoteProtocolError):
        await streamed(http)


@pytest.mark.parametrize(("after", "kind"), [(0, "error"), (2, "response.failed"), (6, "response.failed")])
async def test_a_response_fails_in_mid_stream(
    provider: FakeProvider, http: httpx.AsyncClient, after: int, kind: str
) -> None:
    """As the response that was begun, or, before any was, as an error event."""
    provider.script(Behaviour(fail_after=after, error={"code": "rate_limit_exceeded"}))
    events = await streamed(http)
    for event in events:
        assert_valid(event, "ResponseStreamEvent")
    assert [event["sequence_number"] for event in events] == list(range(after + 1))
    assert events[-1]["type"] == kind
    assert events[-1].get("response", {"error": events[-1]})["error"]["code"] == "rate_limit_exceeded"
    assert len({event["response"]["id"] for event in events if "response" in event}) == bool(after)


async def test_a_chat_fails_in_mid_stream(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """With an error event, and without an end mark."""
    provider.script(Behaviour(fail_after=2))
    chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    events = (await http.post("/v1/chat/completions", json=chat)).text.split("\n\n")
    assert len(events) == 3 + 1
    assert_valid(msgspec.json.decode(events[2].removeprefix("data: ")), "ErrorResponse")


async def test_an_answer_function_sees_a_chat() -> None:
    """One `answer` speaks for all endpoints: a response's input comes as messages."""
    fake = FakeProvider(answer=echo)
    await fake.start()
    async with openai.AsyncOpenAI(base_url=fake.url + "/v1", api_key="any", max_retries=0) as sdk:
        assert (await sdk.responses.create(model="m", input="said")).output_text == "said"
        parts: Any = [{"role": "user", "content": [{"type": "input_text", "text": "in parts"}]}]
        assert (await sdk.responses.create(model="m", input=parts)).output_text == "in parts"
    await fake.stop()


async def test_scripted_replies(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """A given text in chunks of a given size, and a given tool call."""
    call = ToolCall(name="f", arguments='{"a": 1}')
    provider.script(Behaviour(endpoint="responses", reply="abcdef", chunk_chars=4), Behaviour(tool_call=call))
    assert [event["delta"] for event in await streamed(http) if "delta" in event] == ["abcd", "ef"]
    assert (await streamed(http))[-1]["response"]["output"][0]["arguments"] == call.arguments

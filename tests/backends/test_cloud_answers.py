"""What Anthropic's and Gemini's answers look like when they come back: OpenAI's wire, byte for byte."""

from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from gateway.backends.wire import StreamMeter, usage_of
from gateway.types import Usage
from tests.backends.cloud_case import PROVIDERS, Rented, Said, recorded

Conforms = Callable[[str, Any], None]  # the fixture: schema name, value
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
ARGUMENTS = [{"city": "Bern"}, {"city": "Genève"}]
# Of 1,233 prompt tokens 1,024 came from the cache; Anthropic counts the two apart and wrote 188 to it.
TALLY = {
    "anthropic": Usage(input_tokens=1233, cached_input_tokens=1024, cache_write_tokens=188, output_tokens=65),
    "gemini": Usage(input_tokens=1233, cached_input_tokens=1024, output_tokens=65),
}


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_text(provider: str, conforms: Conforms) -> None:
    """A plain answer fits OpenAI's schema and has nothing of litellm's own in it."""
    rented = Rented(provider)
    rented.records("text.json")
    said = await rented.ask()
    assert said.content_type == "application/json"
    conforms("CreateChatCompletionResponse", said.json)
    assert set(said.json) == {"id", "object", "created", "model", "choices", "usage"}
    choice = said.json["choices"][0]
    assert choice["message"]["content"].startswith("Hi!")
    assert set(choice["message"]) == {"role", "content", "refusal"}
    assert choice["finish_reason"] == "stop"


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_tool_calls_and_usage(provider: str, conforms: Conforms) -> None:
    """Text beside two tool calls; cached tokens are in `prompt_tokens`, once."""
    rented = Rented(provider)
    rented.records("tools.json")
    said = await rented.ask(tools=TOOLS)
    conforms("CreateChatCompletionResponse", said.json)
    choice = said.json["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", "I'll look.")
    calls = choice["message"]["tool_calls"]
    assert [msgspec.json.decode(call["function"]["arguments"]) for call in calls] == ARGUMENTS
    assert len({call["id"] for call in calls}) == 2
    assert all(set(call) == {"id", "type", "function"} for call in calls)
    assert usage_of(said.body) == TALLY[provider]


async def test_reasoning_tokens_are_part_of_the_output() -> None:
    """Gemini counts its thoughts apart; OpenAI's `completion_tokens` includes them."""
    rented = Rented("gemini")
    rented.records("text.json")
    assert usage_of((await rented.ask()).body) == Usage(
        input_tokens=10, output_tokens=6 + 13, reasoning_tokens=13
    )


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_stream(provider: str, conforms: Conforms) -> None:
    """Text deltas, tool-call deltas, one finish, one usage event, the end mark; each fits the schema."""
    rented = Rented(provider)
    rented.records("stream.sse")
    said = await rented.ask(stream=True, tools=TOOLS)
    assert said.content_type == "text/event-stream"
    for event in said.events:
        conforms("CreateChatCompletionStreamResponse", event)
    choices = [event["choices"][0] for event in said.events[:-1]]
    assert choices[0]["delta"]["role"] == "assistant"
    assert "".join(c["delta"].get("content", "") for c in choices) == "I'll look."
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["tool_calls"]
    assert tool_arguments(choices) == ARGUMENTS
    assert said.events[-1]["choices"] == []
    assert [event for event in said.events if "usage" in event] == said.events[-1:]


def tool_arguments(choices: list[Any]) -> list[Any]:
    """The streamed calls' arguments, put together by index as a client does."""
    texts: dict[int, str] = {}
    for call in [call for c in choices for call in c["delta"].get("tool_calls", [])]:
        if call["index"] not in texts:
            assert call["id"]
            assert call["function"]["name"] == "weather"
        texts[call["index"]] = texts.get(call["index"], "") + call["function"].get("arguments", "")
    assert sorted(texts) == list(range(len(texts)))
    return [msgspec.json.decode(text) for text in texts.values()]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_meter_reads_a_stream(provider: str) -> None:
    """The gateway's byte-level meter finds usage and the end, and can take the usage event out."""
    rented = Rented(provider)
    rented.records("stream.sse")
    said = await rented.ask(stream=True, tools=TOOLS)
    meter = StreamMeter(strip_usage=True)
    passed = meter.feed(said.body)
    assert meter.usage == TALLY[provider]
    assert (meter.done, meter.failed) == (True, False)
    assert b'"usage"' not in passed


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_stream_in_any_pieces(provider: str) -> None:
    """Cut between any two bytes on the network, the same answer comes out."""

    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            for byte in recorded(f"{provider}_stream.sse"):
                yield bytes([byte])

    rented = Rented(provider)
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=Trickle()))
    said = await rented.ask(stream=True, tools=TOOLS)
    assert tool_arguments([e["choices"][0] for e in said.events[:-1]]) == ARGUMENTS
    assert usage_of(msgspec.json.encode(said.events[-1])) == TALLY[provider]


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_completions(provider: str, conforms: Conforms) -> None:
    """The older endpoint's answers, whole and streamed."""
    rented = Rented(provider)
    rented.records("text.json")
    whole = await rented.ask(endpoint="completions")
    conforms("CreateCompletionResponse", whole.json)
    assert whole.json["choices"][0]["text"].startswith("Hi!")
    assert usage_of(whole.body) is not None
    streaming = Rented(provider)
    streaming.answer(text_stream(provider))
    streamed = await streaming.ask(endpoint="completions", stream=True)
    texts = [event["choices"][0]["text"] for event in streamed.events[:-1]]
    assert "".join(texts) == "Hi you"
    assert {event["object"] for event in streamed.events} == {"text_completion"}
    assert streamed.events[-2]["choices"][0]["finish_reason"] == "length"


def text_stream(provider: str) -> httpx.Response:
    """Two words, cut at the limit."""
    anthropic = [
        {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " you"}},
        {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {"output_tokens": 2}},
        {"type": "message_stop"},
    ]
    counted = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
    gemini = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "Hi"}]}, "index": 0}]},
        {
            "candidates": [
                {
                    "content": {"role": "model", "parts": [{"text": " you"}]},
                    "finishReason": "MAX_TOKENS",
                    "index": 0,
                }
            ],
            "usageMetadata": counted,
        },
    ]
    events = anthropic if provider == "anthropic" else gemini
    content = b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=content)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_usage_that_was_not_counted_is_not_invented(provider: str) -> None:
    """litellm fills the gap with a guess of its own; the gateway must see that there was nothing."""
    rented = Rented(provider)
    events = recorded(f"{provider}_stream.sse")
    for meter in (b"usage", b"output_tokens"):
        events = events.replace(b'"%s' % meter, b'"no_%s' % meter)
    rented.answer(httpx.Response(200, headers={"content-type": "text/event-stream"}, content=events))
    said = await rented.ask(stream=True, tools=TOOLS)
    assert said.events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert b"usage" not in said.body


@pytest.mark.parametrize(
    ("reason", "finish"), [("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("STOP", "stop")]
)
async def test_geminis_finish_reasons(reason: str, finish: str) -> None:
    """Gemini's words for the end, in OpenAI's."""
    rented = Rented("gemini")
    answer = msgspec.json.decode(recorded("gemini_text.json"))
    answer["candidates"][0]["finishReason"] = reason
    rented.answer(httpx.Response(200, json=answer))
    assert (await rented.ask()).json["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("max_tokens", "length"),
        ("stop_sequence", "stop"),
        ("end_turn", "stop"),
        ("refusal", "content_filter"),
    ],
)
async def test_anthropics_finish_reasons(reason: str, finish: str) -> None:
    """Anthropic's words for the end, in OpenAI's."""
    rented = Rented("anthropic")
    answer = msgspec.json.decode(recorded("anthropic_text.json"))
    answer["stop_reason"] = reason
    rented.answer(httpx.Response(200, json=answer))
    assert (await rented.ask()).json["choices"][0]["finish_reason"] == finish


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_gemini_blocks(stream: bool) -> None:
    """No candidates at all: the answer says that it was filtered, and what it cost."""
    rented = Rented("gemini")
    blocked = {
        "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"},
        "usageMetadata": {"promptTokenCount": 4, "totalTokenCount": 4},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "x",
    }
    event = b"data: " + msgspec.json.encode(blocked) + b"\r\n\r\n"
    rented.answer(
        httpx.Response(200, headers={"content-type": "text/event-stream"}, content=event)
        if stream
        else httpx.Response(200, json=blocked)
    )
    said: Said = await rented.ask(stream=stream)
    choices = [e["choices"][0] for e in said.events if e["choices"]] if stream else said.json["choices"]
    assert choices[-1]["finish_reason"] == "content_filter"

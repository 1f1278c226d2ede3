"""The fake provider answers as OpenAI does: checked with OpenAI's own SDK and against its own schemas."""

import base64
import itertools
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import jsonschema
import msgspec
import openai
import pytest

from gateway.backends.fake import FakeProvider
from gateway.backends.fake_text import NOTICE, Lookup, ToolCall

Conforms = Callable[[str, Any], None]  # the fixture: schema name, value
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}},
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
]


@pytest.fixture
async def client(provider: FakeProvider) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=provider.url + "/v1", api_key="any", max_retries=0) as sdk:
        yield sdk


@pytest.fixture
async def raw(provider: FakeProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider.url) as http:
        yield http


def events(body: str) -> list[Any]:
    """The JSON of a stream's events; its end mark is checked and left out."""
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [msgspec.json.decode(line) for line in lines[:-1]]


async def test_it_says_what_it_is(client: openai.AsyncOpenAI, raw: httpx.AsyncClient) -> None:
    """Nobody takes the fake for a model: its text, its header, its fingerprint and its models say so."""
    answer = await client.chat.completions.create(model="any", messages=HELLO)
    assert answer.choices[0].message.content == NOTICE
    assert "fake" in NOTICE
    assert "fake" in (answer.system_fingerprint or "")
    models = await raw.get("/v1/models")
    assert models.headers["server"] == "headgate-fake-provider"
    assert {m["owned_by"] for m in models.json()["data"]} == {"headgate-fake"}


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"n": 3},
        {"max_completion_tokens": 2},
        {"logprobs": True, "top_logprobs": 2},
        {"tools": TOOLS, "tool_choice": "required"},
        {"response_format": {"type": "json_object"}},
    ],
    ids=lambda extra: ",".join(extra) or "plain",
)
async def test_chats_fit_the_schema(raw: httpx.AsyncClient, conforms: Conforms, extra: Any) -> None:
    """A chat's answer, whole and in chunks, is what OpenAI's description says it is."""
    body = {"model": "m", "messages": HELLO, **extra}
    conforms("CreateChatCompletionResponse", (await raw.post("/v1/chat/completions", json=body)).json())
    streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
    for chunk in events((await raw.post("/v1/chat/completions", json=streamed)).text):
        conforms("CreateChatCompletionStreamResponse", chunk)


async def test_completions_embeddings_and_models_fit_the_schema(
    raw: httpx.AsyncClient, conforms: Conforms
) -> None:
    """So are the other endpoints' answers."""
    completion = {"model": "m", "prompt": ["a", "b"], "logprobs": 2}
    conforms("CreateCompletionResponse", (await raw.post("/v1/completions", json=completion)).json())
    embedding = {"model": "m", "input": ["a", "b"], "dimensions": 4}
    conforms("CreateEmbeddingResponse", (await raw.post("/v1/embeddings", json=embedding)).json())
    conforms("ListModelsResponse", (await raw.get("/v1/models")).json())


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", {"messages": HELLO}, 400),
        ("POST", "/v1/chat/completions", {"model": "m"}, 400),
        ("POST", "/v1/chat/completions", {"model": "m", "messages": "not a list"}, 400),
        ("POST", "/v1/chat/completions", {"model": "m", "messages": HELLO, "n": 1000}, 400),
        ("POST", "/v1/embeddings", {"model": "m", "input": "a", "dimensions": -1}, 400),
        ("POST", "/v1/chat/completions", "not an object", 400),
        ("POST", "/v1/nowhere", {}, 404),
        ("GET", "/__fake__/nowhere", {}, 404),
    ],
)
async def test_errors_fit_the_schema(
    raw: httpx.AsyncClient, conforms: Conforms, method: str, path: str, body: Any, status: int
) -> None:
    """Whatever is wrong with a request, the answer is OpenAI's envelope, and the connection lives on."""
    answer = await raw.request(method, path, json=body)
    assert answer.status_code == status
    conforms("ErrorResponse", answer.json())


async def test_a_stream_adds_up_to_the_whole_answer(client: openai.AsyncOpenAI) -> None:
    """The pieces of a stream, joined, are the text that the same call gives without streaming."""
    stream = await client.chat.completions.create(model="m", messages=HELLO, stream=True, n=2)
    said = ["", ""]
    async for chunk in stream:
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == [NOTICE, NOTICE]


async def test_usage_is_counted_and_streamed_on_request(client: openai.AsyncOpenAI) -> None:
    """Numbers are those of o200k_base; a stream ends with them when asked, and only then."""
    whole = await client.chat.completions.create(model="m", messages=HELLO)
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (9, 22)
    asked = await client.chat.completions.create(
        model="m", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in asked]
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    unasked = await client.chat.completions.create(model="m", messages=HELLO, stream=True)
    assert [chunk.usage async for chunk in unasked] == [None] * (len(chunks) - 1)


async def test_a_long_prompt_is_cached_by_its_prefix(client: openai.AsyncOpenAI) -> None:
    """From 1,024 tokens on, what this model was sent before counts as cached, in steps of 128."""

    async def cached(model: str, text: str) -> int | None:
        answer = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}]
        )
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens

    long = "one two three four " * 400  # 1,600 tokens
    assert await cached("m", long) == 0
    assert await cached("m", long + "and another end") == 1536
    assert await cached("other", long) == 0
    assert [await cached("m", "short"), await cached("m", "short")] == [0, 0]


async def test_limits_and_stops(client: openai.AsyncOpenAI) -> None:
    """`max_tokens` ends with `length` after just that many tokens, `stop` ends before the sequence."""
    short = await client.chat.completions.create(model="m", messages=HELLO, max_tokens=3)
    assert short.choices[0].finish_reason == "length"
    assert short.usage is not None
    assert short.usage.completion_tokens == 3
    stopped = await client.chat.completions.create(model="m", messages=HELLO, stop=["whatever", " fake"])
    assert stopped.choices[0].message.content == "This is Headgate's"
    assert stopped.choices[0].finish_reason == "stop"


async def test_a_demanded_tool_is_called(client: openai.AsyncOpenAI) -> None:
    """A named tool is called with arguments that fit its schema; `auto` gets text; a stream agrees."""
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    answer = await client.chat.completions.create(model="m", messages=HELLO, tools=TOOLS, tool_choice=choice)
    assert answer.choices[0].finish_reason == "tool_calls"
    call: Any = (answer.choices[0].message.tool_calls or [])[0]
    assert call.function.name == "weather"
    jsonschema.validate(msgspec.json.decode(call.function.arguments), WEATHER)
    auto = await client.chat.completions.create(model="m", messages=HELLO, tools=TOOLS)
    assert auto.choices[0].message.content == NOTICE
    chunks: Any = await client.chat.completions.create(
        model="m", messages=HELLO, tools=TOOLS, tool_choice=choice, stream=True
    )
    deltas = [chunk.choices[0].delta async for chunk in chunks]
    called = [delta.tool_calls[0].function for delta in deltas if delta.tool_calls]
    assert [function.name for function in called if function.name] == ["weather"]
    assert "".join(function.arguments for function in called) == call.function.arguments


async def test_structured_output_fits_its_schema(client: openai.AsyncOpenAI) -> None:
    """`response_format` with a schema gets JSON that validates against it."""
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER, "strict": True}}
    answer = await client.chat.completions.create(model="m", messages=HELLO, response_format=wanted)
    jsonschema.validate(msgspec.json.decode(answer.choices[0].message.content or ""), WEATHER)


async def test_logprobs(client: openai.AsyncOpenAI) -> None:
    """One entry for each token, the tokens make up the text, and the numbers repeat from call to call."""

    async def entries() -> list[tuple[str, float, int]]:
        answer = await client.chat.completions.create(
            model="m", messages=HELLO, logprobs=True, top_logprobs=2
        )
        assert answer.choices[0].logprobs is not None
        content = answer.choices[0].logprobs.content or []
        return [(entry.token, entry.logprob, len(entry.top_logprobs)) for entry in content]

    first = await entries()
    assert "".join(token for token, _, _ in first) == NOTICE
    assert all(logprob <= 0 and tops == 2 for _, logprob, tops in first)
    assert await entries() == first


async def test_completions(client: openai.AsyncOpenAI) -> None:
    """The older endpoint: a choice for each prompt and `n`, OpenAI's 16 tokens by default, token prompts."""
    answer = await client.completions.create(model="m", prompt=["a", "b"], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4 * 16
    streamed = await client.completions.create(model="m", prompt=[1, 2, 3], max_tokens=99, stream=True)
    chunks = [chunk async for chunk in streamed]
    assert "".join(chunk.choices[0].text for chunk in chunks) == NOTICE
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_embeddings(client: openai.AsyncOpenAI, raw: httpx.AsyncClient) -> None:
    """Unit vectors that depend on the text alone; floats and base64 carry the same numbers."""
    answer = await client.embeddings.create(model="m", input=["a", "b", "a"], dimensions=8)  # base64 inside
    a, b, again = (item.embedding for item in answer.data)
    assert a == again != b
    assert math.isclose(math.hypot(*a), 1.0, rel_tol=1e-6)
    body = {"model": "m", "input": "a", "dimensions": 8, "encoding_format": "float"}
    floats = (await raw.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    assert all(math.isclose(x, y, rel_tol=1e-6) for x, y in zip(a, floats, strict=True))
    packed = (await raw.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()
    assert len(base64.b64decode(packed["data"][0]["embedding"])) == 8 * 4


async def test_the_key_is_checked(conforms: Conforms) -> None:
    """With a key configured, none and a wrong one are answered 401 in OpenAI's words, also for control."""
    fake = FakeProvider(api_key="right")
    await fake.start()
    async with httpx.AsyncClient(base_url=fake.url) as http:
        for headers in ({}, {"authorization": "Bearer wrong"}):
            for path in ("/v1/models", "/__fake__/received"):
                refused = await http.get(path, headers=headers)
                assert refused.status_code == 401
                conforms("ErrorResponse", refused.json())
        assert refused.json()["error"]["code"] is None or "***" in refused.json()["error"]["message"]
        assert (await http.get("/v1/models", headers={"authorization": "Bearer right"})).is_success
    await fake.stop()


async def test_only_its_models_are_answered(conforms: Conforms) -> None:
    """With models configured, another one is OpenAI's 404."""
    fake = FakeProvider(models=["big"])
    await fake.start()
    async with openai.AsyncOpenAI(base_url=fake.url + "/v1", api_key="any", max_retries=0) as sdk:
        assert [model.id async for model in sdk.models.list()] == ["big"]
        with pytest.raises(openai.NotFoundError) as refused:
            await sdk.chat.completions.create(model="small", messages=HELLO)
        assert refused.value.code == "model_not_found"
    await fake.stop()


async def test_an_answer_function_speaks_for_it() -> None:
    """`answer` sees the body and gives text, a tool call, or None to leave it to the fake."""

    def answer(body: dict[str, Any]) -> str | ToolCall | None:
        text = body["messages"][0]["content"]
        said: dict[str, str | ToolCall] = {"text": "said", "tool": ToolCall(name="f", arguments='{"a": 1}')}
        return said.get(text)

    fake = FakeProvider(answer=answer)
    await fake.start()
    async with openai.AsyncOpenAI(base_url=fake.url + "/v1", api_key="any", max_retries=0) as sdk:
        messages = []
        for text in ("text", "tool", "else"):
            chat = await sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
            messages.append(chat.choices[0].message)
    await fake.stop()
    call: Any = (messages[1].tool_calls or [])[0]
    assert (messages[0].content, call.function.arguments, messages[2].content) == ("said", '{"a": 1}', NOTICE)


def test_lookup_errs_at_its_rate_and_always_alike() -> None:
    """A table with an error rate of a fifth is wrong on a fifth, on the same texts each time."""
    table = {f"text number {i:04d}": f"label {i % 7}" for i in range(1000)}

    def answers(seed: int) -> list[str | None]:
        lookup = Lookup(table, error_rate=0.2, seed=seed)
        return [lookup({"messages": [{"role": "user", "content": f"Classify: {t}"}]}) for t in table]

    wrong = sum(said != right for said, right in zip(answers(1), table.values(), strict=True))
    assert 150 < wrong < 250
    assert answers(1) == answers(1) != answers(2)
    assert set(itertools.chain(answers(1))) <= set(table.values())
    assert Lookup(table)({"messages": [{"role": "user", "content": "unknown"}]}) is None

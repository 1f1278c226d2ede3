"""The real OpenAI SDK for Python against the gateway: it behaves as against OpenAI."""

from typing import Any

import httpx
import openai
import pytest

from gateway.backends.fake_calls import Behaviour
from tests.support.openai_schema import assert_valid
from tests.support.stack import KEY, Stack

MODEL = "gpt-4o-mini"
HELLO: list[Any] = [{"role": "user", "content": "Say hello to the team."}]
WEATHER: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city", "days"],
                "additionalProperties": False,
            },
        },
    }
]
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "ticket",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"topic": {"type": "string"}, "urgent": {"type": "boolean"}},
            "required": ["topic", "urgent"],
            "additionalProperties": False,
        },
    },
}


def test_chat(client: openai.OpenAI) -> None:
    """A chat answer is OpenAI's by its own schema, and the call id comes where the SDK looks for it."""
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, seed=7, stop=["END"])
    assert_valid(raw.http_response.json(), "CreateChatCompletionResponse")
    answer = raw.parse()
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0
    assert raw.headers["x-headgate-route"] == "rented"
    assert raw.headers["x-headgate-backend"] == "rented"
    assert raw.headers["x-headgate-policy"] == "tests@1"
    assert raw.headers["x-headgate-privacy-class"] == "public"
    assert float(raw.headers["x-headgate-cost"]) > 0
    assert answer._request_id == raw.headers["x-headgate-call-id"]


def test_n_and_logprobs(client: openai.OpenAI) -> None:
    """`n` and `logprobs` reach the provider unharmed and come back whole."""
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, n=3, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert all(choice.logprobs and choice.logprobs.content for choice in answer.choices)


@pytest.mark.parametrize("include_usage", [None, False, True])
def test_stream(client: openai.OpenAI, stack: Stack, include_usage: bool | None) -> None:
    """A stream gives the same text as its events; the usage event goes only to who asked for it; and the
    ledger has the provider's own count either way."""
    options: Any = openai.omit if include_usage is None else {"include_usage": include_usage}
    events = list(
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, stream_options=options)
    )
    for event in events:
        assert_valid(event.model_dump(mode="json", exclude_unset=True), "CreateChatCompletionStreamResponse")
    text = "".join(event.choices[0].delta.content or "" for event in events if event.choices)
    assert text
    assert [event for event in events if event.choices][-1].choices[0].finish_reason == "stop"
    assert bool([event for event in events if event.usage]) is bool(include_usage)
    row = stack.rows()[-1]
    assert row.usage.output_tokens > 0
    assert not row.usage.estimated
    assert row.cost_nano > 0


def test_tools(client: openai.OpenAI) -> None:
    """A tool call comes back with arguments that fit the tool's schema, and its result may be sent on."""
    answer = client.chat.completions.create(
        model=MODEL, messages=HELLO, tools=WEATHER, tool_choice="required"
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    followed = client.chat.completions.create(
        model=MODEL,
        tools=WEATHER,
        messages=[
            *HELLO,
            answer.choices[0].message.model_dump(exclude_none=True),  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 21}'},
        ],
    )
    assert followed.choices[0].finish_reason in ("stop", "tool_calls")


def test_tools_in_a_stream(client: openai.OpenAI) -> None:
    """The SDK's stream helper puts the pieces of a tool call together again."""
    with client.chat.completions.stream(
        model=MODEL, messages=HELLO, tools=WEATHER, tool_choice="required"
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == "tool_calls"
    assert (final.choices[0].message.tool_calls or [])[0].function.name == "get_weather"


def test_json_schema(client: openai.OpenAI) -> None:
    """`response_format` arrives whole: the answer parses under the schema."""
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, response_format=SCHEMA)
    assert set(httpx.Response(200, text=answer.choices[0].message.content or "").json()) == {
        "topic",
        "urgent",
    }


def test_completions(client: openai.OpenAI) -> None:
    """The older endpoint too, streamed and whole."""
    raw = client.completions.with_raw_response.create(
        model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=5
    )
    assert_valid(raw.http_response.json(), "CreateCompletionResponse")
    pieces = client.completions.create(
        model="gpt-3.5-turbo-instruct", prompt="Once", max_tokens=5, stream=True
    )
    assert "".join(piece.choices[0].text for piece in pieces if piece.choices)


@pytest.mark.parametrize("encoding", ["float", openai.omit])
def test_embeddings(client: openai.OpenAI, encoding: Any) -> None:
    """Vectors come back as floats; by default the SDK itself asks for base64 and decodes it."""
    raw = client.embeddings.with_raw_response.create(
        model="text-embedding-3-small", input=["one", "two"], encoding_format=encoding, dimensions=8
    )
    if encoding == "float":
        assert_valid(raw.http_response.json(), "CreateEmbeddingResponse")
    assert [len(item.embedding) for item in raw.parse().data] == [8, 8]


def test_models(client: openai.OpenAI, stack: Stack) -> None:
    """The list validates, and each model in it can be retrieved."""
    assert_valid(httpx.get(f"{stack.url}/models", headers={"x-api-key": KEY}).json(), "ListModelsResponse")
    listed = list(client.models.list())
    assert "home-model" in [model.id for model in listed]
    assert client.models.retrieve("home-model").id == "home-model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, openai.BadRequestError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (409, openai.ConflictError),
        (422, openai.UnprocessableEntityError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_each_error_class(
    client: openai.OpenAI, stack: Stack, status: int, expected: type[openai.APIStatusError], stream: bool
) -> None:
    """What the provider refuses, the SDK raises as if it had asked the provider itself."""
    error = {"message": f"told to say {status}", "type": "test_error", "param": "model", "code": "told_to"}
    stack.rented.script(Behaviour(status=status, error=error, headers={"retry-after": "7"}))
    with pytest.raises(expected) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream)
    assert caught.value.status_code == status
    assert caught.value.body == error
    assert_valid(caught.value.response.json(), "ErrorResponse")
    assert caught.value.response.headers["retry-after"] == "7"


def test_our_own_credentials_are_not_the_clients(client: openai.OpenAI, stack: Stack) -> None:
    """A provider that refuses the gateway's key is the gateway's fault: no 401, and no piece of the key."""
    stack.rented.script(Behaviour(status=401, error={"message": "Incorrect API key provided: sk-up***."}))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO)
    assert caught.value.status_code == 502
    assert caught.value.code == "backend_credentials_refused"
    assert "sk-up" not in caught.value.message


def test_timeout(stack: Stack) -> None:
    """A provider that hangs is the SDK's own timeout, and the call upstream ends with it."""
    before = stack.rented.abandoned
    stack.rented.script(Behaviour(hang=True))
    hasty = openai.OpenAI(base_url=stack.url, api_key=KEY, max_retries=0, timeout=0.5)
    with hasty, pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(model=MODEL, messages=HELLO)
    stack.loop.run(stack.rented.until(lambda: stack.rented.abandoned > before), timeout=5)


def test_wrong_key(stack: Stack) -> None:
    """A key that nobody has is OpenAI's 401, on every endpoint."""
    with openai.OpenAI(base_url=stack.url, api_key="sk-wrong", max_retries=0) as stranger:
        for call in (
            lambda: stranger.chat.completions.create(model=MODEL, messages=HELLO),
            lambda: stranger.models.list(),
        ):
            with pytest.raises(openai.AuthenticationError) as caught:
                call()
            assert caught.value.code == "invalid_api_key"


def test_the_sdk_retries_by_itself(stack: Stack) -> None:
    """A 429 is still one on the client's side, so the SDK's own retries work against the gateway."""
    busy = Behaviour(status=429, error={"message": "busy", "type": "requests"})
    stack.rented.script(busy, busy)
    with openai.OpenAI(base_url=stack.url, api_key=KEY, max_retries=2) as patient:
        assert patient.chat.completions.create(model=MODEL, messages=HELLO).choices


def test_a_stream_that_breaks_is_an_error_not_an_end(client: openai.OpenAI, stack: Stack) -> None:
    """After the first byte a broken provider gives the SDK an error, never an invented finish_reason."""
    stack.rented.script(Behaviour(break_after=2))
    seen: list[Any] = []
    with pytest.raises(openai.APIError, match="broke off"):
        seen.extend(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True))
    assert seen
    assert all(event.choices[0].finish_reason is None for event in seen if event.choices)
    row = stack.rows()[-1]
    assert row.outcome == "interrupted"
    assert row.usage.estimated


@pytest.mark.parametrize(
    ("method", "path", "content", "status"),
    [
        ("POST", "/v1/chat/completions", b"{not json", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"messages": []}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "m"}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "m", "messages": [7]}', 400),
        ("POST", "/v1/chat/completions", b'{"model": "m", "messages": "hi"}', 400),
        ("POST", "/v1/chat/completions", b'{"model": 1, "messages": []}', 400),
        ("POST", "/v1/chat/completions", b"[" * 100_000, 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
        ("POST", "/v1/chat/completions", b'{"model": "m", "pad": "' + b"x" * 33 * 2**20 + b'"}', 413),
        ("GET", "/v1/chat/completions", b"", 405),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/elsewhere", b"", 404),
        ("DELETE", "/v1/models", b"", 405),
    ],
)
def test_bad_requests_get_the_envelope(
    stack: Stack, method: str, path: str, content: bytes, status: int
) -> None:
    """Whatever is wrong with a request, the answer is OpenAI's error envelope with a useful message."""
    answer = httpx.request(
        method, stack.server.url + path, content=content, headers={"authorization": f"Bearer {KEY}"}
    )
    assert answer.status_code == status
    assert_valid(answer.json(), "ErrorResponse")
    assert answer.json()["error"]["message"]

"""What a request looks like when it reaches Anthropic or Gemini, and what never gets there."""

from typing import Any

import pytest

from gateway.errors import BackendError
from router_policies.types import ErrorClass
from tests.backends.cloud_case import MESSAGES, PROVIDERS, Rented

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Now.", "parameters": SCHEMA}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
TALK: list[Any] = [
    {"role": "system", "content": "Be short."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Weather here?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
]
SAMPLING: dict[str, Any] = {"temperature": 0.3, "top_p": 0.9, "stop": ["END", "FIN"]}


async def test_a_chat_reaches_anthropic() -> None:
    """System, image, tools, tool call and result, stops and sampling, each where Anthropic wants it."""
    rented = Rented("anthropic")
    rented.records("text.json")
    await rented.ask(messages=TALK, tools=[TOOL], tool_choice="required", max_tokens=99, **SAMPLING)
    assert str(rented.sent.url) == "https://api.anthropic.com/v1/messages"
    assert rented.sent.headers["x-api-key"] == "secret"
    assert rented.sent_body == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 99,
        "system": [{"type": "text", "text": "Be short."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Weather here?"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": PNG},
                    },
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Bern"}}
                ],
            },
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}],
            },
        ],
        "tools": [{"type": "custom", "name": "weather", "description": "Now.", "input_schema": SCHEMA}],
        "tool_choice": {"type": "any"},
        "temperature": 0.3,
        "top_p": 0.9,
        "stop_sequences": ["END", "FIN"],
    }


async def test_a_chat_reaches_gemini() -> None:
    """The same chat, where Gemini wants it."""
    rented = Rented("gemini")
    rented.records("text.json")
    await rented.ask(messages=TALK, tools=[TOOL], tool_choice="required", max_tokens=99, seed=7, **SAMPLING)
    base = "https://generativelanguage.googleapis.com/v1beta"
    assert str(rented.sent.url) == f"{base}/models/gemini-2.5-flash:generateContent"
    assert rented.sent.headers["x-goog-api-key"] == "secret"
    assert rented.sent_body == {
        "system_instruction": {"parts": [{"text": "Be short."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Weather here?"},
                    {"inline_data": {"mime_type": "image/png", "data": PNG}},
                ],
            },
            {
                "role": "model",
                "parts": [{"function_call": {"name": "weather", "args": {"city": "Bern"}}}],
            },
            {
                "role": "user",
                "parts": [{"function_response": {"name": "weather", "response": {"content": "sunny"}}}],
            },
        ],
        "tools": [
            {"function_declarations": [{"name": "weather", "description": "Now.", "parameters": SCHEMA}]}
        ],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
        "generationConfig": {
            "max_output_tokens": 99,
            "seed": 7,
            "temperature": 0.3,
            "top_p": 0.9,
            "stop_sequences": ["END", "FIN"],
        },
    }


async def test_anthropic_gets_the_max_tokens_that_it_demands() -> None:
    """OpenAI's clients may leave it out, Anthropic refuses without: the model's own maximum goes in."""
    rented = Rented("anthropic")
    rented.records("text.json")
    await rented.ask()
    assert rented.sent_body["max_tokens"] == 64_000


@pytest.mark.parametrize(
    ("provider", "where"), [("anthropic", "output_format"), ("gemini", "generationConfig")]
)
async def test_a_json_schema_reaches_the_provider(provider: str, where: str) -> None:
    """Structured output is asked for in the provider's own words, with the schema in it."""
    rented = Rented(provider)
    rented.records("text.json")
    schema = {**SCHEMA, "additionalProperties": False}
    wanted = {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": schema}}
    await rented.ask(response_format=wanted)
    assert schema in rented.sent_body[where].values()


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_completion_is_asked_as_a_chat(provider: str) -> None:
    """The prompt goes as a user's message, with OpenAI's default of 16 tokens."""
    rented = Rented(provider)
    rented.records("text.json")
    await rented.ask(endpoint="completions", prompt="Say hi", temperature=0)
    sent = rented.sent_body
    assert "Say hi" in str(sent["messages" if provider == "anthropic" else "contents"])
    limit = sent["max_tokens"] if provider == "anthropic" else sent["generationConfig"]["max_output_tokens"]
    assert limit == 16


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_the_caller_stays_unknown_to_the_provider(provider: str) -> None:
    """Metadata, users and cache keys say who asks; no answer depends on them, and they stay here."""
    rented = Rented(provider)
    rented.records("text.json")
    await rented.ask(
        metadata={"team": "canary-a"},
        user="canary-b",
        safety_identifier="canary-c",
        prompt_cache_key="canary-d",
    )
    assert b"canary" not in rented.sent.content
    assert "canary" not in str(rented.sent.headers)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_defaults_said_aloud_do_no_harm(provider: str) -> None:
    """A parameter that says what is so anyway is no reason to refuse, and changes nothing on the wire."""
    plain, told = Rented(provider), Rented(provider)
    for rented in (plain, told):
        rented.records("text.json")
    await plain.ask()
    await told.ask(n=1, logprobs=False, logit_bias={}, service_tier="auto", store=False, tools=[], stop=None)
    assert told.sent_body == plain.sent_body


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("logit_bias", {"5": 1}),
        ("logprobs", True),
        ("n", 2),
        ("service_tier", "priority"),
        ("store", True),
        ("web_search_options", {}),
        ("top_k", 5),
        ("response_format", {"type": "grammar"}),
        # litellm's own options: they would choose another host, another key, or no provider at all.
        ("api_base", "https://evil.example"),
        ("base_url", "https://evil.example"),
        ("api_key", "stolen"),
        ("extra_headers", {"x": "y"}),
        ("mock_response", "invented"),
        ("custom_llm_provider", "openai"),
        ("drop_params", True),
        ("client", "x"),
    ],
)
async def test_what_is_not_supported_is_refused_by_name(provider: str, param: str, value: Any) -> None:
    """Nothing is dropped in silence, and a client's body cannot reach litellm's options."""
    rented = Rented(provider)
    rented.records("text.json")
    with pytest.raises(BackendError, match=param) as refused:
        await rented.ask(**{param: value})
    assert (refused.value.error_class, refused.value.status) == (ErrorClass.REFUSED, 400)
    assert refused.value.param == param
    assert not rented.router.calls


@pytest.mark.parametrize(
    ("provider", "param", "value"),
    [
        ("anthropic", "response_format", {"type": "json_object"}),
        ("anthropic", "seed", 7),
        ("anthropic", "frequency_penalty", 0.5),
        ("gemini", "parallel_tool_calls", False),
    ],
)
async def test_what_litellm_would_drop_is_refused(provider: str, param: str, value: Any) -> None:
    """Each provider has gaps that litellm passes over or that only one of them has."""
    rented = Rented(provider)
    with pytest.raises(BackendError) as refused:
        await rented.ask(**{param: value})
    assert refused.value.param == param
    assert not rented.router.calls


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "image_url", "image_url": "HTTP://example.com/a.png"},
        {"type": "file", "file": {"file_id": "gs://bucket/a.pdf"}},
        {"type": "file", "file": {"file_data": " file:///etc/passwd"}},
        {"type": "unheard_of", "sources": [{"where": "ftp://example.com/a"}]},
        "https://example.com/no-part-at-all",
    ],
)
async def test_no_address_is_fetched(provider: str, part: Any) -> None:
    """An address in the content would make litellm fetch it: refused before anything moves."""
    rented = Rented(provider)
    messages = [{"role": "user", "content": [{"type": "text", "text": "see https://example.com"}, part]}]
    with pytest.raises(BackendError, match="data: URLs") as refused:
        await rented.ask(messages=messages)
    assert refused.value.error_class is ErrorClass.REFUSED
    assert not rented.router.calls


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("embeddings", {"input": "a"}),
        ("completions", {"prompt": ["a", "b"]}),
        ("completions", {"prompt": [1, 2]}),
        ("completions", {"echo": True}),
    ],
)
async def test_what_is_not_offered_is_refused(provider: str, endpoint: str, body: Any) -> None:
    """Embeddings, which litellm sends past its client, and prompts that are not one text."""
    rented = Rented(provider)
    with pytest.raises(BackendError) as refused:
        await rented.ask(endpoint=endpoint, **body)
    assert (refused.value.error_class, refused.value.status) == (ErrorClass.REFUSED, 400)
    assert not rented.router.calls


async def test_a_developer_message_is_a_system_message() -> None:
    """OpenAI's newer role for the same thing."""
    rented = Rented("anthropic")
    rented.records("text.json")
    await rented.ask(messages=[{"role": "developer", "content": "Be short."}, *MESSAGES])
    assert rented.sent_body["system"] == [{"type": "text", "text": "Be short."}]

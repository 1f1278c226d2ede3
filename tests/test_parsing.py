"""`gateway.parsing`: what is read of a body, what is refused, and what goes on."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.parsing import MAX_MODEL, parse, upstream_body
from router_policies.types import Feature

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def parsed(body: Any, endpoint: str = "chat/completions") -> Any:
    return parse(endpoint, msgspec.json.encode(body))


@pytest.mark.parametrize(
    ("endpoint", "body", "param", "code"),
    [
        ("chat/completions", {}, "model", None),
        ("chat/completions", {**CHAT, "model": ""}, "model", None),
        ("chat/completions", {**CHAT, "model": None}, "model", None),
        ("chat/completions", {**CHAT, "model": ["m"]}, "model", None),
        ("chat/completions", {**CHAT, "model": "m" * (MAX_MODEL + 1)}, "model", None),
        ("chat/completions", {"model": "m"}, "messages", "missing_required_parameter"),
        ("chat/completions", {"model": "m", "messages": []}, "messages", "empty_array"),
        ("chat/completions", {"model": "m", "messages": {}}, "messages", "invalid_type"),
        ("chat/completions", {"model": "m", "messages": None}, "messages", "invalid_type"),
        ("chat/completions", {"model": "m", "messages": ["hi"]}, "messages[0]", "invalid_type"),
        (
            "chat/completions",
            {"model": "m", "messages": [{"role": "user"}, {"content": "hi"}]},
            "messages[1]",
            "invalid_type",
        ),
        ("chat/completions", {**CHAT, "stream": "true"}, "stream", "invalid_type"),
        ("chat/completions", {**CHAT, "stream": 1}, "stream", "invalid_type"),
        ("chat/completions", {**CHAT, "stream": True, "stream_options": 7}, "stream_options", "invalid_type"),
        (
            "chat/completions",
            {**CHAT, "stream": True, "stream_options": []},
            "stream_options",
            "invalid_type",
        ),
        ("completions", {"model": "m", "messages": []}, "prompt", "missing_required_parameter"),
        ("embeddings", {"model": "m", "prompt": "x"}, "input", "missing_required_parameter"),
        ("embeddings", {"model": "m", "input": "x", "stream": True}, "stream", "unsupported_parameter"),
    ],
)
def test_refused(endpoint: str, body: Any, param: str, code: str | None) -> None:
    """400 that names the parameter, with OpenAI's code where it has one."""
    with pytest.raises(BadRequest) as caught:
        parsed(body, endpoint)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"model"',
        b"null",
        b"\xff",
        b'\xef\xbb\xbf{"model":"m"}',
        b'{"model":"\xff"}',
        b'{"model":"\\ud800"}',
        b'{"model":"m","x":1e999}',
        b'{"model":"m","x":NaN}',
        b'{"model":"m"} {}',
        b'{"x":' * 100_000,
        b"[" * 1_000_000,
    ],
)
def test_what_is_no_json_object(raw: bytes) -> None:
    """Anything else is a 400, however deep or broken it is."""
    with pytest.raises(BadRequest):
        parse("chat/completions", raw)


@settings(deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from(["model", "messages", "role", "stream"]), inner)
        ),
    ).map(msgspec.json.encode)
)
def test_no_body_breaks_the_parser(raw: bytes) -> None:
    """Whatever comes is either parsed, and can be encoded again, or refused."""
    try:
        request = parse("chat/completions", raw)
    except BadRequest:
        return
    sent = msgspec.json.decode(msgspec.json.encode(upstream_body(request, "other")))
    assert sent["model"] == "other"
    assert sent["messages"] == request.body["messages"]


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({}, set()),
        ({"stream": False, "tools": [], "logprobs": False, "response_format": {"type": "text"}}, set()),
        ({"stream": True}, {Feature.STREAM}),
        ({"tools": [{}]}, {Feature.TOOLS}),
        ({"functions": [{}]}, {Feature.TOOLS}),
        ({"logprobs": True}, {Feature.LOGPROBS}),
        ({"response_format": {"type": "json_object"}}, {Feature.JSON_OBJECT}),
        ({"response_format": {"type": "json_schema"}}, {Feature.JSON_SCHEMA}),
        ({"response_format": {"type": []}}, set()),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}, {"type": "text"}]}]},
            {Feature.VISION},
        ),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, {Feature.AUDIO}),
        ({"messages": [{"role": "user", "content": [{"type": "file"}, 7]}]}, {Feature.FILES}),
    ],
)
def test_features(more: dict[str, Any], features: set[Feature]) -> None:
    """What a request makes use of decides who can answer it."""
    assert parsed({**CHAT, **more}).features == features


@pytest.mark.parametrize(
    ("options", "wanted", "sent"),
    [
        (None, False, {"include_usage": True}),
        ({}, False, {"include_usage": True}),
        ({"include_usage": False, "x": 1}, False, {"include_usage": True, "x": 1}),
        ({"include_usage": True}, True, {"include_usage": True}),
    ],
)
def test_usage_is_always_asked_for(options: Any, wanted: bool, sent: dict[str, Any]) -> None:
    """In a stream we ask for usage whether the client does or not, and remember whether it did."""
    request = parsed({**CHAT, "stream": True, "stream_options": options})
    assert request.wants_usage is wanted
    assert upstream_body(request, "other") == {**request.body, "model": "other", "stream_options": sent}
    assert request.body["model"] == "m"  # what was classified stays as it is


def test_a_whole_answer_is_asked_for_as_it_came() -> None:
    """Without a stream only the model is another."""
    request = parsed({**CHAT, "stream": False, "temperature": 0.1})
    assert upstream_body(request, "other") == {**request.body, "model": "other"}
    assert request.size == len(msgspec.json.encode(request.body))


def test_a_key_that_stands_twice() -> None:
    """The last one counts, and is the only one that goes upstream: both sides read the same body."""
    request = parse("chat/completions", b'{"model":"a","messages":[{"role":"user"}],"model":"b"}')
    assert request.model == "b"
    assert msgspec.json.encode(upstream_body(request, request.model)).count(b'"model"') == 1

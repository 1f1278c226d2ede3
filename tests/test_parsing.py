"""`gateway.parsing`: what is read of a body, what is refused, and what goes on."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.parsing import LIMITS, REQUIRED, Limits, changed, content_of, parse
from router_policies.types import UNBOUNDED, Feature, Parameters

ITEM = {"role": "user", "content": "hi"}
RESPONSE = {"model": "m", "input": "hi"}
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
        ("chat/completions", {**CHAT, "model": "m" * (LIMITS.name + 1)}, "model", "string_above_max_length"),
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
        ("chat/completions", {**CHAT, "tools": "all"}, "tools", "invalid_type"),
        ("chat/completions", {**CHAT, "tools": [7]}, "tools[0]", "invalid_type"),
        ("responses", {"model": "m"}, "input", "missing_required_parameter"),
        ("responses", {"model": "m", "input": None}, "input", "invalid_type"),
        ("responses", {"model": "m", "input": 7}, "input", "invalid_type"),
        ("responses", {"model": "m", "input": []}, "input", "empty_array"),
        ("responses", {"model": "m", "input": [ITEM, "hi"]}, "input[1]", "invalid_type"),
        ("responses", {"model": "m", "input": [{"type": 7}]}, "input[0].type", "invalid_type"),
        ("responses", {**RESPONSE, "stream": 1}, "stream", "invalid_type"),
        ("responses", {**RESPONSE, "stream": True, "stream_options": 7}, "stream_options", "invalid_type"),
    ],
)
def test_refused(endpoint: str, body: Any, param: str, code: str | None) -> None:
    """400 that names the parameter, with OpenAI's code where it has one."""
    with pytest.raises(BadRequest) as caught:
        parsed(body, endpoint)
    assert (caught.value.status, caught.value.param, caught.value.code) == (400, param, code)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1", "variables": {"name": "x"}}}, "prompt"),
        ({"background": True}, "background"),
        ({"input": [ITEM, {"type": "item_reference", "id": "msg_1"}]}, "input[1]"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": None, "id": "msg_1"}]}, "input[0]"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_lies_elsewhere_is_refused(more: dict[str, Any], param: str, stream: bool) -> None:
    """Text that is not in the request cannot be classified: 400 names the parameter, and says why."""
    with pytest.raises(BadRequest) as caught:
        parsed({**RESPONSE, "stream": stream, **more}, "responses")
    assert (caught.value.param, caught.value.code) == (param, "unsupported_parameter")
    assert "gateway" in caught.value.message


def test_a_response_may_say_that_nothing_lies_elsewhere() -> None:
    """Null and false mean what leaving out means; so does a message that echoes its id."""
    nothing = {"previous_response_id": None, "conversation": None, "prompt": None, "background": False}
    assert parsed({**RESPONSE, **nothing}, "responses").body["input"] == "hi"
    assert parsed({**RESPONSE, "input": [{**ITEM, "id": "msg_1"}]}, "responses").model == "m"


def test_the_response_that_a_request_goes_on_from() -> None:
    """Its id is what sessions are asked for; other APIs have no such parameter."""
    named = {"previous_response_id": "resp_1"}
    assert parsed({**RESPONSE, **named}, "responses").previous == "resp_1"
    assert parsed(RESPONSE, "responses").previous is None
    assert parsed({**CHAT, **named}).previous is None


@pytest.mark.parametrize("given", [7, "", ["resp_1"], {"id": "resp_1"}, "r" * 257])
def test_what_is_no_id_of_a_response(given: Any) -> None:
    """400 names the parameter."""
    with pytest.raises(BadRequest) as caught:
        parsed({**RESPONSE, "previous_response_id": given}, "responses")
    assert caught.value.param == "previous_response_id"


def nested(depth: int, inner: str) -> bytes:
    """A body in which `inner` stands so many lists and objects deep, the body itself among them."""
    lists = depth - 1
    return b'{"model":"m","messages":[{"role":"user","content":"x"}],"x":%s}' % (
        b"[" * lists + inner.encode() + b"]" * lists
    )


@pytest.mark.parametrize("inner", ["7", '"[[[[{{{{"'])
def test_depth(inner: str) -> None:
    """As deep as the limit passes and can be sent on; one deeper is refused; brackets in text are text."""
    assert msgspec.json.encode(parse("chat/completions", nested(LIMITS.depth, inner)).body)
    with pytest.raises(BadRequest, match="128 levels"):
        parse("chat/completions", nested(LIMITS.depth + 1, inner))


def test_depth_inside_a_message() -> None:
    """Where the messages are not plain they are looked into as well."""
    deep: Any = "x"
    for _ in range(LIMITS.depth):
        deep = [deep]
    with pytest.raises(BadRequest, match="nested too deeply"):
        parsed({**CHAT, "messages": [ITEM, {"role": "user", "content": deep}]})


FEW = Limits(items=2, tools=1, name=4)


@pytest.mark.parametrize(
    ("endpoint", "body", "param"),
    [
        ("chat/completions", {**CHAT, "messages": [ITEM] * 3}, "messages"),
        ("responses", {**RESPONSE, "input": [ITEM] * 3}, "input"),
        ("chat/completions", {**CHAT, "tools": [{}] * 2}, "tools"),
        ("chat/completions", {**CHAT, "functions": [{}] * 2}, "functions"),
        ("responses", {**RESPONSE, "tools": [{}] * 2}, "tools"),
        ("responses", {**RESPONSE, "model": "gpt-5"}, "model"),
        ("chat/completions", {**CHAT, "messages": [{**ITEM, "name": "Olive"}]}, "messages[0].name"),
        ("responses", {**RESPONSE, "input": [{"type": "function_call", "name": "clock"}]}, "input[0].name"),
        ("chat/completions", {**CHAT, "tools": [{"function": {"name": "clock"}}]}, "tools[0].function.name"),
        ("chat/completions", {**CHAT, "functions": [{"name": "clock"}]}, "functions[0].name"),
        ("responses", {**RESPONSE, "tools": [{"name": "clock"}]}, "tools[0].name"),
    ],
)
def test_limits(endpoint: str, body: Any, param: str) -> None:
    """One more than the limit is refused in OpenAI's words; with the limits that ship it passes."""
    with pytest.raises(BadRequest, match="too long") as caught:
        parse(endpoint, msgspec.json.encode(body), FEW)
    assert caught.value.param == param
    assert (caught.value.code or "").endswith("above_max_length")
    parsed(body, endpoint)


def test_as_many_as_the_limits_allow() -> None:
    """The limit itself is allowed."""
    body = {"model": "gpt4", "messages": [{**ITEM, "name": "Olli"}] * 2, "tools": [{"name": "cron"}]}
    assert parse("chat/completions", msgspec.json.encode(body), FEW).body == body


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


KEYS = [
    "model",
    "messages",
    "input",
    "prompt",
    "role",
    "content",
    "type",
    "stream",
    "stream_options",
    "tools",
]


@settings(deadline=None)
@given(
    st.sampled_from(sorted(REQUIRED)),
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.just("m"),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner),
    )
    .map(lambda value: {"model": "m", **value} if isinstance(value, dict) else value)
    .map(msgspec.json.encode),
)
def test_no_body_breaks_the_parser(endpoint: str, raw: bytes) -> None:
    """Whatever comes is either parsed, and can be encoded again, or refused."""
    try:
        request = parse(endpoint, raw)
    except BadRequest:
        return
    sent = msgspec.json.decode(content_of(request))
    assert "model" not in sent
    content = REQUIRED[endpoint]
    assert sent[content] == request.body[content]


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


def without_model(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "model"}


def item(*parts: dict[str, Any], under: str = "content") -> dict[str, Any]:
    return {"input": [{"role": "user", under: list(parts)}]}


@pytest.mark.parametrize(
    ("more", "features"),
    [
        ({}, set()),
        ({"stream": True}, {Feature.STREAM}),
        ({"tools": [{"type": "web_search"}]}, {Feature.TOOLS}),
        ({"text": {"format": {"type": "json_schema"}}}, {Feature.JSON_SCHEMA}),
        ({"text": {"format": {"type": "json_object"}}}, {Feature.JSON_OBJECT}),
        ({"text": {"format": {"type": "text"}, "verbosity": "low"}}, set()),
        ({"text": "json", "response_format": {"type": "json_object"}}, set()),  # that is the chats' parameter
        ({"top_logprobs": 2}, {Feature.LOGPROBS}),
        ({"include": ["message.output_text.logprobs"]}, {Feature.LOGPROBS}),
        ({"include": ["reasoning.encrypted_content"]}, set()),
        (item({"type": "input_text"}, {"type": "input_image"}), {Feature.VISION}),
        (item({"type": "input_file"}), {Feature.FILES}),
        (item({"type": "input_audio"}), {Feature.AUDIO}),
        (item({"type": "input_image"}, under="output"), {Feature.VISION}),
        ({"input": [{"type": "x", "output": {"type": "computer_screenshot"}}]}, {Feature.VISION}),
    ],
)
def test_features_of_responses(more: dict[str, Any], features: set[Feature]) -> None:
    """The same features under the names that the Responses API has for them."""
    assert parsed({**RESPONSE, **more}, "responses").features == features


def test_a_stream_of_responses_is_asked_for_as_it_came() -> None:
    """Its usage comes in the last event, unasked, and `stream_options` has no such key there."""
    body = {**RESPONSE, "stream": True, "stream_options": {"include_obfuscation": False}}
    request = parsed(body, "responses")
    assert request.wants_usage
    assert msgspec.json.decode(content_of(request)) == without_model(body)


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
    expected = {**without_model(request.body), "stream_options": sent}
    assert msgspec.json.decode(content_of(request)) == expected
    assert request.body["model"] == "m"  # what was classified stays as it is


def test_a_whole_answer_is_asked_for_as_it_came() -> None:
    """Without a stream only the model is another."""
    request = parsed({**CHAT, "stream": False, "temperature": 0.1})
    assert content_of(request) == msgspec.json.encode(without_model(request.body))
    assert request.size == len(msgspec.json.encode(request.body))


def test_a_key_that_stands_twice() -> None:
    """The last one counts, and is the only one that goes upstream: both sides read the same body."""
    request = parse("chat/completions", b'{"model":"a","messages":[{"role":"user"}],"model":"b"}')
    assert request.model == "b"
    assert b'"model"' not in content_of(request)


def test_metadata_speaks_as_our_headers_do() -> None:
    """Clients that cannot set headers give class and tags in `metadata`; other entries mean nothing to us."""
    given = {"x-headgate-privacy": "confidential", "x-headgate-tags": "a, b", "order": "7"}
    request = parsed({**CHAT, "metadata": given})
    assert request.asked_privacy == ("confidential",)
    assert request.tags == {"a", "b"}
    assert request.body["metadata"] == given
    plain = parsed({**CHAT, "metadata": {"order": "7"}})
    assert (plain.asked_privacy, plain.tags) == ((), frozenset())


@pytest.mark.parametrize("name", ["x-headgate-privacy", "x-headgate-tags"])
def test_metadata_that_is_no_text(name: str) -> None:
    """A class that cannot be read must not count as none."""
    with pytest.raises(BadRequest, match="'metadata' must be an object of strings"):
        parsed({**CHAT, "metadata": {name: ["restricted"]}})


def test_what_a_decision_may_depend_on() -> None:
    """Text in `metadata`, the task label, who is asked for, and the lowest limit on the answer."""
    given = {"x-headgate-task": "sort", "region": "eu", "nested": {"a": 1}}
    request = parsed(
        {**CHAT, "metadata": given, "user": "ann", "max_tokens": 90, "max_completion_tokens": 80}
    )
    assert (request.task, request.user, request.output_tokens) == ("sort", "ann", 80)
    assert request.metadata == {"x-headgate-task": "sort", "region": "eu"}
    plain = parsed(CHAT)
    assert (plain.task, plain.user, plain.output_tokens, plain.metadata) == ("", "", UNBOUNDED, {})


@pytest.mark.parametrize(
    ("endpoint", "given", "expected"),
    [
        ("chat/completions", {}, {"max_completion_tokens": 100, "temperature": 0.5, "seed": 7}),
        ("chat/completions", {"max_tokens": 50}, {"max_tokens": 50, "temperature": 0.5, "seed": 7}),
        (
            "chat/completions",
            {"max_tokens": 500, "max_completion_tokens": 99, "temperature": 2, "n": 9},
            {"max_tokens": 100, "max_completion_tokens": 99, "temperature": 0.5, "seed": 7, "n": 2},
        ),
        ("chat/completions", {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 100,
                                                    "temperature": 0.5, "seed": 7}),
        ("completions", {"max_tokens": 0}, {"max_tokens": 0, "temperature": 0.5, "seed": 7}),
        ("responses", {}, {"max_output_tokens": 100, "temperature": 0.5}),
        ("embeddings", {}, {}),
    ],
)  # fmt: skip
def test_what_a_route_changes(endpoint: str, given: Any, expected: Any) -> None:
    """Limits come down to the cap under the client's own name for them; overrides go where they are known."""
    parameters = Parameters(most_output=100, most_choices=2, override={"temperature": 0.5, "seed": 7})
    body = {"model": "m", "content": [1], **given}
    before = dict(body)
    assert changed(endpoint, body, parameters) == {"model": "m", "content": [1], **expected}
    assert body == before

"""A client's body, decoded once into what the later stages need, or refused in OpenAI's words.

A request of the Responses API may point at what the provider keeps: a conversation, a prompt, an item. Its
text is not in the request, so no class can be given to it: such a request is refused. An earlier response has
a class where its answer came through here, which `privacy/sessions.py` knows. Encrypted items pass: only the
provider that wrote them can read them, and has read them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway.errors import BadRequest
from gateway.privacy.mask import Masked
from router_policies.types import UNBOUNDED, Feature, Parameters

REQUIRED = {
    "chat/completions": "messages",
    "completions": "prompt",
    "embeddings": "input",
    "responses": "input",
}
"""Endpoint below /v1/ -> the parameter that carries its content."""

STREAMED = frozenset({"chat/completions", "completions", "responses"})

OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_LIMITED = frozenset(OUTPUT_LIMITS)
_OUTPUT_LIMIT = {  # where the client gave none
    "chat/completions": "max_completion_tokens",
    "completions": "max_tokens",
    "responses": "max_output_tokens",
}
_SAMPLING = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")
_KNOWN = {
    "chat/completions": frozenset(_SAMPLING),
    "completions": frozenset(_SAMPLING),
    "embeddings": frozenset[str](),
    "responses": frozenset({"temperature", "top_p"}),
}
_ELSEWHERE = {
    "conversation": "a stored conversation",
    "prompt": "a stored prompt",
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a body may hold at most."""

    depth: int = 128  # lists and objects within each other
    items: int = 10_000  # messages of a chat, items of a response's input
    tools: int = 1_024
    name: int = 256  # characters of the name of a model, tool or participant
    tags: int = 32
    tag: int = 64  # characters


LIMITS = Limits()


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is the whole request as decoded: what is classified is what is sent (DECISIONS 4)."""

    endpoint: str
    body: dict[str, Any]
    model: str
    stream: bool
    wants_usage: bool  # the client gets a stream's usage: it asked, or the API has no stream without
    features: frozenset[Feature]
    size: int  # bytes
    previous: str | None = None  # the id of the response that it goes on from
    asked_privacy: tuple[str, ...] = ()  # metadata["x-headgate-privacy"]
    tags: frozenset[str] = frozenset()  # metadata["x-headgate-tags"], comma-separated
    metadata: Mapping[str, str] = {}
    task: str = ""  # metadata["x-headgate-task"]
    user: str = ""
    output_tokens: int = UNBOUNDED  # the client's limit
    masked: Masked | None = None


def parse(endpoint: str, raw: bytes, limits: Limits = LIMITS) -> Request:
    """Raises BadRequest naming the parameter."""
    body = _decode(raw, limits)
    model = body.get("model")
    if type(model) is not str or not model:
        raise BadRequest("you must provide a model parameter", param="model")
    _check_name("model", model, limits)
    previous = _previous(body, limits) if endpoint == "responses" else None
    is_plain = _check_content(endpoint, body, limits)
    _check_depth(body, limits, shallow=body[REQUIRED[endpoint]] if is_plain else None)
    stream, features, wants_usage = False, _NO_FEATURES, False
    if not (is_plain and _TELLING.isdisjoint(body)):
        stream = _check_stream(endpoint, body)
        wants_usage = stream and _wants_usage(endpoint, body)
        if "tools" in body or "functions" in body:
            _check_tools(body, limits)
        features = _features(endpoint, body, stream=stream, is_plain=is_plain)
    words = _words(body["metadata"], limits) if "metadata" in body else _NO_WORDS
    user = body.get("user")
    return Request(
        endpoint=endpoint,
        body=body,
        model=model,
        stream=stream,
        wants_usage=wants_usage,
        features=features,
        size=len(raw),
        previous=previous,
        asked_privacy=words.privacy,
        tags=words.tags,
        metadata=words.metadata,
        task=words.task,
        user=user if type(user) is str else "",
        output_tokens=UNBOUNDED if _LIMITED.isdisjoint(body) else _output_limit(body),
    )


def read_tags(given: str, limits: Limits = LIMITS) -> frozenset[str]:
    """`x-headgate-tags: a, b`. Raises BadRequest."""
    if not given:
        return frozenset()
    tags = frozenset(tag for tag in map(str.strip, given.split(",")) if tag)
    if len(tags) > limits.tags or any(len(tag) > limits.tag for tag in tags):
        most = f"at most {limits.tags} tags of {limits.tag} characters"
        raise BadRequest(f"x-headgate-tags takes {most}.", param="x-headgate-tags")
    return tags


def read_task(given: str, limits: Limits = LIMITS) -> str:
    """`x-headgate-task: any-label`. Raises BadRequest."""
    if len(given) > limits.tag:
        raise BadRequest(f"x-headgate-task takes {limits.tag} characters.", param="x-headgate-task")
    return given.strip()


class _Words(msgspec.Struct, frozen=True):
    """What `metadata` says to us, under the names of our headers: for clients that cannot set those."""

    privacy: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    task: str = ""
    metadata: Mapping[str, str] = {}


_NO_WORDS = _Words()


def _words(metadata: object, limits: Limits) -> _Words:
    if type(metadata) is not dict:
        return _NO_WORDS
    privacy, tags, task = (metadata.get(f"x-headgate-{name}", "") for name in ("privacy", "tags", "task"))
    if type(privacy) is not str or type(tags) is not str or type(task) is not str:
        raise _wrong_type("metadata", "an object of strings")
    strings = {key: value for key, value in metadata.items() if type(value) is str}
    return _Words((privacy,) if privacy else (), read_tags(tags, limits), read_task(task, limits), strings)


def _output_limit(body: dict[str, Any]) -> int:
    """The lowest of the limits that the client set on the answer's tokens."""
    given = [body[name] for name in OUTPUT_LIMITS if name in body]
    return min((limit for limit in given if type(limit) is int and limit >= 0), default=UNBOUNDED)


def changed(endpoint: str, body: dict[str, Any], parameters: Parameters) -> dict[str, Any]:
    """The body with what a route caps and overrides, where the endpoint knows it.

    Nothing but numbers changes, so the class of the request stays what it is.
    """
    body = body | {name: v for name, v in parameters.override.items() if name in _KNOWN[endpoint]}
    most = parameters.most_output
    if most is not None and endpoint in _OUTPUT_LIMIT:
        given = {name: body[name] for name in OUTPUT_LIMITS if type(body.get(name)) is int}
        body |= {name: min(limit, most) for name, limit in given.items()} or {_OUTPUT_LIMIT[endpoint]: most}
    choices = body.get("n")
    if parameters.most_choices is not None and type(choices) is int:
        body["n"] = min(choices, parameters.most_choices)
    return body


def content_of(request: Request) -> bytes:
    """What goes to any backend, as JSON: all of the body but the model, which each candidate has its own of.

    In streams usage is always asked for.
    """
    content = request.body.copy()
    del content["model"]
    if request.stream and request.endpoint != "responses":  # whose last event always has it
        content["stream_options"] = {**(content.get("stream_options") or {}), "include_usage": True}
    return _encode_any(content)


_encode_any = msgspec.json.Encoder().encode
_decode_any = msgspec.json.Decoder().decode


def _decode(raw: bytes, limits: Limits) -> dict[str, Any]:
    try:
        body = _decode_any(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from error
    except RecursionError as error:
        raise _too_deep(limits) from error
    if type(body) is not dict:
        raise BadRequest("The body of your request must be a JSON object.")
    return body


def _check_depth(body: dict[str, Any], limits: Limits, *, shallow: object) -> None:
    """Level by level: lists and objects alone go on to the next, without `shallow`, which has no more."""
    level: list[Any] = [body]
    for _ in range(limits.depth):
        below: list[Any] = []
        for node in level:
            for value in node.values() if type(node) is dict else node:
                if (type(value) is dict or type(value) is list) and value is not shallow:
                    below.append(value)
        if not below:
            return
        level = below
    raise _too_deep(limits)


# Content.


def _check_content(endpoint: str, body: dict[str, Any], limits: Limits) -> bool:
    """Whether it is plain: a text, or messages of a role and a text each."""
    if endpoint == "responses":
        _check_nothing_elsewhere(body)
    param = REQUIRED[endpoint]
    content = body.get(param)
    if content is None and param not in body:
        raise BadRequest(
            f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
        )
    if endpoint == "chat/completions":
        return _check_messages(content, limits)
    if endpoint == "responses" and type(content) is not str:
        _check_input(content, limits)
    return type(content) is str


def _check_messages(messages: object, limits: Limits) -> bool:
    is_plain = True
    for i, message in enumerate(_counted("messages", messages, limits.items)):
        if type(message) is not dict or type(message.get("role")) is not str:
            raise _wrong_type(f"messages[{i}]", "an object with a 'role'")
        if len(message) > 2 or type(message.get("content")) is not str:
            is_plain = False
            _check_name(f"messages[{i}].name", message.get("name"), limits)
    return is_plain


def _check_input(items: object, limits: Limits) -> None:
    if type(items) is not list:
        raise _wrong_type("input", "a string or an array")
    for i, item in enumerate(_counted("input", items, limits.items)):
        if type(item) is not dict:
            raise _wrong_type(f"input[{i}]", "an object")
        kind = item.get("type")
        if kind == "item_reference" or (kind is None and "role" not in item):  # the type may be left out
            raise _elsewhere(f"input[{i}]", "an item that is kept elsewhere")
        if kind is not None and type(kind) is not str:
            raise _wrong_type(f"input[{i}].type", "a string")
        _check_name(f"input[{i}].name", item.get("name"), limits)


def _check_nothing_elsewhere(body: dict[str, Any]) -> None:
    for param, what in _ELSEWHERE.items():
        if body.get(param) is not None:
            raise _elsewhere(param, what)
    if body.get("background"):
        reason = "This gateway answers while you wait and keeps no responses: 'background' is not supported."
        raise _unsupported("background", reason)


def _previous(body: dict[str, Any], limits: Limits) -> str | None:
    given = body.get("previous_response_id")
    if given is None:
        return None
    if type(given) is not str or not given:
        raise _wrong_type("previous_response_id", "the id of a response")
    _check_name("previous_response_id", given, limits)
    return given


def _check_stream(endpoint: str, body: dict[str, Any]) -> bool:
    stream = body.get("stream") or False
    if type(stream) is not bool:
        raise _wrong_type("stream", "a boolean")
    if stream and endpoint not in STREAMED:
        raise _unsupported("stream", f"/v1/{endpoint} does not stream.")
    return stream


def _check_tools(body: dict[str, Any], limits: Limits) -> None:
    for param in ("tools", "functions"):
        given = body.get(param)
        for i, tool in enumerate(_counted(param, given, limits.tools) if given else ()):
            if type(tool) is not dict:
                raise _wrong_type(f"{param}[{i}]", "an object")
            function = tool.get("function")
            _check_name(f"{param}[{i}].name", tool.get("name"), limits)
            if type(function) is dict:
                _check_name(f"{param}[{i}].function.name", function.get("name"), limits)


def _counted(param: str, given: object, most: int) -> list[Any]:
    """`given` as the list that it must be, neither empty nor too long."""
    if type(given) is not list:
        raise _wrong_type(param, "an array")
    if not given:
        raise BadRequest(f"'{param}' must not be empty.", param=param, code="empty_array")
    if len(given) > most:
        said = f"expected an array with maximum length {most}, but got an array with length {len(given)}"
        raise BadRequest(
            f"Invalid '{param}': array too long, {said}.", param=param, code="array_above_max_length"
        )
    return given


def _check_name(param: str, name: object, limits: Limits) -> None:
    if type(name) is str and len(name) > limits.name:
        raise _too_long(param, name, limits.name)


def _wants_usage(endpoint: str, body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise _wrong_type("stream_options", "an object")
    return endpoint == "responses" or (options is not None and options.get("include_usage") is True)


# Refusals.


def _too_deep(limits: Limits) -> BadRequest:
    return BadRequest(
        f"The JSON body of your request is nested too deeply: {limits.depth} levels are allowed."
    )


def _wrong_type(param: str, expected: str) -> BadRequest:
    return BadRequest(f"'{param}' must be {expected}.", param=param, code="invalid_type")


def _too_long(param: str, given: str, most: int) -> BadRequest:
    said = f"expected a string with maximum length {most}, but got a string with length {len(given)}"
    return BadRequest(
        f"Invalid '{param}': string too long, {said}.", param=param, code="string_above_max_length"
    )


def _unsupported(param: str, message: str) -> BadRequest:
    return BadRequest(message, param=param, code="unsupported_parameter")


def _elsewhere(param: str, what: str) -> BadRequest:
    reason = "the gateway cannot see its text, so it cannot tell how sensitive the request is"
    return _unsupported(param, f"'{param}' refers to {what}: {reason}. Send all of the content in 'input'.")


# What a request makes use of.

_PARTS = {
    "image_url": Feature.VISION,
    "input_audio": Feature.AUDIO,
    "file": Feature.FILES,
    # Responses
    "input_image": Feature.VISION,
    "input_file": Feature.FILES,
    "computer_screenshot": Feature.VISION,
}
_TELLING = frozenset(
    {"stream", "tools", "functions", "logprobs", "top_logprobs", "include", "response_format", "text"}
)
_NO_FEATURES: frozenset[Feature] = frozenset()
_FORMATS = {"json_object": Feature.JSON_OBJECT, "json_schema": Feature.JSON_SCHEMA}


def _features(endpoint: str, body: dict[str, Any], *, stream: bool, is_plain: bool) -> frozenset[Feature]:
    found = {Feature.STREAM} if stream else set()
    if body.get("tools") or body.get("functions"):
        found.add(Feature.TOOLS)
    if body.get("logprobs") or body.get("top_logprobs") or _includes_logprobs(body):
        found.add(Feature.LOGPROBS)
    if "response_format" in body or "text" in body:
        found.update(_format_features(endpoint, body))
    content = body[REQUIRED[endpoint]]
    if not is_plain and type(content) is list:
        found.update(_part_features(content))
    return frozenset(found)


def _includes_logprobs(body: dict[str, Any]) -> bool:
    """How a response is asked for them."""
    include = body.get("include")
    return isinstance(include, list) and "message.output_text.logprobs" in include


def _format_features(endpoint: str, body: dict[str, Any]) -> Iterator[Feature]:
    wanted = body.get("response_format")
    if endpoint == "responses":
        text = body.get("text")
        wanted = text.get("format") if isinstance(text, dict) else None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if isinstance(kind, str) and kind in _FORMATS:
        yield _FORMATS[kind]


def _part_features(items: list[Any]) -> Iterator[Feature]:
    """What the content parts of messages, and what tools put out, make use of."""
    for item in items:
        if type(item) is not dict:  # a text or a token to embed
            continue
        for content in (item.get("content"), item.get("output")):
            if content is None or type(content) is str:
                continue
            for part in content if type(content) is list else (content,):
                kind = part.get("type") if type(part) is dict else None
                if type(kind) is str and kind in _PARTS:
                    yield _PARTS[kind]

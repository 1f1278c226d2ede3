"""A client's body, decoded once into what the later stages need, or refused in OpenAI's words."""

from typing import Any

import msgspec

from gateway.errors import BadRequest
from router_policies.types import Feature

MAX_MODEL = 256  # characters

REQUIRED = {"chat/completions": "messages", "completions": "prompt", "embeddings": "input"}
"""Endpoint below /v1/ -> the parameter that carries its content."""

STREAMED = frozenset({"chat/completions", "completions"})


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is the whole request as decoded: what is classified is what is sent (DECISIONS 4)."""

    endpoint: str
    body: dict[str, Any]
    model: str
    stream: bool
    wants_usage: bool  # the client itself asked for the stream's usage event
    features: frozenset[Feature]
    size: int  # bytes


def parse(endpoint: str, raw: bytes) -> Request:
    """Raises BadRequest naming the parameter."""
    body = _decode(raw)
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter", param="model")
    if len(model) > MAX_MODEL:
        raise BadRequest(f"model names have at most {MAX_MODEL} characters", param="model")
    content = REQUIRED[endpoint]
    if content not in body:
        raise BadRequest(
            f"Missing required parameter: '{content}'.", param=content, code="missing_required_parameter"
        )
    if content == "messages":
        _check_messages(body["messages"])
    stream = body.get("stream") or False
    if not isinstance(stream, bool):
        raise BadRequest("'stream' must be a boolean.", param="stream", code="invalid_type")
    if stream and endpoint not in STREAMED:
        raise BadRequest(f"/v1/{endpoint} does not stream.", param="stream", code="unsupported_parameter")
    return Request(
        endpoint=endpoint,
        body=body,
        model=model,
        stream=stream,
        wants_usage=stream and _wants_usage(body),
        features=frozenset(_features(body, stream=stream)),
        size=len(raw),
    )


def upstream_body(request: Request, model: str) -> dict[str, Any]:
    """What goes to the backend: the candidate's model, and usage always asked for in streams."""
    body = {**request.body, "model": model}
    if request.stream:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    return body


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"We could not parse the JSON body of your request: {error}") from error
    except RecursionError as error:
        raise BadRequest("The JSON body of your request is nested too deeply.") from error
    if not isinstance(body, dict):
        raise BadRequest("The body of your request must be a JSON object.")
    return body


def _check_messages(messages: object) -> None:
    if not isinstance(messages, list):
        raise BadRequest("'messages' must be an array.", param="messages", code="invalid_type")
    if not messages:
        raise BadRequest("'messages' must not be empty.", param="messages", code="empty_array")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise BadRequest(
                f"'messages[{i}]' must be an object with a 'role'.",
                param=f"messages[{i}]",
                code="invalid_type",
            )


def _wants_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise BadRequest("'stream_options' must be an object.", param="stream_options", code="invalid_type")
    return options.get("include_usage") is True


PART_FEATURES = {
    "image_url": Feature.VISION,
    "input_audio": Feature.AUDIO,
    "file": Feature.FILES,
}
FORMAT_FEATURES = {"json_object": Feature.JSON_OBJECT, "json_schema": Feature.JSON_SCHEMA}


def _features(body: dict[str, Any], *, stream: bool) -> set[Feature]:
    found = {Feature.STREAM} if stream else set()
    if body.get("tools") or body.get("functions"):
        found.add(Feature.TOOLS)
    if body.get("logprobs"):
        found.add(Feature.LOGPROBS)
    response_format = body.get("response_format")
    if isinstance(response_format, dict):
        kind = FORMAT_FEATURES.get(str(response_format.get("type")))
        found |= {kind} if kind else set()
    return found | _part_features(body.get("messages"))


def _part_features(messages: object) -> set[Feature]:
    found = set()
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            kind = PART_FEATURES.get(str(part.get("type"))) if isinstance(part, dict) else None
            if kind:
                found.add(kind)
    return found

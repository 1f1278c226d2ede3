"""What the fake provider makes of a request: read once, checked a little, turned into a `Generation`."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

from gateway.backends import fake_tokens
from gateway.backends.fake_text import NOTICE, Reply, ToolCall, instance

_MAX_CHOICES = 128


class WireError(Exception):
    """A refusal in OpenAI's envelope."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.envelope = {"error": {"message": message, "type": type, "param": param, "code": code}}


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What was generated for one chat or completion. All choices say the same."""

    id: str
    created: int
    model: str
    choices: int
    tool: ToolCall | None
    pieces: Sequence[str]  # of the text, or of the tool call's arguments
    finish: str
    top_logprobs: int | None
    usage: dict[str, Any]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def usage(prompt: int, cached: int, completion: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def required(body: dict[str, Any], name: str) -> Any:
    if not body.get(name):
        raise WireError(
            f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
        )
    return body[name]


def chat(body: dict[str, Any], reply: Reply | None, cache: fake_tokens.PrefixCache) -> Generation:
    """What a chat is answered with; `reply` goes before the fake's own words."""
    model = required(body, "model")
    required(body, "messages")
    said = reply if reply is not None else _own_reply(body)
    tokens, extra = fake_tokens.chat_prompt(body)
    return _generate(
        body,
        said,
        prefix="chatcmpl",
        limit=body.get("max_completion_tokens") or body.get("max_tokens"),
        top_logprobs=(body.get("top_logprobs") or 0) if body.get("logprobs") else None,
        choices=_choices(body),
        prompt=len(tokens) + extra,
        cached=cache.hit(model, tokens),
    )


def completion(body: dict[str, Any], reply: Reply | None, cache: fake_tokens.PrefixCache) -> Generation:
    """What a completion is answered with: each prompt gets `n` choices of the same text."""
    model = required(body, "model")
    prompts = [fake_tokens.text_tokens(p) for p in inputs(required(body, "prompt"))]
    return _generate(
        body,
        reply if isinstance(reply, str) else NOTICE,
        prefix="cmpl",
        limit=body.get("max_tokens") or 16,  # OpenAI's default for this endpoint
        top_logprobs=body.get("logprobs"),
        choices=_choices(body) * len(prompts),
        prompt=sum(map(len, prompts)),
        cached=sum(cache.hit(model, p) for p in prompts),
    )


def inputs(given: Any) -> list[Any]:
    """A prompt or input as a list of texts or token lists: clients may send one or many, of either."""
    many = isinstance(given, list) and not isinstance(given[0], int)
    return given if many else [given]


def _generate(
    body: dict[str, Any],
    said: Reply,
    *,
    prefix: str,
    limit: int | None,
    top_logprobs: int | None,
    choices: int,
    prompt: int,
    cached: int,
) -> Generation:
    tool = said if isinstance(said, ToolCall) else None
    text = said.arguments if isinstance(said, ToolCall) else _stopped(said, body.get("stop"))
    all_pieces = fake_tokens.pieces(text)
    pieces = all_pieces[:limit]
    whole = len(pieces) == len(all_pieces)
    return Generation(
        id=f"{prefix}-{uuid.uuid4().hex}",
        created=int(time.time()),
        model=body["model"],
        choices=choices,
        tool=tool,
        pieces=pieces,
        finish="length" if not whole else "tool_calls" if tool else "stop",
        top_logprobs=top_logprobs,
        usage=usage(prompt, cached, len(pieces) * choices),
    )


def _choices(body: dict[str, Any]) -> int:
    n: int = body.get("n") or 1
    if not 1 <= n <= _MAX_CHOICES:
        raise WireError(f"Invalid 'n': expected 1 to {_MAX_CHOICES}, got {n}.", param="n")
    return n


def _own_reply(body: dict[str, Any]) -> Reply:
    tool = _tool_asked(body)
    if tool is not None:
        arguments = instance(tool.get("parameters", {"type": "object"}))
        return ToolCall(name=tool["name"], arguments=msgspec.json.encode(arguments).decode())
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return msgspec.json.encode(instance(wanted["json_schema"]["schema"])).decode()
    return '{"fake": true}' if wanted.get("type") == "json_object" else NOTICE


def _tool_asked(body: dict[str, Any]) -> dict[str, Any] | None:
    """The function that `tool_choice` demands: the named one, or the first where any will do."""
    functions: list[dict[str, Any]] = [
        t["function"] for t in body.get("tools") or [] if t.get("type") == "function"
    ]
    choice = body.get("tool_choice")
    if choice == "required":
        return functions[0] if functions else None
    if not isinstance(choice, dict) or choice.get("type") != "function":
        return None
    name = choice["function"]["name"]
    found = next((f for f in functions if f["name"] == name), None)
    if found is None:
        raise WireError(f"Tool choice '{name}' not found in 'tools' parameter.", param="tool_choice")
    return found


def _stopped(text: str, stop: str | list[str] | None) -> str:
    """The text before the first stop sequence."""
    ends = [text.find(s) for s in ([stop] if isinstance(stop, str) else stop or []) if s in text]
    return text[: min(ends)] if ends else text

"""litellm's answers, as plain dicts, put on OpenAI's wire: what its API describes, and nothing besides.

litellm adds fields of its own, gives null where OpenAI leaves out, leaves out what OpenAI requires, and puts
usage on a chunk that also has a choice.
"""

from collections.abc import Callable
from typing import Any

import msgspec

Json = dict[str, Any]

_MESSAGE = ("reasoning_content", "tool_calls")  # beside role, content and refusal, which are always there
_DELTA = ("role", "content", "refusal", "reasoning_content", "tool_calls")
_DETAILS = {
    "prompt_tokens_details": (
        *("cached_tokens", "cache_write_tokens", "cache_creation_token_details"),
        *("audio_tokens", "image_tokens"),
    ),
    "completion_tokens_details": ("reasoning_tokens", "audio_tokens", "image_tokens"),
}


class Rendering(msgspec.Struct, frozen=True, kw_only=True):
    """How one endpoint's answers are written: whole, and as the data of an event."""

    whole: Callable[[Json, bool], Json]
    chunk: Callable[[Json], Json]


def body(rendering: Rendering, answer: Json, *, counted: bool) -> bytes:
    """A whole answer. Usage goes in only if the provider `counted`: litellm's own counts are guesses."""
    return msgspec.json.encode(rendering.whole(answer, counted))


def events(rendering: Rendering, chunk: Json, *, counted: bool) -> list[bytes]:
    """The events for one of litellm's chunks: what it adds to the answer, and its usage apart."""
    written = []
    rendered = rendering.chunk(chunk)
    if rendered["choices"]:
        written.append(_event(rendered))
    if counted and chunk.get("usage"):
        written.append(_event({**rendered, "choices": [], "usage": _usage(chunk["usage"])}))
    return written


def finished(chunk: Json) -> bool:
    return any(choice.get("finish_reason") for choice in chunk["choices"])


def _event(data: Json) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _chat(answer: Json, counted: bool) -> Json:
    return _object(answer, "chat.completion", [_choice(c) for c in answer["choices"]], counted)


def _choice(choice: Json) -> Json:
    said = choice["message"]
    message = {"role": "assistant", "content": said.get("content"), "refusal": said.get("refusal")}
    message |= {name: said[name] for name in _MESSAGE if said.get(name)}
    if "tool_calls" in message:
        message["tool_calls"] = [_tool_call(call, streamed=False) for call in message["tool_calls"]]
    return {
        "index": choice["index"],
        "message": message,
        "logprobs": None,
        "finish_reason": choice["finish_reason"],
    }


def _chat_chunk(chunk: Json) -> Json:
    choices = [_delta_choice(c) for c in chunk["choices"]]
    said = [c for c in choices if c["delta"] or c["finish_reason"]]
    return _object(chunk, "chat.completion.chunk", said, counted=False)


def _delta_choice(choice: Json) -> Json:
    delta = {name: choice["delta"][name] for name in _DELTA if choice["delta"].get(name)}
    if "tool_calls" in delta:
        delta["tool_calls"] = [_tool_call(call, streamed=True) for call in delta["tool_calls"]]
    return {
        "index": choice["index"],
        "delta": delta,
        "logprobs": None,
        "finish_reason": choice.get("finish_reason"),
    }


def _tool_call(call: Json, *, streamed: bool) -> Json:
    """In a stream only the first piece of a call has its id, type and name."""
    function = {name: value for name, value in call["function"].items() if value is not None}
    begun = {"id": call["id"], "type": "function"} if call.get("id") else {}
    return {**({"index": call["index"]} if streamed else {}), **begun, "function": function}


def _completion(answer: Json, counted: bool) -> Json:
    choices = [_text_choice(c, c["message"].get("content")) for c in answer["choices"]]
    return _object(answer, "text_completion", choices, counted)


def _completion_chunk(chunk: Json) -> Json:
    choices = [_text_choice(c, c["delta"].get("content")) for c in chunk["choices"]]
    said = [c for c in choices if c["text"] or c["finish_reason"]]
    return _object(chunk, "text_completion", said, counted=False)


def _text_choice(choice: Json, text: str | None) -> Json:
    finish = choice.get("finish_reason")
    return {"index": choice["index"], "text": text or "", "logprobs": None, "finish_reason": finish}


def _object(answer: Json, kind: str, choices: list[Json], counted: bool) -> Json:
    return {
        "id": answer["id"],
        "object": kind,
        "created": answer["created"],
        "model": answer["model"],
        "choices": choices,
        **({"usage": _usage(answer["usage"])} if counted and answer.get("usage") else {}),
    }


def _usage(found: Json) -> Json:
    """litellm has put Anthropic's cached tokens, which that counts apart, into `prompt_tokens`, once."""
    counts = ("prompt_tokens", "completion_tokens", "total_tokens")
    usage: Json = {name: found.get(name) or 0 for name in counts}
    for name, meters in _DETAILS.items():
        details = found.get(name) or {}
        usage[name] = {meter: details[meter] for meter in meters if details.get(meter) is not None}
    return usage


RENDERINGS = {
    "chat/completions": Rendering(whole=_chat, chunk=_chat_chunk),
    "completions": Rendering(whole=_completion, chunk=_completion_chunk),
}

"""The Responses API of the fake provider: https://platform.openai.com/docs/api-reference/responses.

A request is read as the chat that it amounts to, so what is said and counted is what a chat gets; the answer
is written as a response object, or as the events that build one up.
"""

import uuid
from collections.abc import Container, Iterator, Sequence
from typing import Any

import msgspec

from gateway.backends import fake_generate, fake_tokens
from gateway.backends.fake_generate import Generation, WireError, required
from gateway.backends.fake_text import Reply, content_text
from gateway.backends.fake_wire import logprobs

Json = dict[str, Any]

_ECHOED: Json = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "top_p": 1.0,
    "truncation": "disabled",
}
"""What a response repeats of its request -> what stands there when that did not say."""


def as_chat(body: Json) -> Json:
    """The chat that a request amounts to."""
    given, include = body.get("input") or [], body.get("include") or []
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    instructions = body.get("instructions")
    first = [{"role": "system", "content": instructions}] if instructions else []
    wanted = (body.get("text") or {}).get("format") or {}
    choice = body.get("tool_choice")
    return {
        "model": body.get("model"),
        "messages": [*first, *map(_message, items)],
        "max_completion_tokens": body.get("max_output_tokens"),
        "logprobs": "message.output_text.logprobs" in include or bool(body.get("top_logprobs")),
        "top_logprobs": body.get("top_logprobs"),
        "tools": [{"type": tool.get("type"), "function": tool} for tool in body.get("tools") or []],
        "tool_choice": {**choice, "function": choice} if isinstance(choice, dict) else choice,
        "response_format": {"type": wanted.get("type"), "json_schema": wanted},
    }


def _message(item: Json) -> Json:
    """A message, or what a tool was called with or put out."""
    if "role" in item:
        return item
    said = item.get("output") or item.get("arguments") or ""
    return {"role": "tool" if "output" in item else "assistant", "content": content_text(said)}


def check_earlier(body: Json, known: Container[str]) -> None:
    """Raises WireError when a request goes on from a response that is not `known`."""
    earlier = body.get("previous_response_id")
    if earlier is not None and earlier not in known:
        said = f"Previous response with id '{earlier}' not found."
        raise WireError(said, param="previous_response_id", code="previous_response_not_found")


def generate(body: Json, reply: Reply | None, cache: fake_tokens.PrefixCache) -> Generation:
    """What a response says; `reply` goes before the fake's own words."""
    required(body, "model")
    required(body, "input")
    made = fake_generate.chat(as_chat(body), reply, cache)
    return msgspec.structs.replace(made, id=f"resp_{uuid.uuid4().hex}", usage=_usage(made.usage))


def _usage(chat: Json) -> Json:
    details = chat["prompt_tokens_details"]
    return {
        "input_tokens": chat["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": details["cached_tokens"], "cache_write_tokens": 0},
        "output_tokens": chat["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": chat["total_tokens"],
    }


def answer(made: Generation, body: Json) -> Json:
    status = "incomplete" if made.finish == "length" else "completed"
    cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
    ended = {"incomplete_details": cut, "output": [_item(made, status)], "usage": made.usage}
    return {**_response(made, body, status), **ended}


def failure(made: Generation, body: Json, error: Json, number: int) -> Json:
    """The event that ends a stream which failed after so many events: before any, there is no response."""
    if number == 0:
        return {"type": "error", "sequence_number": 0, "param": None, **error}
    response = {**_response(made, body, "failed"), "error": error}
    return {"type": "response.failed", "sequence_number": number, "response": response}


def events(made: Generation, body: Json, *, counted: bool) -> Iterator[Json]:
    """From `response.created` to the event with the whole response; usage in that if `counted`."""
    ended = answer(made, body)
    if not counted:
        ended.pop("usage")
    begun = _response(made, body, "in_progress")
    happenings: list[Json] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        *_item_events(made, ended["status"]),
        {"type": f"response.{ended['status']}", "response": ended},
    ]
    for number, event in enumerate(happenings):
        yield {"type": event["type"], "sequence_number": number, **event}


def _item_events(made: Generation, status: str) -> Iterator[Json]:
    empty = msgspec.structs.replace(made, pieces=())
    opened, item = _item(empty, "in_progress"), _item(made, status)
    if not made.tool:
        opened["content"] = []
    yield {"type": "response.output_item.added", "output_index": 0, "item": opened}
    for event in _call_events(made) if made.tool else _text_events(made):
        yield {**event, "item_id": item["id"], "output_index": 0}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}


def _call_events(made: Generation) -> Iterator[Json]:
    for piece in made.pieces:
        yield {"type": "response.function_call_arguments.delta", "delta": piece}
    name = made.tool.name if made.tool else ""
    yield {"type": "response.function_call_arguments.done", "name": name, "arguments": made.text}


def _text_events(made: Generation) -> Iterator[Json]:
    where = {"content_index": 0}
    whole = _part(made, made.pieces)
    yield {"type": "response.content_part.added", **where, "part": _part(made, ())}
    for piece in made.pieces:
        delta = {"delta": piece, "logprobs": _part(made, (piece,))["logprobs"]}
        yield {"type": "response.output_text.delta", **where, **delta}
    yield {"type": "response.output_text.done", **where, "text": made.text, "logprobs": whole["logprobs"]}
    yield {"type": "response.content_part.done", **where, "part": whole}


def _item(made: Generation, status: str) -> Json:
    """The one item that was put out: a message or a call."""
    own = made.id.removeprefix("resp_")
    if made.tool:
        call = {"call_id": f"call_{own[:24]}", "name": made.tool.name, "arguments": made.text}
        return {"id": f"fc_{own}", "type": "function_call", "status": status, **call}
    content = [_part(made, made.pieces)]
    return {"id": f"msg_{own}", "type": "message", "status": status, "role": "assistant", "content": content}


def _part(made: Generation, pieces: Sequence[str]) -> Json:
    scored = (logprobs(made, pieces) or {}).get("content", [])
    return {"type": "output_text", "text": "".join(pieces), "annotations": [], "logprobs": scored}


def _response(made: Generation, body: Json, status: str) -> Json:
    """Without what is known at its end only."""
    echoed = {name: other if body.get(name) is None else body[name] for name, other in _ECHOED.items()}
    return {
        "id": made.id,
        "object": "response",
        "created_at": made.created,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "model": made.model,
        "output": [],
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "tools": [{"strict": True, "parameters": None, **tool} for tool in body.get("tools") or []],
        **echoed,
    }

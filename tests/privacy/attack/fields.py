"""Every place of a request that can hold text, and how a request looks that has it there."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

Body = dict[str, Any]
MODEL = "gpt-4o-mini"


class Field(msgspec.Struct, frozen=True):
    endpoint: str
    build: Callable[[str], Body]


def chat(*messages: Body, **more: Any) -> Body:
    return {"model": MODEL, "messages": [*messages] or [{"role": "user", "content": "hello"}]} | more


def said(content: Any, role: str = "user", **more: Any) -> Body:
    return {"role": role, "content": content} | more


def called(arguments: str, name: str = "f", key: str = "call_1") -> Body:
    return {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def calling(*calls: Body, **more: Any) -> Body:
    """A conversation in which a tool was called."""
    return chat(
        said("x"),
        said(None, "assistant", tool_calls=[*calls], **more),
        said("done", "tool", tool_call_id="call_1"),
    )


def tool(**fields: Any) -> Body:
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}} | fields
    return chat(tools=[{"type": "function", "function": function}])


def parameter(**fields: Any) -> Body:
    return tool(parameters={"type": "object", "properties": {"a": {"type": "string"} | fields}})


def schema(**fields: Any) -> Body:
    wanted = {"name": "n", "schema": {"type": "object", "properties": {}} | fields}
    return chat(response_format={"type": "json_schema", "json_schema": wanted})


def part(**fields: Any) -> Body:
    return chat(said([{"type": "text", "text": "see"}, fields]))


def response(given: Any, **more: Any) -> Body:
    return {"model": MODEL, "input": given} | more


def item(kind: str, **fields: Any) -> Body:
    return response([said("x"), {"type": kind} | fields])


def halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def texts(pieces: Sequence[str], kind: str = "text") -> list[Body]:
    return [{"type": kind, "text": piece} for piece in pieces]


CHAT: Mapping[str, Callable[[str], Body]] = {
    "user message": lambda s: chat(said(s)),
    "system message": lambda s: chat(said(s, "system"), said("hi")),
    "developer message": lambda s: chat(said(s, "developer"), said("hi")),
    "assistant message": lambda s: chat(said("hi"), said(s, "assistant"), said("go on")),
    "unknown role": lambda s: chat(said(s, "critic"), said("hi")),
    "role": lambda s: chat(said("hi", s)),
    "history": lambda s: chat(said(s, "assistant"), *(said("x") for _ in range(30))),
    "content part": lambda s: chat(said([{"type": "text", "text": s}])),
    "last of many parts": lambda s: chat(said(texts(["a"] * 30 + [s]))),
    "content that is an object": lambda s: chat(said({"type": "text", "text": s})),
    "unknown key of a part": lambda s: chat(said([{"type": "text", "text": "x", "cache": {"id": s}}])),
    "unknown kind of part": lambda s: part(type="hologram", hologram={"data": s}),
    "kind of a part": lambda s: part(type=s),
    "image URL": lambda s: part(type="image_url", image_url={"url": f"https://x.test/{s}"}),
    "image data URL": lambda s: part(type="image_url", image_url={"url": f"data:image/png;base64,{s}"}),
    "image detail": lambda s: part(type="image_url", image_url={"url": "https://x.test/", "detail": s}),
    "audio data": lambda s: part(type="input_audio", input_audio={"data": s, "format": "wav"}),
    "file name": lambda s: part(type="file", file={"filename": s, "file_data": "AAAA"}),
    "file data": lambda s: part(type="file", file={"filename": "a.txt", "file_data": f"data:text/plain,{s}"}),
    "file id": lambda s: part(type="file", file={"file_id": s}),
    "refusal part": lambda s: chat(said([{"type": "refusal", "refusal": s}], "assistant"), said("hi")),
    "thinking part": lambda s: chat(said([{"type": "thinking", "thinking": s}], "assistant"), said("hi")),
    "reasoning content": lambda s: chat(said("x", "assistant", reasoning_content=s), said("hi")),
    "message name": lambda s: chat(said("hi", name=s)),
    "message refusal": lambda s: chat(said(None, "assistant", refusal=s), said("hi")),
    "message annotation": lambda s: chat(
        said("x", "assistant", annotations=[{"url_citation": {"title": s}}])
    ),
    "unknown key of a message": lambda s: chat(said("hi", note=s)),
    "key of a message": lambda s: chat(said("hi") | {s: "value"}),
    "tool call arguments": lambda s: calling(called(as_json({"a": s}))),
    "tool call arguments, not JSON": lambda s: calling(called(s)),
    "second tool call": lambda s: calling(called("{}"), called(as_json({"a": [s]}), key="call_2")),
    "tool call name": lambda s: calling(called("{}", name=s)),
    "tool call id": lambda s: calling(called("{}", key=s)),
    "function call": lambda s: chat(
        said(None, "assistant", function_call={"name": "f", "arguments": s}), said("x")
    ),
    "tool result": lambda s: chat(said("x"), said(s, "tool", tool_call_id="c")),
    "tool result in parts": lambda s: chat(said("x"), said(texts([s]), "tool", tool_call_id="c")),
    "tool result id": lambda s: chat(said("x"), said("done", "tool", tool_call_id=s)),
    "function result": lambda s: chat(said("x"), said(s, "function", name="f")),
    "tool name": lambda s: tool(name=s),
    "tool description": lambda s: tool(description=s),
    "parameter description": lambda s: parameter(description=s),
    "parameter enum": lambda s: parameter(enum=["a", s]),
    "parameter default": lambda s: parameter(default=s),
    "parameter pattern": lambda s: parameter(pattern=s),
    "parameter name": lambda s: tool(parameters={"type": "object", "properties": {s: {"type": "string"}}}),
    "required parameter": lambda s: tool(parameters={"type": "object", "properties": {}, "required": [s]}),
    "custom tool": lambda s: chat(tools=[{"type": "custom", "custom": {"name": "g", "description": s}}]),
    "tool grammar": lambda s: chat(
        tools=[{"type": "custom", "custom": {"name": "g", "format": {"grammar": {"definition": s}}}}]
    ),
    "functions": lambda s: chat(functions=[{"name": "f", "description": s, "parameters": {}}]),
    "tool choice": lambda s: tool() | {"tool_choice": {"type": "function", "function": {"name": s}}},
    "schema name": lambda s: chat(
        response_format={"type": "json_schema", "json_schema": {"name": s, "schema": {}}}
    ),
    "schema description": lambda s: schema(description=s),
    "schema enum": lambda s: schema(properties={"a": {"enum": [s]}}),
    "schema const": lambda s: schema(properties={"a": {"const": s}}),
    "schema examples": lambda s: schema(properties={"a": {"examples": [{"b": [s]}]}}),
    "schema $defs": lambda s: schema(**{"$defs": {"d": {"title": s}}}),
    "schema property": lambda s: schema(properties={s: {"type": "string"}}),
    "metadata value": lambda s: chat(metadata={"ticket": s}),
    "metadata key": lambda s: chat(metadata={s: "ticket"}),
    "user": lambda s: chat(user=s),
    "safety identifier": lambda s: chat(safety_identifier=s),
    "prompt cache key": lambda s: chat(prompt_cache_key=s),
    "service tier": lambda s: chat(service_tier=s),
    "stop": lambda s: chat(stop=s),
    "stop list": lambda s: chat(stop=["a", s]),
    "logit bias key": lambda s: chat(logit_bias={s: 1}),
    "prediction": lambda s: chat(prediction={"type": "content", "content": s}),
    "prediction in parts": lambda s: chat(prediction={"type": "content", "content": texts([s])}),
    "web search location": lambda s: chat(web_search_options={"user_location": {"approximate": {"city": s}}}),
    "extra body": lambda s: chat(extra_body={"chat_template_kwargs": {"a": s}}),
    "unknown key": lambda s: chat(extra={"deep": [[{"er": s}]]}),
    "unknown key, far down": lambda s: chat(extra=_nested(s, 100)),
    "list of lists": lambda s: chat(extra=[[["a"], [s]], []]),
    "model name": lambda s: chat(model=s),
    # In two pieces.
    "two parts": lambda s: chat(said(texts(halves(s)))),
    "two messages": lambda s: chat(*map(said, halves(s))),
    "three messages": lambda s: chat(said(s[:3]), said(s[3:6]), said(s[6:])),
    "a part and a message": lambda s: chat(said(texts(halves(s)[:1])), said(halves(s)[1])),
    "two roles": lambda s: chat(said(halves(s)[0], "system"), said(halves(s)[1])),
    "a message and a tool result": lambda s: chat(
        said(halves(s)[0]), said(halves(s)[1], "tool", tool_call_id="c")
    ),
    "one character a part": lambda s: chat(said(texts(s))),
    "two messages of one person": lambda s: chat(
        said(halves(s)[0]), said("go on", "assistant"), said(halves(s)[1])
    ),
    "two messages among others": lambda s: chat(said("Card:"), *map(said, halves(s)), said("thanks")),
    "a text and a refusal": lambda s: chat(
        said([*texts(halves(s)[:1]), {"type": "refusal", "refusal": halves(s)[1]}], "assistant"), said("x")
    ),
}
OTHERS: Mapping[str, Field] = {
    "prompt": Field("completions", lambda s: {"model": MODEL, "prompt": s}),
    "prompt list": Field("completions", lambda s: {"model": MODEL, "prompt": ["a", s]}),
    "prompt list in pieces": Field("completions", lambda s: {"model": MODEL, "prompt": [*halves(s)]}),
    "suffix": Field("completions", lambda s: {"model": MODEL, "prompt": "a", "suffix": s}),
    "stop of a completion": Field("completions", lambda s: {"model": MODEL, "prompt": "a", "stop": [s]}),
    "user of a completion": Field("completions", lambda s: {"model": MODEL, "prompt": "a", "user": s}),
    "embeddings input": Field("embeddings", lambda s: {"model": MODEL, "input": s}),
    "embeddings list": Field("embeddings", lambda s: {"model": MODEL, "input": ["a", s]}),
    "embeddings user": Field("embeddings", lambda s: {"model": MODEL, "input": "a", "user": s}),
}
RESPONSES: Mapping[str, Callable[[str], Body]] = {
    "input": response,
    "instructions": lambda s: response("x", instructions=s),
    "input message": lambda s: response([said(s)]),
    "input text": lambda s: response([said(texts([s], "input_text"))]),
    "input in two parts": lambda s: response([said(texts(halves(s), "input_text"))]),
    "output text": lambda s: response([said(texts([s], "output_text"), "assistant"), said("x")]),
    "output annotation": lambda s: response(
        [said([{"type": "output_text", "text": "a", "annotations": [{"title": s}]}])]
    ),
    "refusal": lambda s: response([said([{"type": "refusal", "refusal": s}], "assistant"), said("x")]),
    "input image": lambda s: response([said([{"type": "input_image", "image_url": f"https://x.test/{s}"}])]),
    "input file name": lambda s: response(
        [said([{"type": "input_file", "filename": s, "file_data": "AAAA"}])]
    ),
    "input file URL": lambda s: response([said([{"type": "input_file", "file_url": f"https://x.test/{s}"}])]),
    "function call arguments": lambda s: item(
        "function_call", call_id="c", name="f", arguments=as_json({"a": s})
    ),
    "function call name": lambda s: item("function_call", call_id="c", name=s, arguments="{}"),
    "function call output": lambda s: item("function_call_output", call_id="c", output=s),
    "two function call outputs": lambda s: response(
        [{"type": "function_call_output", "call_id": "c", "output": half} for half in halves(s)]
    ),
    "function call output in parts": lambda s: item(
        "function_call_output", call_id="c", output=texts([s], "input_text")
    ),
    "custom tool call": lambda s: item("custom_tool_call", call_id="c", name="g", input=s),
    "custom tool output": lambda s: item("custom_tool_call_output", call_id="c", output=s),
    "reasoning summary": lambda s: item("reasoning", id="r", summary=texts([s], "summary_text")),
    "reasoning content of a response": lambda s: item(
        "reasoning", id="r", summary=[], content=texts([s], "reasoning_text")
    ),
    "web search": lambda s: item("web_search_call", id="w", action={"type": "search", "query": s}),
    "file search": lambda s: item("file_search_call", id="f", queries=[s], results=[{"filename": s}]),
    "code": lambda s: item("code_interpreter_call", id="i", container_id="c", code=s),
    "code logs": lambda s: item(
        "code_interpreter_call", id="i", container_id="c", outputs=[{"type": "logs", "logs": s}]
    ),
    "computer action": lambda s: item(
        "computer_call", id="k", call_id="c", action={"type": "type", "text": s}
    ),
    "shell command": lambda s: item(
        "local_shell_call", id="l", action={"type": "exec", "command": ["echo", s]}
    ),
    "shell environment": lambda s: item("local_shell_call", id="l", action={"env": {"KEY": s}}),
    "shell output": lambda s: item("shell_call_output", call_id="c", output=[{"stdout": s}]),
    "patch": lambda s: item("apply_patch_call", call_id="c", operation={"diff": s, "path": "a"}),
    "MCP arguments": lambda s: item("mcp_call", id="m", name="f", server_label="l", arguments=s),
    "compaction": lambda s: item("compaction", id="z", note=s),
    "unknown item": lambda s: item("telepathy", id="t", thought=s),
    "response tool": lambda s: response(
        "x", tools=[{"type": "function", "name": "f", "description": s, "parameters": {}}]
    ),
    "MCP server": lambda s: response(
        "x", tools=[{"type": "mcp", "server_label": s, "server_url": "https://x.test"}]
    ),
    "MCP header": lambda s: response("x", tools=[{"type": "mcp", "server_label": "l", "headers": {"x": s}}]),
    "text format": lambda s: response(
        "x", text={"format": {"type": "json_schema", "name": "n", "schema": {"title": s}}}
    ),
    "prompt variables": lambda s: response("x", variables={"a": s}),
    "response metadata": lambda s: response("x", metadata={"a": s}),
    "response user": lambda s: response("x", user=s),
    "include": lambda s: response("x", include=[s]),
}


def _nested(text: str, depth: int) -> Any:
    found: Any = text
    for level in range(depth):
        found = {"a": found} if level % 2 else [found]
    return found


FIELDS: Mapping[str, Field] = {
    **{name: Field("chat/completions", build) for name, build in CHAT.items()},
    **OTHERS,
    **{f"response: {name}": Field("responses", build) for name, build in RESPONSES.items()},
}

# In pieces that no detector puts together yet: what stands there, and why it is missed.
GAPS: Mapping[str, tuple[Field, str]] = {
    name: (Field(endpoint, build), reason)
    for name, endpoint, build, reason in (
        (
            "two tool calls",
            "chat/completions",
            lambda s: calling(called(halves(s)[0]), called(halves(s)[1], key="call_2")),
            "arguments are no turns",
        ),
        (
            "a key and its value",
            "chat/completions",
            lambda s: chat(metadata=dict([halves(s)])),
            "keys and values are texts of their own",
        ),
        (
            "a list",
            "chat/completions",
            lambda s: chat(metadata={"number": [*halves(s)]}),
            "only turns are joined",
        ),
    )
}

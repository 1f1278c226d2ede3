"""The rules for one row of an OpenAI fine-tuning file, and every way in which a row breaks them.

A row is `{"messages": [...], "tools": [...], "parallel_tool_calls": bool}`. For DPO that, without its last
answer, is the `input` of `{"input": {...}, "preferred_output": [answer], "non_preferred_output": [answer]}`.
A rule never stops at the first fault: it yields `Fault(path, cause)` for each, with the JSON path from the
row's root.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

ROW_KEYS = {"messages", "tools", "parallel_tool_calls"}
OUTPUTS = ("preferred_output", "non_preferred_output")
PREFERENCE_KEYS = {"input", *OUTPUTS}
MESSAGE_KEYS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "tool_calls", "weight"},
    "tool": {"role", "content", "tool_call_id"},
}
LEADING_ROLES = {"system", "developer"}


class Fault(NamedTuple):
    """Where in the row (`$.messages[2].role`) and why."""

    path: str
    cause: str


def row_faults(row: object) -> Iterator[Fault]:
    """Everything that is wrong with one decoded row."""
    if not isinstance(row, dict):
        yield Fault("$", f"a row is a JSON object, this is {_kind(row)}")
        return
    for key in sorted(row.keys() - ROW_KEYS):
        yield Fault(f"$.{key}", f"unknown key; a row has {_listed(ROW_KEYS)}")
    if "parallel_tool_calls" in row and not isinstance(row["parallel_tool_calls"], bool):
        yield Fault("$.parallel_tool_calls", "must be true or false")
    yield from _tools_faults(row)
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        yield Fault("$.messages", "must be a list of at least one message")
        return
    offered = tool_names(row)
    for index, message in enumerate(messages):
        yield from _message_faults(message, f"$.messages[{index}]", offered)
    yield from _order_faults(messages)


def preference_faults(row: object) -> Iterator[Fault]:
    """Everything that is wrong with one decoded row of preferences (DPO)."""
    if not isinstance(row, dict):
        yield Fault("$", f"a row is a JSON object, this is {_kind(row)}")
        return
    for key in sorted(row.keys() - PREFERENCE_KEYS):
        yield Fault(f"$.{key}", f"unknown key; a row of preferences has {_listed(PREFERENCE_KEYS)}")
    asked = row.get("input")
    if not isinstance(asked, dict):
        yield Fault("$.input", f"must be an object with messages, is {_kind(asked)}")
        return
    unfit = [fault for output in OUTPUTS for fault in _output_faults(row.get(output), f"$.{output}")]
    if unfit or not isinstance(asked.get("messages"), list):
        yield from unfit
        if not isinstance(asked.get("messages"), list):
            yield Fault("$.input.messages", "must be a list of at least one message")
        return
    seen = set()
    for output in OUTPUTS:
        for fault in _completed_faults(asked, row[output], output):
            if fault not in seen:
                yield fault
            seen.add(fault)
    if row[OUTPUTS[0]] == row[OUTPUTS[1]]:
        yield Fault(f"$.{OUTPUTS[1]}", "is the same as preferred_output: nothing can be learned from it")


def completed(asked: dict[str, Any], answer: list[Any]) -> dict[str, Any]:
    """The chat row that `input` and one of the outputs make."""
    return {**asked, "messages": [*asked["messages"], *answer]}


def _output_faults(output: object, path: str) -> Iterator[Fault]:
    if not isinstance(output, list) or len(output) != 1:
        yield Fault(path, "must be a list of exactly one assistant message")
    elif not isinstance(output[0], dict) or output[0].get("role") != "assistant":
        yield Fault(f"{path}[0].role", 'must be "assistant"')


def _completed_faults(asked: dict[str, Any], answer: list[Any], output: str) -> Iterator[Fault]:
    """The faults of the chat row that an output makes, by their places in the row of preferences."""
    prompt = len(asked["messages"])
    for fault in row_faults(completed(asked, answer)):
        found = re.match(r"\$\.messages\[(\d+)\](.*)", fault.path)
        at = int(found[1]) - prompt if found else -1
        if found and at >= 0:
            yield Fault(f"$.{output}[{at}]{found[2]}", fault.cause)
        else:
            yield Fault(f"$.input{fault.path[1:]}", fault.cause)


def tool_names(row: dict[str, Any]) -> set[str]:
    """Names of the functions that a row offers; malformed entries are left to `row_faults`."""
    tools = row.get("tools")
    if not isinstance(tools, list):
        return set()
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    names = [function.get("name") for function in functions if isinstance(function, dict)]
    return {name for name in names if isinstance(name, str)}


def is_trained(message: dict[str, Any]) -> bool:
    """Whether a message's tokens count in the loss."""
    return message.get("role") == "assistant" and message.get("weight", 1) != 0


def _tools_faults(row: dict[str, Any]) -> Iterator[Fault]:
    if "tools" not in row:
        return
    tools = row["tools"]
    if not isinstance(tools, list) or not tools:
        yield Fault("$.tools", "must be a list of at least one tool; leave the key out when there is none")
        return
    for index, tool in enumerate(tools):
        path = f"$.tools[{index}]"
        if not isinstance(tool, dict) or tool.get("type") != "function":
            yield Fault(path, 'must be an object with "type": "function"')
            continue
        function = tool.get("function")
        if not isinstance(function, dict):
            yield Fault(f"{path}.function", "must be an object")
            continue
        if not _is_text(function.get("name")):
            yield Fault(f"{path}.function.name", "must be a non-empty string")
        if not isinstance(function.get("parameters", {}), dict):
            yield Fault(f"{path}.function.parameters", "must be a JSON schema object")


def _message_faults(message: object, path: str, offered: set[str]) -> Iterator[Fault]:
    if not isinstance(message, dict):
        yield Fault(path, f"a message is a JSON object, this is {_kind(message)}")
        return
    role = message.get("role")
    if not isinstance(role, str) or role not in MESSAGE_KEYS:
        yield Fault(f"{path}.role", f"must be one of {_listed(MESSAGE_KEYS)}, is {json.dumps(role)[:40]}")
        return
    for key in sorted(message.keys() - MESSAGE_KEYS[role]):
        yield Fault(f"{path}.{key}", _unknown_key(key, role))
    if "name" in message and not _is_text(message["name"]):
        yield Fault(f"{path}.name", "must be a non-empty string")
    if role == "tool" and not _is_text(message.get("tool_call_id")):
        yield Fault(f"{path}.tool_call_id", "must be a non-empty string")
    if role == "assistant":
        yield from _assistant_faults(message, path, offered)
    else:
        yield from _content_faults(message.get("content"), f"{path}.content")


def _unknown_key(key: str, role: str) -> str:
    if key == "weight":
        return "only assistant messages carry a weight"
    if key == "function_call":
        return "deprecated by OpenAI; use tool_calls"
    return f"unknown key; a {role} message has {_listed(MESSAGE_KEYS[role])}"


def _assistant_faults(message: dict[str, Any], path: str, offered: set[str]) -> Iterator[Fault]:
    weight = message.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int) or weight not in (0, 1):
        yield Fault(f"{path}.weight", "must be 0 or 1")
    calls = message.get("tool_calls")
    if "tool_calls" in message:
        yield from _call_faults(calls, f"{path}.tool_calls", offered)
    if message.get("content") is None and calls:
        return  # a turn that only calls tools
    yield from _content_faults(message.get("content"), f"{path}.content")


def _call_faults(calls: object, path: str, offered: set[str]) -> Iterator[Fault]:
    if not isinstance(calls, list) or not calls:
        yield Fault(path, "must be a list of at least one call; leave the key out when there is none")
        return
    for index, call in enumerate(calls):
        here = f"{path}[{index}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(call, dict) or call.get("type") != "function" or not isinstance(function, dict):
            yield Fault(here, 'must be an object with "type": "function" and a "function" object')
            continue
        if not _is_text(call.get("id")):
            yield Fault(f"{here}.id", "must be a non-empty string")
        if str(function.get("name")) not in offered:
            yield Fault(f"{here}.function.name", "is not the name of a tool of this row")
        if not _is_json_object(function.get("arguments")):
            yield Fault(f"{here}.function.arguments", "must be a string that holds a JSON object")


def _content_faults(content: object, path: str) -> Iterator[Fault]:
    if isinstance(content, str):
        if not content.strip():
            yield Fault(path, "is empty")
        return
    if not isinstance(content, list) or not content:
        yield Fault(path, f"must be a string or a list of text parts, is {_kind(content)}")
        return
    for index, part in enumerate(content):
        if not isinstance(part, dict) or part.get("type") != "text" or part.keys() != {"type", "text"}:
            yield Fault(f"{path}[{index}]", 'must be {"type": "text", "text": "..."}, nothing else')
        elif not _is_text(part["text"]):
            yield Fault(f"{path}[{index}].text", "must be a non-empty string")


def _order_faults(messages: list[Any]) -> Iterator[Fault]:
    """System messages lead, a user speaks first, tools answer calls, the assistant has the last word."""
    turns = [message if isinstance(message, dict) else {} for message in messages]
    roles = [str(turn.get("role")) for turn in turns]
    spoken = next((at for at, role in enumerate(roles) if role not in LEADING_ROLES), len(roles))
    if spoken < len(roles) and roles[spoken] in ("assistant", "tool"):
        yield Fault(
            f"$.messages[{spoken}].role", f"a user message must come before a message of {roles[spoken]}"
        )
    waiting: set[str] = set()
    for at, turn in enumerate(turns):
        path, role = f"$.messages[{at}]", roles[at]
        if role in LEADING_ROLES and at > spoken:
            yield Fault(f"{path}.role", f"a {role} message must come before all others")
        if role == "tool":
            answered = str(turn.get("tool_call_id"))
            if answered not in waiting:
                yield Fault(f"{path}.tool_call_id", "answers no open tool call before it")
            waiting.discard(answered)
            continue
        if waiting:
            yield Fault(f"{path}.role", "a tool message must first answer each tool call before it")
        waiting = _call_ids(turn)
    if roles[-1] != "assistant":
        yield Fault(f"$.messages[{len(roles) - 1}].role", "the last message must be the assistant's")
    elif not any(is_trained(turn) for turn in turns):
        yield Fault("$.messages", "every assistant message has weight 0: nothing would be learned")


def _call_ids(turn: dict[str, Any]) -> set[str]:
    calls = turn.get("tool_calls")
    if not isinstance(calls, list):
        return set()
    return {str(call.get("id")) for call in calls if isinstance(call, dict)}


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_json_object(value: object) -> bool:
    try:
        return isinstance(value, str) and isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        return False


def _kind(value: object) -> str:
    if value is None:
        return "null or missing"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))

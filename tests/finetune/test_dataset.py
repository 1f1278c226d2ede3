"""The reader of training files: what it accepts, and that it names every fault with its line and path."""

import json
from typing import Any

import pytest

from finetune import dataset
from finetune.dataset import InvalidDataset, Row, check_line, read_rows
from tests.finetune.samples import chat, to_row

USER = {"role": "user", "content": "hello"}
ANSWER = {"role": "assistant", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"id": 7}'}}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "found"}


def with_call(**function: Any) -> dict[str, Any]:
    call = {**CALL, "function": {**CALL["function"], **function}}
    return {"messages": [USER, {**CALLING, "tool_calls": [call]}], "tools": [TOOL]}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"messages": [{"role": "system", "content": "Be brief."}, USER, ANSWER]},
        {"messages": [{"role": "developer", "content": "Be brief."}, {**USER, "name": "ann"}, ANSWER]},
        {"messages": [USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}, ANSWER]},
        {"messages": [USER, CALLING], "tools": [TOOL]},
        {"messages": [USER, CALLING, RESULT, ANSWER], "tools": [TOOL], "parallel_tool_calls": False},
    ],
)
def test_a_valid_row_is_read(row: dict[str, Any]) -> None:
    """Every form that OpenAI's format allows for text and tools is accepted."""
    assert to_row(row).id == to_row(json.loads(json.dumps(row, sort_keys=True))).id


@pytest.mark.parametrize(
    ("row", "path", "cause"),
    [
        ([1], "$", "JSON object"),
        ({"messages": [USER, ANSWER], "metadata": {}}, "$.metadata", "unknown key"),
        ({}, "$.messages", "list"),
        ({"messages": []}, "$.messages", "at least one"),
        ({"messages": "hello"}, "$.messages", "list"),
        ({"messages": [USER, "hi"]}, "$.messages[1]", "JSON object"),
        ({"messages": [{"role": "bot", "content": "x"}, ANSWER]}, "$.messages[0].role", '"bot"'),
        ({"messages": [{"role": ["user"], "content": "x"}, ANSWER]}, "$.messages[0].role", "one of"),
        ({"messages": [{**USER, "weight": 1}, ANSWER]}, "$.messages[0].weight", "only assistant"),
        ({"messages": [{**USER, "mood": "sad"}, ANSWER]}, "$.messages[0].mood", "unknown key"),
        ({"messages": [USER, {**ANSWER, "function_call": {}}]}, "$.messages[1].function_call", "tool_calls"),
        ({"messages": [{**USER, "name": 3}, ANSWER]}, "$.messages[0].name", "string"),
        ({"messages": [USER, {**ANSWER, "weight": 2}]}, "$.messages[1].weight", "0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": True}]}, "$.messages[1].weight", "0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": 0.5}]}, "$.messages[1].weight", "0 or 1"),
        ({"messages": [USER, {**ANSWER, "weight": 0}]}, "$.messages", "weight 0"),
        ({"messages": [USER, {**ANSWER, "content": "  "}]}, "$.messages[1].content", "empty"),
        ({"messages": [USER, {"role": "assistant"}]}, "$.messages[1].content", "null or missing"),
        ({"messages": [{**USER, "content": 4}, ANSWER]}, "$.messages[0].content", "a number"),
        ({"messages": [{**USER, "content": []}, ANSWER]}, "$.messages[0].content", "a list"),
        (
            {"messages": [{**USER, "content": [{"type": "image_url", "image_url": {}}]}, ANSWER]},
            "$.messages[0].content[0]",
            "text",
        ),
        (
            {"messages": [{**USER, "content": [{"type": "text", "text": ""}]}, ANSWER]},
            "$.messages[0].content[0].text",
            "non-empty",
        ),
        ({"messages": [USER]}, "$.messages[0].role", "last message"),
        ({"messages": [ANSWER]}, "$.messages[0].role", "user message must come before"),
        (
            {"messages": [USER, ANSWER, {"role": "system", "content": "x"}, ANSWER]},
            "$.messages[2].role",
            "before",
        ),
        ({"messages": [USER, ANSWER], "tools": []}, "$.tools", "at least one"),
        ({"messages": [USER, ANSWER], "tools": [{"type": "code"}]}, "$.tools[0]", "function"),
        ({"messages": [USER, ANSWER], "tools": [{"type": "function"}]}, "$.tools[0].function", "object"),
        (
            {"messages": [USER, ANSWER], "tools": [{"type": "function", "function": {}}]},
            "$.tools[0].function.name",
            "non-empty",
        ),
        (
            {
                "messages": [USER, ANSWER],
                "tools": [{"type": "function", "function": {"name": "a", "parameters": 1}}],
            },
            "$.tools[0].function.parameters",
            "schema",
        ),
        ({"messages": [USER, ANSWER], "parallel_tool_calls": "no"}, "$.parallel_tool_calls", "true or false"),
        (
            {"messages": [USER, CALLING]},
            "$.messages[1].tool_calls[0].function.name",
            "not the name of a tool",
        ),
        (with_call(arguments={"id": 7}), "$.messages[1].tool_calls[0].function.arguments", "string"),
        (with_call(arguments="{id: 7}"), "$.messages[1].tool_calls[0].function.arguments", "JSON object"),
        ({"messages": [USER, {**ANSWER, "tool_calls": []}]}, "$.messages[1].tool_calls", "at least one"),
        ({"messages": [USER, {**ANSWER, "tool_calls": ["x"]}]}, "$.messages[1].tool_calls[0]", "object"),
        (
            {"messages": [USER, CALLING, USER, ANSWER], "tools": [TOOL]},
            "$.messages[2].role",
            "answer each tool call",
        ),
        ({"messages": [USER, RESULT, ANSWER]}, "$.messages[1].tool_call_id", "no open tool call"),
    ],
)
def test_a_fault_is_named(row: object, path: str, cause: str) -> None:
    """Each fault is reported at its own JSON path with a cause that a person can act on."""
    problems = check_line(12, json.dumps(row).encode())
    assert isinstance(problems, list)
    assert any(problem.path == path and cause in problem.cause for problem in problems), problems
    assert all(problem.line == 12 for problem in problems)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"", "blank"),
        (b"  \t", "blank"),
        (b"\xff\xfe", "not UTF-8 at byte 1"),
        (b'{"messages": [', "not JSON at column"),
        (b'{"messages": NaN}', "NaN is not a JSON number"),
        (b'{"messages": [], "messages": []}', '"messages" occurs twice'),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"messages": ' + b"9" * 5000 + b"}", "not JSON"),
        (json.dumps(chat("\ud800")).encode(), "surrogate"),
        (b'"' + b"x" * dataset.MAXIMUM_LINE_BYTES + b'"', "longer than"),
    ],
)
def test_a_line_that_is_no_json_is_named(line: bytes, cause: str) -> None:
    """Whatever bytes a line holds, the answer is a problem with its cause, never an exception."""
    problems = check_line(3, line)
    assert isinstance(problems, list)
    assert [problem.line for problem in problems] == [3]
    assert cause in problems[0].cause


def test_all_problems_come_at_once(write_rows: Any) -> None:
    """One bad line never hides another, and line numbers count from 1 also after an over-long line."""
    long = b'"' + b"x" * (3 * dataset.MAXIMUM_LINE_BYTES) + b'"'
    twice = {"messages": [{"role": "bot", "content": "x"}, {**ANSWER, "weight": 5}], "extra": 1}
    path = write_rows(chat("a"), b"{", long, chat("b"), twice)
    with pytest.raises(InvalidDataset) as caught:
        read_rows(path)
    places = [(problem.line, problem.path) for problem in caught.value.problems]
    assert places == [
        (2, "$"),
        (3, "$"),
        (5, "$.extra"),
        (5, "$.messages[0].role"),
        (5, "$.messages[1].weight"),
        (0, "$"),
    ]
    assert "line 5: $.messages[0].role: must be one of" in str(caught.value)
    assert "Training file has 5 example(s), but must have at least 10 examples" in str(caught.value)


def test_byte_order_mark_and_windows_line_ends_are_harmless(write_rows: Any) -> None:
    """What Windows editors add is not the user's fault."""
    lines = [json.dumps(chat(f"q{n}")).encode() + b"\r" for n in range(10)]
    rows = read_rows(write_rows(b"\xef\xbb\xbf" + lines[0], *lines[1:]))
    assert [row.line for row in rows] == list(range(1, 11))


def test_id_is_of_the_content_not_of_its_spelling() -> None:
    """Key order, spaces and escapes do not change a row's id; a changed word does."""
    plain = check_line(1, json.dumps(chat("café")).encode())
    other = check_line(9, json.dumps(chat("café"), ensure_ascii=False, indent=None, sort_keys=True).encode())
    assert isinstance(plain, Row)
    assert isinstance(other, Row)
    assert plain.id == other.id != to_row(chat("cafe")).id


def test_messages_are_as_vllm_renders_them() -> None:
    """Text parts are joined with line ends and tool arguments decoded, as vLLM does before its template."""
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    row = to_row({"messages": [{"role": "user", "content": parts}, CALLING], "tools": [TOOL]})
    assert row.messages[0]["content"] == "one\ntwo"
    assert row.messages[1]["tool_calls"][0]["function"]["arguments"] == {"id": 7}


def test_prompt_and_answer_follow_the_weights() -> None:
    """The scored answer is the last one with weight 1; what follows it plays no part."""
    row = to_row({"messages": [USER, {**ANSWER, "content": "kept"}, USER, {**ANSWER, "weight": 0}]})
    assert row.answer["content"] == "kept"
    assert len(row.prompt) == 1

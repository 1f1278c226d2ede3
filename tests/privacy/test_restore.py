"""Restoring: however an answer is cut, its values come back, and only those."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.backends.wire import Meter, meter_for
from gateway.privacy.placeholders import Restorer, Vault
from gateway.privacy.restore import Restoration

EMAIL, CARD, NAME = "jo@example.org", "4111 1111 1111 1111", 'Ann "X" Lee\n'
Json = dict[str, Any]


class Values:
    """A vault with three values and their placeholders."""

    def __init__(self) -> None:
        self.vault = Vault("")
        self.email = self.vault.placeholder("email", EMAIL)
        self.card = self.vault.placeholder("payment_card", CARD)
        self.name = self.vault.placeholder("person", NAME)

    def whole(self, text: str, *, escaped: bool = False) -> str:
        return Restorer(self.vault).whole(text, escaped=escaped)


VALUES = Values()
CODE = VALUES.email[-7:-2]


def bent(placeholder: str) -> list[str]:
    """What models make of a placeholder."""
    inner = placeholder[2:-2]
    words = inner.split("_")
    return [
        placeholder.lower(),
        placeholder.title(),
        f"[[ {inner} ]]",
        f"[[**{inner}**]]",
        f"[[`{inner}`]]",
        f"[[_{inner}_]]",
        "[[" + r"\_".join(words) + "]]",
        r"\[\[" + r"\_".join(words) + r"\]\]",
        "[[" + " ".join(words) + "]]",
        "[[" + "-".join(words) + "]]",
        "[[" + " _ ".join(words) + "]]",
        f"[{inner}]",
        f"[[{inner}]",
        f"[{inner}]]",
        f"[[{inner}",
        f"{inner}]]",
        inner,
    ]


BENT = [form for placeholder in (VALUES.email, VALUES.card, VALUES.name) for form in bent(placeholder)]
made_up = ["[[EMAIL_BBBBB]]", f"[[PHONE_{CODE}]]", CODE]
beginnings = ["[", "]", "[[", "]]", "\\", "_", " ", "*", "`", "E", "EMA", "PAYMENT", "[[EMAIL_"]
others = ["é", "😀", "\n", "日本"]
bits = st.sampled_from([VALUES.email, VALUES.card, VALUES.name, *BENT, *made_up, *beginnings, *others])
bits |= st.text(max_size=4)
texts = st.lists(bits, max_size=8).map("".join)
cuts = st.lists(st.integers(0, 400), max_size=40)


def cut(text: Any, places: Sequence[int]) -> list[Any]:
    """`text`, or bytes, in the pieces that end at `places`."""
    edges = sorted({0, *(place % (len(text) + 1) for place in places), len(text)})
    return [text[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("form", BENT)
def test_bent_placeholders_are_known(form: str) -> None:
    """Case, spaces, emphasis, escapes, other separators, lost brackets: the value, and nothing around it."""
    value = next(
        v for p, v in ((VALUES.email, EMAIL), (VALUES.card, CARD), (VALUES.name, NAME)) if form in bent(p)
    )
    assert VALUES.whole(f"say (**{form}**), {form}.") == f"say (**{value}**), {value}."


@pytest.mark.parametrize(
    "text",
    [
        f"\\{VALUES.email}",
        f"[{VALUES.email}]",
        f"[{VALUES.email}](mailto:{VALUES.email})",
        f"\\\\{VALUES.email}\\",
    ],
)
def test_what_stands_around_a_whole_placeholder_stays(text: str) -> None:
    """Brackets and backslashes beside one that is unbent are the model's own."""
    assert VALUES.whole(text) == text.replace(VALUES.email, EMAIL)


@pytest.mark.parametrize(
    "text",
    [
        "[[EMAIL_BBBBB]]",
        f"[[PHONE_{CODE}]]",
        f"[[PAYMENT_CARD_{CODE}]]",
        f"EMA_{CODE}",
        f"ends in {CODE}",
        f"email: {CODE}",
    ],
)
def test_what_is_no_placeholder_of_ours_gets_no_value_and_is_counted(text: str) -> None:
    """Made up, or with another's label, or a code alone."""
    restoration = Restoration("chat/completions", VALUES.vault, json_text=False)
    body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    assert restoration.whole(body) == body
    assert restoration.unrestored == 1


@settings(max_examples=500, deadline=None)
@given(texts, cuts, st.booleans())
@example(f"x{VALUES.email}[[EMA", list(range(40)), False)
def test_a_text_in_pieces_is_the_whole_text(text: str, places: list[int], escaped: bool) -> None:
    """Any cut gives what no cut gives; what is held back is never as long as 128 characters."""
    restorer, held, said = Restorer(VALUES.vault), "", ""
    for piece in cut(text, places):
        done, held = restorer.part(held + piece, escaped=escaped)
        said += done
        assert len(held) < 128
    assert said + restorer.whole(held, escaped=escaped) == VALUES.whole(text, escaped=escaped)


@given(st.text(st.characters(codec="utf-8", exclude_characters="[\\eEpP")))
def test_ordinary_text_is_not_held_back(text: str) -> None:
    """Without a bracket, a backslash or the first letter of a label nothing waits."""
    assert Restorer(VALUES.vault).part(text, escaped=False) == (text, "")


# --- streams --------------------------------------------------------------------------------------


def run(meter: Meter, restoration: Restoration, chunks: Sequence[bytes]) -> bytes:
    """As the pipeline does."""
    out = b""
    for chunk in chunks:
        if events := meter.feed(chunk):
            out += restoration.events(events)
    return out


def sse(events: Sequence[Json], end: bytes = b"data: [DONE]\n\n", newline: bytes = b"\n") -> bytes:
    written = b"".join(
        (b"event: " + e["type"].encode() + b"\n" if "type" in e else b"")
        + b"data: " + json.dumps(e, ensure_ascii=False).encode() + b"\n\n"
        for e in events
    )  # fmt: skip
    return (written + end).replace(b"\n", newline)


def data(stream: bytes) -> list[Json]:
    lines = [line[6:] for line in stream.splitlines() if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


FIELDS = ("content", "refusal", "reasoning_content", "arguments 0", "arguments 1", "function_call")


def delta(field: str, piece: str) -> Json:
    if field == "function_call":
        return {"function_call": {"arguments": piece}}
    if field.startswith("arguments"):
        call = {"index": int(field[-1]), "function": {"arguments": piece}}
        return {"tool_calls": [call]}
    return {field: piece}


def said(chunks: Sequence[Json]) -> dict[tuple[int, str], str]:
    """All that chunks say, by choice and field."""
    texts: dict[tuple[int, str], str] = {}
    for choice in (choice for chunk in chunks for choice in chunk["choices"]):
        for field, piece in pieces(choice["delta"]):
            key = choice["index"], field
            texts[key] = texts.get(key, "") + piece
    return texts


def pieces(delta: Json) -> Iterator[tuple[str, str]]:
    for name, value in delta.items():
        if name == "tool_calls":
            yield from ((f"arguments {call['index']}", call["function"]["arguments"]) for call in value)
        else:
            yield name, value["arguments"] if name == "function_call" else value


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.tuples(st.integers(0, 2), st.sampled_from(FIELDS)), texts, max_size=5),
    cuts,
    st.randoms(use_true_random=False),
    cuts,
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
)
def test_a_chat_in_any_chunks(
    spoken: dict[tuple[int, str], str],
    places: list[int],
    chance: Any,
    bytes_cut: list[int],
    newline: bytes,
    ends: bool,
) -> None:
    """Choices and fields interleaved, texts and bytes cut anywhere, either line end, finished or not: each
    text is what it is in one piece, no chunk is added or lost, and the count is the same."""
    waiting = {key: cut(text, places) for key, text in spoken.items() if text}
    chunks = []
    while any(waiting.values()):
        key = chance.choice([key for key, left in waiting.items() if left])
        chunks.append({"choices": [{"index": key[0], "delta": delta(key[1], waiting[key].pop(0))}]})
    chunks += [{"choices": [{"index": i, "delta": {}, "finish_reason": "stop"}]} for i in range(3 * ends)]
    chunks.append({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}})
    stream = sse(chunks, newline=newline)
    meter = meter_for("chat/completions", strip_usage=False)
    restoration = Restoration("chat/completions", VALUES.vault, json_text=False)
    out = run(meter, restoration, cut(stream, bytes_cut))
    whole = Restorer(VALUES.vault)
    expected = {
        key: whole.whole(text, escaped="ar" in key[1] or "call" in key[1])
        for key, text in spoken.items()
        if text
    }
    for text in expected.values():
        whole.count_strays(text)
    assert said(data(out)) == expected
    assert len(data(out)) == len(chunks)
    assert restoration.unrestored == whole.unrestored
    assert meter.done
    assert meter.usage is not None


@settings(max_examples=200, deadline=None)
@given(texts, cuts, cuts, st.booleans())
def test_a_response_in_any_chunks(text: str, places: list[int], bytes_cut: list[int], calls: bool) -> None:
    """Deltas, and each event that repeats the text, say what it is in one piece; numbers are untouched."""
    kind = "response.function_call_arguments" if calls else "response.output_text"
    name = "arguments" if calls else "text"
    item = (
        {"type": "function_call", "arguments": text}
        if calls
        else {"content": [{"type": "output_text", "text": text}]}
    )
    where = {"item_id": "i", "output_index": 0, "content_index": 0}
    events = [{"type": "response.created", "response": {"instructions": VALUES.email}}]
    events += [{"type": f"{kind}.delta", **where, "delta": piece} for piece in cut(text, places)]
    events += [
        {"type": f"{kind}.done", **where, name: text},
        {"type": "response.output_item.done", "item": item},
        {"type": "response.completed", "response": {"output": [item]}},
    ]
    events = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    meter = meter_for("responses", strip_usage=False)
    restoration = Restoration("responses", VALUES.vault, json_text=False)
    out = data(run(meter, restoration, cut(sse(events, end=b""), bytes_cut)))
    whole = Restorer(VALUES.vault)
    expected = whole.whole(text, escaped=calls)
    whole.count_strays(expected)
    assert [event["sequence_number"] for event in out] == list(range(len(events)))
    assert out[0]["response"]["instructions"] == EMAIL
    assert "".join(event["delta"] for event in out if event["type"].endswith(".delta")) == expected
    last = out[-1]["response"]["output"][0]
    for repeated in (out[-3], out[-2]["item"], last):
        assert (repeated if name in repeated else repeated["content"][0])[name] == expected
    assert restoration.unrestored == whole.unrestored


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_events_without_anything_to_restore_pass_as_they_came(newline: bytes) -> None:
    """Byte for byte: odd spacing, comments, unknown fields, what is no JSON, text without placeholders."""
    lines = """: comment

id: 7
data: {"choices": [ {"index":0, "delta":{"role":"assistant"}} ]}

data:{"choices":[{"delta":{"content":"hello [1] "}}], "x": 1.50}

data: not json

data: [1, 2]

data: {"choices":[{"delta":null},3,{"index":null}]}

data: [DONE]

"""
    stream = lines.encode().replace(b"\n", newline)
    assert Restoration("chat/completions", VALUES.vault, json_text=False).events(stream) == stream


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[1]", b"no json", b'"[[EMAIL"', b'{"a" : [1.50, {"b":null}]}']
)
def test_whole_answers_without_anything_to_restore_pass_as_they_came(body: bytes) -> None:
    """Byte for byte, JSON or not."""
    assert Restoration("chat/completions", VALUES.vault, json_text=False).whole(body) == body


def test_only_the_next_piece_is_waited_for() -> None:
    """An event whose text may be the beginning of a placeholder waits, and those behind it; no others do."""
    restoration = Restoration("chat/completions", VALUES.vault, json_text=False)

    def feed(index: int, content: str) -> list[Json]:
        return data(
            restoration.events(sse([{"choices": [{"index": index, "delta": {"content": content}}]}], b""))
        )

    assert said(feed(0, "one ")) == {(0, "content"): "one "}
    assert feed(0, "two [") == []
    assert feed(1, "other") == []
    assert said(feed(0, "1]")) == {(0, "content"): "two [1]", (1, "content"): "other"}


def test_at_the_end_of_a_text_nothing_waits_any_more() -> None:
    """A choice's finish, and a response's `.done`, let go what was held, before the stream's own end."""
    chat = Restoration("chat/completions", VALUES.vault, json_text=False)
    piece = {"choices": [{"index": 1, "delta": {"content": "["}}]}
    finish = {"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}
    assert data(chat.events(sse([piece], b""))) == []
    assert data(chat.events(sse([finish], b""))) == [piece, finish]
    response = Restoration("responses", VALUES.vault, json_text=False)
    piece = {"type": "response.output_text.delta", "item_id": "i", "delta": "["}
    done = {"type": "response.output_text.done", "item_id": "i", "text": "["}
    assert data(response.events(sse([piece], b""))) == []
    assert data(response.events(sse([done], b""))) == [piece, done]


def test_scores_keep_the_placeholders() -> None:
    """Log-probabilities are of the tokens that the model said, whole and streamed."""
    scores = {"content": [{"token": VALUES.email, "logprob": -0.5}]}
    body = {"choices": [{"index": 0, "message": {"content": VALUES.email}, "logprobs": scores}]}
    restoration = Restoration("chat/completions", VALUES.vault, json_text=False)
    (choice,) = json.loads(restoration.whole(json.dumps(body).encode()))["choices"]
    assert (choice["message"]["content"], choice["logprobs"]) == (EMAIL, scores)
    chunk = {"choices": [{"index": 0, "delta": {"content": VALUES.email}, "logprobs": scores}]}
    ((chunk_choice,),) = [e["choices"] for e in data(restoration.events(sse([chunk], b"")))]
    assert (chunk_choice["delta"]["content"], chunk_choice["logprobs"]) == (EMAIL, scores)


def test_a_text_that_was_asked_for_as_json() -> None:
    """Its values are escaped, whole and streamed, in chats and responses; what else is said is not."""
    text, expected = json.dumps({"to": VALUES.name}), json.dumps({"to": NAME})
    chat = {"choices": [{"index": 0, "message": {"content": text, "reasoning_content": VALUES.name}}]}
    response = {"output": [{"content": [{"type": "output_text", "text": text}]}]}
    for endpoint, body in (("chat/completions", chat), ("responses", response)):
        whole = Restoration(endpoint, VALUES.vault, json_text=True).whole(json.dumps(body).encode())
        found = json.loads(whole)
        message = found["choices"][0]["message"] if "choices" in found else found["output"][0]["content"][0]
        assert message.get("content", message.get("text")) == expected
        assert message.get("reasoning_content", NAME) == NAME
    chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in text]
    restoration = Restoration("chat/completions", VALUES.vault, json_text=True)
    assert said(data(restoration.events(sse(chunks))))[0, "content"] == expected

"""Masking on real sockets: the provider never sees the value, the client has it back.

What the stand-in provider received is searched byte by byte. It answers with the last user message, so with
the placeholder that it was sent; a gateway that left the value out would not have it in the answer either.
"""

import gc
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from gateway.backends.fake_calls import Behaviour
from gateway.backends.fake_text import Reply, ToolCall, last_user_text
from gateway.privacy.placeholders import Vault
from tests.support.stack import FLOOR_KEY, KEY, Stack, running_stack
from tests.support.waiting import until

CARD = "4111 1111 1111 1111"
SAID = f"Charge {CARD} and tell jo@example.org, then {CARD} again."
Body = dict[str, Any]

MASKING: Body = {
    "name": "masking",
    "version": 1,
    "routes": [
        {
            "name": "home-first",
            "match": {"tags": ["home-first"]},
            "targets": [
                {"backend": "home", "model": "home-model"},
                {"backend": "rented", "model": "m", "mask": True},
            ],
        },
        {
            "name": "raced",
            "match": {"tags": ["raced"]},
            "targets": [
                {"backend": "rented", "model": "m", "mask": True},
                {"backend": "home", "model": "home-model"},
            ],
            "hedge": {"after_ms": 20},
        },
        {
            "name": "unmasked",
            "match": {"tags": ["unmasked"], "privacy": {"at_most": "internal"}},
            "targets": [{"backend": "rented", "model": "m"}],
        },
        {
            "name": "masked",
            "targets": [
                {"backend": "rented", "mask": True},
                {"backend": "home", "model": "home-model"},
            ],
            "retry": {"attempts": 1, "on": "server_error", "backoff_ms": 1, "max_backoff_ms": 1},
        },
    ],
}


def answer(body: Body) -> Reply:
    """The last user message; as the arguments of a tool where there is one."""
    said = last_user_text(body)
    return ToolCall(name="f", arguments=json.dumps({"said": said})) if body.get("tools") else said


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("masking"), policy=MASKING, answer=answer) as running:
        yield running


def chat(content: Any = SAID, **more: Any) -> Body:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}], **more}


TOOLS = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}
RESPONSE: Body = {"model": "gpt-4o-mini", "input": SAID}
RESPONSE_TOOLS = {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}}]}


def post(stack: Stack, body: Body, endpoint: str = "chat/completions", **headers: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {KEY}", **headers}
    return httpx.post(f"{stack.url}/{endpoint}", json=body, headers=headers, timeout=30)


def events(answer: httpx.Response) -> list[Body]:
    """The data of all events but [DONE]."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def joined(answer: httpx.Response, *path: Any) -> dict[int, str]:
    """The text at `path` in the choices of all chunks, by choice."""
    texts: dict[int, str] = {}
    for choice in (choice for event in events(answer) for choice in event["choices"]):
        found = choice
        for step in path:
            nothing = [{}] if step == "tool_calls" else {}
            found = found[step] if isinstance(step, int) else found.get(step) or nothing
        texts[choice["index"]] = texts.get(choice["index"], "") + (found or "")
    return texts


def assert_masked(stack: Stack, answer: httpx.Response, values: int = 2) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-headgate-backend"] == "rented"
    assert answer.headers["x-headgate-privacy-class"] == "restricted"
    assert answer.headers["x-headgate-masked"] == str(values)
    assert "[[" not in answer.text
    for value in (CARD, "jo@example.org"):
        assert not stack.rented.saw(value.encode())


def test_a_whole_answer(stack: Stack) -> None:
    """The provider gets placeholders, one for each value; the client gets its values; the row says so."""
    answer = post(stack, chat())
    assert_masked(stack, answer)
    assert answer.json()["choices"][0]["message"]["content"] == SAID
    sent = stack.rented.calls[-1].body["messages"][0]["content"]
    words = sent.split(" ")
    assert sent == f"Charge {words[1]} and tell {words[4][:-1]}, then {words[1]} again."
    assert words[1].startswith("[[PAYMENT_CARD_")
    row = stack.rows()[-1]
    assert row.reason.endswith("; masked for rented: 1 email, 1 payment_card")
    assert (row.privacy, row.outcome, row.zone) == ("restricted", "ok", "cloud")


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_a_stream(stack: Stack, size: int) -> None:
    """However the provider cuts its text, the stream says what the whole answer says, for each choice."""
    stack.rented.script(Behaviour(chunk_chars=size))
    answer = post(stack, chat(stream=True, n=3))
    assert_masked(stack, answer)
    assert joined(answer, "delta", "content") == dict.fromkeys(range(3), SAID)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert [c["finish_reason"] for e in events(answer) for c in e["choices"]].count("stop") == 3


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_the_arguments_of_a_tool(stack: Stack, size: int) -> None:
    """Values stand in tool arguments as JSON writes them, whole and streamed."""
    said = "token=1;password=hun\\ter2;" + SAID
    whole = post(stack, chat(said, **TOOLS))
    assert_masked(stack, whole, 3)
    call = whole.json()["choices"][0]["message"]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"said": said}
    stack.rented.script(Behaviour(chunk_chars=size))
    streamed = post(stack, chat(said, stream=True, **TOOLS))
    assert_masked(stack, streamed, 3)
    arguments = joined(streamed, "delta", "tool_calls", 0, "function", "arguments")
    assert json.loads(arguments[0]) == {"said": said}
    assert not stack.rented.saw(b"hun")


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("tools", [{}, RESPONSE_TOOLS])
def test_responses(stack: Stack, size: int, tools: Body) -> None:
    """Deltas, and the events that repeat all of the text, have the values; numbers follow one another."""
    text = json.dumps({"said": SAID}) if tools else SAID
    kind = "function_call_arguments" if tools else "output_text"
    stack.rented.script(Behaviour(chunk_chars=size))
    answer = post(stack, RESPONSE | tools | {"stream": True}, "responses")
    assert_masked(stack, answer)
    found = events(answer)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert "".join(e["delta"] for e in found if e["type"] == f"response.{kind}.delta") == text
    (done,) = [e for e in found if e["type"] == f"response.{kind}.done"]
    assert done["arguments" if tools else "text"] == text
    (last,) = [e["response"]["output"][0] for e in found if e["type"] == "response.completed"]
    assert (last["arguments"] if tools else last["content"][0]["text"]) == text
    whole = post(stack, RESPONSE | tools, "responses").json()["output"][0]
    assert (whole["arguments"] if tools else whole["content"][0]["text"]) == text


@pytest.mark.parametrize("stream", [False, True])
def test_completions(stack: Stack, stream: bool) -> None:
    """The older endpoint, whole and streamed."""
    body = {"model": "m", "prompt": SAID, "stream": stream, "max_tokens": 500}
    answer = post(stack, body, "completions")
    assert_masked(stack, answer)
    text = joined(answer, "text")[0] if stream else answer.json()["choices"][0]["text"]
    assert text == SAID


def test_embeddings_are_of_what_is_left(stack: Stack) -> None:
    """An embedding has nothing to put back: it is the masked text's."""
    assert_masked(stack, post(stack, {"model": "m", "input": [SAID]}, "embeddings"))


def test_a_text_asked_for_as_json(stack: Stack) -> None:
    """A value that JSON writes otherwise keeps the text whole that was asked for as JSON."""
    said = "a;password=hun\\ter2;"
    stack.rented.script(Behaviour(chunk_chars=2))
    body = chat(said, stream=True, response_format={"type": "json_object"})
    answer = post(stack, body)
    assert answer.headers["x-headgate-masked"] == "1"
    assert joined(answer, "delta", "content")[0] == json.dumps(said)[1:-1]


@pytest.mark.parametrize(
    "body",
    [
        chat(metadata={CARD: "x"}),
        chat(seed=int(CARD.replace(" ", ""))),
        chat([{"type": "text", "text": half} for half in ("41111111", "11111111")]),
        chat("NDExMSAxMTExIDExMTEgMTExMSBpcyBteSBjYXJkIG51bWJlcg=="),
        chat("%34111%201111%201111%201111"),
        chat(model=f"model-{CARD}"),
    ],
    ids=["key", "number", "split", "base64", "percent", "model"],
)
def test_what_cannot_be_masked_stays_home(stack: Stack, body: Body) -> None:
    """The class stays, so the local target answers, and gets the request as it was."""
    before = stack.rented.called
    answer = post(stack, body)
    assert answer.status_code == 200
    assert answer.headers["x-headgate-backend"] == "home"
    assert "x-headgate-masked" not in answer.headers
    assert stack.rented.called == before
    assert not stack.rented.saw(b"1111")


def test_what_is_no_finding_is_not_lowered(stack: Stack) -> None:
    """A key's floor, a header and an attachment keep a request at home, masked or not."""
    image = {"type": "image_url", "image_url": {"url": "https://x.test/1.png"}}
    before = stack.rented.called
    answers = [
        post(stack, chat(), authorization=f"Bearer {FLOOR_KEY}"),
        post(stack, chat(), **{"x-headgate-privacy": "confidential"}),
        post(stack, chat([{"type": "text", "text": SAID}, image])),
    ]
    assert {answer.headers["x-headgate-backend"] for answer in answers} == {"home"}
    assert stack.rented.called == before


def test_within_the_ceiling_nothing_is_masked(stack: Stack) -> None:
    """Masking is for what could not go otherwise: an internal finding goes out as it is."""
    answer = post(stack, chat("ping 192.168.3.4"))
    assert answer.headers["x-headgate-backend"] == "rented"
    assert "x-headgate-masked" not in answer.headers
    assert stack.rented.saw(b"192.168.3.4")


def test_retried_masked_then_at_home_as_it_was(stack: Stack) -> None:
    """Each attempt at the provider is masked, with the same placeholders; the fallback has the values."""
    stack.rented.script(Behaviour(status=500, times=2))
    answer = post(stack, chat())
    assert (answer.headers["x-headgate-backend"], answer.headers["x-headgate-attempts"]) == ("home", "3")
    assert "x-headgate-masked" not in answer.headers
    assert answer.json()["choices"][0]["message"]["content"] == SAID
    assert stack.home.calls[-1].body["messages"][0]["content"] == SAID
    first, second = list(stack.rented.calls)[-2:]
    assert first.body["messages"] == second.body["messages"]
    assert not stack.rented.saw(CARD.encode())


def test_home_fails_over_to_masked(stack: Stack) -> None:
    """Home has the request as it was, and when it fails the provider gets it masked."""
    stack.home.script(Behaviour(status=500))
    answer = post(stack, chat(), **{"x-headgate-tags": "home-first"})
    assert_masked(stack, answer)
    assert stack.home.calls[-1].body["messages"][0]["content"] == SAID
    assert answer.json()["choices"][0]["message"]["content"] == SAID


def test_raced(stack: Stack) -> None:
    """A slow provider and home beside it: each gets its own form, and the winner's answer is whole."""
    stack.rented.script(Behaviour(hang=True))
    answer = post(stack, chat(stream=True), **{"x-headgate-tags": "raced"})
    assert answer.headers["x-headgate-backend"] == "home"
    assert joined(answer, "delta", "content")[0] == SAID
    assert stack.home.calls[-1].body["messages"][0]["content"] == SAID
    assert "[[PAYMENT_CARD_" in stack.rented.calls[-1].body["messages"][0]["content"]
    assert not stack.rented.saw(CARD.encode())


def test_a_target_that_does_not_mask_gets_nothing(stack: Stack) -> None:
    """Masking is the target's own word: a route without it denies or is passed by."""
    answer = post(stack, chat("hello"), **{"x-headgate-tags": "unmasked"})
    assert answer.headers["x-headgate-route"] == "unmasked"
    assert_masked(stack, post(stack, chat(), **{"x-headgate-tags": "unmasked"}))


def test_a_broken_stream_says_so_after_what_was_held(stack: Stack) -> None:
    """The backend breaks off in mid-placeholder: what was said of it is given, then the error."""
    stack.rented.script(Behaviour(chunk_chars=1, break_after=12))
    answer = post(stack, chat(stream=True))
    *chunks, error = events(answer)
    said = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert said == "Charge [[PA"
    assert error["error"]["code"] == "stream_broken"
    assert stack.rows()[-1].outcome == "interrupted"


def test_what_cannot_be_restored_is_counted(stack: Stack) -> None:
    """A placeholder that a model makes up stays as it is and is counted."""
    stack.rented.script(Behaviour(reply="I wrote to [[EMAIL_BBBBB]]."))
    answer = post(stack, chat())
    assert answer.json()["choices"][0]["message"]["content"] == "I wrote to [[EMAIL_BBBBB]]."
    metrics = httpx.get(f"{stack.server.url}/metrics", headers={"authorization": f"Bearer {KEY}"}).text
    assert "headgate_placeholders_unrestored_total 1.0" in metrics


def test_no_vault_outlives_its_request(stack: Stack) -> None:
    """Once the client has its answer, whole, streamed, failed over or failed, nothing holds values."""
    others = vaults()  # of other tests
    stack.rented.script(Behaviour(), Behaviour(), Behaviour(status=500, times=2), Behaviour(status=400))
    for body in (chat(), chat(stream=True), chat(), chat()):
        post(stack, body)
    gc.disable()  # what only the collector would find is held for as long as it likes
    try:
        stack.loop.run(until(lambda: not any(len(v) for v in vaults() if v not in others)))
    finally:
        gc.enable()


def vaults() -> list[Vault]:
    return [found for found in gc.get_objects() if type(found) is Vault]

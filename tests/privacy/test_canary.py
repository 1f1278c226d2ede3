"""Invariant 1 under attack: a canary in a restricted request never reaches the rented provider.

The canary goes into every place of a request that can hold a string. What the stand-in provider received is
searched byte by byte. Each case also shows that the request did arrive at home, or was refused with a reason:
a gateway that is simply down would leak nothing either.
"""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.privacy.detect import Finding
from tests.support.stack import FLOOR_KEY, KEY, POLICY, Stack, running_stack

CANARY = "CANARY-7f3a91-must-stay"
CARD = "4111 1111 1111 1111"
Body = dict[str, Any]


def chat(**more: Any) -> Body:
    return {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]} | more


def message(**fields: Any) -> Body:
    return chat(messages=[{"role": "user", "content": "hello"} | fields])


def tool(**fields: Any) -> Body:
    function = {"name": "f", "parameters": {"type": "object", "properties": {}}} | fields
    return chat(tools=[{"type": "function", "function": function}])


FIELDS: dict[str, tuple[str, Callable[[str], Body]]] = {
    "user message": ("chat/completions", lambda s: message(content=s)),
    "system message": (
        "chat/completions",
        lambda s: chat(messages=[{"role": "system", "content": s}, {"role": "user", "content": "hi"}]),
    ),
    "history": (
        "chat/completions",
        lambda s: chat(
            messages=[
                {"role": "assistant", "content": s},
                *({"role": "user", "content": "x"} for _ in range(30)),
            ]
        ),
    ),
    "content part": ("chat/completions", lambda s: message(content=[{"type": "text", "text": s}])),
    "image url": (
        "chat/completions",
        lambda s: message(content=[{"type": "image_url", "image_url": {"url": f"https://x.test/{s}"}}]),
    ),
    "file name": (
        "chat/completions",
        lambda s: message(content=[{"type": "file", "file": {"filename": s, "file_data": "AAAA"}}]),
    ),
    "message name": ("chat/completions", lambda s: message(name=s)),
    "unknown message key": ("chat/completions", lambda s: message(**{s: "value"})),
    "tool call arguments": (
        "chat/completions",
        lambda s: chat(
            messages=[
                {"role": "user", "content": "x"},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "f", "arguments": json.dumps({"a": s})},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "done"},
            ]
        ),
    ),
    "tool result": (
        "chat/completions",
        lambda s: chat(
            messages=[{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": s}]
        ),
    ),
    "tool description": ("chat/completions", lambda s: tool(description=s)),
    "tool parameter description": (
        "chat/completions",
        lambda s: tool(
            parameters={"type": "object", "properties": {"a": {"type": "string", "description": s}}}
        ),
    ),
    "tool property name": (
        "chat/completions",
        lambda s: tool(parameters={"type": "object", "properties": {s: {"type": "string"}}}),
    ),
    "schema description": (
        "chat/completions",
        lambda s: chat(
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object", "description": s}},
            }
        ),
    ),
    "enum in a schema": (
        "chat/completions",
        lambda s: chat(
            response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": [s]}}}
        ),
    ),
    "metadata value": ("chat/completions", lambda s: chat(metadata={"ticket": s})),
    "metadata key": ("chat/completions", lambda s: chat(metadata={s: "ticket"})),
    "user": ("chat/completions", lambda s: chat(user=s)),
    "stop": ("chat/completions", lambda s: chat(stop=[s])),
    "prediction": ("chat/completions", lambda s: chat(prediction={"type": "content", "content": s})),
    "unknown top-level key": ("chat/completions", lambda s: chat(extra={"deep": [[{"er": s}]]})),
    "model name": ("chat/completions", lambda s: chat(model=s)),
    "prompt": ("completions", lambda s: {"model": "gpt-4o-mini", "prompt": s}),
    "prompt list": ("completions", lambda s: {"model": "gpt-4o-mini", "prompt": ["a", s]}),
    "suffix": ("completions", lambda s: {"model": "gpt-4o-mini", "prompt": "a", "suffix": s}),
    "embeddings input": ("embeddings", lambda s: {"model": "text-embedding-3-small", "input": ["a", s]}),
}


class Raising:
    name = "raising"

    linear = False

    def scan(self, text: str) -> Sequence[Finding]:
        raise RuntimeError(f"cannot read {text}")


class Exhausted:
    name = "exhausted"

    linear = False

    def scan(self, text: str) -> Sequence[Finding]:
        raise MemoryError


class Hanging:
    name = "hanging"

    def __init__(self) -> None:
        self.released = threading.Event()

    linear = False

    def scan(self, text: str) -> Sequence[Finding]:
        self.released.wait(60)
        return ()


class Rubbish:
    name = "rubbish"

    linear = False

    def scan(self, text: str) -> Any:
        return [{"kind": "fine", "privacy": -1}, "nothing to see"]


class NoneAtAll:
    name = "none"

    linear = False

    def scan(self, text: str) -> Any:
        return None


BROKEN: list[Callable[[], Any]] = [Raising, Exhausted, Hanging, Rubbish, NoneAtAll]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("canary")) as running:
        yield running


def post(stack: Stack, endpoint: str, body: Body, *, key: str = KEY, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{stack.url}/{endpoint}",
        json=body,
        headers={"authorization": f"Bearer {key}", **headers},
        timeout=30,
    )


def assert_stayed_home(stack: Stack, answer: httpx.Response, canary: str = CANARY) -> None:
    assert not stack.rented.saw(canary.encode())
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-headgate-privacy-class"] == "restricted"
    assert answer.headers["x-headgate-backend"] == "home"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("field", FIELDS)
def test_header_says_restricted(stack: Stack, field: str, stream: bool) -> None:
    """`x-headgate-privacy: restricted` keeps the canary at home wherever it stands."""
    endpoint, build = FIELDS[field]
    body = build(CANARY) | ({"stream": True} if stream and endpoint != "embeddings" else {})
    answer = post(stack, endpoint, body, **{"x-headgate-privacy": "restricted"})
    assert_stayed_home(stack, answer)
    assert stack.home.saw(CANARY.encode()) or field == "model name"


@pytest.mark.parametrize("field", FIELDS)
def test_key_says_restricted(stack: Stack, field: str) -> None:
    """A key's floor holds, and the header cannot lower it."""
    endpoint, build = FIELDS[field]
    answer = post(stack, endpoint, build(CANARY), key=FLOOR_KEY, **{"x-headgate-privacy": "public"})
    assert_stayed_home(stack, answer)


@pytest.mark.parametrize("field", [field for field in FIELDS if field != "model name"])
def test_detector_says_restricted(stack: Stack, field: str) -> None:
    """A card number beside the canary, anywhere in the body, is found and keeps both at home."""
    endpoint, build = FIELDS[field]
    text = f"{CANARY} {CARD}" if field != "image url" else f"{CANARY}-{CARD.replace(' ', '')}"
    answer = post(stack, endpoint, build(text))
    assert_stayed_home(stack, answer)
    assert not stack.rented.saw(CARD.encode())


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_detector_means_restricted(broken: Callable[[], Any], tmp_path: Path) -> None:
    """Raising, out of memory, hanging or returning rubbish: doubt is the highest class."""
    detector = broken()
    with running_stack(tmp_path, detectors=[detector]) as stack:
        for endpoint, build in FIELDS.values():
            assert_stayed_home(stack, post(stack, endpoint, build(CANARY)))
        assert stack.rented.called == 0
        assert CANARY not in repr([row.findings for row in stack.rows()])
        if isinstance(detector, Hanging):
            detector.released.set()


def test_no_home_means_no_answer(tmp_path: Path) -> None:
    """Without a permitted backend a restricted request is refused clearly, and nothing is sent."""
    policy = POLICY | {"routes": POLICY["routes"][1:]}
    with running_stack(tmp_path, policy=policy) as stack:
        answer = post(stack, *FIELDS["user message"][:1], FIELDS["user message"][1](f"{CANARY} {CARD}"))
        assert 400 <= answer.status_code < 500
        assert answer.json()["error"]["message"]
        assert stack.rented.received == []
        assert stack.home.received == []
        (row,) = stack.rows()
        assert row.outcome == "refused"
        assert row.attempts == 0


def test_a_failing_home_never_falls_back_outside(stack: Stack) -> None:
    """Home answers 500, 429 or, twice, nothing (a stale connection is tried anew): it fails, it stays."""
    for behaviour in ({"status": 500}, {"status": 429}, {"close": True, "times": 2}):
        httpx.post(f"{stack.home.url}/__fake__/script", json=[behaviour]).raise_for_status()
        answer = post(
            stack, "chat/completions", message(content=CANARY), **{"x-headgate-privacy": "restricted"}
        )
        assert answer.status_code >= 400
        assert not stack.rented.saw(CANARY.encode())


def test_a_shadowed_duplicate_key_does_not_travel(stack: Stack) -> None:
    """JSON may repeat a key. What was not classified is not sent: only the last one counts, everywhere."""
    hidden = json.dumps([{"role": "user", "content": f"{CANARY}-dup {CARD}"}])
    shown = json.dumps([{"role": "user", "content": "harmless"}])
    body = f'{{"model": "gpt-4o-mini", "messages": {hidden}, "messages": {shown}}}'
    answer = httpx.post(
        f"{stack.url}/chat/completions", content=body, headers={"authorization": f"Bearer {KEY}"}, timeout=30
    )
    assert answer.status_code == 200
    assert answer.headers["x-headgate-backend"] == "rented"
    assert not stack.rented.saw(f"{CANARY}-dup".encode())


def test_nothing_of_the_clients_headers_or_query_travels(stack: Stack) -> None:
    """Headers, cookies, tags and the query string stay with the gateway, also for a public request."""
    secret = f"{CANARY}-header"
    answer = httpx.post(
        f"{stack.url}/chat/completions?q={secret}",
        json=chat(),
        headers={
            "authorization": f"Bearer {KEY}",
            "x-headgate-tags": secret,
            "user-agent": secret,
            "cookie": secret,
            "x-anything": secret,
        },
        timeout=30,
    )
    assert answer.headers["x-headgate-backend"] == "rented"
    assert not stack.rented.saw(secret.encode())
    assert not stack.rented.saw(KEY.encode())


def test_an_unknown_class_is_refused(stack: Stack) -> None:
    """A misspelt class is an error, not a guess."""
    answer = post(stack, "chat/completions", chat(), **{"x-headgate-privacy": "secretish"})
    assert answer.status_code == 400
    assert "restricted" in answer.json()["error"]["message"]

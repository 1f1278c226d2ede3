"""What a client gets, and what the ledger says, for each way in which a backend can fail.

Every case: the documented answer, one row, no connection left open upstream, nothing in flight.
"""

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from tests.dataplane.conftest import Gateway
from tests.support.toxic import (
    STREAM_END,
    STREAM_HEAD,
    Play,
    answer,
    chunk,
    error,
    hangs_up_after,
    replies,
    stalls_after,
    stream,
)

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
COST = 1000 * 1000 + 500 * 2000  # nano-dollars, at 1 and 2 dollars a million


def completion(usage: Any = USAGE) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello there"}, "finish_reason": "stop"}
    return msgspec.json.encode({"id": "x", "choices": [choice]} | ({"usage": usage} if usage else {}))


def event(data: Any) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


TOKEN = event({"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": None}]})
FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USED = event({"choices": [], "usage": USAGE})
DONE = b"data: [DONE]\n\n"
GOOD = answer(completion())
GOOD_STREAM = stream(TOKEN, FINISH, USED, DONE)
BUSY = event({"error": {"message": "no room", "type": "overloaded", "code": "busy"}})


def envelope(response: httpx.Response) -> dict[str, Any]:
    """The error in OpenAI's envelope; all four keys are there and none is the string "None"."""
    assert response.headers["content-type"] == "application/json"
    fields: dict[str, Any] = response.json()["error"]
    assert fields.keys() == {"message", "type", "param", "code"}
    assert fields["message"]
    assert "None" not in fields.values()
    return fields


# Before the first byte.

BEFORE: dict[str, tuple[str, Play | None, int, str, str]] = {
    # what happens: route, what the server does, status, code, error class
    "refused": ("nowhere", None, 503, "connection", "connection"),
    "closed at once": ("one", hangs_up_after(), 502, "connection", "connection"),
    "reset at once": ("one", hangs_up_after(reset=True), 502, "connection", "connection"),
    "closed in the head": ("one", hangs_up_after(b"HTTP/1.1 200 OK\r\n"), 502, "connection", "connection"),
    "closed in the body": ("one", hangs_up_after(GOOD[:-9]), 502, "connection", "connection"),
    "a bad chunk size": ("one", hangs_up_after(STREAM_HEAD + b"xyz\r\n"), 502, "connection", "connection"),
    "an empty chunked body": ("one", replies(STREAM_HEAD + b"-1\r\n"), 502, "connection", "connection"),
    "not HTTP": ("one", hangs_up_after(b"\x00\x01\x02\x03\r\n\r\n"), 502, "server_error", "server_error"),
    "silence": ("hasty", stalls_after(), 504, "timeout", "timeout"),
    "silence after the head": ("hasty", stalls_after(STREAM_HEAD), 504, "timeout", "timeout"),
    "silence in an event": ("hasty", stalls_after(STREAM_HEAD + chunk(b"da")), 504, "timeout", "timeout"),
    "silence in the head": ("hasty", stalls_after(b"HTTP/1.1 200 O"), 504, "timeout", "timeout"),
    "silence in a length": ("hasty", stalls_after(GOOD[:-9]), 504, "timeout", "timeout"),
    "silence in a chunk line": ("hasty", stalls_after(STREAM_HEAD + b"4"), 504, "timeout", "timeout"),
    "silence in a chunk": ("hasty", stalls_after(STREAM_HEAD + b"40\r\ndata"), 504, "timeout", "timeout"),
    "silence after a 100": ("hasty", stalls_after(b"HTTP/1.1 100 On\r\n\r\n"), 504, "timeout", "timeout"),
    "a redirect": ("one", replies(answer(b"", 302, "location: /")), 502, "server_error", "server_error"),
    "a status beyond HTTP": ("one", replies(error(999)), 502, "server_error", "server_error"),
    "400": ("one", replies(error(400, code="bad_value")), 400, "bad_value", "refused"),
    "400 without a code": ("one", replies(error(400)), 400, None, "refused"),
    "403": ("one", replies(error(403)), 403, None, "refused"),
    "404": ("one", replies(error(404, code="model_not_found")), 404, "model_not_found", "not_found"),
    "429": ("one", replies(error(429, "retry-after: 7")), 429, None, "rate_limit"),
    "500": ("one", replies(error(500)), 500, "server_error", "server_error"),
    "500 in HTML": ("one", replies(answer(b"<html>oh</html>", 500)), 500, "server_error", "server_error"),
    "503": ("one", replies(error(503, code="overloaded")), 503, "overloaded", "server_error"),
    "unsafe": ("one", replies(error(400, code="content_filter")), 400, "content_filter", "content_policy"),
    "our key refused": ("one", replies(error(401)), 502, "backend_credentials_refused", "refused"),
}


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", BEFORE)
async def test_before_the_first_byte(gateway: Gateway, fault: str, streaming: bool) -> None:
    """The client gets one proper error with the backend's status or ours; the row says failed, at no cost."""
    route, play, status, code, error_class = BEFORE[fault]
    if play:
        gateway.first.script(play)
    response = await gateway.ask(route, stream=streaming)
    assert response.status_code == status
    assert envelope(response)["code"] == code
    assert response.headers.get("retry-after") == ("7" if fault == "429" else None)
    row = await gateway.row()
    assert row.call_id == response.headers["x-headgate-call-id"]
    assert (row.outcome, row.error_class, row.status) == ("failed", error_class, status)
    assert (row.attempts, row.cost_nano, row.usage.input_tokens, row.first_byte_ms) == (1, 0, 0, None)
    assert response.headers["x-headgate-attempts"] == "1"


@pytest.mark.parametrize("said", [stream(), stream(BUSY), answer(completion()), stream(b"data: {")])
async def test_a_stream_that_never_begins(gateway: Gateway, said: bytes) -> None:
    """Status 200 and then nothing, an error or no events at all: to the client it is one proper error."""
    gateway.first.script(replies(said))
    response = await gateway.ask("one", stream=True)
    assert response.status_code == 502
    assert envelope(response)["code"] in ("connection", "busy")
    row = await gateway.row()
    assert (row.outcome, row.status, row.cost_nano) == ("failed", 502, 0)


# After the first byte of a stream.

AFTER: dict[str, tuple[str, bytes, bool]] = {
    # what happens after the first event: route, what follows it, whether by a reset
    "closed": ("one", b"", False),
    "reset": ("one", b"", True),
    "closed in an event": ("one", b"400\r\ndata: {", False),
    "half an event, well framed": ("one", chunk(b"data: {") + STREAM_END, False),
    "no [DONE]": ("one", STREAM_END, False),
    "finished, but no [DONE]": ("one", chunk(FINISH) + STREAM_END, False),
    "a bad chunk size": ("one", b"xyz\r\n", False),
    "not HTTP any more": ("one", b"\x00\xff\x00\xff" * 9, False),
    "silence": ("hasty", b"", False),
}


@pytest.mark.parametrize("fault", AFTER)
async def test_after_the_first_byte(gateway: Gateway, fault: str) -> None:
    """What came is passed on, then comes an error event: no [DONE], no finish reason that was not sent."""
    route, rest, reset = AFTER[fault]
    begun = asyncio.Event()

    async def play(peer: Any) -> None:
        await peer.request()
        peer.send(STREAM_HEAD + chunk(TOKEN))
        await begun.wait()
        peer.send(rest)
        if fault == "silence":
            await peer.gone()
        elif reset:
            peer.reset()

    gateway.first.script(play)
    passed = b""
    body = {"model": route, "stream": True, "messages": [{"role": "user", "content": "hello"}]}
    async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        async for part in response.aiter_bytes():
            passed += part
            begun.set()
    assert passed.startswith(TOKEN)
    *whole, last, nothing = passed.split(b"\n\n")
    assert nothing == b""
    assert whole == [TOKEN.strip()] + ([FINISH.strip()] if fault.startswith("finished") else [])
    told = msgspec.json.decode(last.removeprefix(b"data: "))["error"]
    assert (told["code"], told["type"], told["param"]) == ("stream_broken", "api_error", None)
    row = await gateway.row()
    assert (row.outcome, row.status, row.attempts, row.error_class) == ("interrupted", 200, 1, None)
    assert row.usage.estimated
    assert row.usage.output_tokens == len(whole)
    assert row.usage.input_tokens > 0
    assert row.cost_nano == row.usage.input_tokens * 1000 + row.usage.output_tokens * 2000
    assert row.first_byte_ms is not None


async def test_usage_before_the_break_counts(gateway: Gateway) -> None:
    """A stream that breaks after its usage is paid by that usage; no estimate takes its place."""
    gateway.first.script(hangs_up_after(STREAM_HEAD + chunk(TOKEN, USED)))
    response = await gateway.ask("one", stream=True)
    assert b"stream_broken" in response.content
    row = await gateway.row()
    assert (row.outcome, row.usage.estimated, row.cost_nano) == ("interrupted", False, COST)


async def test_the_backends_own_error_event(gateway: Gateway) -> None:
    """It passes as it came, the row says interrupted, and when the backend then goes nothing is added."""
    gateway.first.script(hangs_up_after(STREAM_HEAD + chunk(TOKEN, BUSY)))
    response = await gateway.ask("one", stream=True)
    assert response.content == TOKEN + BUSY
    row = await gateway.row()
    assert (row.outcome, row.status) == ("interrupted", 200)


@pytest.mark.parametrize("reset", [False, True])
async def test_a_break_after_done_is_none(gateway: Gateway, reset: bool) -> None:
    """After [DONE] the client has everything: how the backend ends the connection is of no interest."""
    gateway.first.script(hangs_up_after(STREAM_HEAD + chunk(TOKEN, FINISH, USED, DONE), reset=reset))
    response = await gateway.ask("one", stream=True)
    assert response.content == TOKEN + FINISH + DONE
    row = await gateway.row()
    assert (row.outcome, row.cost_nano) == ("ok", COST)


async def test_a_fault_of_ours_in_mid_stream(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a bug of the gateway's does not end a stream as if it were whole."""

    def broken(*_: object) -> bytes:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("gateway.backends.wire.StreamMeter.feed", broken)
    gateway.first.script(stalls_after(STREAM_HEAD + chunk(TOKEN)))
    response = await gateway.ask("one", stream=True)
    assert response.status_code == 200
    assert msgspec.json.decode(response.content.removeprefix(b"data: "))["error"]["code"] == "internal"
    assert b"a bug" not in response.content
    row = await gateway.row()
    assert (row.outcome, row.status, row.usage.estimated) == ("interrupted", 200, True)


# Usage.


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("usage", "estimated", "output"),
    [
        (USAGE, False, 500),
        ({"prompt_tokens": 0, "completion_tokens": 0}, False, 0),
        (None, True, 2),
        ({"prompt_tokens": 2**63, "completion_tokens": 1}, True, 2),
        ({"prompt_tokens": "many"}, True, 2),
    ],
    ids=["given", "zero", "missing", "beyond 64 bits", "nonsense"],
)
async def test_usage(gateway: Gateway, streaming: bool, usage: Any, estimated: bool, output: int) -> None:
    """What the provider counted is believed, a zero too; what is missing or mad is estimated, and marked."""
    events = [TOKEN, FINISH] + ([event({"choices": [], "usage": usage})] if usage else []) + [DONE]
    gateway.first.script(replies(stream(*events) if streaming else answer(completion(usage))))
    response = await gateway.ask("one", stream=streaming)
    assert response.status_code == 200
    row = await gateway.row()
    assert row.outcome == "ok"
    assert row.usage.estimated is estimated
    counted = output + (1 if streaming and estimated and usage else 0) + (1 if streaming and estimated else 0)
    assert row.usage.output_tokens == counted  # of a stream its events are counted, [DONE] included
    assert row.cost_nano == row.usage.input_tokens * 1000 + row.usage.output_tokens * 2000


async def test_an_unknown_price_is_unknown(gateway: Gateway) -> None:
    """Not zero, and not invented: the row holds no cost and the answer no such header."""
    gateway.first.script(replies(GOOD))
    response = await gateway.ask("unpriced")
    assert "x-headgate-cost" not in response.headers
    row = await gateway.row()
    assert (row.outcome, row.cost_nano, row.usage.input_tokens) == ("ok", None, 1000)


@pytest.mark.parametrize("line", [b"\n\n", b"\r\n\r\n"])
async def test_event_lines_as_others_write_them(gateway: Gateway, line: bytes) -> None:
    """No space after `data:`, and either line end: it is the same stream, read to its usage and its end."""
    events = [e.replace(b"data: ", b"data:").replace(b"\n\n", line) for e in (TOKEN, FINISH, USED, DONE)]
    gateway.first.script(replies(stream(*events)))
    response = await gateway.ask("one", stream=True)
    assert b"error" not in response.content
    assert b"usage" not in response.content
    row = await gateway.row()
    assert (row.outcome, row.cost_nano) == ("ok", COST)


# Falling back.


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("route", "play"),
    [
        ("nowhere-pair", None),
        ("pair", hangs_up_after(reset=True)),
        ("pair", hangs_up_after(GOOD[:-9])),
        ("pair", hangs_up_after(b"\x00\x01\r\n\r\n")),
        ("hasty-pair", stalls_after()),
        ("hasty-pair", stalls_after(STREAM_HEAD)),
        ("pair", replies(error(429, "retry-after: 60"))),
        ("pair", replies(error(500))),
        ("careful", replies(error(400, code="content_policy_violation"))),
    ],
    ids=[
        "refused",
        "reset",
        "cut",
        "not HTTP",
        "silence",
        "silence after the head",
        "429",
        "500",
        "declared",
    ],
)
async def test_fallback(gateway: Gateway, route: str, play: Play | None, streaming: bool) -> None:
    """A declared class of error leads on: the client sees only the second answer, the row both attempts."""
    if play:
        gateway.first.script(play)
    gateway.second.script(replies(GOOD_STREAM if streaming else GOOD))
    response = await gateway.ask(route, stream=streaming)
    assert response.status_code == 200
    assert response.content == (TOKEN + FINISH + DONE if streaming else completion())
    assert response.headers["x-headgate-backend"] == "second"
    assert response.headers["x-headgate-attempts"] == "2"
    assert "retry-after" not in response.headers
    row = await gateway.row()
    assert (row.outcome, row.backend, row.attempts, row.error_class) == ("ok", "second", 2, None)
    assert row.cost_nano == COST


async def test_a_stream_that_begins_with_an_error_falls_back(gateway: Gateway) -> None:
    """An error as the first event is an error before the first byte, even when TCP cuts it in two."""
    gateway.first.script(hangs_up_after(STREAM_HEAD + chunk(BUSY[:11]) + chunk(BUSY[11:])))
    gateway.second.script(replies(GOOD_STREAM))
    response = await gateway.ask("pair", stream=True)
    assert response.content == TOKEN + FINISH + DONE
    assert (await gateway.row()).attempts == 2


@pytest.mark.parametrize(
    ("route", "reply", "status"),
    [
        ("pair", error(400), 400),
        ("pair", error(403), 403),
        ("pair", error(404), 404),
        ("pair", error(400, code="content_policy_violation"), 400),
        ("pair", error(401), 502),
        ("narrow", error(500), 500),
        ("narrow", error(429), 429),
        ("careful", error(400), 400),
    ],
)
async def test_no_fallback(gateway: Gateway, route: str, reply: bytes, status: int) -> None:
    """What the route does not declare is final: above all, nobody else is asked what one has refused."""
    gateway.first.script(replies(reply))
    response = await gateway.ask(route)
    assert response.status_code == status
    row = await gateway.row()
    assert (row.attempts, row.backend, row.outcome) == (1, "first", "failed")
    assert gateway.second.open == 0


async def test_the_last_error_is_the_answer(gateway: Gateway) -> None:
    """When nobody is left, the client hears the last backend, its retry-after included."""
    gateway.first.script(replies(error(500)))
    gateway.second.script(replies(error(429, "retry-after: 12", code="slow_down")))
    response = await gateway.ask("pair")
    assert (response.status_code, response.headers["retry-after"]) == (429, "12")
    assert envelope(response)["code"] == "slow_down"
    row = await gateway.row()
    assert (row.attempts, row.backend, row.error_class) == (2, "second", "rate_limit")
    assert (row.outcome, row.cost_nano) == ("failed", 0)


async def test_no_fallback_after_the_first_byte(gateway: Gateway) -> None:
    """A stream that has begun ends where it breaks: no second backend goes on in the first one's name."""
    gateway.first.script(hangs_up_after(STREAM_HEAD + chunk(TOKEN)))
    response = await gateway.ask("pair", stream=True)
    assert response.content.startswith(TOKEN)
    assert b"stream_broken" in response.content
    row = await gateway.row()
    assert (row.attempts, row.backend, row.outcome) == (1, "first", "interrupted")
    assert gateway.second.open == 0


async def test_many_at_once(gateway: Gateway) -> None:
    """64 requests in flight at one time, a quarter of them failing: each settles once, by its own answer."""
    count = 64
    together = asyncio.Barrier(count)

    async def play(peer: Any) -> None:
        asked = await peer.request()
        number = int(msgspec.json.decode(asked.partition(b"\r\n\r\n")[2])["seed"])
        await together.wait()
        if number % 4 == 0:
            return
        usage = {"prompt_tokens": number, "completion_tokens": 0}
        peer.send(answer(completion(usage)))
        await peer.gone()

    gateway.first.script(*[play] * count)
    responses = await asyncio.gather(*(gateway.ask("one", seed=n) for n in range(1, count + 1)))
    for number, response in enumerate(responses, 1):
        assert response.status_code == (502 if number % 4 == 0 else 200)
        if number % 4:
            assert response.json()["usage"]["prompt_tokens"] == number
    rows = {row.call_id: row for row in await gateway.rows()}
    assert len(rows) == count
    for number, response in enumerate(responses, 1):
        row = rows[response.headers["x-headgate-call-id"]]
        assert row.cost_nano == (0 if number % 4 == 0 else number * 1000)
        assert row.outcome == ("failed" if number % 4 == 0 else "ok")

"""The fake provider misbehaves as it is told, and keeps what reached it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.backends.fake import FakeProvider
from gateway.backends.fake_calls import Behaviour
from gateway.backends.fake_text import ToolCall

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = {**CHAT, "stream": True, "stream_options": {"include_usage": True}}


@pytest.fixture
async def http(provider: FakeProvider) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider.url) as client:
        yield client


async def post(http: httpx.AsyncClient, body: Any = CHAT) -> httpx.Response:
    return await http.post("/v1/chat/completions", json=body)


async def read(http: httpx.AsyncClient, into: bytearray) -> None:
    async with http.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
        async for chunk in answer.aiter_bytes():
            into += chunk


async def test_a_script_over_http_is_followed_in_order(http: httpx.AsyncClient) -> None:
    """Two refusals with their own error and header, then a reply, then all is well again."""
    refusal = {"status": 429, "error": {"code": "slow_down"}, "headers": {"retry-after": "1"}, "times": 2}
    scripted = await http.post("/__fake__/script", json=[refusal, {"reply": "scripted"}])
    assert scripted.json() == {"fake": True, "scripted": 3}
    answers = [await post(http) for _ in range(4)]
    assert [a.status_code for a in answers] == [429, 429, 200, 200]
    assert answers[0].headers["retry-after"] == "1"
    assert answers[0].json()["error"]["code"] == "slow_down"
    assert answers[2].json()["choices"][0]["message"]["content"] == "scripted"
    assert answers[3].json()["choices"][0]["message"]["content"] != "scripted"


async def test_a_script_can_be_forgotten_and_is_checked(http: httpx.AsyncClient) -> None:
    """DELETE drops what is left of a script; a key that means nothing is refused, not ignored."""
    await http.post("/__fake__/script", json=[{"status": 500}])
    assert (await http.delete("/__fake__/script")).json()["scripted"] == 0
    assert (await post(http)).status_code == 200
    refused = await http.post("/__fake__/script", json=[{"satus": 500}])
    assert refused.status_code == 400
    assert "satus" in refused.json()["error"]["message"]


async def test_a_behaviour_waits_for_its_endpoint(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """Health checks on /v1/models leave a script alone, unless a behaviour is meant for them."""
    provider.script(Behaviour(status=500), Behaviour(endpoint="models", status=503))
    assert (await http.get("/v1/models")).status_code == 503
    assert (await http.get("/v1/models")).status_code == 200
    assert (await post(http)).status_code == 500


@pytest.mark.parametrize("how", ["reset", "close"])
async def test_a_stream_breaks_off(provider: FakeProvider, http: httpx.AsyncClient, how: Any) -> None:
    """After just so many chunks the client meets a transport error, and never an end mark."""
    provider.script(Behaviour(break_after=3, break_how=how))
    got = bytearray()
    with pytest.raises(httpx.ReadError if how == "reset" else httpx.RemoteProtocolError):
        await read(http, into=got)
    # A reset may overtake chunks that the client has not read yet.
    assert got.count(b"data: ") in ([3] if how == "close" else [0, 1, 2, 3])
    assert b"[DONE]" not in got


async def test_a_stream_ends_as_if_it_were_whole(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """`end` cuts a stream short without any transport error: only the missing end mark tells."""
    provider.script(Behaviour(break_after=2, break_how="end"))
    text = (await post(http, STREAM)).text
    assert text.count("data: ") == 2
    assert "[DONE]" not in text
    assert '"finish_reason":"' not in text


async def test_what_a_provider_may_leave_out(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """Usage and the end mark can be missing, and usage can be what the script says, zero too."""
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    provider.script(Behaviour(omit_usage=True, omit_done=True, times=2), Behaviour(usage=zero))
    text = (await post(http, STREAM)).text
    assert "usage" not in text
    assert "[DONE]" not in text
    assert "usage" not in (await post(http)).json()
    assert (await post(http)).json()["usage"] == zero


async def test_scripted_tool_calls_and_cuts(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """A tool call with given arguments comes in chunks of a given size."""
    call = ToolCall(name="f", arguments='{"a": "bcd"}')
    provider.script(Behaviour(tool_call=call, chunk_chars=5))
    text = (await post(http, STREAM)).text
    pieces = [p.partition('"')[0] for p in text.replace('\\"', "'").split('"arguments":"')[1:]]
    assert pieces == ["", "{'a':", " 'bcd", "'}"]


async def test_no_answer_at_all(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """`close` ends the connection before any byte of an answer."""
    provider.script(Behaviour(close=True))
    with pytest.raises(httpx.RemoteProtocolError):
        await post(http)
    assert (await post(http)).status_code == 200


async def test_a_client_that_leaves_is_noticed(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """`hang` lasts until the client goes, before the first byte or, with a delay, between chunks."""
    provider.script(Behaviour(hang=True))
    waiting = asyncio.create_task(post(http))
    await provider.until(lambda: provider.called == 1)
    assert provider.abandoned == 0
    waiting.cancel()
    await provider.until(lambda: provider.abandoned == 1)
    provider.script(Behaviour(chunk_delay=0.01, reply="word " * 1000))
    async with http.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
        await anext(answer.aiter_raw())
    await provider.until(lambda: provider.abandoned == 2)


async def test_latency(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """Seconds asked for pass before the first byte."""
    provider.script(Behaviour(latency=0.05))
    assert (await post(http)).elapsed.total_seconds() >= 0.05


async def test_every_byte_is_kept_as_it_came(provider: FakeProvider, tmp_path: Path) -> None:
    """Also what no parser would take: a connection's bytes are kept before anything reads them."""
    file = tmp_path / "received"
    fake = FakeProvider(record_file=file)
    await fake.start()
    sent = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00canary\xff not HTTP at all\r\n\r\n"
    for data in sent:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(fake.url.rpartition(":")[2]))
        writer.write(data)
        writer.write_eof()
        await reader.read()
        writer.close()
    assert [bytes(record) for record in fake.received] == list(sent)
    assert fake.saw(b"\x00canary\xff")
    assert not fake.saw(b"another")
    assert file.read_bytes() == b"".join(sent)
    await fake.stop()


async def test_a_full_record_does_not_pass_for_a_clean_one() -> None:
    """Past its bound the record no longer says that something was not seen: it fails."""
    fake = FakeProvider(record_limit=100)
    await fake.start()
    async with httpx.AsyncClient(base_url=fake.url) as http:
        await post(http)
    assert sum(map(len, fake.received)) == 100
    with pytest.raises(RuntimeError, match="above record_limit"):
        fake.saw(b"canary")
    await fake.stop()


async def test_the_report(provider: FakeProvider, http: httpx.AsyncClient) -> None:
    """What came in can be asked for over HTTP: counts, and bodies with the status they got."""
    provider.script(Behaviour(status=500))
    await post(http)
    await post(http)
    report = (await http.get("/__fake__/received")).json()
    assert (report["fake"], report["connections"], report["requests"], report["abandoned"]) == (True, 1, 2, 0)
    assert report["calls"] == [
        {"endpoint": "chat/completions", "body": CHAT, "status": 500},
        {"endpoint": "chat/completions", "body": CHAT, "status": 200},
    ]
    assert report["bytes"] > 2 * len(str(CHAT))

"""Answers that are strange and yet right, or right and then strange: what each is worth, and its socket."""

import asyncio

import msgspec
import pytest

from tests.dataplane.conftest import Gateway
from tests.dataplane.test_faults import COST, DONE, FINISH, GOOD, GOOD_STREAM, TOKEN, completion, envelope
from tests.support.toxic import STREAM_HEAD, Peer, Play, chunk, hangs_up_after, replies

both = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])


def good(streaming: bool) -> bytes:
    return GOOD_STREAM if streaming else GOOD


def drips(data: bytes) -> Play:
    """One byte at a time."""

    async def play(peer: Peer) -> None:
        await peer.request()
        for byte in data:
            peer.send(bytes([byte]))
            await peer.drain()
            await asyncio.sleep(0)
        await peer.gone()

    return play


async def check(gateway: Gateway, streaming: bool) -> None:
    response = await gateway.ask("one", stream=streaming)
    assert response.status_code == 200
    assert response.content == (TOKEN + FINISH + DONE if streaming else completion())
    row = await gateway.row()
    assert (row.outcome, row.attempts, row.cost_nano) == ("ok", 1, COST)


@both
async def test_a_slow_drip(gateway: Gateway, streaming: bool) -> None:
    """However the bytes come, they are the same answer, paid the same."""
    gateway.first.script(drips(good(streaming)))
    await check(gateway, streaming)


@both
async def test_a_drip_without_end(gateway: Gateway, streaming: bool) -> None:
    """Bytes that keep coming keep no request for ever: the time for the whole answer ends it."""

    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(STREAM_HEAD)
        gone = asyncio.ensure_future(peer.gone())
        while not gone.done():
            peer.send(chunk(TOKEN if streaming else b" "))
            await asyncio.wait([gone], timeout=0.01)

    gateway.first.script(play)
    response = await asyncio.wait_for(gateway.ask("brief", stream=streaming), 10)
    if streaming:
        last = response.content.split(b"\n\n")[-2]
        assert msgspec.json.decode(last.removeprefix(b"data: "))["error"]["code"] == "stream_broken"
    else:
        assert (response.status_code, envelope(response)["code"]) == (504, "timeout")
    assert (await gateway.row()).outcome == ("interrupted" if streaming else "failed")


@both
@pytest.mark.parametrize(
    "interim", [b"HTTP/1.1 100 Go on\r\n\r\n", b"HTTP/1.1 103 Hints\r\nlink: </x>\r\n\r\n"]
)
async def test_interim_answers(gateway: Gateway, interim: bytes, streaming: bool) -> None:
    """They say nothing, and the connection is used again."""
    gateway.first.script(replies(interim * 3 + good(streaming), good(streaming)))
    for _ in range(2):
        await check(gateway, streaming)


@both
@pytest.mark.parametrize("how", ["close", "reset", "said so"])
async def test_the_end_after_a_whole_answer(gateway: Gateway, how: str, streaming: bool) -> None:
    """A connection that ends with its answer harms neither that answer nor the next request."""
    last = good(streaming)
    if how == "said so":
        last = last.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
    gateway.first.script(hangs_up_after(last, reset=how == "reset"), replies(good(streaming)))
    for _ in range(2):
        await check(gateway, streaming)


async def test_trailers(gateway: Gateway) -> None:
    """They are read over."""
    said = GOOD_STREAM.removesuffix(b"\r\n") + b"retry-after: 3\r\nx: y\r\n\r\n"
    gateway.first.script(replies(said, said))
    for _ in range(2):
        await check(gateway, True)


@both
@pytest.mark.parametrize(
    "junk", [b"junk", GOOD, b"\x00" * 99, b"HTTP/1.1 "], ids=["text", "an answer", "NUL", "half"]
)
async def test_more_than_was_asked_for(gateway: Gateway, junk: bytes, streaming: bool) -> None:
    """The answer stands; what follows is nobody's, least of all the next request's."""
    gateway.first.script(replies(good(streaming) + junk), replies(good(streaming)))
    await check(gateway, streaming)
    gateway.drop_idle()
    await check(gateway, streaming)


@both
async def test_junk_before_the_answer(gateway: Gateway, streaming: bool) -> None:
    """No answer can be made out of it."""
    gateway.first.script(hangs_up_after(b"junk\r\n" + good(streaming)))
    response = await gateway.ask("one", stream=streaming)
    assert (response.status_code, envelope(response)["code"]) == (502, "server_error")
    assert (await gateway.row()).outcome == "failed"

"""Where one request of a client ends and the next begins, in every form that HTTP/1.1 allows or forbids."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from tests.dataplane.conftest import ASK, KEY, Gateway
from tests.dataplane.test_faults import DONE, FINISH, GOOD_STREAM, TOKEN
from tests.dataplane.test_limits import OK, read_answer
from tests.support.toxic import Peer, Play, replies
from tests.support.waiting import until

HOT = "/v1/chat/completions"
BODY = msgspec.json.encode({"model": "one", **ASK})
CHUNKED = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def post(body: bytes = BODY, *lines: str, target: str = HOT, version: str = "1.1") -> bytes:
    """A whole request. `lines`: more of its head; a length is among them unless they say how it is framed."""
    if not any(line.lower().startswith(("content-length", "transfer-encoding")) for line in lines):
        lines = (*lines, f"content-length: {len(body)}")
    head = [f"POST {target} HTTP/{version}", "host: x", f"authorization: Bearer {KEY}", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def keeps(seen: list[bytes], *answers: bytes) -> Play:
    """Answers and keeps the bodies that it was asked with."""

    async def play(peer: Peer) -> None:
        for reply in answers:
            seen.append((await peer.request()).partition(b"\r\n\r\n")[2])
            peer.send(reply)
        await peer.gone()

    return play


@asynccontextmanager
async def connection(gateway: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def all_of(gateway: Gateway, sent: bytes) -> bytes:
    """What comes for `sent` until the gateway closes the connection."""
    async with connection(gateway) as (reader, writer), asyncio.timeout(10):
        writer.write(sent)
        return await reader.read()


def model_of(body: bytes) -> Any:
    return msgspec.json.decode(body)["model"]


# A request in other clothes.


@pytest.mark.parametrize(
    "target",
    [HOT, f"{HOT}?api-version=1", f"http://elsewhere{HOT}", f"HTTP://elsewhere:1{HOT}?a=b"],
    ids=["origin form", "with a query", "absolute form", "absolute form with a query"],
)
async def test_forms_of_the_target(gateway: Gateway, target: str) -> None:
    """The path alone says which endpoint is meant; a host that a target names sends nothing elsewhere."""
    gateway.first.script(replies(OK))
    async with connection(gateway) as (reader, writer):
        writer.write(post(target=target))
        assert (await read_answer(reader))[0] == 200
    assert (await gateway.row()).endpoint == "chat/completions"


@pytest.mark.parametrize("target", ["http://", "http://host", "?x", "v1/chat/completions", "/a b", "/\xff"])
async def test_a_target_without_a_path(
    gateway: Gateway, target: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the client's mistake, told as such, and no fault of ours."""
    answered = await all_of(gateway, post(target=target))
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert b'"invalid_http"' in answered
    assert not caplog.records
    assert await gateway.rows() == []


@pytest.mark.parametrize("method", ["CONNECT host:80", "PRI *", "TRACE /", "GET *"])
async def test_methods_that_nobody_serves(gateway: Gateway, method: str) -> None:
    """A tunnel, HTTP/2 and the like are refused."""
    answered = await all_of(gateway, f"{method} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    assert answered.startswith(b"HTTP/1.1 4")
    assert answered.count(b"HTTP/1.1 ") == 1
    assert await gateway.rows() == []


@pytest.mark.parametrize("framing", ["length", "chunks"])
async def test_an_upgrade_is_not_taken(gateway: Gateway, framing: str) -> None:
    """Java's client asks for h2c on every request: it gets HTTP/1.1 and its body is read, in any pieces."""
    seen: list[bytes] = []
    gateway.first.script(keeps(seen, OK, OK))
    h2c = ("connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAoAAAAAIAAAAA")
    sent = post(BODY, *h2c) if framing == "length" else post(CHUNKED, *h2c, "transfer-encoding: chunked")
    async with connection(gateway) as (reader, writer):
        writer.write(sent)
        assert (await read_answer(reader))[0] == 200
        head = sent.index(b"\r\n\r\n")
        for part in (sent[: head + 2], sent[head + 2 : head + 9], sent[head + 9 :]):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        assert (await read_answer(reader))[0] == 200  # and the connection was kept
    assert [model_of(body) for body in seen] == ["priced", "priced"]
    assert len(await gateway.rows()) == 2


async def test_an_upgrade_of_a_get(gateway: Gateway) -> None:
    """A websocket handshake gets what a GET gets."""
    head = b"GET /live HTTP/1.1\r\nhost: x\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\r\n"
    assert (await all_of(gateway, head)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("lines", [(), ("connection: keep-alive",)], ids=["plain", "keep-alive"])
async def test_http_1_0(gateway: Gateway, streaming: bool, lines: tuple[str, ...]) -> None:
    """Its clients know no chunks: the end of the connection ends the answer."""
    gateway.first.script(replies(GOOD_STREAM if streaming else OK))
    body = msgspec.json.encode({"model": "one", "stream": streaming, **ASK})
    answered = await all_of(gateway, post(body, *lines, version="1.0"))
    head, _, said = answered.partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    assert said == (TOKEN + FINISH + DONE if streaming else OK.partition(b"\r\n\r\n")[2])
    assert (await gateway.row()).outcome == "ok"


async def test_a_body_in_single_bytes(gateway: Gateway) -> None:
    """However the bytes come, chunk lines with extensions and trailers included, it is the same request."""
    seen: list[bytes] = []
    gateway.first.script(keeps(seen, OK))
    chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in BODY) + b"0\r\nauthorization: none\r\n\r\n"
    async with connection(gateway) as (reader, writer):
        for byte in post(chunks, "transfer-encoding: chunked"):
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        assert (await read_answer(reader))[0] == 200
    assert model_of(seen[0]) == "priced"
    await gateway.row()


# What is no request, or could be two.

TRICKS = {
    "obs-fold": "transfer-encoding:\r\n chunked",
    "space before the colon": "transfer-encoding : chunked",
    "tab before the colon": "transfer-encoding\t: chunked",
    "vertical tab": "transfer-encoding: \x0bchunked",
    "a longer word": "transfer-encoding: xchunked",
    "chunked not last": "transfer-encoding: chunked, gzip",
    "chunked quoted": 'transfer-encoding: "chunked"',
    "bare CR": "x: y\rtransfer-encoding: chunked",
    "bare LF": "x: y\ntransfer-encoding: chunked",
    "NUL": "x: y\x00\r\ntransfer-encoding: chunked",
    "two lengths": "content-length: 4\r\ncontent-length: 4",
    "a list of lengths": "content-length: 4, 4",
    "a signed length": "content-length: +4",
    "a length in hex": "content-length: 0x4",
    "length and chunks": "content-length: 4\r\ntransfer-encoding: chunked",
    "chunks and length": "transfer-encoding: chunked\r\ncontent-length: 4",
    "a folded first line": " folded: yes\r\ncontent-length: 4",
}


@pytest.mark.parametrize("trick", TRICKS)
async def test_framing_tricks(gateway: Gateway, trick: str) -> None:
    """What two parsers could frame in two ways is refused, and what hides behind it is never a request."""
    answered = await all_of(gateway, post(CHUNKED + post(), TRICKS[trick]))
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.count(b"HTTP/1.1 ") == 1
    assert await gateway.rows() == []


@pytest.mark.parametrize(
    "chunks",
    [
        b"2\n{}\n0\n\n",
        b"2\r\n{}0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"-1\r\n",
        b"f" * 17 + b"\r\n",
        b" 2\r\n{}\r\n",
    ],
)
async def test_bad_chunks(gateway: Gateway, chunks: bytes) -> None:
    """A chunk line that is none ends the request and the connection."""
    answered = await all_of(gateway, post(chunks + post(), "transfer-encoding: chunked"))
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert answered.count(b"HTTP/1.1 ") == 1
    assert await gateway.rows() == []


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("second", [post(), b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", b"\x00junk\r\n\r\n"])
@pytest.mark.parametrize("apart", [False, True], ids=["in one segment", "in two segments"])
async def test_what_follows_a_request_is_not_read(
    gateway: Gateway, second: bytes, streaming: bool, apart: bool
) -> None:
    """RFC 9112, 9.3.2: the first is answered with what it said itself, then the connection ends."""
    seen: list[bytes] = []
    asked, go = asyncio.Event(), asyncio.Event()

    async def play(peer: Peer) -> None:
        seen.append((await peer.request()).partition(b"\r\n\r\n")[2])
        asked.set()
        await go.wait()
        peer.send(GOOD_STREAM if streaming else OK)
        await peer.gone()

    gateway.first.script(play)
    first = post(msgspec.json.encode({"model": "one", "stream": streaming, **ASK}))
    async with connection(gateway) as (reader, writer), asyncio.timeout(10):
        writer.write(first if apart else first + second)
        await asked.wait()
        if apart:
            writer.write(second)
        go.set()
        answered = await reader.read()
    assert answered.startswith(b"HTTP/1.1 200 ")
    assert answered.count(b"HTTP/1.1 ") == 1
    assert model_of(seen[0]) == "priced"
    assert (await gateway.row()).outcome == "ok"


async def test_a_second_request_adds_nothing_to_the_first(gateway: Gateway) -> None:
    """Neither its body nor its headers: here each is half of one that the other would need."""
    half = len(BODY) // 2
    answered = await all_of(gateway, post(BODY[:half]) + post(BODY[half:]))
    assert answered.startswith(b"HTTP/1.1 400 ")
    stranger = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    assert (await all_of(gateway, stranger + post())).startswith(b"HTTP/1.1 401 ")
    assert await gateway.rows() == []


async def test_trailers_are_no_headers(gateway: Gateway) -> None:
    """A key that comes after the body opens nothing, on hot and cold paths."""
    for target in (HOT, "/admin/releases"):
        sent = (
            f"POST {target} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n".encode()
        )
        trailer = f"0\r\nauthorization: Bearer {KEY}\r\n\r\n".encode()
        async with connection(gateway) as (reader, writer):
            writer.write(sent + trailer)
            assert (await reader.readline()).split()[1] in (b"401", b"404")
    assert await gateway.rows() == []


# One connection for many requests.


async def test_hot_and_cold_on_one_connection(gateway: Gateway) -> None:
    """In any order: each request gets its own answer, the health answers in between too."""
    gateway.first.script(replies(*[OK] * 6))
    live, models = b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n", b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n"
    unknown = b"POST /nothing HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    expected = {post(): 200, live: 200, models: 401, unknown: 404}
    async with connection(gateway) as (reader, writer):
        for sent in [post(), live, post(), models, post(), unknown, live, models, unknown, *[post()] * 3]:
            writer.write(sent)
            assert (await read_answer(reader))[0] == expected[sent]
    assert len(await gateway.rows()) == 6


async def test_a_second_request_right_after_the_answer(gateway: Gateway) -> None:
    """Kept alive after a stream, the connection takes a request the moment that the last byte is there."""
    gateway.first.script(replies(GOOD_STREAM, OK))
    async with connection(gateway) as (reader, writer):
        writer.write(post(msgspec.json.encode({"model": "one", "stream": True, **ASK})))
        await reader.readuntil(b"\r\n0\r\n\r\n")
        writer.write(post())
        assert (await read_answer(reader))[0] == 200
    assert len(await gateway.rows()) == 2


async def test_line_ends_between_requests(gateway: Gateway) -> None:
    """RFC 9112, 2.2: an empty line before a request is skipped."""
    gateway.first.script(replies(OK, OK))
    async with connection(gateway) as (reader, writer):
        for _ in range(2):
            writer.write(b"\r\n" + post() + b"\r\n")
            assert (await read_answer(reader))[0] == 200
    assert len(await gateway.rows()) == 2


async def test_a_half_closed_client_is_gone(gateway: Gateway) -> None:
    """To hang up and to shut down writing look alike, and hanging up must end the call upstream at once."""
    asked, left = asyncio.Event(), asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await peer.gone()
        left.set()

    gateway.first.script(play)
    async with connection(gateway) as (reader, writer), asyncio.timeout(10):
        writer.write(post())
        await asked.wait()
        writer.write_eof()
        await left.wait()
        assert await reader.read() == b""
    assert (await gateway.row()).outcome == "client_closed"


async def test_a_refused_client_reads_why(gateway: Gateway) -> None:
    """Though it goes on sending: its unread bytes do not reset the connection before it has the error."""
    async with connection(gateway) as (reader, writer), asyncio.timeout(10):
        writer.write(post(b"", "content-length: 99999999"))
        assert (await read_answer(reader))[0] == 413
        writer.write(b"x" * 300_000)
        await writer.drain()
        assert await reader.read() == b""
        server = gateway.server.server_state.connections
        name = writer.get_extra_info("sockname")
        await until(lambda: not any(c.client == name for c in server))  # type: ignore[union-attr]
    assert await gateway.rows() == []

"""What comes in from clients: bodies, headers, and what they can and cannot do with them."""

import asyncio
from typing import Any

import msgspec
import pytest

from tests.dataplane.conftest import ASK, KEY, MAX_BODY, Gateway
from tests.support.toxic import Peer, answer, replies

OK = answer(b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}')
GOOD = {"model": "one", **ASK}


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON of an answer with a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:-2])
    body = await reader.readexactly(int(headers["content-length"]))
    return int(head[0].split()[1]), headers, msgspec.json.decode(body)


async def test_a_body_over_the_limit_by_its_length(gateway: Gateway) -> None:
    """A length over the limit is refused before a byte of the body is read, and the connection closed."""
    reader, writer = await gateway.connect(f"content-length: {MAX_BODY + 1}\r\n")
    status, headers, said = await read_answer(reader)
    assert (status, said["error"]["code"], headers["connection"]) == (413, "request_too_large", "close")
    assert await reader.read() == b""
    writer.close()
    assert await gateway.rows() == []


async def test_a_body_over_the_limit_in_chunks(gateway: Gateway) -> None:
    """A body that does not say how long it is may not be longer either."""
    piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    reader, writer = await gateway.connect("transfer-encoding: chunked\r\n", piece * 3)  # and no end
    status, _, said = await read_answer(reader)
    assert (status, said["error"]["code"]) == (413, "request_too_large")
    writer.close()
    assert await gateway.rows() == []


async def test_a_body_of_just_the_limit(gateway: Gateway) -> None:
    """The limit itself is allowed, by length and in chunks."""
    gateway.first.script(replies(OK, OK))
    pad = MAX_BODY - len(msgspec.json.encode({**GOOD, "user": ""}))
    body = msgspec.json.encode({**GOOD, "user": "x" * pad})
    assert len(body) == MAX_BODY
    for head, sent in (
        (f"content-length: {len(body)}\r\n", body),
        ("transfer-encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)),
    ):
        reader, writer = await gateway.connect(head, sent)
        assert (await read_answer(reader))[0] == 200
        writer.close()
    assert len(await gateway.rows()) == 2


async def test_a_slow_body(gateway: Gateway) -> None:
    """A body that does not come in time is a 408 in the envelope, and the connection is closed."""
    reader, writer = await gateway.connect("content-length: 100\r\n", b'{"model"')
    status, headers, said = await read_answer(reader)
    assert (status, said["error"]["code"], headers["connection"]) == (408, "request_timeout", "close")
    assert await reader.read() == b""
    writer.close()
    assert await gateway.rows() == []


async def test_a_slow_head(gateway: Gateway) -> None:
    """Neither a head nor silence on a new connection may take for ever."""
    for sent, status in ((b"POST /v1/chat/comp", b"HTTP/1.1 408 "), (b"", b"")):
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(sent)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(status)
        writer.close()
    assert await gateway.rows() == []


@pytest.mark.parametrize("whole", [False, True], ids=["endless", "whole"])
@pytest.mark.parametrize("lines", [["x: " + "y" * 70_000], ["x: y"] * 129, ["x: " + "y" * 999] * 66])
async def test_a_head_too_large(gateway: Gateway, lines: list[str], whole: bool) -> None:
    """431 by its size or its lines; one that never ends is refused for its size."""
    head = "\r\n".join([*lines, "content-length: 2", "", ""])
    reader, writer = await gateway.connect(head if whole else "x: " + "y" * 70_000, b"{}" if whole else b"")
    status, headers, said = await read_answer(reader)
    assert (status, said["error"]["code"], headers["connection"]) == (431, "headers_too_large", "close")
    writer.close()
    assert await gateway.rows() == []


async def test_endless_trailers(gateway: Gateway) -> None:
    """What comes after a body, or beside it, is limited too."""
    reader, writer = await gateway.connect("transfer-encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n")
    line = b"x: " + b"y" * 1000 + b"\r\n"
    writer.write(line * 250)
    assert (await read_answer(reader))[0] == 413
    writer.close()
    assert await gateway.rows() == []


async def test_a_client_that_leaves_in_mid_body(gateway: Gateway) -> None:
    """Half a request is none: nothing is called, nothing recorded."""
    _, writer = await gateway.connect("content-length: 100\r\n", b'{"model"')
    writer.transport.abort()
    assert await gateway.rows() == []


async def test_100_continue_for_clients(gateway: Gateway) -> None:
    """A client that waits for leave to send its body gets it."""
    gateway.first.script(replies(OK))
    body = msgspec.json.encode(GOOD)
    reader, writer = await gateway.connect(f"content-length: {len(body)}\r\nexpect: 100-continue\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    assert (await read_answer(reader))[0] == 200
    writer.close()
    await gateway.row()


@pytest.mark.parametrize(
    "head",
    [
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "content-length: -1\r\n",
        "content-length: ²\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "x-head: a\rb\r\n",
        "no colon here\r\n",
    ],
)
async def test_no_request_is_smuggled(gateway: Gateway, head: str) -> None:
    """A request that two parsers could read in two ways is refused, and what follows is not read as one."""
    smuggled = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n"
    )
    reader, writer = await gateway.connect(head, b"0\r\n\r\n" + smuggled + b"content-length: 2\r\n\r\n{}")
    answered = await reader.read()
    assert answered.startswith(b"HTTP/1.1 4")
    assert answered.count(b"HTTP/1.1 ") == 1
    writer.close()
    assert await gateway.rows() == []


async def test_what_goes_upstream(gateway: Gateway) -> None:
    """None of the client's headers: not its key, not a cookie, not a host; of ours the call's id."""
    seen: list[bytes] = []

    async def play(peer: Peer) -> None:
        seen.append(await peer.request())
        peer.send(OK)
        await peer.gone()

    gateway.first.script(play)
    await gateway.post(
        GOOD, cookie="c=1", x_headgate_tags="a", x_forwarded_for="1.2.3.4", traceparent="t", host="evil"
    )
    head = seen[0].partition(b"\r\n\r\n")[0].lower()
    names = {line.partition(b":")[0].decode() for line in head.split(b"\r\n")[1:]}
    ours = {"host", "content-type", "accept-encoding", "user-agent", "content-length", "x-client-request-id"}
    assert names == ours
    assert KEY.encode() not in head
    assert b"evil" not in head
    await gateway.row()


EVIL = [
    "a\r\nx-evil: 1",
    "a\nx-evil: 1",
    "a\r\n\r\nHTTP/1.1 200 OK",
    "\x00\x7f",
    "ключ",
    "🦆",
    "x" * 256,
    'a,b;c="d"',
]


@pytest.mark.parametrize("model", EVIL)
async def test_a_models_name_starts_no_header(gateway: Gateway, model: str) -> None:
    """The name comes back in a header of the answer, in printable ASCII; the row has it as it was."""
    gateway.first.script(replies(OK))
    response = await gateway.post({**GOOD, "model": model})
    assert response.status_code == 200
    assert "x-evil" not in response.headers
    echoed = response.headers["x-headgate-model"]
    assert echoed.isascii()
    assert echoed.isprintable()
    assert echoed.replace("?", "") in model.replace("?", "") or len(echoed) == len(model)
    assert (await gateway.row()).model_asked == model.replace("\x00", "\ufffd")


async def test_a_backend_starts_no_header_either(gateway: Gateway) -> None:
    """What a backend says in retry-after, content-type or its message stays where it belongs."""
    retry = "retry-after: 1\xe9"
    gateway.first.script(replies(answer(b'{"error":{"message":"a\\r\\nx-evil: 1"}}', 429, retry)))
    response = await gateway.post(GOOD)
    assert response.status_code == 429
    assert "x-evil" not in response.headers
    assert response.headers["retry-after"].isascii()
    await gateway.row()


@pytest.mark.parametrize(
    "tags", ["", " , ,", "a, b ,a", "\xe4\xf6\xfc", "'; drop table entry; --", "<script>", '{"a":1}', "a\tb"]
)
async def test_tags_are_only_words(gateway: Gateway, tags: str) -> None:
    """Whatever stands in x-headgate-tags is recorded as tags and does nothing else."""
    gateway.first.script(replies(OK))
    body = msgspec.json.encode(GOOD)
    reader, writer = await gateway.connect(
        f"x-headgate-tags: {tags}\r\ncontent-length: {len(body)}\r\n", body
    )
    status, headers, _ = await read_answer(reader)
    assert status == 200
    writer.close()
    row = await gateway.row()
    assert row.tags == tuple(sorted({tag.strip() for tag in tags.split(",")} - {""}))
    assert not any(tag in value for tag in row.tags if len(tag) > 3 for value in headers.values())


@pytest.mark.parametrize("tags", [",".join(map(str, range(33))), "x" * 65])
async def test_too_many_tags(gateway: Gateway, tags: str) -> None:
    """The number and the length of tags are limited, with an error that names the header."""
    response = await gateway.post(GOOD, x_headgate_tags=tags)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-headgate-tags")
    assert await gateway.rows() == []


@pytest.mark.parametrize(
    ("privacy", "status"),
    [("PUBLIC ", 200), ("internal", 200), ("restricted", 403), ("", 400), ("no such", 400), ("\xff", 400)],
)
async def test_the_privacy_header(gateway: Gateway, privacy: str, status: int) -> None:
    """A known class counts, and may close every way out; any other word is an error, not a default."""
    if status == 200:
        gateway.first.script(replies(OK))
    body = msgspec.json.encode(GOOD)
    reader, writer = await gateway.connect(
        f"x-headgate-privacy: {privacy}\r\ncontent-length: {len(body)}\r\n", body
    )
    assert (await read_answer(reader))[0] == status
    writer.close()
    rows = await gateway.rows()
    assert [row.outcome for row in rows] == {200: ["ok"], 403: ["refused"], 400: []}[status]
    assert all(row.cost_nano == 0 and row.attempts == 0 for row in rows if row.outcome == "refused")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS"])
async def test_other_methods(gateway: Gateway, method: str) -> None:
    """405 with what is allowed."""
    response = await gateway.client.request(method, "/v1/chat/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")


async def test_numbers_and_texts_survive(gateway: Gateway) -> None:
    """A body is decoded and encoded again: big integers, floats, escapes and NUL go up as they came."""
    seen: list[bytes] = []

    async def play(peer: Peer) -> None:
        seen.append((await peer.request()).partition(b"\r\n\r\n")[2])
        peer.send(OK)
        await peer.gone()

    gateway.first.script(play)
    text = (
        '{"model":"one","messages":[{"role":"user","content":"\\u0000 \\u00e9 \\ud83e\\udd86 \\" \\\\ /"}],'
    )
    text += '"seed":123456789012345678901234567890,"temperature":0.1,"top_p":1e-7,"x":-0.0}'
    response = await gateway.client.post("/v1/chat/completions", content=text)
    assert response.status_code == 200
    sent = msgspec.json.decode(seen[0])
    assert sent == {**msgspec.json.decode(text), "model": "priced"}
    await gateway.row()

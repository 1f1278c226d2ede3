"""Requests and answers, and what a hostile or broken peer makes of them. All by one `random.Random`."""

from random import Random

import msgspec

from tests.dataplane.conftest import KEY
from tests.dataplane.test_faults import BUSY, DONE, FINISH, GOOD, GOOD_STREAM, TOKEN, USED
from tests.support.toxic import answer, chunk, error, stream

ROUTES = ("hasty", "hasty-pair", "hasty-hedged", "retried", "one", "nobody-named-this")
HOT = ("/v1/chat/completions", "/v1/chat/completions?a=b", "http://h/v1/chat/completions", "/v1/completions")
COLD = (b"GET /live", b"GET /v1/models", b"GET /metrics", b"POST /nothing", b"OPTIONS /v1/embeddings")
ODD_LINES = (
    b"content-length: 0",
    b"content-length: 7",
    b"content-length: 18446744073709551616",
    b"transfer-encoding: chunked",
    b"transfer-encoding: identity",
    b"transfer-encoding : chunked",
    b" folded: line",
    b"connection: close",
    b"connection: keep-alive, upgrade",
    b"upgrade: h2c",
    b"expect: 100-continue",
    b"host: other",
    b"x-headgate-privacy: restricted",
    b"x-headgate-tags: a,b\x0b",
    b"content-type: text/event-stream\x7f\xff",
    b"retry-after: 0",
    b"trailer: x",
    b": no name",
    b"name\x00: x",
    b"x: " + b"y" * 9000,
)
ODD_BYTES = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\n\n", b"\x00", b"\xff\xfe",
    b"0\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n",
    b"data: [DONE]\n\n", b'data: {"error":{"message":"x"}}\n\n', b"data: ", b":\n",
    b'"usage":{', b'"usage":null',
    b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n",
    b"{", b"}", b"[" * 50, b"9" * 40,
)  # fmt: skip


def request(random: Random, user: str) -> bytes:
    """One good request of any kind, most of them hot."""
    if random.random() < 0.2:
        return random.choice(COLD) + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
    body = asking(random, user)
    lines = [f"POST {random.choice(HOT)} HTTP/1.1", "host: x", f"authorization: Bearer {KEY}"]
    if random.random() < 0.4:
        body = chunked(random, body)
        lines.append("transfer-encoding: chunked")
    else:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def asking(random: Random, user: str, routes: tuple[str, ...] = ROUTES) -> bytes:
    """The body of a chat request. `user` tells the test's own upstream whose it is."""
    messages = [{"role": "user", "content": "é\n" * random.randrange(1, 40)}]
    asked = {"model": random.choice(routes), "user": user, "messages": messages}
    return msgspec.json.encode(asked | ({"stream": True} if random.random() < 0.5 else {}))


def said(random: Random, *, streaming: bool) -> bytes:
    """One good answer of an upstream, in any framing."""
    if random.random() < 0.15:
        status = random.choice((400, 401, 404, 429, 500, 503))
        return error(status, *random.choice(((), ("retry-after: 0",), ("connection: close",))))
    if not streaming:
        return GOOD
    events = [TOKEN] * random.randrange(1, 9) + [FINISH, USED, DONE]
    if random.random() < 0.1:
        events.insert(random.randrange(len(events)), BUSY)
    kind = random.randrange(4)
    if kind == 0:
        return GOOD_STREAM
    if kind == 1:
        return stream(*events)
    if kind == 2:  # framed by its length
        return answer(b"".join(events)).replace(b"application/json", b"text/event-stream")
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    return head + b"transfer-encoding: chunked\r\n\r\n" + chunked(random, b"".join(events))


def chunked(random: Random, data: bytes) -> bytes:
    """`data` in chunks of any size."""
    parts = pieces(random, data, random.choice((1, 2, 5)))
    return b"".join(chunk(part) for part in parts if part) + b"0\r\n\r\n"


def pieces(random: Random, data: bytes, most: int) -> list[bytes]:
    """`data` cut at up to `most` places."""
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(most + 1)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def mutated(random: Random, data: bytes, other: bytes) -> bytes:
    """`data` after one to four accidents; `other` is what may be spliced in."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        data = _accident(random, bytearray(data), other)
    return data


def _accident(random: Random, data: bytearray, other: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    to = min(len(data), at + random.choice((1, 2, 8, 64, 512)))
    kind = random.randrange(10)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << random.randrange(8)
    elif kind == 1:
        del data[at:]
    elif kind == 2:
        del data[at:to]
    elif kind == 3:
        data[at:at] = data[at:to]
    elif kind == 4:
        data[at:at] = random.choice(ODD_BYTES)
    elif kind == 5:
        data[at:at] = random.randbytes(random.randrange(1, 9))
    elif kind == 6:
        start = random.randrange(len(other) + 1)
        data[at:to] = other[start : start + random.choice((8, 64, 512, 4096))]
    elif kind == 7:
        data[:] = data.replace(
            b"\r\n", random.choice((b"\n", b"\r", b"\r\n ", b"\r\n\r\n")), random.randrange(1, 4)
        )
    else:  # a line among those of the head
        head = bytes(data).find(b"\r\n") + 2
        data[head:head] = random.choice(ODD_LINES) + b"\r\n"
    return bytes(data)

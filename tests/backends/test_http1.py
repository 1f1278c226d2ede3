"""`gateway.backends.http1` on real sockets, under both event loops: asyncio's own and uvloop, as shipped."""

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import pairwise
from typing import Any, cast
from unittest.mock import Mock

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.http1 import HIGH_WATER, MAX_HEAD, Connection, HttpError, NotHttp, Pool
from tests.support.toxic import (
    STREAM_END,
    Peer,
    Toxic,
    answer,
    chunk,
    hangs_up_after,
    in_steps,
    replies,
    stalls_after,
    stream,
)
from tests.support.upstream import body_of
from tests.support.waiting import until

REQUEST = b"POST /v1/x HTTP/1.1\r\nhost: toxic\r\ncontent-length: 2\r\n\r\n{}"
OK = answer(b"first")
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs `test` in a fresh loop of each kind: transports differ in how they pause, abort and end."""

    def run(loop_kind: str, **arguments: Any) -> None:
        loop = LOOPS[loop_kind]()
        try:
            loop.run_until_complete(asyncio.wait_for(test(**arguments), 30))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    functools.update_wrapper(run, test)
    del run.__wrapped__  # type: ignore[attr-defined]  # a coroutine function: pytest-asyncio would run it
    kind = inspect.Parameter("loop_kind", inspect.Parameter.KEYWORD_ONLY)
    own = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature([*own, kind])  # type: ignore[attr-defined]  # what pytest fills in
    return cast(Callable[..., None], pytest.mark.parametrize("loop_kind", LOOPS)(run))


async def connect(toxic: Toxic) -> Connection:
    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", toxic.port)
    return connection


async def exchange(connection: Connection) -> bytes:
    await connection.exchange(REQUEST)
    return await body_of(connection)


# Answers that are well formed.

FRAMINGS = {
    "a length": (OK, b"first", True),
    "a length of zero": (answer(b""), b"", True),
    "no body by its status": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    "chunks": (stream(b"fir", b"st"), b"first", True),
    "chunks with extensions": (CHUNKED + b"5;name=value\r\nfirst\r\n0\r\n\r\n", b"first", True),
    "chunks with trailers": (CHUNKED + b"5\r\nfirst\r\n0\r\ncontent-type: x/y\r\n\r\n", b"first", True),
    "names in capitals": (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 5\r\n\r\nfirst", b"first", True),
    "100-continue before it": (b"HTTP/1.1 100 Continue\r\nx-early: 1\r\n\r\n" + OK, b"first", True),
    "103 and 100 before it": (
        b"HTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"first",
        True,
    ),
    "connection: close": (answer(b"first", 200, "connection: close"), b"first", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nfirst", b"first", False),
}


@on_both_loops
@pytest.mark.parametrize("framing", FRAMINGS)
async def test_framings(framing: str) -> None:
    """Each way to frame an answer gives its body; the connection lives on just where HTTP says so."""
    raw, body, lives = FRAMINGS[framing]
    async with Toxic() as toxic:
        toxic.script(replies(raw, OK))
        connection = await connect(toxic)
        assert await exchange(connection) == body
        connection.finish()
        assert connection.reusable is lives
        assert not connection.header(b"x-early")
        assert connection.header(b"content-type") != b"x/y"
        if lives:
            assert await exchange(connection) == b"first"
        connection.abort()
        assert toxic.connections == 1


@on_both_loops
async def test_a_body_until_close() -> None:
    """Without a length the body ends with the connection, which is then of no more use."""
    async with Toxic() as toxic:
        toxic.script(hangs_up_after(b"HTTP/1.1 200 OK\r\n\r\nall of it"))
        connection = await connect(toxic)
        assert await exchange(connection) == b"all of it"
        connection.finish()
        assert not connection.reusable


@on_both_loops
async def test_a_body_until_close_that_is_reset() -> None:
    """Where only the close marks the end, a reset is no end: what came is not taken for the whole."""
    go = asyncio.Semaphore(0)
    async with Toxic() as toxic:
        toxic.script(in_steps(b"HTTP/1.1 200 OK\r\n\r\nhalf", go=go, reset=True))
        connection = await connect(toxic)
        await connection.exchange(REQUEST)
        assert await connection.read() == b"half"
        go.release()
        with pytest.raises(HttpError, match="reset"):
            await connection.read()


def _fed(pieces: list[bytes]) -> tuple[bytes, bool, bytes]:
    """What a connection makes of an answer that comes in `pieces`."""

    async def feed() -> tuple[bytes, bool, bytes]:
        connection = Connection()
        connection.connection_made(Mock(spec=asyncio.Transport))
        waiting = asyncio.ensure_future(connection.exchange(REQUEST))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        await waiting
        return await body_of(connection), connection.reusable, connection.header(b"content-type")

    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(feed())
    finally:
        loop.close()


@settings(deadline=None)
@given(st.sampled_from(sorted(FRAMINGS)), st.lists(st.integers(0, 300), max_size=10))
def test_any_cut_gives_the_same_answer(framing: str, at: list[int]) -> None:
    """Wherever TCP cuts an answer, body, headers and reuse come out as if it had come in one piece."""
    raw, body, lives = FRAMINGS[framing]
    edges = sorted({0, *(i % len(raw) for i in at), len(raw)})
    cut = _fed([raw[a:b] for a, b in pairwise(edges)])
    assert cut == _fed([raw])
    assert cut[:2] == (body, lives)


# Answers that are not.

BROKEN: dict[str, tuple[bytes, bool, type[HttpError]]] = {
    "closed before a byte": (b"", False, HttpError),
    "closed in the head": (b"HTTP/1.1 200 OK\r\ncontent-le", True, HttpError),
    "closed in the body": (answer(b"first")[:-1], True, HttpError),
    "closed between chunks": (CHUNKED + chunk(b"first"), True, HttpError),
    "closed in a chunk": (CHUNKED + b"5\r\nfir", True, HttpError),
    "closed before the last line": (CHUNKED + chunk(b"first") + b"0\r\n", True, HttpError),
    "a chunk size that is none": (CHUNKED + b"zz\r\nfirst\r\n", True, NotHttp),
    "a negative chunk size": (CHUNKED + b"-5\r\nfirst\r\n", True, NotHttp),
    "a chunk size of 17 digits": (CHUNKED + b"fffffffffffffffff\r\nfirst\r\n", True, NotHttp),
    "a chunk longer than it says": (CHUNKED + b"2\r\nfirst\r\n", True, NotHttp),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", True, NotHttp),
    "binary": (bytes(range(256)), True, NotHttp),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x28", True, NotHttp),
    "an HTTP/2 preface": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", True, NotHttp),
    "a length that is none": (b"HTTP/1.1 200 OK\r\ncontent-length: five\r\n\r\nfirst", True, NotHttp),
    "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 2\r\n\r\nfirst", True, NotHttp),
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n0\r\n\r\n",
        True,
        NotHttp,
    ),
    "a header without a name": (b"HTTP/1.1 200 OK\r\n: x\r\ncontent-length: 5\r\n\r\nfirst", True, NotHttp),
    "another protocol from here on": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        True,
        NotHttp,
    ),
    "a head without end": (b"HTTP/1.1 200 OK\r\n" + b"x-pad: y\r\n" * MAX_HEAD, True, NotHttp),
    "100-continue without end": (b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_HEAD, True, NotHttp),
}


@on_both_loops
@pytest.mark.parametrize("fault", BROKEN)
async def test_broken_answers(fault: str) -> None:
    """Each is an HttpError that says whether the answer had begun; the connection is closed, for good."""
    raw, answered, kind = BROKEN[fault]

    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(raw)
        with suppress(ConnectionError):  # the client may hang up before it has read all
            await peer.drain()

    async with Toxic() as toxic:
        toxic.script(play)
        connection = await connect(toxic)
        with pytest.raises(HttpError) as caught:
            await exchange(connection)
        assert type(caught.value) is kind
        assert caught.value.answered is answered
        connection.finish()
        assert connection.closed
        assert not connection.reusable
        await until(lambda: toxic.open == 0)


@on_both_loops
async def test_reset_before_the_first_byte() -> None:
    """A reset in place of an answer is an error that says that nothing had come."""
    async with Toxic() as toxic:
        toxic.script(hangs_up_after(reset=True))
        connection = await connect(toxic)
        with pytest.raises(HttpError) as caught:
            await connection.exchange(REQUEST)
        assert not caught.value.answered


@on_both_loops
@pytest.mark.parametrize("body", [answer(b"x" * 10)[:-5], CHUNKED + b"a\r\nxxxxx"], ids=["length", "chunks"])
async def test_reset_in_the_body(body: bytes) -> None:
    """What came before a reset is handed on first; then comes the error, never a quiet end."""
    go = asyncio.Semaphore(0)
    async with Toxic() as toxic:
        toxic.script(in_steps(body, go=go, reset=True))
        connection = await connect(toxic)
        await connection.exchange(REQUEST)
        assert await connection.read() == b"xxxxx"
        go.release()
        with pytest.raises(HttpError, match="reset"):
            await connection.read()


# Bytes that nobody asked for.

JUNK = {
    "rubbish": b"\x00\x01junk",
    "a second answer": answer(b"poison", 299, "x-poison: 1"),
    "half an answer": b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npoison",
}


@on_both_loops
@pytest.mark.parametrize("junk", JUNK)
async def test_junk_behind_an_answer(junk: str) -> None:
    """Bytes in the same packet as an answer's end change nothing of it, and nobody gets them afterwards."""
    async with Toxic() as toxic:
        toxic.script(replies(OK + JUNK[junk]), replies(answer(b"second")))
        pool = Pool(functools.partial(connect, toxic))
        connection = await pool.open()
        assert await exchange(connection) == b"first"
        assert connection.status == 200
        assert not connection.header(b"x-poison")
        pool.release(connection)
        assert pool.idle() is None
        after = await pool.open()
        assert await exchange(after) == b"second"
        pool.release(after)
        pool.close()


@on_both_loops
async def test_junk_on_an_idle_connection() -> None:
    """An answer that comes before its question closes the connection."""
    go = asyncio.Semaphore(0)
    async with Toxic() as toxic:
        toxic.script(in_steps(OK, answer(b"poison"), go=go), replies(answer(b"second")))
        pool = Pool(functools.partial(connect, toxic))
        connection = await pool.open()
        assert await exchange(connection) == b"first"
        pool.release(connection)
        assert connection.reusable
        go.release()
        await until(lambda: connection.closed)
        assert pool.idle() is None
        after = await pool.open()
        assert await exchange(after) == b"second"
        after.abort()
        go.release()


# Back-pressure.


@on_both_loops
async def test_a_slow_reader_pauses_the_socket() -> None:
    """A peer that sends 32 MB to somebody who does not read fills some 256 KB here and then has to wait."""
    piece, pieces = b"x" * 65536, 512
    sent_all = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (len(piece) * pieces))
        for _ in range(pieces):
            peer.send(piece)
            await peer.drain()
        sent_all.set()
        await peer.gone()

    async with Toxic() as toxic:
        toxic.script(play)
        connection = await connect(toxic)
        await connection.exchange(REQUEST)
        await until(lambda: not connection._transport.is_reading())
        assert HIGH_WATER < connection._buffered <= HIGH_WATER + 256 * 1024  # one read more at most
        assert not sent_all.is_set()
        assert len(await body_of(connection)) == len(piece) * pieces
        assert sent_all.is_set()
        assert connection.reusable
        connection.abort()


@on_both_loops
async def test_an_answer_left_unread_does_not_go_back_to_the_pool_paused() -> None:
    """A whole answer came, nobody read it, and it was so long that the socket is paused: not to be reused.

    The next request on it would wait for an answer that the paused socket never hands on.
    """
    body = b"x" * HIGH_WATER
    async with Toxic() as toxic:
        toxic.script(stalls_after(), replies(answer(b"second")))
        pool = Pool(functools.partial(connect, toxic))
        connection = await pool.open()
        waiting = asyncio.ensure_future(connection.exchange(REQUEST))
        await asyncio.sleep(0)
        connection.data_received(CHUNKED + chunk(body))
        connection.data_received(chunk(b"over") + STREAM_END)  # the mark is passed and the end is there
        await waiting
        pool.release(connection)
        assert pool.idle() is None
        after = await pool.open()
        assert await exchange(after) == b"second"
        after.abort()


# Cancelling.


@on_both_loops
async def test_a_cancelled_exchange_is_seen_by_the_server() -> None:
    """Giving up a connection closes it at once: a model server stops working for nobody."""
    left = asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.request()
        await peer.gone()
        left.set()

    async with Toxic() as toxic:
        toxic.script(play)
        connection = await connect(toxic)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.exchange(REQUEST)
        connection.abort()
        await asyncio.wait_for(left.wait(), 5)
        with pytest.raises(HttpError):
            await connection.exchange(REQUEST)


# The pool.


async def _idle(pool: Pool, count: int) -> list[Connection]:
    """`count` connections that have answered once and been given back in order."""
    taken = [await pool.open() for _ in range(count)]
    for connection in taken:
        await exchange(connection)
    for connection in taken:
        pool.release(connection)
    return taken


@on_both_loops
async def test_the_last_one_used_goes_first() -> None:
    """So that the rest grow old and are closed when the load falls."""
    async with Toxic() as toxic:
        toxic.script(replies(OK), replies(OK))
        pool = Pool(functools.partial(connect, toxic))
        _, newest = await _idle(pool, 2)
        assert pool.idle() is newest
        newest.abort()
        pool.close()


@on_both_loops
async def test_no_more_idle_connections_than_allowed() -> None:
    """What is over the limit is closed when it is given back."""
    async with Toxic() as toxic:
        toxic.script(*[replies(OK)] * 3)
        pool = Pool(functools.partial(connect, toxic), max_idle=1)
        kept, *rest = await _idle(pool, 3)
        assert not kept.closed
        assert all(connection.closed for connection in rest)
        await until(lambda: toxic.open == 1)
        pool.close()


@on_both_loops
@pytest.mark.parametrize("limit", [{"idle_s": 0.0}, {"age_s": 0.0}])
async def test_old_connections_are_not_used(limit: dict[str, float]) -> None:
    """One that was idle for too long, or is too old, is closed in place of being used."""
    async with Toxic() as toxic:
        toxic.script(replies(OK))
        pool = Pool(functools.partial(connect, toxic), **limit)
        (old,) = await _idle(pool, 1)
        assert pool.idle() is None
        assert old.closed


@on_both_loops
async def test_one_that_the_server_closed_is_not_used() -> None:
    """A keep-alive that timed out on the other side costs a new connection, not an error."""
    go = asyncio.Semaphore(0)
    async with Toxic() as toxic:
        toxic.script(in_steps(OK, go=go))
        pool = Pool(functools.partial(connect, toxic))
        (old,) = await _idle(pool, 1)
        go.release()
        await until(lambda: old.closed)
        assert pool.idle() is None


@on_both_loops
async def test_closing_is_for_good() -> None:
    """A closed pool has no connections, and one that comes back to it later is closed too."""
    async with Toxic() as toxic:
        toxic.script(replies(OK), replies(OK))
        pool = Pool(functools.partial(connect, toxic))
        out = await pool.open()
        await _idle(pool, 1)
        pool.close()
        await exchange(out)
        pool.release(out)
        assert out.closed
        await until(lambda: toxic.open == 0)

"""Clients that leave, clients that read slowly, a full disk and the end of the process."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.backends.http1 import HIGH_WATER, Connection
from gateway.ledger.store import Store
from tests.dataplane.conftest import ASK, Gateway, running_gateway
from tests.dataplane.test_faults import DONE, FINISH, GOOD, TOKEN, USED
from tests.support.toxic import STREAM_END, STREAM_HEAD, Peer, Play, chunk, in_steps, replies
from tests.support.waiting import until

PROMPTLY_S = 2.0  # 0.1 is what we promise; a loaded machine may need more


def _watched(data: bytes, asked: asyncio.Event, left: asyncio.Event) -> Play:
    """Sends `data`, and tells when it is asked and when the gateway has left."""

    async def play(peer: Peer) -> None:
        await peer.request()
        peer.send(data)
        asked.set()
        await peer.gone()
        left.set()

    return play


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_client_that_leaves_before_the_first_byte(
    gateway: Gateway, streaming: bool, reset: bool
) -> None:
    """The call upstream ends with it at once, and the row holds what it may have cost, as an estimate."""
    asked, left = asyncio.Event(), asyncio.Event()
    gateway.first.script(_watched(b"", asked, left))
    _, writer = await gateway.start("one", stream=streaming)
    await asked.wait()
    if reset:
        writer.transport.abort()
    else:
        writer.close()
    await asyncio.wait_for(left.wait(), PROMPTLY_S)
    row = await gateway.row()
    assert (row.outcome, row.status, row.attempts, row.first_byte_ms) == ("client_closed", 0, 1, None)
    assert row.usage.estimated
    assert row.usage.output_tokens == 0
    assert row.cost_nano == row.usage.input_tokens * 1000 > 0


@pytest.mark.parametrize("usage", [b"", USED], ids=["without usage", "with usage"])
async def test_a_client_that_leaves_in_mid_stream(gateway: Gateway, usage: bytes) -> None:
    """The call upstream ends at once, and what was streamed until then is paid: by usage if it had come."""
    asked, left = asyncio.Event(), asyncio.Event()
    gateway.first.script(_watched(STREAM_HEAD + chunk(TOKEN, TOKEN, usage), asked, left))
    reader, writer = await gateway.start("one", stream=True)
    await reader.readuntil(TOKEN + TOKEN)
    writer.close()
    await asyncio.wait_for(left.wait(), PROMPTLY_S)
    row = await gateway.row()
    assert (row.outcome, row.status) == ("client_closed", 200)
    assert row.first_byte_ms is not None
    assert row.usage.estimated is not bool(usage)
    assert row.usage.output_tokens == (500 if usage else 2)
    assert row.cost_nano == row.usage.input_tokens * 1000 + row.usage.output_tokens * 2000


async def test_a_client_that_leaves_between_two_attempts(gateway: Gateway) -> None:
    """The attempt that runs is cancelled, and counted."""
    asked, left = asyncio.Event(), asyncio.Event()
    gateway.second.script(_watched(b"", asked, left))
    _, writer = await gateway.start("nowhere-pair")
    await asked.wait()
    writer.close()
    await asyncio.wait_for(left.wait(), PROMPTLY_S)
    row = await gateway.row()
    assert (row.outcome, row.backend, row.attempts) == ("client_closed", "second", 2)


async def test_the_next_request_is_unharmed(gateway: Gateway) -> None:
    """After a client left, the next request gets its own answer on a connection of its own."""
    asked, left = asyncio.Event(), asyncio.Event()
    gateway.first.script(_watched(b"", asked, left), replies(GOOD))
    _, writer = await gateway.start("one")
    await asked.wait()
    writer.close()
    await left.wait()
    response = await gateway.ask("one")
    assert response.json()["usage"]["prompt_tokens"] == 1000
    assert sorted(row.outcome for row in await gateway.rows()) == ["client_closed", "ok"]


async def test_a_client_that_reads_slowly(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of 16 MB to a client that does not read waits at the backend, not in the gateway's memory."""
    event = b"data: " + b"x" * 65_520 + b"\n\n"
    sent = 0

    async def play(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        peer.send(STREAM_HEAD)
        for _ in range(256):
            peer.send(chunk(event))
            await peer.drain()
            sent += 1
        peer.send(chunk(USED, DONE) + STREAM_END)
        await peer.gone()

    pool, opened = gateway.backends["first"]._pool, list[Connection]()
    connect = pool._connect

    async def connect_and_keep() -> Connection:
        opened.append(await connect())
        return opened[-1]

    monkeypatch.setattr(pool, "_connect", connect_and_keep)
    gateway.first.script(play)
    reader, writer = await gateway.start("one", stream=True)
    writer.transport.pause_reading()
    await until(lambda: any(not connection._transport.is_reading() for connection in opened))
    assert opened[0]._buffered <= 2 * HIGH_WATER
    assert sent < 256
    writer.transport.resume_reading()
    received = 0
    while not (last := await reader.read(1 << 20)).endswith(b"0\r\n\r\n"):
        received += len(last)
    assert received + len(last) > 256 * len(event)
    writer.close()
    row = await gateway.row()
    assert (row.outcome, row.usage.estimated) == ("ok", False)


# The ledger's disk.


@contextmanager
def _full_disk(gateway: Gateway) -> Iterator[None]:
    """The spool's file is on a disk without room."""
    spool: int = gateway.app.ledger._writer._fd
    kept, full = os.dup(spool), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, spool)
    try:
        yield
    finally:
        os.dup2(kept, spool)
        os.close(kept)
        os.close(full)


@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_a_ledger_that_cannot_be_written(gateway: Gateway, streaming: bool) -> None:
    """What could not be recorded is not done: 503, no backend reached; with room again, on it goes."""
    before = gateway.first.connections
    with _full_disk(gateway):
        response = await gateway.ask("one", stream=streaming)
        assert response.status_code == 503
        fields = response.json()["error"]
        assert (fields["code"], fields["type"], fields["param"]) == ("ledger_unwritable", "api_error", None)
        assert "ledger" in fields["message"]
        assert "/" not in fields["message"]  # no path of ours
        assert gateway.first.connections == before
        row = await gateway.row()  # through memory, since the disk took nothing
    assert (row.outcome, row.status, row.attempts, row.backend) == ("refused", 503, 0, "")
    assert (row.cost_nano, row.error_class) == (0, None)
    assert gateway.app.fleet.in_flight[""] == 0
    gateway.first.script(replies(GOOD))
    assert (await gateway.ask("one")).status_code == 200
    assert (await gateway.row()).outcome == "ok"


async def test_a_disk_that_fills_up_in_mid_call(gateway: Gateway) -> None:
    """A call that was written down when it began is answered, and its row comes by another way."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def play(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go.wait()
        peer.send(GOOD)
        await peer.gone()

    gateway.first.script(play)
    asking = asyncio.ensure_future(gateway.ask("one"))
    await asked.wait()
    with _full_disk(gateway):
        go.set()
        assert (await asking).status_code == 200
        assert (await gateway.row()).outcome == "ok"


# The end of the process.


async def test_shutdown_lets_a_request_end(tmp_path: Path) -> None:
    """Told to stop, the gateway takes no new connection and ends what is under way as if nothing were."""
    go = asyncio.Semaphore(0)
    async with running_gateway(tmp_path) as gateway:
        steps = (STREAM_HEAD + chunk(TOKEN), chunk(FINISH, USED, DONE) + STREAM_END)
        gateway.first.script(in_steps(*steps, go=go))
        port = gateway.port
        body = {"model": "one", "stream": True, **ASK}
        async with gateway.client.stream("POST", "/v1/chat/completions", json=body) as response:
            parts = response.aiter_bytes()
            passed = await anext(parts)
            gateway.server.should_exit = True
            await until(lambda: not gateway.server.servers[0].is_serving())
            with pytest.raises(OSError):  # noqa: PT011 - refused, whatever the system calls it
                await asyncio.open_connection("127.0.0.1", port)
            go.release()
            passed += b"".join([part async for part in parts])
        assert passed == TOKEN + FINISH + DONE
        go.release()
    store = Store(f"sqlite:///{tmp_path / 'var' / 'headgate.db'}")
    (row,) = store.last(10)
    store.close()
    assert (row.outcome, row.usage.output_tokens) == ("ok", 500)


async def test_shutdown_that_will_not_wait(tmp_path: Path) -> None:
    """A request that outlasts the grace period is cut off, told so to the backend, and still has its row."""
    asked, left = asyncio.Event(), asyncio.Event()
    async with running_gateway(tmp_path, timeout_graceful_shutdown=0) as gateway:
        gateway.first.script(_watched(STREAM_HEAD + chunk(TOKEN), asked, left))
        reader, writer = await gateway.start("one", stream=True)
        await reader.readuntil(TOKEN)
        gateway.server.should_exit = True
        await asyncio.wait_for(left.wait(), 10)
        assert DONE not in await reader.read()
        writer.close()
    store = Store(f"sqlite:///{tmp_path / 'var' / 'headgate.db'}")
    (row,) = store.last(10)
    store.close()
    assert row.outcome in ("client_closed", "interrupted")
    assert (row.status, row.attempts, row.usage.estimated) == (200, 1, True)

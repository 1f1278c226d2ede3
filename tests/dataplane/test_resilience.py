"""Retries, hedges, deadlines, breakers and slots on real sockets: what the client hears and the backend sees.

Who is asked when is tested in test_calls.py; here it is that the wire follows, and that nothing is left open.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.dataplane.conftest import Gateway, running_gateway
from tests.dataplane.test_faults import COST, DONE, FINISH, GOOD, GOOD_STREAM, TOKEN, envelope
from tests.support.toxic import STREAM_HEAD, Peer, Play, chunk, error, hangs_up_after, replies, stalls_after
from tests.support.waiting import until

PROMPTLY_S = 2.0  # 0.1 is what we promise; a loaded machine may need more


class Watched:
    """A play that sends `data`, waits for `go` or for the gateway to leave, and tells of both."""

    def __init__(self, data: bytes = b"", then: bytes = b"") -> None:
        self.asked, self.left, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._data, self._then = data, then

    async def __call__(self, peer: Peer) -> None:
        await peer.request()
        peer.send(self._data)
        self.asked.set()
        gone = asyncio.ensure_future(peer.gone())
        going = asyncio.ensure_future(self.go.wait())
        await asyncio.wait([gone, going], return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        if not gone.done():
            peer.send(self._then)
        await gone
        self.left.set()


both = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])


def good(streaming: bool) -> bytes:
    return GOOD_STREAM if streaming else GOOD


# Retries.


@both
@pytest.mark.parametrize(
    "fault",
    [error(503), error(429), error(429, "retry-after: 0.05"), b"", GOOD[:-9], b"\x00\r\n\r\n"],
    ids=["5xx", "429", "429 with retry-after", "closed", "cut", "not HTTP"],
)
async def test_a_burst_is_ridden_out(gateway: Gateway, fault: bytes, streaming: bool) -> None:
    """Two failures of a backend, then an answer: the client sees that alone, the row all three."""
    gateway.first.script(hangs_up_after(fault), hangs_up_after(fault), replies(good(streaming)))
    response = await gateway.ask("retried", stream=streaming)
    assert response.status_code == 200
    assert response.headers["x-headgate-attempts"] == "3"
    row = await gateway.row()
    assert (row.backend, row.attempts, row.outcome, row.cost_nano) == ("first", 3, "ok", COST)


async def test_a_longer_burst_leads_on(gateway: Gateway) -> None:
    """When its attempts are spent, the next backend answers."""
    gateway.first.script(*[hangs_up_after(error(500))] * 3)
    gateway.second.script(replies(GOOD))
    assert (await gateway.ask("retried")).headers["x-headgate-backend"] == "second"
    assert (await gateway.row()).attempts == 4


async def test_a_long_retry_after_is_not_waited_for(gateway: Gateway) -> None:
    """It leads on at once; where nobody else is, the client is told it."""
    gateway.first.script(replies(error(429, "retry-after: 60")))
    gateway.second.script(replies(error(429, "retry-after: 61")))
    response = await asyncio.wait_for(gateway.ask("retried"), 10)
    assert (response.status_code, response.headers["retry-after"]) == (429, "61")
    assert (await gateway.row()).attempts == 2


# Hedges.


@both
async def test_a_slow_backend_is_overtaken(gateway: Gateway, streaming: bool) -> None:
    """The second answers; the first is cancelled upstream before that, and paid as an estimate."""
    slow = Watched(STREAM_HEAD if streaming else b"")
    gateway.first.script(slow)
    gateway.second.script(replies(good(streaming)))
    response = await gateway.ask("hedged", stream=streaming)
    assert (response.status_code, response.headers["x-headgate-backend"]) == (200, "second")
    await asyncio.wait_for(slow.left.wait(), PROMPTLY_S)
    row = await gateway.row()
    assert (row.backend, row.attempts, row.outcome) == ("second", 2, "ok")
    assert row.cost_nano is not None
    assert row.cost_nano > COST


@both
async def test_the_overtaken_answers_first(gateway: Gateway, streaming: bool) -> None:
    """Though the second was asked, the first is quicker: then that one is cancelled."""
    first, second = Watched(then=good(streaming)), Watched()
    gateway.first.script(first)
    gateway.second.script(second)
    asking = asyncio.ensure_future(gateway.ask("hedged", stream=streaming))
    await second.asked.wait()
    first.go.set()
    assert (await asking).headers["x-headgate-backend"] == "first"
    await asyncio.wait_for(second.left.wait(), PROMPTLY_S)
    assert (await gateway.row()).attempts == 2


@both
async def test_two_answers_at_once(gateway: Gateway, streaming: bool) -> None:
    """One of them reaches the client, whole; the other is let go."""
    plays = [Watched(then=good(streaming)) for _ in range(2)]
    gateway.first.script(plays[0])
    gateway.second.script(plays[1])
    asking = asyncio.ensure_future(gateway.ask("hedged", stream=streaming))
    for play in plays:
        await play.asked.wait()
    for play in plays:
        play.go.set()
    response = await asking
    assert response.content == (TOKEN + FINISH + DONE if streaming else GOOD.partition(b"\r\n\r\n")[2])
    row = await gateway.row()
    assert (row.attempts, row.outcome, row.usage.output_tokens) == (2, "ok", 500)


async def test_a_flood_during_a_race(gateway: Gateway) -> None:
    """A winner that sends more than is held before anybody reads it goes on once it is read."""
    event = b"data: " + b"x" * 65_520 + b"\n\n"
    slow = Watched()

    async def flood(peer: Peer) -> None:
        await peer.request()
        peer.send(STREAM_HEAD + chunk(*[event] * 64))
        await peer.drain()
        peer.send(chunk(DONE) + b"0\r\n\r\n")
        await peer.gone()

    gateway.first.script(slow)
    gateway.second.script(flood)
    response = await asyncio.wait_for(gateway.ask("hedged", stream=True), 10)
    assert response.content == event * 64 + DONE
    await gateway.row()


@both
async def test_both_of_a_race_fail(gateway: Gateway, streaming: bool) -> None:
    """One proper error, of the one that failed last."""
    slow, before = Watched(then=error(500, code="first")), gateway.second.connections
    gateway.first.script(slow)
    gateway.second.script(hangs_up_after(error(503, code="second")))
    asking = asyncio.ensure_future(gateway.ask("hedged", stream=streaming))
    await slow.asked.wait()
    await until(lambda: gateway.second.connections > before and not gateway.second.open)
    slow.go.set()
    response = await asking
    assert (response.status_code, envelope(response)["code"]) == (500, "first")
    row = await gateway.row()
    assert (row.attempts, row.outcome, row.cost_nano) == (2, "failed", 0)


async def test_one_backend_races_itself(gateway: Gateway) -> None:
    """On a connection of its own."""
    slow = Watched()
    gateway.first.script(slow, replies(GOOD))
    assert (await gateway.ask("hedged-alone")).status_code == 200
    await asyncio.wait_for(slow.left.wait(), PROMPTLY_S)
    assert (await gateway.row()).attempts == 2


@both
async def test_a_client_that_leaves_a_race(gateway: Gateway, streaming: bool) -> None:
    """Both calls upstream end at once; one row."""
    plays = Watched(), Watched()
    gateway.first.script(plays[0])
    gateway.second.script(plays[1])
    _, writer = await gateway.start("hedged", stream=streaming)
    for play in plays:
        await play.asked.wait()
    left_at = time.monotonic()
    writer.close()
    for play in plays:
        await asyncio.wait_for(play.left.wait(), PROMPTLY_S)
    assert time.monotonic() - left_at < PROMPTLY_S
    row = await gateway.row()
    assert (row.outcome, row.attempts) == ("client_closed", 2)


# Deadlines.


@both
@pytest.mark.parametrize(
    ("route", "attempts", "plays"),
    [
        ("deadline", 1, lambda: [stalls_after()]),
        ("deadline", 1, lambda: [stalls_after(STREAM_HEAD)]),
        ("deadline-retried", 1, lambda: [replies(error(429, "retry-after: 30"))]),
        ("deadline-retried", 2, lambda: [hangs_up_after(), stalls_after()]),
    ],
    ids=["silence", "silence after the head", "in a pause", "in a retry"],
)
async def test_a_deadline_before_the_first_byte(
    gateway: Gateway, route: str, attempts: int, plays: Callable[[], list[Play]], streaming: bool
) -> None:
    """504 in the envelope, whatever was under way; the call upstream is cancelled."""
    gateway.first.script(*plays())
    response = await asyncio.wait_for(gateway.ask(route, stream=streaming), 10)
    assert (response.status_code, envelope(response)["code"]) == (504, "deadline_exceeded")
    row = await gateway.row()
    assert (row.outcome, row.status, row.attempts) == ("failed", 504, attempts)


async def test_a_deadline_in_a_race(gateway: Gateway) -> None:
    """Both are cancelled."""
    gateway.first.script(first := Watched())
    gateway.second.script(second := Watched())
    response = await gateway.ask("deadline-hedged")
    assert (response.status_code, envelope(response)["code"]) == (504, "deadline_exceeded")
    for play in (first, second):
        await asyncio.wait_for(play.left.wait(), PROMPTLY_S)
    assert (await gateway.row()).attempts == 2


async def test_a_deadline_in_mid_stream(gateway: Gateway) -> None:
    """What came stands, an error event ends it, and the backend is told to stop."""
    gateway.first.script(slow := Watched(STREAM_HEAD + chunk(TOKEN)))
    response = await gateway.ask("deadline", stream=True)
    assert response.status_code == 200
    passed, told, nothing = response.content.split(b"\n\n")
    assert (passed + b"\n\n", nothing) == (TOKEN, b"")
    assert msgspec.json.decode(told.removeprefix(b"data: "))["error"]["code"] == "deadline_exceeded"
    await asyncio.wait_for(slow.left.wait(), PROMPTLY_S)
    assert (await gateway.row()).outcome == "interrupted"


# Slots.


async def test_a_slot_is_held_to_the_end_of_a_stream(gateway: Gateway) -> None:
    """Only then has the next request its turn; one beyond the queue is told to come again."""
    last = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    streaming = Watched(last + chunk(TOKEN), GOOD_STREAM[len(STREAM_HEAD) :])
    gateway.first.script(streaming)
    reader, writer = await gateway.start("single", stream=True)
    await reader.readuntil(TOKEN)
    waiting = asyncio.ensure_future(gateway.ask("single"))
    slots = gateway.app.caller._upstreams["single"].slots
    await until(lambda: slots.waiting == 1)
    refused = await gateway.ask("single")
    assert (refused.status_code, envelope(refused)["code"]) == (503, "backend_busy")
    assert int(refused.headers["retry-after"]) >= 1
    gateway.second.script(replies(GOOD))
    assert (await gateway.ask("single-pair")).headers["x-headgate-backend"] == "second"
    gateway.first.script(replies(GOOD))
    streaming.go.set()
    await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    assert (await waiting).status_code == 200
    rows = sorted((row.outcome, row.attempts) for row in await gateway.rows())
    assert rows == [("ok", 1), ("ok", 1), ("ok", 1), ("refused", 0)]


async def test_a_deadline_in_a_queue(gateway: Gateway) -> None:
    """Who waited for a slot in vain has reached nobody."""
    gateway.first.script(holding := Watched(then=GOOD))
    asking = asyncio.ensure_future(gateway.ask("single"))
    await holding.asked.wait()
    response = await gateway.ask("deadline-slot")
    assert (response.status_code, envelope(response)["code"]) == (504, "deadline_exceeded")
    holding.go.set()
    assert (await asking).status_code == 200
    assert sorted((row.outcome, row.attempts) for row in await gateway.rows()) == [("ok", 1), ("refused", 0)]


@pytest.mark.parametrize("waits", [False, True], ids=["who has it", "who waits for it"])
async def test_a_client_that_leaves_frees_its_slot(gateway: Gateway, waits: bool) -> None:
    """Or its place in the queue: the next request goes right through."""
    gateway.first.script(first := Watched(then=GOOD))
    _, holding = await gateway.start("single")
    await first.asked.wait()
    slots = gateway.app.caller._upstreams["single"].slots
    if waits:
        _, waiting = await gateway.start("single")
        await until(lambda: slots.waiting == 1)
        waiting.close()
        await until(lambda: slots.waiting == 0)
    holding.close()
    await asyncio.wait_for(first.left.wait(), PROMPTLY_S)
    gateway.first.script(replies(GOOD))
    assert (await gateway.ask("single")).status_code == 200
    rows = sorted((row.outcome, row.attempts) for row in await gateway.rows())
    assert rows == [("client_closed", 0)] * waits + [("client_closed", 1), ("ok", 1)]


# Breakers.


async def test_a_backend_that_keeps_failing(gateway: Gateway) -> None:
    """After five failures it is not connected to any more, until a probe after the pause is answered."""
    gateway.first.script(*[hangs_up_after(error(500))] * 5)
    gateway.second.script(replies(*[GOOD] * 6))
    for _ in range(6):
        assert (await gateway.ask("pair")).headers["x-headgate-backend"] == "second"
    assert [row.attempts for row in await gateway.rows()] == [2] * 5 + [1]
    gateway.app.caller.breakers["first"].until = time.monotonic()
    gateway.app.caller.breakers._refresh(time.monotonic())
    gateway.first.script(replies(GOOD, GOOD))
    for _ in range(2):
        assert (await gateway.ask("pair")).headers["x-headgate-backend"] == "first"
    assert len(await gateway.rows()) == 2


@pytest.mark.parametrize("said", [error(429), error(400), error(404), error(401)], ids=str)
async def test_what_ejects_nobody(gateway: Gateway, said: bytes) -> None:
    """Too many requests and clients' mistakes say nothing about a backend's health."""
    gateway.first.script(replies(*[said] * 8, GOOD))
    for _ in range(8):
        assert (await gateway.ask("one")).status_code >= 400
    assert (await gateway.ask("one")).status_code == 200
    assert len(await gateway.rows()) == 9


# The whole process.


async def test_too_much_in_flight(tmp_path: Path) -> None:
    """The next request is told to come again, before it costs anything; health still answers."""
    async with running_gateway(tmp_path, limits={"max_in_flight": 2}) as gateway:
        plays = [Watched(then=GOOD) for _ in range(2)]
        gateway.first.script(*plays)
        asking = [asyncio.ensure_future(gateway.ask("one")) for _ in plays]
        for play in plays:
            await play.asked.wait()
        refused = await gateway.ask("one")
        assert (refused.status_code, envelope(refused)["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        for path in ("/live", "/ready"):
            assert (await gateway.client.get(path)).status_code == 200
        for play in plays:
            play.go.set()
        assert [(await answered).status_code for answered in asking] == [200, 200]
        gateway.drop_idle()
        gateway.first.script(replies(GOOD))
        assert (await gateway.ask("one")).status_code == 200
        assert len(await gateway.rows()) == 3

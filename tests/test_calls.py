"""`gateway.calls` with backends by script: who is asked how often, who wins a race, and no remains."""

import asyncio
import time
from contextlib import suppress
from itertools import pairwise

import pytest

from gateway.errors import ApiError, BackendError
from gateway.resilience.slots import Busy
from router_policies.types import ErrorClass
from tests.support.scripted import LEAD_ON, WHOLE, World, failed
from tests.support.waiting import until

SOON = 0.001


@pytest.fixture
def world() -> World:
    return World()


# Retries.


async def test_a_retry_answers(world: World) -> None:
    """The same backend again, as often as the route says; the row counts each attempt."""
    world.backends["a"].script.extend([failed(), failed(), WHOLE])
    assert await world.ask("ab", retries=2, retry_on=LEAD_ON) == "a"
    assert world.asked() == "aaa"
    assert (world.row.attempts, world.row.outcome, world.row.error_class) == (3, "ok", None)


async def test_after_its_retries_the_next(world: World) -> None:
    """Each candidate gets its own retries, then the last one's error is the answer."""
    world.backends["a"].script.extend([failed()] * 2)
    world.backends["b"].script.extend([failed(), failed("rate_limit", status=429)])
    with pytest.raises(BackendError) as caught:
        await world.ask("ab", retries=1, retry_on=LEAD_ON)
    assert (world.asked(), caught.value.status) == ("aabb", 429)
    assert (world.row.attempts, world.row.backend, world.row.error_class) == (4, "b", "rate_limit")


@pytest.mark.parametrize("error_class", list(ErrorClass))
async def test_only_named_classes_are_retried(world: World, error_class: str) -> None:
    """What the route does not name is final for this backend."""
    world.backends["a"].script.append(failed(error_class))
    others = frozenset(ErrorClass) - {error_class}
    with pytest.raises(BackendError):
        await world.ask(retries=5, retry_on=others)
    assert (world.asked(), world.row.attempts) == ("a", 1)


async def test_the_pause_doubles_within_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A random part of a wait that doubles up to the route's maximum, here its largest."""
    monkeypatch.setattr("gateway.calls.random.random", lambda: 1.0)
    world.backends["a"].script.extend([failed(), failed(), failed(), WHOLE])
    await world.ask(retries=3, retry_on=LEAD_ON, backoff_s=0.02, max_backoff_s=0.03)
    at = world.backends["a"].asked
    pauses = [later - sooner for sooner, later in pairwise(at)]
    for pause, least in zip(pauses, (0.02, 0.03, 0.03), strict=True):
        assert least - SOON <= pause < least + 1
    world.check()


async def test_retry_after_is_honoured(world: World) -> None:
    """A backend that says when to come back is left alone until then."""
    world.backends["a"].script.extend([failed("rate_limit", retry_after="0.05"), WHOLE])
    await world.ask("ab", retries=1, retry_on=LEAD_ON, max_backoff_s=1.0)
    first, second = world.backends["a"].asked
    assert second - first >= 0.05 - SOON
    world.check()


async def test_a_long_retry_after_leads_on(world: World) -> None:
    """Where that is longer than the route waits, the next candidate is asked at once."""
    world.backends["a"].script.append(failed("rate_limit", retry_after="60"))
    world.backends["b"].script.append(WHOLE)
    async with asyncio.timeout(10):
        assert await world.ask("ab", retries=5, retry_on=LEAD_ON, max_backoff_s=1.0) == "b"
    assert world.asked() == "ab"
    world.check()


async def test_a_spent_budget_ends_retries_and_hedges(world: World) -> None:
    """A backend in trouble gets no more than its traffic and the budget; requests themselves go on."""
    while world.budget.try_withdraw(time.monotonic()):
        pass
    go = asyncio.Event()
    world.backends["a"].script.extend([failed(), go])
    world.backends["b"].script.append(WHOLE)
    assert await world.ask("ab", retries=5, retry_on=LEAD_ON) == "b"
    asking = asyncio.create_task(world.ask("ab", hedge_after_s=0.0))
    await until(lambda: len(world.backends["a"].asked) == 2)
    go.set()
    assert await asking == "a"
    assert world.asked() == "aba"
    world.check(rows=2)


async def test_leaving_during_a_pause(world: World) -> None:
    """The client need not wait for a retry: the row tells of the attempt that was made."""
    world.backends["a"].script.append(failed("rate_limit", retry_after="60"))
    asking = asyncio.create_task(world.ask(retries=1, retry_on=LEAD_ON, max_backoff_s=100.0))
    await until(lambda: bool(world.backends["a"].asked))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (world.row.outcome, world.row.attempts) == ("client_closed", 1)


# Hedges.


async def test_the_second_is_quicker(world: World) -> None:
    """The slow first is cancelled upstream at once, and its estimate is part of the cost."""
    world.backends["a"].script.append(asyncio.Event())
    world.backends["b"].script.append(WHOLE)
    assert await world.ask("ab", hedge_after_s=SOON) == "b"
    assert world.backends["a"].cancelled == 1
    assert (world.row.attempts, world.row.backend, world.row.outcome) == (2, "b", "ok")
    assert world.row.cost_nano is not None
    assert world.row.cost_nano > 2000  # what the answer cost alone


async def test_the_first_is_quicker_after_all(world: World) -> None:
    """Once the second runs, whoever begins first answers."""
    go = asyncio.Event()
    world.backends["a"].script.append(go)
    world.backends["b"].script.append(asyncio.Event())
    asking = asyncio.create_task(world.ask("ab", hedge_after_s=SOON))
    await until(lambda: world.asked() == "ab")
    go.set()
    assert await asking == "a"
    assert world.backends["b"].cancelled == 1
    assert (world.row.attempts, world.row.backend) == (2, "a")


async def test_no_hedge_beside_a_quick_one(world: World) -> None:
    """An answer or an error in time starts no race; the error leads on as ever."""
    world.backends["a"].script.extend([WHOLE, failed()])
    world.backends["b"].script.append(WHOLE)
    assert await world.ask("ab", hedge_after_s=9.0) == "a"
    assert await world.ask("ab", hedge_after_s=9.0) == "b"
    assert world.asked() == "aab"
    world.check(rows=2)


async def test_both_at_the_same_instant(world: World) -> None:
    """One answers, the other is closed and paid; never both, never neither."""
    go = asyncio.Event()
    world.backends["a"].script.append(go)
    world.backends["b"].script.append(go)
    asking = asyncio.create_task(world.ask("ab", hedge_after_s=SOON))
    await until(lambda: world.asked() == "ab")
    go.set()
    assert await asking == "a"
    assert (world.row.attempts, world.row.outcome) == (2, "ok")


@pytest.mark.parametrize(("loser", "winner"), ["ab", "ba"])
async def test_one_of_two_fails(world: World, loser: str, winner: str) -> None:
    """The other is waited for, whichever it is, and the failure costs nothing."""
    late, go = asyncio.Event(), asyncio.Event()
    world.backends[loser].script.append((late, failed()))
    world.backends[winner].script.append(go)
    asking = asyncio.create_task(world.ask("ab", hedge_after_s=SOON))
    await until(lambda: world.asked() == "ab")
    late.set()
    await until(lambda: world.slots[loser].in_use == 0)
    go.set()
    assert await asking == winner
    assert (world.row.attempts, world.row.error_class, world.row.cost_nano) == (2, None, 2000)


async def test_both_fail(world: World) -> None:
    """Then the third has its turn; the client hears the last one, and each attempt is settled."""
    late = asyncio.Event()
    world.backends["a"].script.append((late, failed("timeout")))
    world.backends["b"].script.append(failed())
    world.backends["c"].script.append(failed("server_error", status=500))
    asking = asyncio.create_task(world.ask("abc", hedge_after_s=SOON))
    await until(lambda: world.asked() == "ab")
    late.set()
    with pytest.raises(BackendError) as caught:
        await asking
    assert (world.asked(), caught.value.status) == ("abc", 500)
    assert (world.row.attempts, world.row.error_class, world.row.cost_nano) == (3, "server_error", 0)


async def test_one_candidate_runs_against_itself(world: World) -> None:
    """A second request to the same backend may find a better replica behind it."""
    world.backends["a"].script.extend([asyncio.Event(), WHOLE])
    assert await world.ask("a", hedge_after_s=SOON) == "a"
    assert (world.asked(), world.backends["a"].cancelled) == ("aa", 1)
    assert world.row.attempts == 2


async def test_leaving_during_a_race(world: World) -> None:
    """Both are cancelled, and there is one row."""
    for name in "ab":
        world.backends[name].script.append(asyncio.Event())
    asking = asyncio.create_task(world.ask("ab", hedge_after_s=SOON))
    await until(lambda: world.asked() == "ab")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [world.backends[name].cancelled for name in "ab"] == [1, 1]
    assert (world.row.outcome, world.row.attempts) == ("client_closed", 2)


@pytest.mark.parametrize("times", [1, 2])
async def test_leaving_while_a_loser_ends(world: World, times: int) -> None:
    """A winner is known, the loser takes its time to close, and the client leaves: nothing is leaked."""
    go, closing = asyncio.Event(), asyncio.Event()
    for name in "ab":
        world.backends[name].script.append(go)
        world.backends[name].closing = closing
    asking = asyncio.create_task(world.ask("ab", hedge_after_s=SOON))
    await until(lambda: world.asked() == "ab")
    go.set()
    await until(lambda: any(answer.closed for b in world.backends.values() for answer in b.answers))
    for _ in range(times):
        asking.cancel()
        await asyncio.sleep(0)
    closing.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (world.row.outcome, world.row.attempts) == ("client_closed", 2)


# Breakers.


async def test_five_failures_eject(world: World) -> None:
    """Then the backend is down for decisions, and is not asked by those who had decided before."""
    world.backends["a"].script.extend([failed("server_error")] * 5)
    world.backends["b"].script.extend([WHOLE] * 6)
    for _ in range(6):
        assert await world.ask("ab") == "b"
    assert world.asked() == "ab" * 5 + "b"
    assert world.breakers.down(time.monotonic()) == {"a"}
    assert world.rows.settled[-1].attempts == 1
    world.check(rows=6)


async def test_a_probe_brings_it_back(world: World) -> None:
    """After the pause one request tries it; when that is answered, so are all others."""
    world.backends["a"].script.extend([failed("timeout")] * 5 + [WHOLE] * 2)
    world.backends["b"].script.extend([WHOLE] * 5)
    for _ in range(5):
        await world.ask("ab")
    world.breakers["a"].until = time.monotonic()  # the pause is over
    assert await world.ask("ab") == "a"
    assert await world.ask("ab") == "a"
    assert not world.breakers.down(time.monotonic())
    world.check(rows=7)


@pytest.mark.parametrize("error_class", ["rate_limit", "refused", "not_found", "content_policy"])
async def test_what_says_nothing_about_health(world: World, error_class: str) -> None:
    """Neither a 429 nor a mistake of the client's ejects a backend."""
    world.backends["a"].script.extend([failed(error_class)] * 20)
    for _ in range(20):
        with suppress(BackendError):
            await world.ask("a")
    assert not world.breakers.down(time.monotonic())
    world.check(rows=20)


@pytest.mark.parametrize("how", ["client left", "ledger full"])
async def test_a_probe_that_tells_nothing(world: World, how: str) -> None:
    """When the request that was the probe ends for another reason, the next one may try at once."""
    for _ in range(5):
        world.breakers["a"].failed(time.monotonic(), ErrorClass.CONNECTION)
    world.breakers["a"].until = time.monotonic()
    if how == "client left":
        world.backends["a"].script.append(asyncio.Event())
        asking = asyncio.create_task(world.ask("a"))
        await until(lambda: not world.backends["a"].script)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    else:
        world.rows.full = True
        with pytest.raises(ApiError):
            await world.ask("a")
        world.rows.full = False
    world.backends["a"].script.append(WHOLE)
    assert await world.ask("a") == "a"
    world.check(rows=2)


# Slots.


async def test_a_full_backend_leads_on() -> None:
    """No slot and no queue: the next candidate, without an attempt; with nobody left, 503 and when."""
    world, go = World(limit=1), asyncio.Event()
    world.backends["a"].script.append(go)
    world.backends["b"].script.append(WHOLE)
    holding = asyncio.create_task(world.ask("a"))
    await until(lambda: world.asked() == "a")
    assert await world.ask("ab") == "b"
    with pytest.raises(Busy) as caught:
        await world.ask("a")
    assert (caught.value.status, caught.value.code) == (503, "backend_busy")
    assert int(caught.value.retry_after or 0) >= 1
    assert not world.breakers.down(time.monotonic())
    go.set()
    assert await holding == "a"
    world.check(rows=3)


async def test_a_queue_moves_on() -> None:
    """Who waits is asked for when a slot is free; who leaves the queue takes nothing along."""
    world, go = World(limit=1, queue=2), asyncio.Event()
    world.backends["a"].script.extend([go, WHOLE])
    holding, leaving, waiting = (asyncio.create_task(world.ask("a")) for _ in range(3))
    await until(lambda: world.slots["a"].waiting == 2)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert world.asked() == "a"
    go.set()
    assert [await holding, await waiting] == ["a", "a"]
    world.check(rows=3)

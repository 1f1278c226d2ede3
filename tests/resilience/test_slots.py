"""Never more at once than the limit, first come first served, no slot lost whatever is cancelled when."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.resilience.slots import LATEST_S, Busy, Slots
from router_policies.types import ErrorClass

LONG_S = 60.0  # no test waits it out


async def one_pass() -> None:
    """Lets every task run that can."""
    await asyncio.sleep(0)


def taken(count: int, limit: int, **more: int) -> Slots:
    slots = Slots(limit, **more)
    assert all(slots.try_acquire() for _ in range(count))
    return slots


async def queued(slots: Slots, timeout_s: float = LONG_S) -> asyncio.Task[None]:
    task = asyncio.create_task(slots.acquire(timeout_s))
    await one_pass()
    return task


async def test_up_to_the_limit_nobody_waits() -> None:
    """Free slots are taken at once, one more is not, and a slot given back is there again."""
    slots = taken(2, limit=2)
    assert not slots.try_acquire()
    slots.release()
    await slots.acquire(LONG_S)
    assert (slots.in_use, slots.waiting) == (2, 0)


async def test_first_come_first_served() -> None:
    """Each release serves the one who has waited longest, and nobody can overtake."""
    slots = taken(1, limit=1, max_queue=2)
    first, second = await queued(slots), await queued(slots)
    assert (slots.in_use, slots.waiting) == (1, 2)
    slots.release()
    assert not slots.try_acquire()
    await first
    assert not second.done()
    slots.release()
    await second
    assert (slots.in_use, slots.waiting) == (1, 0)


async def test_a_full_queue_is_told_at_once() -> None:
    """As a backend's own 429 would be treated, but as a 503 to the client, with a time to come again."""
    slots = taken(1, limit=1, max_queue=1)
    waiting = await queued(slots)
    with pytest.raises(Busy) as caught:
        await slots.acquire(LONG_S)
    assert (caught.value.error_class, caught.value.status) == (ErrorClass.RATE_LIMIT, 503)
    assert (caught.value.code, caught.value.retry_after) == ("backend_busy", "1")
    slots.release()
    await waiting


async def test_who_has_waited_too_long_is_told() -> None:
    """No slot in time: Busy, and the queue is as if nobody had come."""
    slots = taken(1, limit=1, max_queue=1)
    with pytest.raises(Busy):
        await slots.acquire(0.0)
    assert (slots.in_use, slots.waiting) == (1, 0)
    slots.release()
    assert slots.in_use == 0


async def test_who_is_cancelled_in_the_queue_leaves_it() -> None:
    """The slot goes to the next, and the place in the queue is free at once."""
    slots = taken(1, limit=1, max_queue=2)
    first, second = await queued(slots), await queued(slots)
    first.cancel()
    await one_pass()
    assert slots.waiting == 1
    slots.release()
    await second
    assert first.cancelled()


async def test_a_slot_that_comes_with_the_cancellation_goes_on() -> None:
    """Granted and cancelled before it could run: the next in the queue has the slot."""
    slots = taken(1, limit=1, max_queue=2)
    first, second = await queued(slots), await queued(slots)
    slots.release()
    first.cancel()
    await second
    assert first.cancelled()
    assert slots.in_use == 1


async def test_a_slot_is_not_given_to_the_cancelled() -> None:
    """Cancelled and then released before it could run: the next in the queue has the slot."""
    slots = taken(1, limit=1, max_queue=2)
    first, second = await queued(slots), await queued(slots)
    first.cancel()
    slots.release()
    await second
    assert first.cancelled()
    assert slots.in_use == 1


async def test_more_releases_than_slots_are_a_mistake() -> None:
    """Nobody can make the limit wider by giving back twice."""
    slots = taken(1, limit=1)
    slots.release()
    with pytest.raises(RuntimeError, match="nobody held"):
        slots.release()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def full(limit: int, hold_s: float, releases: int) -> tuple[Slots, Clock]:
    """All slots taken for long, each held for `hold_s`, so that one falls free every `hold_s / limit`."""
    clock = Clock()
    slots = Slots(limit, max_queue=100, clock=clock)
    assert all(slots.try_acquire() for _ in range(limit))
    for _ in range(releases):
        clock.now += hold_s / limit
        slots.release()
        assert slots.try_acquire()
    return slots, clock


async def test_when_to_come_again_follows_from_how_long_slots_are_held() -> None:
    """Ten slots held for 20 s: one falls free every 2 s. Three wait, so the fourth has its turn in 8 s."""
    slots, _ = full(limit=10, hold_s=20.0, releases=30)
    assert slots.retry_after_s == 2
    tasks = [await queued(slots) for _ in range(3)]
    assert slots.retry_after_s == 8
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(("hold_s", "told"), [(0.01, 1), (1e9, LATEST_S)])
def test_when_to_come_again_is_never_absurd(hold_s: float, told: int) -> None:
    """At least a second, at most a minute."""
    slots, _ = full(limit=2, hold_s=hold_s, releases=5)
    assert slots.retry_after_s == told


def test_slots_that_hang_are_noticed() -> None:
    """No release for 30 s where one a second was usual: the estimate follows before anything is released."""
    slots, clock = full(limit=2, hold_s=2.0, releases=5)
    clock.now += 30.0
    assert slots.retry_after_s == 30


def test_the_estimate_follows_a_change() -> None:
    """Slower than before: after a dozen releases the estimate is near the new pace."""
    slots, clock = full(limit=1, hold_s=2.0, releases=5)
    for _ in range(12):
        clock.now += 20.0
        slots.release()
        assert slots.try_acquire()
    assert 18 <= slots.retry_after_s <= 20


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still until it is moved."""

    now = 0.0

    def time(self) -> float:
        return self.now


class Crowd(RuleBasedStateMachine):
    """Tasks that ask, give back, are cancelled and lose patience, with passes of the loop in between."""

    LIMIT, MAX_QUEUE = 2, 3

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.slots = Slots(self.LIMIT, max_queue=self.MAX_QUEUE, clock=self.loop.time)
        self.tasks: list[asyncio.Task[None]] = []
        self.served: list[int] = []  # numbers of the tasks that were given a slot
        self.held = 0

    async def _ask(self, number: int, timeout_s: float) -> None:
        try:
            await self.slots.acquire(timeout_s)
        except Busy:
            return
        self.served.append(number)
        self.held += 1

    @rule(timeout_s=st.sampled_from([0.0, 1.0, 9.0]))
    def ask(self, timeout_s: float) -> None:
        self.tasks.append(self.loop.create_task(self._ask(len(self.tasks), timeout_s)))

    @rule(passes=st.integers(1, 3))
    def run(self, passes: int) -> None:
        for _ in range(passes):
            self.loop.run_until_complete(one_pass())

    @rule()
    def try_at_once(self) -> None:
        self.held += self.slots.try_acquire()

    @precondition(lambda self: self.held)
    @rule()
    def give_back(self) -> None:
        self.held -= 1
        self.slots.release()

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.tasks[-4:])).cancel()

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def wait(self, seconds: float) -> None:
        self.loop.now += seconds

    @invariant()
    def within_bounds(self) -> None:
        assert self.held <= self.slots.in_use <= self.LIMIT
        assert self.slots.waiting <= self.MAX_QUEUE

    @rule()
    def settle(self) -> None:
        """At rest: each slot in use is somebody's, nobody waits beside a free one, nobody was overtaken."""
        self.run(5)
        waiting = [number for number, task in enumerate(self.tasks) if not task.done()]
        assert self.slots.in_use == self.held
        assert self.slots.waiting == len(waiting)
        assert not waiting or self.slots.in_use == self.LIMIT
        assert not waiting or max(self.served, default=-1) < waiting[0]

    def teardown(self) -> None:
        """Everybody goes: no slot is left in use and nobody in the queue."""
        for task in self.tasks:
            task.cancel()
        self.run(5)
        for _ in range(self.held):
            self.slots.release()
        assert (self.slots.in_use, self.slots.waiting) == (0, 0)
        assert all(task.done() for task in self.tasks)
        self.loop.close()


Crowd.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class TestCrowd(Crowd.TestCase):
    """Under any order of asking, giving back, cancelling and waiting no slot leaks and no wake-up is lost."""

"""Traffic: the held-out rows as fast as they are answered, and live requests at a steady pace."""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from finetune.dataset import Row
from gateway.demo.client import Answer, Client
from gateway.demo.config import TASK
from gateway.demo.rented import CHAT
from gateway.demo.rows import label, messages
from gateway.demo.tour import CARD, RESTRICTED, said

AT_ONCE = 8
PER_SECOND = 3.0
AFTER_SWAP = 12  # answers of the adapter before the live traffic ends


class Batch(msgspec.Struct, frozen=True):
    """Rows asked once each, and their answers in the same order."""

    answers: tuple[Answer, ...]
    expected: tuple[str, ...]

    @property
    def failed(self) -> int:
        return sum(not answer.ok for answer in self.answers)

    @property
    def exact_match(self) -> float:
        """The share of rows answered with the very label."""
        pairs = zip(self.answers, self.expected, strict=True)
        return sum(answer.ok and answer.text == want for answer, want in pairs) / len(self.answers)

    @property
    def owned_share(self) -> float:
        """The share that never left this machine."""
        return sum(answer.owned for answer in self.answers) / len(self.answers)

    @property
    def usd_per_thousand(self) -> float:
        """US dollars for a thousand such requests."""
        return sum(answer.cost_nano or 0 for answer in self.answers) / len(self.answers) / 1e6

    @property
    def who(self) -> str:
        """Who answered, most frequent first."""
        return ", ".join(name for name, _ in Counter(a.who for a in self.answers if a.ok).most_common())


async def ask_all(
    client: Client, model: str, rows: Sequence[Row], on_answer: Callable[[], None] = lambda: None
) -> Batch:
    """Every row once, a few at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(row: Row) -> Answer:
        async with room:
            answer = await client.chat(model, messages(row))
        on_answer()
        return answer

    answers = await asyncio.gather(*map(ask, rows))
    return Batch(tuple(answers), tuple(label(row) for row in rows))


class LiveTraffic:
    """A context with requests under way at a steady pace: the task, private ones, others for a rented model.

    At its end it sends no more and waits for the answers that are still due.
    """

    def __init__(self, client: Client, rows: Sequence[Row]) -> None:
        self._requests = _mixed(client, rows)
        self._ending = False
        self.answers: list[Answer] = []  # in the order in which they came
        self.started = 0.0  # time.monotonic()
        self.swapped = asyncio.Event()  # the adapter has answered AFTER_SWAP requests

    async def __aenter__(self) -> Self:
        self.started = time.monotonic()
        self._sender = asyncio.create_task(self._send())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        if kind is not None:
            self._sender.cancel()
            await asyncio.wait((self._sender,))
        else:
            await self._sender

    async def _send(self) -> None:
        async with asyncio.TaskGroup() as due:
            while not self._ending:
                due.create_task(self._one(next(self._requests)))
                await asyncio.sleep(1 / PER_SECOND)

    async def _one(self, request: Callable[[], Awaitable[Answer]]) -> None:
        self.answers.append(await request())
        if len(self.by_adapter) >= AFTER_SWAP:
            self.swapped.set()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in self.answers if not answer.ok]

    @property
    def by_adapter(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.adapter]

    def who(self) -> Counter[str]:
        """Answers by who gave them."""
        return Counter(f"{a.backend}/{a.who}" for a in self.answers if a.ok)


def _mixed(client: Client, rows: Sequence[Row]) -> Iterator[Callable[[], Awaitable[Answer]]]:
    """In turn: the task, the task marked restricted, the task, and the rented model by name.

    Every other one of those for the rented model holds a card number.
    """
    tasks = itertools.cycle([messages(row) for row in rows])
    prompts = itertools.cycle([said("Name a colour."), said(f"Is card {CARD} blocked?")])
    while True:
        yield lambda: client.chat(TASK, next(tasks))
        yield lambda: client.chat(TASK, next(tasks), extra_headers=RESTRICTED)
        yield lambda: client.chat(TASK, next(tasks))
        yield lambda: client.chat(CHAT, next(prompts))

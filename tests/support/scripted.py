"""A `Caller` with backends by script, and all that it needs to carry decisions out."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from gateway.backends.base import UpstreamRequest
from gateway.calls import Caller, Upstream
from gateway.errors import BackendError
from gateway.ledger.charges import ByToken
from gateway.ledger.prices import Override, PriceBook
from gateway.ledger.spool import SpoolUnwritable
from gateway.monitor.metrics import Metrics
from gateway.monitor.observers import Observers
from gateway.parsing import content_of, parse
from gateway.privacy.egress import Outgoing
from gateway.record import Recorder
from gateway.resilience.breaker import Breakers
from gateway.resilience.retry import RetryBudget
from gateway.resilience.slots import Slots
from gateway.types import Call, Classification, Entry, Principal
from router_policies.types import Candidate, Decision, ErrorClass, Facts, PrivacyClass, Resilience, Zone
from tests.support.upstream import Response

WHOLE = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
NAMES = ("a", "b", "c")
LEAD_ON = frozenset({"connection", "timeout", "rate_limit", "server_error"})


class Scripted:
    """A backend that does the next of its script: raises, answers, or waits for an event and then does so."""

    def __init__(self, name: str) -> None:
        self.name, self.zone = name, Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True)
        self.script: deque[Any] = deque()
        self.asked: list[float] = []  # when
        self.answers: list[Response] = []
        self.cancelled = 0
        self.closing: asyncio.Event | None = None  # what the end of an answer waits for

    async def send(self, request: UpstreamRequest) -> Response:
        self.asked.append(time.monotonic())
        said = self.script.popleft()
        if isinstance(said, asyncio.Event):
            said = said, WHOLE
        if isinstance(said, tuple):
            try:
                await said[0].wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            said = said[1]
        if isinstance(said, BaseException):
            raise said
        self.answers.append(Response([said], self.closing))
        return self.answers[-1]

    async def aclose(self) -> None: ...


class Rows:
    def __init__(self) -> None:
        self.begun: list[Entry] = []
        self.settled: list[Entry] = []
        self.full = False

    def begin(self, entry: Entry) -> None:
        if self.full:
            raise SpoolUnwritable("no room")
        self.begun.append(entry)

    def settle(self, entry: Entry) -> None:
        self.settled.append(entry)


class World:
    def __init__(self, *, limit: int = 9, queue: int = 0) -> None:
        self.backends = {name: Scripted(name) for name in NAMES}
        self.slots = {name: Slots(limit, max_queue=queue) for name in NAMES}
        self.rows, self.serving, self.metrics = Rows(), Counter[str](), Metrics()
        self.breakers = Breakers(NAMES, random=lambda: 0.5)
        self.budget = RetryBudget(time.monotonic())
        upstreams = {name: Upstream(b, self.slots[name], 5.0) for name, b in self.backends.items()}
        self.caller = Caller(upstreams, self.breakers, self.budget)
        prices = PriceBook({}, "none", {"m": Override(input=Decimal(1), output=Decimal(1))})
        charges = {name: ByToken(prices, "") for name in NAMES}
        self.recorder = Recorder(self.rows, charges, Observers(self.metrics), self.serving)

    async def ask(self, names: Iterable[str] = "a", fallback_on: Iterable[str] = LEAD_ON, **more: Any) -> str:
        """Which backend answered. `more` is the route's resilience."""
        decision = Decision(
            route="r",
            policy="p@1",
            privacy=PrivacyClass.PUBLIC,
            candidates=tuple(
                Candidate(backend=n, zone="home", model="m", adapter=None, permit=None) for n in names
            ),
            fallback_on=frozenset(map(ErrorClass, fallback_on)),
            reason="",
            resilience=Resilience(**more),
        )
        request = parse("chat/completions", b'{"model":"m","messages":[{"role":"user","content":"hi"}]}')
        outgoing = Outgoing(
            endpoint=request.endpoint,
            stream=request.stream,
            content=content_of(request),
            until=0.0,
            privacy=PrivacyClass.PUBLIC,
        )
        with self.recorder.record(_call(), request, decision) as record:
            begun = await self.caller.first_answer(decision, outgoing, record)
            try:
                record.answered_whole(begun.attempt, begun.answer.status, begun.answer.first)
                record.completed()
            finally:
                await begun.aclose()
            return begun.attempt.candidate.backend

    def asked(self) -> str:
        """Who was asked, in order."""
        return "".join(
            name for _, name in sorted((at, b.name) for b in self.backends.values() for at in b.asked)
        )

    def check(self, *, rows: int = 1) -> None:
        """All that was scripted was said, and nothing is left over."""
        for backend in self.backends.values():
            assert not backend.script
            assert all(answer.closed for answer in backend.answers)
        assert [(s.in_use, s.waiting) for s in self.slots.values()] == [(0, 0)] * len(NAMES)
        assert set(self.serving.values()) <= {0}
        assert self.metrics.in_flight.value == 0
        assert len(self.rows.settled) == rows
        assert len(self.rows.begun) == sum(row.attempts for row in self.rows.settled)

    @property
    def row(self) -> Entry:
        self.check()
        return self.rows.settled[0]


def _call() -> Call:
    facts = Facts(
        call_id="call_1",
        endpoint="chat/completions",
        model="m",
        key_id="k",
        team="t",
        tags=frozenset(),
        features=frozenset(),
        prompt_tokens=1,
        privacy=PrivacyClass.PUBLIC,
    )
    return Call(
        facts=facts,
        principal=Principal(key_id="k", team="t"),
        classification=Classification(privacy=PrivacyClass.PUBLIC),
        started_ns=1,
        clock=time.perf_counter(),
        traceparent="",
    )


def failed(error_class: str = "connection", **fields: Any) -> BackendError:
    return BackendError(ErrorClass(error_class), f"{error_class} failed", **fields)

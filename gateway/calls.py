"""Call: a decision carried out. Its candidates in order, each as often and as long as the route allows.

    attempt     a slot at the backend, leave of its breaker, the request, and an answer that has truly begun
    retry       the same candidate again after a pause, for the classes of error that the route names
    hedge       the next candidate beside the first, when that one is slow; the first to begin answers
    fallback    the next candidate, for the classes of error that the route names

Retries and hedges together stay within a share of the traffic. Each attempt is settled in the record, also
the one that another was quicker than.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, NamedTuple

from gateway.backends.answer import Answer, begin
from gateway.backends.base import Backend, UpstreamRequest
from gateway.errors import ApiError, BackendError
from gateway.privacy.egress import Outgoing
from gateway.record import Attempt, Record
from gateway.resilience.breaker import Breakers
from gateway.resilience.retry import RetryBudget, backoff_s
from gateway.resilience.slots import Outstanding, Slots
from router_policies.types import Candidate, Decision, ErrorClass, Resilience


class Begun:
    """An answer that has begun, and the attempt that it belongs to. Holds a slot at its backend."""

    def __init__(self, attempt: Attempt, answer: Answer, slots: Slots) -> None:
        self.attempt, self.answer = attempt, answer
        self._slots: Slots | None = slots

    async def aclose(self) -> None:
        """Ends the call; before its last byte that cancels it upstream. May be called twice."""
        slots, self._slots = self._slots, None
        if slots is not None:
            try:
                await self.answer.aclose()
            finally:
                slots.release()


class Upstream(NamedTuple):
    """A backend with what protects it."""

    backend: Backend
    slots: Slots
    queue_s: float  # the longest that a request waits for a slot


class Caller:
    def __init__(
        self, upstreams: Mapping[str, Upstream], breakers: Breakers, budget: RetryBudget | None = None
    ) -> None:
        self._upstreams, self.breakers = upstreams, breakers
        self._budget = budget or RetryBudget(monotonic())
        self.busy = Outstanding({name: upstream.slots for name, upstream in upstreams.items()})

    def has_room(self, backend: str) -> bool:
        """Whether a request would find a slot at once."""
        slots = self._upstreams[backend].slots
        return slots.in_use < slots.limit

    async def first_answer(self, decision: Decision, request: Outgoing, record: Record) -> Begun:
        """The first answer that begins. Raises the BackendError of the last attempt."""
        resilience = decision.resilience
        self._budget.deposit(monotonic())
        candidates = list(decision.candidates)
        while True:
            try:
                if resilience.hedge_after_s is not None:
                    return await self._race(candidates, resilience, request, record)
                candidate = candidates.pop(0)
                if resilience.retries:
                    return await self._with_retries(candidate, resilience, request, record)
                return await self._attempt(candidate, request, record)
            except BackendError as error:
                if not candidates or error.error_class not in decision.fallback_on:
                    raise

    async def _with_retries(
        self, candidate: Candidate, resilience: Resilience, request: Outgoing, record: Record
    ) -> Begun:
        retry = 0
        while True:
            try:
                return await self._attempt(candidate, request, record)
            except BackendError as error:
                pause = self._pause_s(error, retry, resilience)
                if pause is None:
                    raise
                await asyncio.sleep(pause)
                retry += 1

    def _pause_s(self, error: BackendError, retry: int, resilience: Resilience) -> float | None:
        """Seconds until the next attempt at the same candidate; None: there is none."""
        if retry >= resilience.retries or error.error_class not in resilience.retry_on:
            return None
        pause = backoff_s(retry, error.retry_after, resilience, random=random.random, unix_s=time.time())
        return pause if pause is not None and self._budget.try_withdraw(monotonic()) else None

    async def _race(
        self, candidates: list[Candidate], resilience: Resilience, request: Outgoing, record: Record
    ) -> Begun:
        """The first candidate and, if it is slow, the one after it; takes from `candidates` who ran.

        Where there is only one it runs against itself. Raises the BackendError of who failed last.
        """
        first = candidates.pop(0)
        running = [asyncio.create_task(self._with_retries(first, resilience, request, record))]
        winner: Begun | None = None
        try:
            await asyncio.wait(running, timeout=resilience.hedge_after_s)
            if not running[0].done() and self._budget.try_withdraw(monotonic()):
                second = candidates.pop(0) if candidates else first
                running.append(asyncio.create_task(self._attempt(second, request, record)))
            winner = await _first_to_begin(running)
        finally:
            await _call_off(running, winner, record)
        return winner

    async def _attempt(self, candidate: Candidate, request: Outgoing, record: Record) -> Begun:
        backend, slots, queue_s = self._upstreams[candidate.backend]
        if not slots.try_acquire():
            await slots.acquire(queue_s)
        try:
            return Begun(*await self._ask(backend, candidate, request, record), slots)
        except BaseException:
            slots.release()
            raise

    async def _ask(
        self, backend: Backend, candidate: Candidate, request: Outgoing, record: Record
    ) -> tuple[Attempt, Answer]:
        outgoing = request.masked_for(candidate.permit) if candidate.masked else request
        breaker = self.breakers[candidate.backend]
        if not breaker.admits(monotonic()):
            message = f"backend {candidate.backend} kept failing and is left alone for now"
            raise BackendError(ErrorClass.CONNECTION, message, status=503)
        sealed = outgoing.seal(candidate.permit)
        try:
            attempt = record.attempt(candidate, sealed)
        except ApiError:
            breaker.unsettled(monotonic())
            raise
        try:
            response = await backend.send(
                UpstreamRequest(
                    call_id=record.call_id,
                    endpoint=request.endpoint,
                    model=candidate.model,
                    content=outgoing.content,
                    stream=request.stream,
                    permit=sealed,
                )
            )
            answer = await begin(response, stream=request.stream)
        except BackendError as error:
            breaker.failed(monotonic(), error.error_class)
            record.failed(attempt, error)
            raise
        except BaseException:
            breaker.unsettled(monotonic())
            record.given_up(attempt)
            raise
        breaker.succeeded(monotonic())
        return attempt, answer


async def _first_to_begin(running: list[asyncio.Task[Begun]]) -> Begun:
    """Raises the BackendError of the last one when all have failed."""
    while True:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        failed = [task for task in running if task in done and task.exception() is not None]
        for task in running:
            if task in done and task not in failed:
                return task.result()
        for task in failed:
            running.remove(task)
        if not running:
            failed[-1].result()


async def _call_off(running: list[asyncio.Task[Begun]], winner: Begun | None, record: Record) -> None:
    """Ends all attempts but the winner's, and waits until they have ended: none may outlive its record.

    Whoever is cancelled meanwhile, as by a client that leaves, has no winner any more.
    """
    for task in running:
        task.cancel()
    cancelled = await _until_ended(running)
    begun = [task.result() for task in running if not (task.cancelled() or task.exception())]
    for answer in sorted(begun, key=lambda found: found is winner):  # the winner last
        if answer is not winner or cancelled:
            record.given_up(answer.attempt)
            cancelled = await _until_ended([asyncio.create_task(answer.aclose())]) or cancelled
    if cancelled:
        raise cancelled


async def _until_ended(tasks: Sequence[asyncio.Task[Any]]) -> asyncio.CancelledError | None:
    """Waits for all of them whatever happens; gives back what would have ended the wait."""
    cancelled = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled

"""Several replicas of one base behind one backend: who gets a request, and who takes over if that fails.

Able is who the fleet has seen to serve the model: for an adapter that is a replica which has it loaded and
passed the probe. Of those, a request goes to the one that its beginning hashes to (rendezvous hashing), where
the prefix cache of its conversation is, unless that one has `SLACK` more requests under way than the least
busy: then to the least busy one.

A replica that drops the connection, answers with a 5xx or has lost the adapter before its first byte has
answered nobody: the request goes to another, at most `TRIES` in all, so that one that kills what serves it
cannot kill a whole fleet. This is not a retry of the route's: there is one attempt at the backend, which is
charged by the time it takes. Who keeps failing is left alone by a breaker of its own.
"""

import time
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping

from gateway.backends.answer import Answer, begin
from gateway.backends.base import Backend, Sink, UpstreamRequest
from gateway.errors import BackendError, StreamBroken
from gateway.resilience.breaker import Breakers, Limits
from router_policies.types import ErrorClass, Zone

TRIES = 2
SLACK = 2  # requests
PREFIX = 512  # bytes of a request that decide where its conversation is cached
MOVES_ON = frozenset({ErrorClass.CONNECTION, ErrorClass.SERVER_ERROR, ErrorClass.NOT_FOUND})
LIMITS = Limits(run=2, pause_s=1.0, max_pause_s=10.0, max_ejected=1.0)

Able = Callable[[str], Collection[str]]
"""The replicas that serve a model now, by name."""


BringIn = Callable[[str], Awaitable[None]]
"""Has a model loaded somewhere that is not, if it may. Raises BackendError."""


class ReplicaSet:
    """A `Backend` over others, by the names of the replicas; it owns them."""

    def __init__(
        self,
        name: str,
        zone: Zone,
        replicas: Mapping[str, Backend],
        able: Able,
        *,
        random: Callable[[], float],
        bring_in: BringIn | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.zone, self.outstanding = name, zone, dict.fromkeys(replicas, 0)
        self._replicas, self._able, self._clock = replicas, able, clock
        self._bring_in = bring_in
        self.breakers = Breakers(replicas, LIMITS, random=random)

    async def send(self, request: UpstreamRequest) -> "Replayed":
        if self._bring_in is not None:
            await self._bring_in(request.model)
        tried: list[str] = []
        while True:
            name = self._choose(request, tried)
            try:
                return await self._ask(name, request)
            except BackendError as error:
                tried.append(name)
                if error.error_class not in MOVES_ON or len(tried) == TRIES or not self._left(request, tried):
                    raise

    async def aclose(self) -> None:
        for replica in self._replicas.values():
            await replica.aclose()

    def _left(self, request: UpstreamRequest, tried: Collection[str]) -> list[str]:
        able = self._able(request.model)
        return [name for name in self._replicas if name in able and name not in tried]

    def _choose(self, request: UpstreamRequest, tried: Collection[str]) -> str:
        """Raises BackendError where nobody serves the model."""
        left = self._left(request, tried)
        if not left:
            message = f"no replica of backend {self.name} serves {request.model} now"
            raise BackendError(ErrorClass.NOT_FOUND, message, status=404, code="model_not_found")
        now = self._clock()
        down = self.breakers.down(now)
        chosen = self._best([name for name in left if name not in down] or left, request)
        self.breakers[chosen].admits(now)  # one that was left alone is tried by this request
        return chosen

    def _best(self, names: Collection[str], request: UpstreamRequest) -> str:
        if len(names) == 1:
            return next(iter(names))
        key = zlib.crc32(request.content[:PREFIX], zlib.crc32(request.model.encode()))
        ranked = sorted(names, key=lambda name: zlib.crc32(name.encode(), key), reverse=True)
        idlest = min(ranked, key=self.outstanding.__getitem__)
        home = ranked[0]
        return home if self.outstanding[home] <= self.outstanding[idlest] + SLACK else idlest

    async def _ask(self, name: str, request: UpstreamRequest) -> "Replayed":
        breaker = self.breakers[name]
        self.outstanding[name] += 1
        try:
            answer = await begin(await self._replicas[name].send(request), stream=request.stream)
        except BackendError as error:
            self.outstanding[name] -= 1
            breaker.failed(self._clock(), error.error_class)
            raise
        except BaseException:
            self.outstanding[name] -= 1
            breaker.unsettled(self._clock())
            raise
        breaker.succeeded(self._clock())
        return Replayed(answer, lambda failed: self._ended(name, failed))

    def _ended(self, name: str, failed: bool) -> None:
        self.outstanding[name] -= 1
        if failed:
            self.breakers[name].failed(self._clock(), ErrorClass.CONNECTION)


class Replayed:
    """An `UpstreamResponse` that has begun already: what came first is given again, then the rest."""

    def __init__(self, answer: Answer, ended: Callable[[bool], None]) -> None:
        self.status, self.content_type = answer.status, answer.content_type
        self._source, self._first = answer.source, answer.first
        self._ended: Callable[[bool], None] | None = ended
        self._broken = False

    async def read(self) -> bytes:
        first, self._first = self._first, b""
        if first:
            return first
        try:
            return await self._source.read()
        except StreamBroken:
            self._broken = True
            raise

    async def read_all(self, limit: int) -> bytes:
        """The limit was kept when the answer was read."""
        first, self._first = self._first, b""
        return first

    async def pump(self, sink: Sink) -> None:
        first, self._first = self._first, b""
        if first:
            sink(first)
        try:
            await self._source.pump(sink)
        except StreamBroken:
            self._broken = True
            raise

    def pause(self) -> None:
        self._source.pause()

    def resume(self) -> None:
        self._source.resume()

    async def aclose(self) -> None:
        ended, self._ended = self._ended, None
        if ended is None:
            return
        try:
            await self._source.aclose()
        finally:
            ended(self._broken)

"""Which limits cover a request, and what the client is told of them.

A request takes from the limits of its key and team as soon as the key is known, from both or from neither,
and from its route's once that is decided. Its prompt is counted by an estimate when it comes in, and by what
it used, answer included, at its end. A limit that refuses a request has not counted it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from math import ceil
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.errors import ApiError
from gateway.limits.shared import Found, Shared, Unreachable
from gateway.limits.window import MINUTE_S, Counter
from gateway.rates import Rates
from gateway.types import Principal

EACH = "*"  # in a rule: each one for itself

Scope = tuple[str, str]  # "key", "team" or "route", and its name


class Covering(msgspec.Struct, frozen=True):
    """A limit that covers a request, and what this process has counted for it."""

    scope: Scope
    rates: Rates
    counter: Counter


Standing = tuple[int, int, float]  # a limit, how much of it is used, and seconds until it is all there again
Standings = Mapping[str, Sequence[Standing]]  # of "requests" and of "tokens"


class RateLimited(ApiError):
    """A limit has no room for the request."""

    status = 429
    type = "requests"

    def __init__(self, covering: Covering, what: str, wait_s: float, headers: Mapping[str, str]) -> None:
        limit = {"requests": covering.rates.requests, "tokens": covering.rates.tokens}.get(what)
        per = "concurrent requests" if limit is None else f"{what} per minute"
        most = covering.rates.concurrent if limit is None else limit
        seconds = max(1, ceil(wait_s))
        super().__init__(
            f"Rate limit reached for this {covering.scope[0]}: {most} {per}. Please try again in {seconds}s.",
            type="tokens" if what == "tokens" else "requests",
            code="rate_limit_exceeded",
            headers={**headers, "retry-after": str(seconds)},
        )


class TooManyTokens(ApiError):
    """The request alone is more than a limit ever lets through."""

    status = 429
    type = "tokens"

    def __init__(self, covering: Covering, tokens: int) -> None:
        super().__init__(
            f"Request too large for this {covering.scope[0]}: {covering.rates.tokens} tokens per minute, and "
            f"this one has about {tokens}.",
            code="rate_limit_exceeded",
            headers={"x-should-retry": "false"},  # no later minute has more room
        )


class LimitsUnavailable(ApiError):
    """Limits that processes share cannot be looked at, and the configuration refuses then."""

    status = 503

    def __init__(self) -> None:
        super().__init__(
            "The gateway cannot look at its rate limits. Please try again shortly.",
            code="limits_unavailable",
            headers={"retry-after": "1"},
        )


class Rules(msgspec.Struct, frozen=True):
    """Limits of the configuration: by kind, then by name or `EACH`."""

    keys: Mapping[str, Rates] = {}
    teams: Mapping[str, Rates] = {}
    routes: Mapping[str, Rates] = {}


class Limiter:
    """Of one process; with `shared` together with others."""

    def __init__(
        self,
        rules: Rules,
        shared: Shared | None = None,
        *,
        refuse: bool = False,
        processes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """While `shared` cannot be reached requests are refused, if `refuse`, or held to what one of
        `processes` has of each limit."""
        self._rules, self._shared, self._clock = rules, shared, clock
        self._refuse, self._processes = refuse, processes
        self._counters: dict[Scope, Counter] = {}
        self._callers: dict[str, tuple[Principal, Sequence[Covering]]] = {}  # as long as they are the same
        self._routes: dict[str, Sequence[Covering]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def open(self, principal: Principal) -> "Grant | None":
        """What the request will hold; None: no limit can cover it."""
        rules = self._rules
        callers = principal.limits is not None or principal.team_limits is not None
        if not (callers or rules.keys or rules.teams or rules.routes):
            return None
        return Grant(self, principal)

    def of_caller(self, principal: Principal) -> Sequence[Covering]:
        known = self._callers.get(principal.key_id)
        if known is None or known[0] is not principal:
            known = self._callers[principal.key_id] = principal, self._of_caller(principal)
        return known[1]

    def of_route(self, route: str) -> Sequence[Covering]:
        known = self._routes.get(route)
        if known is None:
            known = self._routes[route] = self._covering("route", route, _rule(self._rules.routes, route))
        return known

    def _of_caller(self, principal: Principal) -> Sequence[Covering]:
        of_key = principal.limits or _rule(self._rules.keys, principal.key_id)
        of_team = principal.team_limits or _rule(self._rules.teams, principal.team)
        return (
            *self._covering("key", principal.key_id, of_key),
            *self._covering("team", principal.team, of_team),
        )

    def _covering(self, kind: str, name: str, rates: Rates | None) -> Sequence[Covering]:
        if rates is None:
            return ()
        scope = (kind, name)
        return (Covering(scope, rates, self._counters.setdefault(scope, Counter())),)

    async def take(self, covering: Sequence[Covering], tokens: int) -> "Taken":
        """Raises RateLimited, TooManyTokens, LimitsUnavailable; then nothing was taken."""
        for one in covering:
            if one.rates.tokens is not None and tokens > one.rates.tokens:
                raise TooManyTokens(one, tokens)
        if self._shared is not None:
            try:
                return await self._take_shared(self._shared, covering, tokens)
            except Unreachable:
                if self._refuse:
                    raise LimitsUnavailable from None
                covering = [replace(one, rates=_share(one.rates, self._processes)) for one in covering]
        return self._take_here(covering, tokens)

    def _take_here(self, covering: Sequence[Covering], tokens: int) -> "Taken":
        now = self._clock()
        for one in covering:
            lack = one.counter.lack(one.rates, tokens, now)
            if lack is not None:
                raise RateLimited(one, *lack, _headers(_standings(covering, now)))
        second = int(now)
        entries = [(one.counter, one.counter.take(second, tokens)) for one in covering]

        def give_back(used: int) -> None:
            at = int(self._clock())
            for counter, entry in entries:
                counter.give_back(entry, at, used - tokens)

        return Taken(_standings(covering, now), give_back)

    async def _take_shared(self, shared: Shared, covering: Sequence[Covering], tokens: int) -> "Taken":
        names = [":".join(one.scope) for one in covering]
        taking = asyncio.create_task(shared.take(names, [one.rates for one in covering], tokens))
        try:
            found = await asyncio.shield(taking)
        except asyncio.CancelledError:  # the client has left; what is taken all the same goes back
            self._finish(_undo(shared, names, taking, tokens))
            raise
        if found.lacking is not None:
            at, what, wait_s = found.lacking
            raise RateLimited(covering[at], what, wait_s, _headers(found.standings))

        def give_back(used: int) -> None:  # nobody waits for it; a lease that is not given back runs out
            self._finish(shared.give_back(names, found, used - tokens))

        return Taken(found.standings, give_back)

    def _finish(self, work: Coroutine[Any, Any, None]) -> None:
        """Does what nobody waits for."""
        task = asyncio.create_task(work)
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        await asyncio.gather(*self._ending, return_exceptions=True)
        if self._shared is not None:
            await self._shared.aclose()


async def _undo(shared: Shared, names: Sequence[str], taking: asyncio.Task[Found], tokens: int) -> None:
    with suppress(Unreachable):
        found = await taking
        if found.lacking is None:
            await shared.give_back(names, found, -tokens)


class Taken:
    """A request's part in some limits, until it is given back."""

    __slots__ = ("give_back", "standings")

    def __init__(self, standings: Standings, give_back: Callable[[int], None]) -> None:
        """`give_back` is told the tokens that were used."""
        self.standings, self.give_back = standings, give_back


class Grant:
    """What one request holds. `close` it, once, whatever became of the request."""

    __slots__ = ("_limiter", "_principal", "_taken", "_tokens", "used")

    def __init__(self, limiter: Limiter, principal: Principal) -> None:
        self._limiter, self._principal = limiter, principal
        self._taken: list[Taken] = []
        self._tokens = 0
        self.used = 0  # tokens, once they are known

    async def take_caller(self, tokens: int) -> None:
        """From the limits of its key and team; `tokens` of the prompt, as estimated. Raises as `take`."""
        self._tokens = tokens
        if covering := self._limiter.of_caller(self._principal):
            self._taken.append(await self._limiter.take(covering, tokens))

    async def take_route(self, route: str | None) -> None:
        """From the limits of the route that it takes. Raises as `take`."""
        if route is not None and (covering := self._limiter.of_route(route)):
            self._taken.append(await self._limiter.take(covering, self._tokens))

    def headers(self) -> dict[str, str]:
        """The `x-ratelimit-…` headers: of each kind the limit that is closest."""
        if len(self._taken) == 1:
            return _headers(self._taken[0].standings)
        together: dict[str, list[Standing]] = {"requests": [], "tokens": []}
        for taken in self._taken:
            for what, standings in taken.standings.items():
                together[what] += standings
        return _headers(together)

    def close(self) -> None:
        for taken in self._taken:
            taken.give_back(self.used)
        self._taken.clear()


def _rule(rules: Mapping[str, Rates], name: str) -> Rates | None:
    return rules.get(name) or rules.get(EACH)


def _share(rates: Rates, processes: int) -> Rates:
    """What one process may let through by itself: rounded down, but something, or an outage would be one."""

    def part(limit: int | None) -> int | None:
        return None if limit is None else max(1, limit // processes)

    return Rates(requests=part(rates.requests), tokens=part(rates.tokens), concurrent=part(rates.concurrent))


def _standings(covering: Sequence[Covering], now: float) -> Standings:
    """As they are when a request has just been counted, or refused."""
    whole_s = int(now) + MINUTE_S + 1 - now
    requests = [(n, one.counter.requests.total, whole_s) for one in covering if (n := one.rates.requests)]
    tokens = [(n, one.counter.tokens.total, whole_s) for one in covering if (n := one.rates.tokens)]
    return {"requests": requests, "tokens": tokens}


def _headers(standings: Standings) -> dict[str, str]:
    headers = {}
    for what, of_kind in standings.items():
        if of_kind:
            limit, used, whole_s = of_kind[0] if len(of_kind) == 1 else max(of_kind, key=_used_share)
            headers[f"x-ratelimit-limit-{what}"] = str(limit)
            headers[f"x-ratelimit-remaining-{what}"] = str(max(0, limit - used))
            headers[f"x-ratelimit-reset-{what}"] = f"{ceil(whole_s)}s"
    return headers


def _used_share(standing: Standing) -> float:
    return standing[1] / standing[0]

"""Hold: what a request may cost is set aside in its budgets before any backend is asked, and settled after.

The amount is an upper bound, as far as one can be known beforehand: the prompt at 1.5 bytes a token (base64,
the densest text that was measured), and the answer at the limit that the client set or, without one, at what
95 of 100 answers of the route stay below. Our own replicas are held at half a minute of their hour.

Where no budget covers a request nothing of this happens.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from gateway.errors import ApiError
from gateway.ledger.budgets.budget import FOREVER_NS
from gateway.ledger.budgets.leases import Allowance, Hold, Purse, Shortage
from gateway.ledger.charges import Charge
from gateway.ledger.prices import usd
from gateway.parsing import Request
from gateway.types import Call, Entry, Usage
from router_policies.types import Decision, Facts

_BYTES_PER_TOKEN = 1.5  # the fewest, see ledger/tokens.py
_OUTPUT_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_UNKNOWN_OUTPUT = 1024  # tokens, for a route that has not answered often enough
_LEAST_OUTPUT, _MOST_OUTPUT = 16, 32_768  # without a limit of the client's
_ENOUGH = 20  # answers
_WAIT_S = 10.0  # for a slice of a budget that still has one: a database that restarts is back by then


class BudgetExceeded(ApiError):
    """A hard budget has nothing left for the request."""

    status = 429
    type = "insufficient_quota"


class BudgetUnavailable(ApiError):
    """The database of the budgets does not say whether one has anything left."""

    status = 503
    type = "server_error"


class Outputs:
    """How long a route's answers are. Counts by powers of two and quarters of them, the old ones fading."""

    def __init__(self) -> None:
        self._counts: dict[str, list[float]] = {}

    def add(self, route: str, tokens: int) -> None:
        counts = self._counts.setdefault(route, [0.0] * 64)
        counts[min(_place(tokens), 63)] += 1.0
        if sum(counts) > 1000:
            counts[:] = [count / 2 for count in counts]

    def most(self, route: str) -> int:
        """What 95 of 100 answers stay below."""
        counts = self._counts.get(route, [])
        total = sum(counts)
        if total < _ENOUGH:
            return _UNKNOWN_OUTPUT
        seen = 0.0
        for place, count in enumerate(counts):
            seen += count
            if seen >= 0.95 * total:
                return max(_LEAST_OUTPUT, min(_top(place), _MOST_OUTPUT))
        return _MOST_OUTPUT


class Held:
    """A request's hold. `settle` it once its row is made."""

    __slots__ = ("_hold", "_holds", "used")

    def __init__(self, holds: "Holds", hold: Hold, used: float) -> None:
        """`used`: the largest share that is spent or set aside of the budgets that cover the request."""
        self._holds, self._hold, self.used = holds, hold, used

    @property
    def amount_nano(self) -> int:
        """What is set aside in hard budgets; 0 once it has settled."""
        return self._hold.amount_nano if self._hold.allowances else 0

    def settle(self, entry: Entry) -> None:
        self._holds.settle(self._hold, entry)


class Holds:
    """Of one process. `running` keeps the leases filled."""

    def __init__(self, purse: Purse, charges: Mapping[str, Charge], *, wait_s: float = _WAIT_S) -> None:
        self._purse, self._charges, self._wait_s = purse, charges, wait_s
        self._outputs = Outputs()
        self._waiting: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def visited() -> None:  # in the purse's thread
            loop.call_soon_threadsafe(self._visited)

        self._purse.on_visit(visited)
        thread = threading.Thread(target=self._purse.serve, name="budgets", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._purse.stop()
            await asyncio.to_thread(thread.join, 5.0)

    def used(self, facts: Facts, at_ns: int) -> float:
        """The largest share used of the budgets that cover a request whichever route it takes.

        As of the last visit to the database, half a second ago at most; 0 before the first.
        """
        budgets = self._purse.covering.of(facts.key_id, facts.team, facts.tags, "")
        return self._purse.share_used(budgets, at_ns) if budgets else 0.0

    async def hold(self, call: Call, decision: Decision, request: Request) -> Held | None:
        """None: no budget covers the request. Raises BudgetExceeded, BudgetUnavailable.

        A lease that is used up is filled within milliseconds, so whoever finds it so waits for that.
        """
        facts = call.facts
        budgets = self._purse.covering.of(facts.key_id, facts.team, facts.tags, decision.route)
        if not budgets:
            return None
        allowances = self._purse.allowances(budgets, call.started_ns)
        amount = self._most(call, decision, request)
        found = self._purse.hold(allowances, amount)
        if isinstance(found, Shortage):
            found = await self._wait(allowances, amount, found)
        return Held(self, found, max(allowance.share_used for allowance in allowances))

    def settle(self, hold: Hold, entry: Entry) -> None:
        self._purse.settle(hold, entry.cost_nano or 0)
        if entry.usage.output_tokens:
            self._outputs.add(entry.route, entry.usage.output_tokens)

    async def _wait(self, allowances: Sequence[Allowance], amount: int, short: Shortage) -> Hold:
        deadline = time.monotonic() + self._wait_s
        found: Hold | Shortage = short
        while isinstance(found, Shortage):
            left = deadline - time.monotonic()
            if found.final and (found is not short or left <= 0):
                raise _exceeded(found)
            if left <= 0:
                raise BudgetUnavailable(
                    f"The budget {found.budget.id!r} cannot be read at present. Please try again shortly.",
                    code="budget_unavailable",
                    headers={"retry-after": "1"},
                )
            await self._visit(left)
            found = self._purse.hold(allowances, amount)
        return found

    async def _visit(self, timeout_s: float) -> None:
        """Until the database has been asked once more, or time is up."""
        visit: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(visit)
        try:
            async with asyncio.timeout(timeout_s):
                await visit
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(visit)

    def _visited(self) -> None:
        for visit in self._waiting:
            if not visit.done():
                visit.set_result(None)

    def _most(self, call: Call, decision: Decision, request: Request) -> int:
        """The most that the request may cost, in nano-dollars: twice where two may be asked at once."""
        asked, modalities = request.body.get("service_tier"), request.body.get("modalities")
        usage = Usage(
            input_tokens=int(request.size / _BYTES_PER_TOKEN) + 1,
            output_tokens=self._most_output(decision.route, request),
            service_tier=asked if isinstance(asked, str) else "",
        )
        made = isinstance(modalities, list) and any(kind != "text" for kind in modalities)
        dearest = max(
            self._charges[candidate.backend].most(candidate.model, usage, call.started_ns, made=made)
            for candidate in decision.candidates
        )
        return dearest * (1 if decision.resilience.hedge_after_s is None else 2)

    def _most_output(self, route: str, request: Request) -> int:
        if request.endpoint == "embeddings":
            return 0
        given = [request.body.get(name) for name in _OUTPUT_LIMITS]
        limits = [limit for limit in given if type(limit) is int and limit >= 0]
        answers = request.body.get("n")
        each = min(limits) if limits else self._outputs.most(route)
        return each * (answers if type(answers) is int and answers > 0 else 1)


def _exceeded(short: Shortage) -> BudgetExceeded:
    budget, window = short.budget, short.window
    until = "" if window.end_ns == FOREVER_NS else f" It starts anew at {_moment(window.end_ns)}."
    per = "in all" if window.end_ns == FOREVER_NS else f"per {budget.period.value}"
    return BudgetExceeded(
        f"The budget {budget.id!r} of {usd(budget.cap_nano)} USD {per} has too little left for this request."
        + until,
        code="budget_exceeded",
        # The SDKs would ask again within seconds, which cannot help.
        headers={"x-should-retry": "false"},
    )


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).isoformat(timespec="minutes")


def _place(tokens: int) -> int:
    """Four places for each doubling."""
    if tokens < 4:
        return max(0, tokens)
    doublings = tokens.bit_length() - 3
    return 4 * doublings + (tokens >> doublings)


def _top(place: int) -> int:
    """The most tokens that have this place."""
    if place < 4:
        return place
    doublings, quarter = divmod(place - 4, 4)
    return ((quarter + 5) << doublings) - 1

"""Backtest: what a policy would have done with requests that are stored.

Requests that differ in nothing that a decision can see are one kind. `decide` decides some calls of each,
since shares are drawn by the call. What one request costs or takes is worked out over arrays.

What the ledger does not store is not guessed. A route that asks for it and that could take a request leaves
that request undecided. A cost whose price is not known, and a latency at a place where nothing was seen, are
counted as unknown. What is assumed of all others stands in `ASSUMED`.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from .compiled import CompiledPolicy
from .conditions import Conditions
from .decide import decide
from .index import RouteIndex, build_index, minute_of_week
from .privacy import PrivacyClass
from .types import UNBOUNDED, Candidate, Decision, Facts, Feature, Place, Price, Snapshot, Speed

SAMPLED = 16  # calls of a kind that shares are drawn for
SEEN = 20  # answers at a place, for its speed and its latency to be known
MOST_SEEN = 4096  # of which so many are looked at
Z95 = 1.959963984540054
_MILLION = 10**6
_NANO_HOUR_PER_MS = 3_600_000
ASSUMED = (
    "the first choice answers, with as many tokens as were answered then",
    "every backend is up, and aliases point where they do now",
    "requests use no feature but streaming, so no target lacks one",
    "the class of a request is what it was booked with, the floor of its route then included",
    "least_busy groups are in the document's order, and nothing is masked",
    "who names a user or session is drawn for by the call",
    "a replica's hour is shared with nobody else",
)

Numbers = NDArray[np.float64]


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request, and where it went."""

    endpoint: str
    model: str
    key_id: str
    team: str
    tags: frozenset[str]
    privacy: PrivacyClass
    findings: frozenset[str]
    stream: bool
    prompt_tokens: int  # of one of them; to the policy all are alike
    at_s: float  # of one of them
    calls: tuple[str, ...]  # ids of some
    withheld: bool  # the model's name or a tag was not written down
    place: Place | None  # where they were answered; None: nowhere
    local: bool  # that is a zone of our own


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Stored requests: their kinds and, an entry for each request, what it was and came to."""

    kinds: Sequence[Past]
    kind: NDArray[np.int64]  # into `kinds`
    input_tokens: Numbers
    cached_tokens: Numbers
    output_tokens: Numbers
    cost_nano: Numbers  # NaN: unknown
    duration_ms: Numbers


class RouteChange(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of the requests that take one route of the new policy. Costs in nano-dollars."""

    route: str
    requests: int
    moved: int  # that go to another backend or model, or no longer nowhere
    refused: int
    cost_before: int
    cost_after: int  # shadows included
    change_low: int  # of the change in cost: a 95 % interval for as many requests of the same kinds
    change_high: int
    cost_unknown: int  # requests that are left out of the costs
    latency_before_ms: tuple[float, float] | None  # median and 95th percentile; None: nothing was seen
    latency_after_ms: tuple[float, float] | None
    latency_unknown: int  # requests that go where nothing was seen


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of a class leave our own zones."""

    privacy: str
    before: int
    after: int


class Backtest(msgspec.Struct, frozen=True, kw_only=True):
    policy: str
    requests: int
    undecided: Mapping[str, int]  # why -> requests
    unrouted: int  # that no route takes
    routes: tuple[RouteChange, ...]
    exposure: tuple[Exposure, ...]
    assumed: tuple[str, ...] = ASSUMED


def cells(policy: CompiledPolicy) -> Callable[[int, float], Hashable]:
    """What of prompt tokens and of a time (Unix) the policy can tell apart."""
    cuts = policy.index.tokens.cuts
    windows = policy.index.further.windows if policy.index.further else ()
    if not windows:
        return lambda tokens, _: bisect_right(cuts, tokens)

    def cell(tokens: int, at_s: float) -> Hashable:
        times = [bisect_right(steps.cuts, minute_of_week(at_s, zone)) for zone, steps in windows]
        return (bisect_right(cuts, tokens), *times)

    return cell


def backtest(policy: CompiledPolicy, recorded: Recorded, aliases: Mapping[str, str]) -> Backtest:
    """Pure. `aliases`: "name@alias" -> release, as they are now."""
    seen = _Seen(recorded)
    snapshot = Snapshot(aliases=aliases, speeds=seen.speeds)
    trial = _Trial(policy, recorded, seen)
    undecided: Counter[str] = Counter()
    lenient, unknowable = _lenient(policy)
    for number, past in enumerate(recorded.kinds):
        if past.withheld:
            undecided["the model's name or a tag was withheld"] += int(trial.sizes[number])
            continue
        first = lenient.first(_facts(past, past.calls[0]), past.privacy)
        if first is not None and unknowable[first]:
            reason = f"route {policy.routes[first].name} asks for {', '.join(unknowable[first])}"
            undecided[reason] += int(trial.sizes[number])
        else:
            trial.try_out(number, past, first, snapshot)
    return Backtest(
        policy=policy.label,
        requests=len(recorded.kind),
        undecided=dict(undecided),
        unrouted=trial.unrouted,
        routes=tuple(trial.changes()),
        exposure=tuple(trial.exposure()),
    )


def _lenient(policy: CompiledPolicy) -> tuple[RouteIndex, list[list[str]]]:
    """An index that finds the first route that may take a request, and what is not known of each route's."""
    conditions = [route.conditions for route in policy.routes]
    lenient = build_index([_known(c) for c in conditions], policy.scale)
    return lenient, [list(dict.fromkeys(_unknowable(c))) for c in conditions]


def _known(conditions: Conditions) -> Conditions:
    stream = frozenset({Feature.STREAM})
    return msgspec.structs.replace(
        conditions,
        projects=None,
        tasks=None,
        languages=None,
        metadata={},
        features=conditions.features & stream,
        without_features=conditions.without_features & stream,
        least_output=0,
        most_output=UNBOUNDED,
        least_budget=0.0,
        most_budget=float("inf"),
        down=frozenset(),
        up=frozenset(),
    )


def _unknowable(conditions: Conditions) -> Iterator[str]:
    """What the route asks for and the ledger does not store."""
    known = _known(conditions)
    for field, name in (
        ("projects", "project"),
        ("tasks", "task"),
        ("languages", "language"),
        ("metadata", "metadata"),
        ("features", "features"),
        ("without_features", "features"),
        ("least_output", "output_tokens"),
        ("most_output", "output_tokens"),
        ("least_budget", "budget"),
        ("most_budget", "budget"),
        ("down", "health"),
        ("up", "health"),
    ):
        if getattr(known, field) != getattr(conditions, field):
            yield name


def _facts(past: Past, call_id: str) -> Facts:
    return Facts(
        call_id=call_id,
        endpoint=past.endpoint,
        model=past.model,
        key_id=past.key_id,
        team=past.team,
        tags=past.tags,
        features=frozenset({Feature.STREAM}) if past.stream else frozenset(),
        prompt_tokens=past.prompt_tokens,
        privacy=past.privacy,
        findings=past.findings,
        at_s=past.at_s,
    )


class _Seen:
    """Where requests were answered, and how long that took."""

    def __init__(self, recorded: Recorded) -> None:
        self.order = np.argsort(recorded.kind, kind="stable")
        sizes = np.bincount(recorded.kind, minlength=len(recorded.kinds))
        self.ends = np.cumsum(sizes)
        of_place: dict[Place, list[NDArray[np.int64]]] = defaultdict(list)
        for number, past in enumerate(recorded.kinds):
            if past.place is not None:
                of_place[past.place].append(self.rows(number))
        found = {place: np.concatenate(rows) for place, rows in of_place.items()}
        self.latency: dict[Place, Numbers] = {
            place: _thinned(recorded.duration_ms[rows]) for place, rows in found.items() if len(rows) >= SEEN
        }
        self.speeds = {
            place: speed for place, rows in found.items() if (speed := _speed(recorded, rows)) is not None
        }

    def rows(self, kind: int) -> NDArray[np.int64]:
        start = int(self.ends[kind - 1]) if kind else 0
        return self.order[start : self.ends[kind]]


def _thinned(values: Numbers) -> Numbers:
    return values[:: max(1, len(values) // MOST_SEEN)]


def _speed(recorded: Recorded, rows: NDArray[np.int64]) -> Speed | None:
    """Of whole answers, since the ledger's sums do not part first byte and rest."""
    tokens, ms = recorded.output_tokens[rows].sum(), recorded.duration_ms[rows].sum()
    if len(rows) < SEEN or not tokens or not ms:
        return None
    prompt = recorded.input_tokens[rows].sum()
    cached = recorded.cached_tokens[rows].sum() / prompt if prompt else 0.0
    return Speed(first_byte_s=0.0, tokens_per_s=float(tokens / (ms / 1e3)), cached=float(cached))


class _Tally:
    """Sums over the requests that take one route."""

    def __init__(self) -> None:
        self.requests = self.moved = self.refused = self.priced = self.unpriced = self.unseen = 0.0
        self.before = self.after = self.change = self.squares = 0.0
        self.at_before: dict[Place, float] = defaultdict(float)  # requests by place
        self.at_after: dict[Place, float] = defaultdict(float)


class _Trial:
    def __init__(self, policy: CompiledPolicy, recorded: Recorded, seen: _Seen) -> None:
        self._policy, self._recorded, self._seen = policy, recorded, seen
        self.sizes = np.bincount(recorded.kind, minlength=len(recorded.kinds))
        self.unrouted = 0
        self._tallies: dict[str, _Tally] = {}
        self._left: dict[tuple[PrivacyClass, str], float] = defaultdict(float)

    def try_out(self, number: int, past: Past, route: int | None, snapshot: Snapshot) -> None:
        """Decides all requests of a kind, each way that its sampled calls go for its share of them."""
        rows = self._seen.rows(number)
        if not past.local and past.place is not None:
            self._left[past.privacy, "before"] += len(rows)
        if route is None:
            self.unrouted += len(rows)
            return
        tally = self._tallies.setdefault(self._policy.routes[route].name, _Tally())
        verdicts = [decide(self._policy, _facts(past, call), snapshot) for call in past.calls]
        weight = len(rows) / len(verdicts)
        tally.requests += len(rows)
        if past.place is not None:
            tally.at_before[past.place] += len(rows)
        ways: Counter[tuple[Candidate | None, Candidate | None]] = Counter()
        for verdict in verdicts:
            leads = isinstance(verdict, Decision)
            first = verdict.candidates[0] if leads else None  # type: ignore[union-attr]
            shadow = verdict.shadow if leads else None  # type: ignore[union-attr]
            ways[_bare(first), _bare(shadow)] += 1
        for (first, shadow), times in ways.items():
            self._led(tally, past, first, times * weight)
            self._left[past.privacy, "after"] += sum(
                times * weight for one in (first, shadow) if one is not None and not one.local
            )
        self._costs(tally, past, rows, ways, len(verdicts))

    def _led(self, tally: _Tally, past: Past, first: Candidate | None, requests: float) -> None:
        if first is None:
            tally.refused += requests
            tally.moved += requests if past.place is not None else 0
            return
        place = (first.backend, first.model)
        tally.moved += requests if place != past.place else 0
        tally.at_after[place] += requests
        tally.unseen += requests if place not in self._seen.latency else 0

    def _costs(
        self,
        tally: _Tally,
        past: Past,
        rows: NDArray[np.int64],
        ways: Mapping[tuple[Candidate | None, Candidate | None], int],
        calls: int,
    ) -> None:
        before = self._recorded.cost_nano[rows]
        after = np.zeros(len(rows))
        for (first, shadow), times in ways.items():
            for candidate in (first, shadow):
                if candidate is not None:
                    after += times / calls * self._cost(candidate, past, rows, before)
        known = ~(np.isnan(before) | np.isnan(after))
        before, after = before[known], after[known]
        change = after - before
        tally.priced += len(change)
        tally.unpriced += len(rows) - len(change)
        tally.before += float(before.sum())
        tally.after += float(after.sum())
        tally.change += float(change.sum())
        tally.squares += float((change * change).sum())

    def _cost(self, candidate: Candidate, past: Past, rows: NDArray[np.int64], before: Numbers) -> Numbers:
        """What each request would cost there; NaN: unknown. Where it was already: what it did cost."""
        place = (candidate.backend, candidate.model)
        if place == past.place:
            return before
        price = self._policy.prices.get(place)
        speed = self._seen.speeds.get(place)
        if price is None or (price.hour and speed is None):
            return np.full(len(rows), np.nan)
        recorded = self._recorded
        outputs = recorded.output_tokens[rows]
        if price.hour and speed is not None:
            ms = (speed.first_byte_s + outputs / speed.tokens_per_s) * 1e3
            return ms * price.hour / _NANO_HOUR_PER_MS
        return _by_the_token(price, recorded.input_tokens[rows], outputs, speed.cached if speed else 0.0)

    def changes(self) -> Iterator[RouteChange]:
        for route in self._policy.routes:
            tally = self._tallies.get(route.name)
            if tally is not None:
                yield self._change(route.name, tally)

    def _change(self, route: str, tally: _Tally) -> RouteChange:
        count = tally.priced
        variance = max(0.0, tally.squares / count - (tally.change / count) ** 2) if count else 0.0
        margin = Z95 * (variance * count) ** 0.5
        return RouteChange(
            route=route,
            requests=round(tally.requests),
            moved=round(tally.moved),
            refused=round(tally.refused),
            cost_before=round(tally.before),
            cost_after=round(tally.after),
            change_low=round(tally.change - margin),
            change_high=round(tally.change + margin),
            cost_unknown=round(tally.unpriced),
            latency_before_ms=self._latency(tally.at_before),
            latency_after_ms=self._latency(tally.at_after),
            latency_unknown=round(tally.unseen),
        )

    def _latency(self, requests: Mapping[Place, float]) -> tuple[float, float] | None:
        """Median and 95th percentile over the places' observed latencies, each for its requests."""
        seen = [
            (self._seen.latency[place], n) for place, n in requests.items() if place in self._seen.latency
        ]
        if not seen:
            return None
        values = np.concatenate([latency for latency, _ in seen])
        weights = np.concatenate([np.full(len(latency), n / len(latency)) for latency, n in seen])
        order = np.argsort(values)
        reached = np.cumsum(weights[order])
        at = [int(np.searchsorted(reached, share * reached[-1])) for share in (0.5, 0.95)]
        median, high = (float(values[order][min(place, len(values) - 1)]) for place in at)
        return round(median, 1), round(high, 1)

    def exposure(self) -> Iterator[Exposure]:
        for privacy in self._policy.scale:
            before, after = self._left[privacy, "before"], self._left[privacy, "after"]
            if before or after:
                yield Exposure(privacy=privacy.label, before=round(before), after=round(after))


def _bare(candidate: Candidate | None) -> Candidate | None:
    """Without its permit, which names the call: so that ways that differ in nothing else are one."""
    return candidate and msgspec.structs.replace(candidate, permit=None)


def _by_the_token(price: Price, inputs: Numbers, outputs: Numbers, cached: float) -> Numbers:
    of_input = price.input if price.cached is None else price.input + (price.cached - price.input) * cached
    cost = inputs * of_input + outputs * price.output
    for above, tier_input, tier_output in price.tiers:
        cost = np.where(inputs > above, inputs * tier_input + outputs * tier_output, cost)
    return cost / _MILLION

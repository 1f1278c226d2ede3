"""The order of a group's targets for one request, by the group's strategy."""

from collections.abc import Callable, Mapping

from .compiled import CompiledGroup, CompiledPolicy, CompiledTarget
from .draw import SPAN, WORDS, hashed, mixed, race
from .estimate import cost_nano, seconds
from .types import Candidate, Facts, Snapshot

Found = tuple[CompiledTarget, Candidate]
UNKNOWN = float("inf")
TRIED_BELOW = SPAN // 20  # the share of requests that try what has not answered of late
_TRIED_SALT = hashed("tried")


def ranked(
    policy: CompiledPolicy, group: CompiledGroup, found: list[Found], facts: Facts, snapshot: Snapshot
) -> list[Found]:
    """`found` in order; where the strategy knows no difference, in the document's."""
    strategy = STRATEGIES.get(group.strategy)
    if strategy is None or len(found) < 2:
        return found
    scores = strategy(policy, group, found, facts, snapshot)
    order = sorted(range(len(found)), key=scores.__getitem__)
    return [found[place] for place in order]


def _drawn(
    policy: CompiledPolicy, group: CompiledGroup, found: list[Found], facts: Facts, snapshot: Snapshot
) -> list[float]:
    word = hashed(WORDS[group.by](facts))
    return [race(word, target.salt, target.weight) for target, _ in found]


def _cheapest(
    policy: CompiledPolicy, group: CompiledGroup, found: list[Found], facts: Facts, snapshot: Snapshot
) -> list[float]:
    """What nobody knows the price of comes last."""
    return [
        UNKNOWN if (cost := expected_nano(policy, candidate, facts, snapshot)) is None else cost
        for _, candidate in found
    ]


def _fastest(
    policy: CompiledPolicy, group: CompiledGroup, found: list[Found], facts: Facts, snapshot: Snapshot
) -> list[float]:
    """What has not answered of late comes last, but first for a few requests, lest it never be asked."""
    times = [expected_s(candidate, facts, snapshot) for _, candidate in found]
    if None not in times:
        return [time or 0.0 for time in times]
    tried = mixed(hashed(facts.call_id), _TRIED_SALT) < TRIED_BELOW
    return [(-1.0 if tried else UNKNOWN) if time is None else time for time in times]


def _least_busy(
    policy: CompiledPolicy, group: CompiledGroup, found: list[Found], facts: Facts, snapshot: Snapshot
) -> list[float]:
    return [snapshot.busy.get(candidate.backend, 0) for _, candidate in found]


Strategy = Callable[[CompiledPolicy, CompiledGroup, list[Found], Facts, Snapshot], list[float]]
STRATEGIES: Mapping[str, Strategy] = {
    "weighted": _drawn,
    "sticky": _drawn,
    "cheapest": _cheapest,
    "fastest": _fastest,
    "least_busy": _least_busy,
}


def expected_nano(
    policy: CompiledPolicy, candidate: Candidate, facts: Facts, snapshot: Snapshot
) -> int | None:
    """What the candidate is expected to cost, in nano-dollars; None: its price is unknown."""
    place = (candidate.backend, candidate.model)
    price = policy.prices.get(place)
    if price is None:
        return None
    return cost_nano(price, facts, snapshot.speeds.get(place), snapshot.busy.get(candidate.backend, 0))


def expected_s(candidate: Candidate, facts: Facts, snapshot: Snapshot) -> float | None:
    """Seconds until its answer is expected to be whole; None: it has not answered of late."""
    speed = snapshot.speeds.get((candidate.backend, candidate.model))
    return None if speed is None else seconds(facts, speed)

"""Which adapter goes when another must come in: the least valuable of those that may go, fleet-wide.

The value of an adapter is its age plus how often it was asked for, times what it costs to bring it in; age is
the value of whatever went last, so that what was popular once does not stay for ever (GreedyDual-Size with
Frequency, Cherkasova 1998, at equal sizes). Frequencies outlive an adapter's absence, halved every
`HALVED_EVERY` uses of the fleet. All slots are one pool: an adapter that is wanted more is not loaded twice
while others are not loaded at all.
"""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

import msgspec

HALVED_EVERY = 5_000  # uses


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's share: adapters whose names match one of the patterns take up to `slots` of the fleet's."""

    adapters: tuple[str, ...]
    slots: int

    def covers(self, release: str) -> bool:
        name = release.partition("@")[0]
        return any(fnmatchcase(name, pattern) for pattern in self.adapters)


class Place(NamedTuple):
    """Where an adapter may come in, and what has to go for it."""

    replica: str
    victim: str | None


class Slots:
    """`capacity` adapters fit on each replica."""

    def __init__(
        self, capacity: int, *, pinned: Collection[str] = (), quotas: Collection[Quota] = ()
    ) -> None:
        """`pinned` names adapters, not releases: they never go to make room."""
        self.capacity, self._pinned, self._quotas = capacity, frozenset(pinned), tuple(quotas)
        self._uses: dict[str, float] = {}
        self._costs: dict[str, float] = {}  # seconds
        self._touched: dict[str, float] = {}  # the age when it was last asked for
        self._age, self._count = 0.0, 0

    def is_pinned(self, release: str) -> bool:
        return release.partition("@")[0] in self._pinned

    def used(self, release: str) -> None:
        """Somebody asks for a release, whether it is there or not."""
        self._uses[release] = self._uses.get(release, 0.0) + 1
        self._touched[release] = self._age
        self._count += 1
        if self._count % HALVED_EVERY == 0:
            self._uses = {name: uses / 2 for name, uses in self._uses.items() if uses > 1}

    def cost(self, release: str, seconds: float) -> None:
        """What it took to bring a release in."""
        self._costs[release] = seconds

    def value(self, release: str) -> float:
        cost = self._costs.get(release) or self._usual_cost()
        return self._touched.get(release, 0.0) + self._uses.get(release, 0.0) * cost

    def went(self, release: str) -> None:
        """It had to make room: whatever comes in now is worth at least as much."""
        self._age = max(self._age, self.value(release))

    def place(
        self, release: str, loaded: Mapping[str, Collection[str]], busy: Collection[str]
    ) -> Place | None:
        """Where to bring a release in; None: nowhere, until one of the `busy` ones is idle.

        `loaded` holds the releases by replica, those that are on their way included.
        """
        over = self._over_quota(release, loaded)
        free = [name for name in loaded if len(loaded[name]) < self.capacity]
        if free and over is None:
            return Place(min(free, key=lambda name: len(loaded[name])), None)
        victims = [
            (self.value(one), Place(name, one))
            for name, there in loaded.items()
            for one in there
            if one not in busy and not self.is_pinned(one) and (over is None or over.covers(one))
        ]
        return min(victims)[1] if victims else None

    def surplus(self, loaded: Collection[str], busy: Collection[str]) -> list[str]:
        """What has to go from one replica that holds more than fits, least valuable first."""
        idle = [one for one in loaded if one not in busy and not self.is_pinned(one)]
        return sorted(idle, key=self.value)[: max(0, len(loaded) - self.capacity)]

    def _over_quota(self, release: str, loaded: Mapping[str, Collection[str]]) -> Quota | None:
        """The first quota that the release would break."""
        for quota in self._quotas:
            if quota.covers(release):
                taken = sum(quota.covers(one) for there in loaded.values() for one in there)
                if taken >= quota.slots:
                    return quota
        return None

    def _usual_cost(self) -> float:
        return sum(self._costs.values()) / len(self._costs) if self._costs else 1.0

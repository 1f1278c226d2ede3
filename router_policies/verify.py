"""The proof that a policy sends no request above a zone's ceiling, whatever is asked and whatever is down.

The classes that can reach a route are those it matches, less those that earlier routes have taken whole: an
earlier route takes a class whole when it matches that class and its other conditions hold for every request
for which this route's do. Health, features and endpoints only ever rule targets out, so they are left aside:
each target, first choice or fallback, member of a group, canary or shadow, is taken to be reached by every
class that reaches its route, whatever a strategy makes of their order and a draw of their share. That is
sound, and says too much only where several earlier routes take a class between them, but none alone.

Of a target that masks no class can be proved, for what is left of a request is known once it is there. Its
proof is a condition that `decide` holds every request against: it gets nothing above its zone's ceiling but
what is masked down to that. `guards` lists each such target; there are no others.
"""

from collections.abc import Iterator, Sequence

import msgspec

from .compiled import CompiledPolicy, CompiledRoute, CompiledTarget
from .conditions import Conditions
from .types import PrivacyClass


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """A path by which a request may reach a zone that its class forbids."""

    route: str
    position: int  # of the target in the route, from 1
    place: str  # for people
    target: str
    zone: str
    lowest: PrivacyClass  # of the classes that can reach the route
    highest: PrivacyClass
    ceiling: PrivacyClass

    def __str__(self) -> str:
        return (
            f'route "{self.route}" → {self.place} "{self.target}" in zone "{self.zone}": may receive class '
            f'"{self.highest.label}", the zone\'s ceiling is "{self.ceiling.label}"; {self._advice()}'
        )

    def _advice(self) -> str:
        if self.lowest > self.ceiling:
            return "no class that reaches the route may go there, so remove the target"
        return f"add match.privacy.at_most: {self.ceiling.label}"


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """A target that classes above its zone's ceiling reach masked, or not at all."""

    route: str
    position: int  # of the target in the route, from 1
    target: str
    zone: str
    highest: PrivacyClass  # of the classes that can reach the route
    ceiling: PrivacyClass

    def __str__(self) -> str:
        return (
            f'route "{self.route}" → "{self.target}" in zone "{self.zone}": of classes above '
            f'"{self.ceiling.label}", up to "{self.highest.label}", only what is masked down to it'
        )


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A route that does no harm, and not what was meant either."""

    route: str
    text: str

    def __str__(self) -> str:
        return f'route "{self.route}": {self.text}'


def verify(policy: CompiledPolicy) -> tuple[Leak | Problem, ...]:
    """All leaks and problems, in the order of routes; empty when the policy is safe."""
    findings: list[Leak | Problem] = []
    for number, route in enumerate(policy.routes):
        findings += _findings(route, policy.routes[:number])
    return tuple(findings)


def guards(policy: CompiledPolicy) -> tuple[Guard, ...]:
    """All targets that take requests above their zone's ceiling if masked, in the order of routes."""
    found: list[Guard] = []
    for number, route in enumerate(policy.routes):
        _, reaching = _reaching(route, policy.routes[:number])
        found += (_guard(route, target, reaching) for target in _above(route, reaching) if target.mask)
    return tuple(found)


def unpriced(policy: CompiledPolicy) -> tuple[str, ...]:
    """Targets by a fixed model whose price is not known, each once: their cost is recorded as unknown."""
    found = (
        target.label
        for route in policy.routes
        for target in route.targets
        if target.model and policy.prices.get((target.backend.name, target.model)) is None
    )
    return tuple(dict.fromkeys(found))


def _reaching(
    route: CompiledRoute, earlier: Sequence[CompiledRoute]
) -> tuple[Sequence[CompiledRoute], frozenset[PrivacyClass]]:
    """The earlier routes that take classes whole, and those that they leave to the route."""
    takers = [e for e in earlier if e.conditions.cover(route.conditions)]
    taken = frozenset(c for taker in takers for c in taker.conditions.classes)
    reaching = route.conditions.classes - taken
    return takers, frozenset(max(c, route.privacy_floor) for c in reaching)


def _above(route: CompiledRoute, reaching: frozenset[PrivacyClass]) -> list[CompiledTarget]:
    """The targets whose zone is closed to some class that reaches the route."""
    return [t for t in route.targets if reaching and max(reaching) > t.backend.zone.ceiling]


def _guard(route: CompiledRoute, target: CompiledTarget, reaching: frozenset[PrivacyClass]) -> Guard:
    zone = target.backend.zone
    return Guard(
        route=route.name,
        position=target.position,
        target=target.label,
        zone=zone.name,
        highest=max(reaching),
        ceiling=zone.ceiling,
    )


def _findings(route: CompiledRoute, earlier: Sequence[CompiledRoute]) -> Iterator[Leak | Problem]:
    takers, reaching = _reaching(route, earlier)
    yield from _repeated(route)
    if not route.conditions.can_hold:
        yield Problem(route=route.name, text=f"matches nothing: {_opposites(route.conditions)}")
    elif not reaching:
        names = ", ".join(f'"{taker.name}"' for taker in takers)
        yield Problem(
            route=route.name, text=f"is never reached: all that it matches is taken before by {names}"
        )
    else:
        yield from _leaks(route, reaching)
        yield from _idle_masks(route, reaching)


def _opposites(conditions: Conditions) -> str:
    if both := conditions.down & conditions.up:
        return f"asks for {', '.join(sorted(both))} to be both down and up"
    both = conditions.features & conditions.without_features
    return f"asks for requests with and without {', '.join(sorted(both or conditions.without_findings))}"


def _idle_masks(route: CompiledRoute, reaching: frozenset[PrivacyClass]) -> Iterator[Problem]:
    above = _above(route, reaching)
    for target in route.targets:
        if target.mask and target not in above:
            text = (
                f"target {target.position} never masks: its zone is open to all classes that reach the route"
            )
            yield Problem(route=route.name, text=text)


def _leaks(route: CompiledRoute, reaching: frozenset[PrivacyClass]) -> Iterator[Leak]:
    for target in _above(route, reaching):
        zone = target.backend.zone
        if not target.mask:
            yield Leak(
                route=route.name,
                position=target.position,
                place=target.place,
                target=target.label,
                zone=zone.name,
                lowest=min(reaching),
                highest=max(reaching),
                ceiling=zone.ceiling,
            )


def _repeated(route: CompiledRoute) -> Iterator[Problem]:
    """Within the route's own targets, or within its canary's: there it is only asked again what failed."""
    for groups in (route.groups, route.canary.groups if route.canary else ()):
        first: dict[str, CompiledTarget] = {}
        for target in (target for group in groups for target in group.targets):
            if first.setdefault(target.label, target) is not target:
                position = first[target.label].position
                text = f"target {target.position} repeats target {position}, {target.label}"
                yield Problem(route=route.name, text=text)

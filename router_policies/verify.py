"""The proof that a policy sends no request above a zone's ceiling, whatever is asked and whatever is down.

The classes that can reach a route are those it matches, less those that earlier routes have taken whole: an
earlier route takes a class whole when it matches that class and its other conditions hold for every request
for which this route's do. Health, features and endpoints only ever rule targets out, so they are left aside:
each target, first choice or fallback, is taken to be reached by every class that reaches its route. That is
sound, and says too much only where several earlier routes take a class between them, but none alone.
"""

from collections.abc import Iterator, Sequence

import msgspec

from .compiled import CompiledPolicy, CompiledRoute, CompiledTarget
from .types import PrivacyClass


class Leak(msgspec.Struct, frozen=True, kw_only=True):
    """A path by which a request may reach a zone that its class forbids."""

    route: str
    position: int  # of the target in the route, from 1
    target: str
    zone: str
    lowest: PrivacyClass  # of the classes that can reach the route
    highest: PrivacyClass
    ceiling: PrivacyClass

    def __str__(self) -> str:
        place = "first choice" if self.position == 1 else f"fallback {self.position}"
        return (
            f'route "{self.route}" → {place} "{self.target}" in zone "{self.zone}": may receive class '
            f'"{self.highest.label}", the zone\'s ceiling is "{self.ceiling.label}"; {self._advice()}'
        )

    def _advice(self) -> str:
        if self.lowest > self.ceiling:
            return "no class that reaches the route may go there, so remove the target"
        return f"add match.privacy.at_most: {self.ceiling.label}"


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


def _findings(route: CompiledRoute, earlier: Sequence[CompiledRoute]) -> Iterator[Leak | Problem]:
    takers = [e for e in earlier if e.conditions.cover(route.conditions)]
    taken = frozenset(c for taker in takers for c in taker.conditions.classes)
    reaching = route.conditions.classes - taken
    arriving = frozenset(max(c, route.privacy_floor) for c in reaching)
    yield from _repeated(route)
    if not route.conditions.can_hold:
        both = ", ".join(sorted(route.conditions.features & route.conditions.without_features))
        yield Problem(route=route.name, text=f"matches nothing: asks for requests with and without {both}")
    elif not reaching:
        names = ", ".join(f'"{taker.name}"' for taker in takers)
        yield Problem(
            route=route.name, text=f"is never reached: all that it matches is taken before by {names}"
        )
    else:
        yield from _leaks(route, arriving)


def _leaks(route: CompiledRoute, reaching: frozenset[PrivacyClass]) -> Iterator[Leak]:
    for target in route.targets:
        zone = target.backend.zone
        if max(reaching) > zone.ceiling:
            yield Leak(
                route=route.name,
                position=target.position,
                target=target.label,
                zone=zone.name,
                lowest=min(reaching),
                highest=max(reaching),
                ceiling=zone.ceiling,
            )


def _repeated(route: CompiledRoute) -> Iterator[Problem]:
    first: dict[str, CompiledTarget] = {}
    for target in route.targets:
        if first.setdefault(target.label, target) is not target:
            position = first[target.label].position
            text = f"target {target.position} repeats target {position}, {target.label}"
            yield Problem(route=route.name, text=text)

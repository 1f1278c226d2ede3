"""From a document and a catalog to a compiled policy, with everything in it that the catalog cannot serve."""

from collections.abc import Iterator, Mapping, Sequence

from .compiled import (
    ORDERED,
    CompiledCanary,
    CompiledDenial,
    CompiledGroup,
    CompiledPolicy,
    CompiledRoute,
    CompiledShadow,
    CompiledTarget,
)
from .conditions import Conditions, Span, Window
from .draw import SPAN, hashed
from .errors import did_you_mean
from .index import build_index
from .names import is_adapter, is_release
from .privacy import Scale
from .schema import Canary, Deny, Item, Match, Member, PolicyDocument, Route, Shadow, Target, Times
from .types import BackendInfo, Catalog, Parameters, Place, Price, Resilience
from .words import DAY, DAYS, minutes

ANY_MODEL = "*"
WEEK = 7 * DAY
NO_PRICES: Mapping[Place, Price] = {}


def compile_policy(document: PolicyDocument, catalog: Catalog) -> tuple[CompiledPolicy, tuple[str, ...]]:
    """The compiled policy and its problems, `path: what is wrong`.

    A target whose backend is unknown is left out, so that `verify` can still look at the rest; a policy
    with problems is not for use (see `load`).
    """
    routes = tuple(_route(route, catalog) for route in document.routes)
    index = build_index([route.conditions for route in routes], catalog.scale)
    label = f"{document.name}@{document.version}"
    problems = (*_missing(document.requires, catalog), *_misfits(document.routes, catalog))
    ceilings = [t.backend.zone.ceiling for route in routes for t in route.targets if t.mask]
    policy = CompiledPolicy(
        label=label,
        routes=routes,
        index=index,
        scale=catalog.scale,
        masks_above=min(ceilings, default=None),
        reads_language=any(route.conditions.languages is not None for route in routes),
        prices=NO_PRICES if catalog.prices is None else catalog.prices,
    )
    return policy, problems


def _route(route: Route, catalog: Catalog) -> CompiledRoute:
    targets = _Targets(route, catalog)
    groups = targets.groups(route.targets, "")
    canary = _canary(route.canary, route.name, targets) if route.canary else None
    shadow = _shadow(route.shadow, route.name, targets) if route.shadow else None
    return CompiledRoute(
        name=route.name,
        conditions=_conditions(route.match, catalog.scale),
        privacy_floor=route.privacy_floor,
        targets=tuple(targets.made),
        groups=groups,
        canary=canary,
        shadow=shadow,
        parameters=_parameters(route),
        fallback_on=frozenset(route.fallback_on),
        resilience=_resilience(route),
        deny=_denial(route.deny) if route.deny else None,
    )


def _canary(canary: Canary, route: str, targets: "_Targets") -> CompiledCanary:
    return CompiledCanary(
        below=int(canary.share * SPAN),
        by=canary.by,
        salt=hashed(f"canary {route}"),
        groups=targets.groups(canary.targets, "canary "),
    )


def _shadow(shadow: Shadow, route: str, targets: "_Targets") -> CompiledShadow | None:
    target = targets.target(shadow.target, "shadow")
    if target is None:
        return None
    return CompiledShadow(below=int(shadow.share * SPAN), salt=hashed(f"shadow {route}"), target=target)


class _Targets:
    """The targets of a route, numbered as they are made; those whose backend is unknown are left out."""

    def __init__(self, route: Route, catalog: Catalog) -> None:
        self.made: list[CompiledTarget] = []
        self._name, self._catalog, self._count = route.name, catalog, 0

    def groups(self, items: Sequence[Item], before: str) -> tuple[CompiledGroup, ...]:
        """Each group, and the targets between them as ordered ones. `before` goes before their places."""
        made: list[CompiledGroup] = []
        plain: list[CompiledTarget] = []
        for number, item in enumerate(items, start=1):
            place = before + (f"fallback {number}" if number > 1 or before else "first choice")
            if item.group is None:
                if target := self.target(item, f"{place} of {len(items)}"):
                    plain.append(target)
                continue
            if plain:
                made.append(_ordered(plain))
                plain = []
            group = item.group
            found = [
                self.target(m, f"{place}, {group.strategy} of {len(group.targets)}") for m in group.targets
            ]
            by = group.by if group.strategy == "sticky" else "call"
            targets = tuple(target for target in found if target)
            made.append(CompiledGroup(strategy=group.strategy, by=by, targets=targets))
        return (*made, _ordered(plain)) if plain else tuple(made)

    def target(self, target: Target, place: str) -> CompiledTarget | None:
        self._count += 1
        backend = self._catalog.backends.get(target.backend)
        if backend is None:
            return None
        label = f"{target.backend}/{target.model or target.adapter or '(model asked for)'}"
        made = CompiledTarget(
            backend=backend,
            model=target.model,
            adapter=target.adapter,
            pinned=is_release(target.adapter),
            mask=target.mask,
            label=label,
            position=self._count,
            place=place.split(" of ")[0],
            chosen=f"{label} ({place})",
            weight=target.weight if isinstance(target, Member) else 1,
            salt=hashed(f"{self._name} {label}"),
        )
        self.made.append(made)
        return made


def _ordered(targets: Sequence[CompiledTarget]) -> CompiledGroup:
    return CompiledGroup(strategy=ORDERED, by="call", targets=tuple(targets))


def _parameters(route: Route) -> Parameters | None:
    """None: the route changes nothing."""
    override = route.override.model_dump(exclude_none=True)
    if not override and route.cap.output_tokens is None and route.cap.choices is None:
        return None
    return Parameters(most_output=route.cap.output_tokens, most_choices=route.cap.choices, override=override)


def _resilience(route: Route) -> Resilience:
    retry = route.retry
    return Resilience(
        retries=retry.attempts,
        retry_on=frozenset(retry.on),
        backoff_s=retry.backoff_ms / 1e3,
        max_backoff_s=retry.max_backoff_ms / 1e3,
        hedge_after_s=route.hedge.after_ms / 1e3 if route.hedge else None,
        deadline_s=route.deadline_s,
    )


def _denial(deny: Deny) -> CompiledDenial:
    return CompiledDenial(message=deny.message, status=deny.status, code=deny.code)


def _conditions(match: Match, scale: Scale) -> Conditions:
    patterns = match.model or ("*",)
    return Conditions(
        endpoints=frozenset(match.endpoint) or None,
        models=frozenset(p for p in patterns if not p.endswith("*")),
        prefixes=frozenset(p.removesuffix("*") for p in patterns if p.endswith("*")),
        keys=frozenset(match.key) or None,
        teams=frozenset(match.team) or None,
        projects=frozenset(match.project) or None,
        tasks=frozenset(match.task) or None,
        languages=frozenset(match.language) or None,
        tags=frozenset(match.tags),
        metadata={key: frozenset(values) for key, values in match.metadata.items()},
        features=frozenset(match.features),
        without_features=frozenset(match.without_features),
        least_tokens=match.prompt_tokens.at_least,
        most_tokens=match.prompt_tokens.at_most,
        least_output=match.output_tokens.at_least,
        most_output=match.output_tokens.at_most,
        classes=frozenset(c for c in scale if match.privacy.at_least <= c <= match.privacy.at_most),
        findings=frozenset(match.findings) or None,
        without_findings=frozenset(match.without_findings),
        window=_window(match.time) if match.time else None,
        least_budget=match.budget.at_least,
        most_budget=match.budget.at_most,
        down=frozenset(match.down),
        up=frozenset(match.up),
    )


def _window(times: Times) -> Window:
    """The spans of the week in order, what touches made one; hours past midnight go on on the next day."""
    spans: list[Span] = []
    for day in map(DAYS.index, times.days):
        for start, end in map(minutes, times.hours):
            length = (end - start) % DAY or DAY
            first = day * DAY + start
            spans.append((first, min(first + length, WEEK)))
            if first + length > WEEK:
                spans.append((0, first + length - WEEK))
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return Window(times.zone, tuple(joined))


def _missing(requires: Sequence[str], catalog: Catalog) -> Iterator[str]:
    for position, name in enumerate(requires):
        if name not in catalog.detectors:
            there = ", ".join(sorted(catalog.detectors)) or "none"
            yield f'requires[{position}]: no detector "{name}" is switched on; there are: {there}'


def _misfits(routes: Sequence[Route], catalog: Catalog) -> Iterator[str]:
    for number, route in enumerate(routes):
        for key, names in (("down", route.match.down), ("up", route.match.up)):
            for name in (name for name in names if name not in catalog.backends):
                yield f"routes[{number}].match.{key}: {_unknown(name, catalog)}"
        for place, target, strategy in _placed(route):
            path = f"routes[{number}].{place}"
            if (backend := catalog.backends.get(target.backend)) is None:
                yield f"{path}.backend: {_unknown(target.backend, catalog)}"
                continue
            yield from (f"{path}{problem}" for problem in _unserved(target, backend))
            yield from (f"{path}.backend: {problem}" for problem in _unusable(route.match, target, backend))
            if strategy == "cheapest" and (unpriced := _unpriced(target, catalog)):
                yield f"{path}: {unpriced}"


def _unknown(name: str, catalog: Catalog) -> str:
    return f'unknown backend "{name}"{did_you_mean(name, catalog.backends)}'


def _placed(route: Route) -> Iterator[tuple[str, Target, str]]:
    """All targets of the route, each with its path and the strategy that orders it."""
    sections = [("targets", route.targets)]
    if route.canary is not None:
        sections.append(("canary.targets", route.canary.targets))
    for section, items in sections:
        for number, item in enumerate(items):
            if item.group is None:
                yield f"{section}[{number}]", item, ORDERED
                continue
            for place, member in enumerate(item.group.targets):
                yield f"{section}[{number}].group.targets[{place}]", member, item.group.strategy
    if route.shadow is not None:
        yield "shadow.target", route.shadow.target, ORDERED


def _unpriced(target: Target, catalog: Catalog) -> str:
    """Why the target cannot be compared by its cost; empty: it can, or its model is not known beforehand."""
    model = target.model or target.adapter
    if catalog.prices is None or not model or catalog.prices.get((target.backend, model)) is not None:
        return ""
    return (
        f"no price is known of {target.backend}/{model}, so it is never the cheapest; give one under prices"
    )


def _unserved(target: Target, backend: BackendInfo) -> Iterator[str]:
    """Why the backend cannot serve what the target names; each begins with the key."""
    if target.adapter and not backend.adapters:
        yield f'.adapter: backend "{backend.name}" cannot load adapters'
    if not target.model or target.model in backend.models:
        return
    if backend.adapters and is_adapter(target.model):
        yield f'.model: "{target.model}" is an adapter; write adapter: {target.model}'
    elif ANY_MODEL not in backend.models:
        hint = did_you_mean(target.model, backend.models)
        yield f'.model: backend "{backend.name}" does not serve "{target.model}"{hint}'


def _unusable(match: Match, target: Target, backend: BackendInfo) -> Iterator[str]:
    """Why no request that the route matches could ever be answered by the target."""
    if lacking := sorted(frozenset(match.features) - backend.features):
        yield f'"{backend.name}" lacks what the route matches on: {", ".join(lacking)}'
    if match.endpoint and not backend.endpoints & frozenset(match.endpoint):
        yield f'"{backend.name}" serves none of the endpoints that the route matches on'
    passes_on = not target.model and not target.adapter
    if passes_on and match.model and not any(_may_serve(backend, pattern) for pattern in match.model):
        yield f'"{backend.name}" serves none of the models that the route passes on to it'


def _may_serve(backend: BackendInfo, pattern: str) -> bool:
    """Whether the backend may serve a model that `pattern` matches. Its adapters are not known here."""
    wildcard = pattern.endswith("*")
    is_ours = wildcard or is_adapter(pattern) or pattern.startswith("ft:")
    if ANY_MODEL in backend.models or (backend.adapters and is_ours):
        return True
    if wildcard:
        return any(model.startswith(pattern.removesuffix("*")) for model in backend.models)
    return pattern in backend.models

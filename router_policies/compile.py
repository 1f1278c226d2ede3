"""From a document and a catalog to a compiled policy, with everything in it that the catalog cannot serve."""

from collections.abc import Iterator, Sequence

from .compiled import CompiledDenial, CompiledPolicy, CompiledRoute, CompiledTarget
from .conditions import Conditions
from .errors import did_you_mean
from .index import build_index
from .names import is_adapter, is_release
from .privacy import Scale
from .schema import Deny, Match, PolicyDocument, Route, Target
from .types import BackendInfo, Catalog, Resilience

ANY_MODEL = "*"


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
    )
    return policy, problems


def _route(route: Route, catalog: Catalog) -> CompiledRoute:
    return CompiledRoute(
        name=route.name,
        conditions=_conditions(route.match, catalog.scale),
        privacy_floor=route.privacy_floor,
        targets=tuple(
            _target(target, catalog.backends[target.backend], position, len(route.targets))
            for position, target in enumerate(route.targets, start=1)
            if target.backend in catalog.backends
        ),
        fallback_on=frozenset(route.fallback_on),
        resilience=_resilience(route),
        deny=_denial(route.deny) if route.deny else None,
    )


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
        tags=frozenset(match.tags),
        features=frozenset(match.features),
        without_features=frozenset(match.without_features),
        least_tokens=match.prompt_tokens.at_least,
        most_tokens=match.prompt_tokens.at_most,
        classes=frozenset(c for c in scale if match.privacy.at_least <= c <= match.privacy.at_most),
    )


def _target(target: Target, backend: BackendInfo, position: int, count: int) -> CompiledTarget:
    label = f"{target.backend}/{target.model or target.adapter or '(model asked for)'}"
    place = "first choice" if position == 1 else f"fallback {position}"
    return CompiledTarget(
        backend=backend,
        model=target.model,
        adapter=target.adapter,
        pinned=is_release(target.adapter),
        mask=target.mask,
        label=label,
        position=position,
        chosen=f"{label} ({place} of {count})",
    )


def _missing(requires: Sequence[str], catalog: Catalog) -> Iterator[str]:
    for position, name in enumerate(requires):
        if name not in catalog.detectors:
            there = ", ".join(sorted(catalog.detectors)) or "none"
            yield f'requires[{position}]: no detector "{name}" is switched on; there are: {there}'


def _misfits(routes: Sequence[Route], catalog: Catalog) -> Iterator[str]:
    for number, route in enumerate(routes):
        for position, target in enumerate(route.targets):
            path = f"routes[{number}].targets[{position}]"
            if (backend := catalog.backends.get(target.backend)) is None:
                hint = did_you_mean(target.backend, catalog.backends)
                yield f'{path}.backend: unknown backend "{target.backend}"{hint}'
            else:
                yield from (f"{path}{problem}" for problem in _unserved(target, backend))
                yield from (
                    f"{path}.backend: {problem}" for problem in _unusable(route.match, target, backend)
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

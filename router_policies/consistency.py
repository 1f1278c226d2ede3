"""Rules that tie keys of the document together.

They are checked on the raw value and not on the parsed one, so that they are reported beside the keys that
are wrong in themselves, and not only once those are mended. What has the wrong shape is passed over here:
the schema names it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

OF_TARGETS = ("fallback_on", "retry", "hedge", "deadline_s")  # what says how targets are called


def contradictions(document: object) -> list[str]:
    """Every broken rule, as `path: what is wrong`."""
    routes = list(_mappings(document, "routes"))
    lines = list(_repeated_names(routes))
    for path, route in routes:
        lines += _action(path, route)
        lines += _late_hedge(path, route)
        for target_path, target in _mappings(route, "targets"):
            if target.get("model") and target.get("adapter"):
                lines.append(
                    f"{path}.{target_path}: has both a model and an adapter; an adapter knows its base"
                )
    return lines


def _mappings(part: object, key: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """The mappings in the list under `key`, each with its path."""
    items = part.get(key) if isinstance(part, Mapping) else None
    if isinstance(items, list | tuple):
        yield from ((f"{key}[{i}]", item) for i, item in enumerate(items) if isinstance(item, Mapping))


def _repeated_names(routes: list[tuple[str, Mapping[Any, Any]]]) -> Iterator[str]:
    first: dict[str, str] = {}
    for path, route in routes:
        name = route.get("name")
        if isinstance(name, str) and first.setdefault(name, path) != path:
            yield f'{path}.name: "{name}" is already the name of {first[name]}'


def _action(path: str, route: Mapping[Any, Any]) -> Iterator[str]:
    denies = route.get("deny") is not None
    if denies and "targets" in route:
        yield f"{path}: has both targets and deny; keep one"
    if not denies and "targets" not in route:
        yield f"{path}: needs either targets or deny"
    for key in (key for key in OF_TARGETS if denies and key in route):
        yield f"{path}.{key}: has no meaning on a route that denies"


def _late_hedge(path: str, route: Mapping[Any, Any]) -> Iterator[str]:
    hedge, deadline_s = route.get("hedge"), route.get("deadline_s")
    after_ms = hedge.get("after_ms") if isinstance(hedge, Mapping) else None
    if _is_number(after_ms) and _is_number(deadline_s) and after_ms >= deadline_s * 1000:
        yield f"{path}.hedge.after_ms: deadline_s, {deadline_s} s, ends the request before the hedge starts"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

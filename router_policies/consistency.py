"""Rules that tie keys of the document together.

They are checked on the raw value and not on the parsed one, so that they are reported beside the keys that
are wrong in themselves, and not only once those are mended. What has the wrong shape is passed over here:
the schema names it.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

# What says how targets are called, or adds to them.
OF_TARGETS = ("fallback_on", "retry", "hedge", "deadline_s", "canary", "shadow", "cap", "override")
OF_A_TARGET = ("backend", "model", "adapter", "mask")
DRAWN = ("weighted", "sticky")  # strategies that know weights

Found = tuple[str, Mapping[Any, Any]]  # a mapping with its path


def contradictions(document: object) -> list[str]:
    """Every broken rule, as `path: what is wrong`."""
    routes = list(_mappings(document, "routes"))
    lines = list(_repeated_names(routes))
    for path, route in routes:
        lines += _action(path, route)
        lines += _late_hedge(path, route)
        for item_path, item in _items(path, route):
            lines += _item(item_path, item)
        for target_path, target in _targets(path, route):
            if target.get("model") and target.get("adapter"):
                lines.append(f"{target_path}: has both a model and an adapter; an adapter knows its base")
    return lines


def _mappings(part: object, key: str, path: str = "") -> Iterator[Found]:
    """The mappings in the list under `key`, each with its path."""
    items = part.get(key) if isinstance(part, Mapping) else None
    if isinstance(items, list | tuple):
        before = f"{path}." if path else ""
        yield from (
            (f"{before}{key}[{i}]", item) for i, item in enumerate(items) if isinstance(item, Mapping)
        )


def _items(path: str, route: Mapping[Any, Any]) -> Iterator[Found]:
    """Where either a target or a group may stand."""
    yield from _mappings(route, "targets", path)
    yield from _mappings(route.get("canary"), "targets", f"{path}.canary")


def _targets(path: str, route: Mapping[Any, Any]) -> Iterator[Found]:
    """All targets, however deep they stand."""
    for item_path, item in _items(path, route):
        yield item_path, item
        yield from _mappings(item.get("group"), "targets", f"{item_path}.group")
    shadow = route.get("shadow")
    target = shadow.get("target") if isinstance(shadow, Mapping) else None
    if isinstance(target, Mapping):
        yield f"{path}.shadow.target", target


def _repeated_names(routes: list[Found]) -> Iterator[str]:
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


def _item(path: str, item: Mapping[Any, Any]) -> Iterator[str]:
    group = item.get("group")
    if group is None:
        if "backend" not in item and "group" not in item:
            yield f"{path}.backend: is required"
        return
    for key in (key for key in OF_A_TARGET if key in item):
        yield f"{path}.{key}: has no meaning beside a group; its targets have their own"
    if not isinstance(group, Mapping):
        return
    strategy = group.get("strategy")
    if "by" in group and strategy != "sticky":
        yield f"{path}.group.by: only strategy sticky draws by it"
    for member_path, member in _mappings(group, "targets", f"{path}.group"):
        if "weight" in member and strategy not in DRAWN:
            yield f"{member_path}.weight: only strategies {' and '.join(DRAWN)} know weights"


def _late_hedge(path: str, route: Mapping[Any, Any]) -> Iterator[str]:
    hedge, deadline_s = route.get("hedge"), route.get("deadline_s")
    after_ms = hedge.get("after_ms") if isinstance(hedge, Mapping) else None
    if _is_number(after_ms) and _is_number(deadline_s) and after_ms >= deadline_s * 1000:
        yield f"{path}.hedge.after_ms: deadline_s, {deadline_s} s, ends the request before the hedge starts"


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)

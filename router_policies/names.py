"""How policies, routes, models and adapters are named.

An adapter is named `name@alias`, which moves, or `name@digest12`, which never does. Its name follows the
pattern of `adapters.manifest`, restated here because this package imports none of the others.
"""

import re

SLUG = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_RELEASE = re.compile(rf"{SLUG}@[0-9a-f]{{12}}")
_ADAPTER = re.compile(rf"{SLUG}@{SLUG}")


def is_adapter(name: str) -> bool:
    """Whether `name` reads as an adapter, by alias or by digest."""
    return _ADAPTER.fullmatch(name) is not None


def is_release(name: str) -> bool:
    """Whether `name` reads as one immutable release of an adapter."""
    return _RELEASE.fullmatch(name) is not None

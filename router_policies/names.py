"""How policies, routes, models and adapters are named.

An adapter is named `name@alias`, which moves, or `name@digest12`, which never does. Its name follows the
pattern of `adapters.manifest`, restated here because this package imports none of the others.

What a fine-tuning job made is named as OpenAI names it, `ft:base:team:suffix:id`. Its adapter's name is
computed from that, so that every process can route to it without asking anybody, and a name with another
base or team in it leads nowhere. Clients reach such an adapter by this name only, and only their own team's.
"""

import hashlib
import re

SLUG = r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?"
_RELEASE = re.compile(rf"{SLUG}@[0-9a-f]{{12}}")
_ADAPTER = re.compile(rf"{SLUG}@{SLUG}")
_TUNED = re.compile(
    r"(?P<name>ft:(?P<base>.+):(?P<team>[^:]+):(?P<suffix>[a-z0-9._-]*):[a-z0-9]+)(?::ckpt-step-[0-9]+)?"
)
TUNED_PREFIX = "ft."  # of the names of adapters that jobs made
_LONGEST_SUFFIX = 40


def is_adapter(name: str) -> bool:
    """Whether `name` reads as an adapter, by alias or by digest."""
    return _ADAPTER.fullmatch(name) is not None


def is_release(name: str) -> bool:
    """Whether `name` reads as one immutable release of an adapter."""
    return _RELEASE.fullmatch(name) is not None


def tuned_model(base: str, team: str, suffix: str, id: str) -> str:
    """The name of the model that a fine-tuning job makes. `suffix` may be any text, or empty."""
    words = re.sub(r"[^a-z0-9._-]+", "-", suffix.lower()).strip("-")[:_LONGEST_SUFFIX]
    return f"ft:{base}:{team}:{words}:{id}"


def tuned_adapter(name: str) -> str:
    """The name of the adapter behind `ft:…`, a checkpoint's name included. ValueError: it is no such name."""
    found = _TUNED.fullmatch(name)
    if found is None:
        raise ValueError(f"{name!r} is not the name of a fine-tuned model")
    digest = hashlib.sha256(found["name"].encode()).hexdigest()[:16]
    return f"{TUNED_PREFIX}{found['suffix'] or 'model'}.{digest}"


def tuned_alias(name: str, team: str) -> str | None:
    """The alias that `name` stands for when a key of `team` asks; None: it is no tuned model of theirs."""
    found = _TUNED.fullmatch(name)
    if found is None or found["team"] != team:
        return None
    return f"{tuned_adapter(name)}@stable"

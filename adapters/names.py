"""Two kinds of name: a release `name@digest12`, which never stands for other bytes; an alias, which moves."""

import re

from adapters.errors import UnknownRelease
from adapters.manifest import NAME_PATTERN, SHORT_DIGEST

STABLE, CANARY, SHADOW, PREVIOUS = "stable", "canary", "shadow", "previous"
_NAME = re.compile(NAME_PATTERN)
_DIGEST = re.compile(rf"[0-9a-f]{{{SHORT_DIGEST}}}")


def is_name(text: str) -> bool:
    """Whether `text` may name an adapter or an alias; such a name is also a safe name of a folder."""
    return _NAME.fullmatch(text) is not None


def split_release(release: str) -> tuple[str, str]:
    """The name and the short digest of a release. UnknownRelease when it does not read as one."""
    name, _, digest = release.partition("@")
    if not is_name(name) or not _DIGEST.fullmatch(digest):
        raise UnknownRelease(release)
    return name, digest


def alias_of(name: str, alias: str) -> str:
    """The full name of an alias, `name@stable`. ValueError when it could be taken for a release."""
    full = f"{name}@{alias}"
    if not is_name(name) or not is_name(alias) or _DIGEST.fullmatch(alias):
        raise ValueError(f"{full!r} cannot be the name of an alias")
    return full

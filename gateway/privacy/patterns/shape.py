"""How one kind of identifier is described, and how descriptions are put into one pass of RE2.

A `Scan` is one pass over the text: an alternation with one group per alternative. RE2 never
backtracks; two more rules keep all of it linear and complete:

* An alternative is bounded up to where its match is certain and may be greedy only after that.
  Otherwise RE2 reads far ahead for a match that does not come, once for every match that does.
* A match that its check turns down hides nothing: the search goes on one place further, unless the
  scan is `disjoint` and its checks look at all places in a run. So it must
  be short, and alternatives of one scan that can begin at the same place must not shape alike.

"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import re2

from gateway.privacy.checks import Check, always

# Start and end in what was matched, kind, confidence.
Reading = tuple[int, int, str, float]
Read = Callable[[str], Iterator[Reading]]


class Alternative(msgspec.Struct, frozen=True):
    """One way to write identifiers of one kind, or of several that only their checks tell apart.

    `pattern` has one group; `read` takes what that matched (ASCII) and yields what holds.
    """

    kinds: frozenset[str]
    pattern: str
    read: Read


class Scan(msgspec.Struct, frozen=True):
    """Alternatives that are looked for in one pass; `pattern` has one group for each.

    `first`, where it is set, has no groups and matches wherever `pattern` may begin: a small
    automaton to find the place, and the large one looks at that place only.
    """

    alternatives: tuple[Alternative, ...]
    pattern: Any  # a compiled re2 object
    first: Any = None  # likewise
    hint: str = ""  # a simpler pattern that every match holds; for a survey of all scans at once
    disjoint: bool = False  # a match is a whole run: what its check leaves of it is none of ours


class Group(msgspec.Struct, frozen=True):
    """Scans with one sign: a pattern without groups, without which none of them finds anything.

    It is in every identifier or in the word before it, in one piece, and holds in the text as it
    was before detect.py put blanks for what parts words.
    """

    scans: tuple[Scan, ...]
    sign: str
    parted: bool  # do the scans read the text with those blanks?


def known(kind: str, pattern: str, check: Check = always, confidence: float = 0.9) -> Alternative:
    """An alternative of one kind."""

    def read(matched: str) -> Iterator[Reading]:
        for start, end in check(matched):
            yield start, end, kind, confidence

    return Alternative(frozenset({kind}), pattern, read)


def scan(*alternatives: Alternative, first: str = "", hint: str = "", disjoint: bool = False) -> Scan:
    return Scan(
        alternatives,
        either(*(alternative.pattern for alternative in alternatives)),
        re2.compile(first) if first else None,
        hint or first,
        disjoint,
    )


def group(*scans: Scan, sign: str, parted: bool = True) -> Group:
    return Group(scans, sign, parted)


def either(*patterns: str) -> Any:
    # In brackets each, so that one's (?i) does not reach the next.
    return re2.compile("|".join(f"(?:{pattern})" for pattern in patterns))

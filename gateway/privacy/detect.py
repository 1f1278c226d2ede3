"""Finds structured identifiers and secrets in time linear in the text.

The text is folded (`fold.py`) and then read as one byte per character, "?" for all beyond ASCII:
a place in the bytes is a place in the folded text, and the patterns are ASCII throughout. What is
percent-encoded or in base64 is decoded once and searched as well; a finding there spans the whole
encoded token.

Few texts hold anything, so the question is asked three times, each time more dearly: `clears` looks
for signs in all of a request at once, `_search` whether any pattern matches, and only then each
pattern has its own pass.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import msgspec
from msgspec.structs import replace

from gateway.errors import ConfigError
from gateway.privacy.fold import Layer, fold, layers, origins
from gateway.privacy.patterns import (
    ADDRESSES,
    ANY,
    CLASSES,
    NUMBERS,
    SECRETS,
    SEVEN_DIGITS,
    SIGNS,
    WORDS,
    Alternative,
    Scan,
)
from router_policies.privacy import DEFAULT_SCALE, PrivacyClass, Scale

# For all but secrets and addresses, "_" and the escaped line breaks of JSON within JSON part words.
_ESCAPES = ((b"\\n", b"  "), (b"\\r", b"  "), (b"\\t", b"  "))


class Finding(msgspec.Struct, frozen=True, order=True):
    """Something sensitive at [start, end) of the scanned text. Holds where it is, never what it is."""

    start: int
    end: int
    kind: str
    privacy: PrivacyClass
    confidence: float


class Detector(Protocol):
    """Reads one text at a time. Called from threads, several at once."""

    @property
    def name(self) -> str: ...

    @property
    def linear(self) -> bool:
        """Promises time linear in the text, a few µs per KiB: short texts may be read on the event loop."""
        ...

    def scan(self, text: str) -> Sequence[Finding]:
        """All findings as a list or tuple. Whatever is raised counts as "could not read it"."""
        ...


@runtime_checkable
class Clearing(Detector, Protocol):
    """A detector that sees at a glance when there is nothing for it."""

    def clears(self, pieces: str) -> bool:
        """True promises: `scan` finds nothing in whatever substrings of `pieces`, joined by BETWEEN.

        Takes a small part of the time that `scan` takes.
        """
        ...


@runtime_checkable
class Patient(Detector, Protocol):
    """A detector that is given other time for a request than the configured deadline for all."""

    @property
    def deadline_s(self) -> float: ...


class StructuredDetector:
    """Identifiers and secrets that their shape or checksum gives away; not names, not street addresses."""

    name = "structured"
    linear = True

    def __init__(
        self, classes: Mapping[str, PrivacyClass] | None = None, scale: Scale = DEFAULT_SCALE
    ) -> None:
        """`classes` overrides the class of single kinds. ConfigError: a kind that does not exist."""
        unknown = sorted(set(classes or {}) - CLASSES.keys())
        if unknown:
            known = ", ".join(sorted(CLASSES))
            raise ConfigError(
                "privacy.classes", [f"unknown kind {kind!r}; known are {known}" for kind in unknown]
            )
        shipped = {kind: scale.meaning(privacy) for kind, privacy in CLASSES.items()}
        self._classes = {**shipped, **(classes or {})}

    def clears(self, pieces: str) -> bool:
        """Whether there is no sign of anything. Signs are in identifiers, and those in one piece each."""
        return SIGNS.search(_bytes_of(fold(pieces))) is None

    def scan(self, text: str) -> tuple[Finding, ...]:
        """Findings in order, none inside another of the same or a higher class. Never raises."""
        folded = fold(text)
        raw = _bytes_of(folded)
        found = list(self._search(raw))
        found += self._decoded(tuple(layers(raw)))
        if found and folded is not text:
            places = origins(text)
            found = [replace(f, start=places[f.start], end=places[f.end - 1] + 1) for f in found]
        return tuple(_outermost(found))

    def _decoded(self, encoded: Sequence[Layer]) -> Iterator[Finding]:
        """What is found in the decoded layers, all read as one text: a search has a price of its own."""
        texts = [_bytes_of(fold(layer.text)) + b"\n" for layer in encoded]
        ends = list(accumulate(map(len, texts)))
        for finding in self._search(b"".join(texts)) if texts else ():
            first, last = bisect_right(ends, finding.start), bisect_right(ends, finding.end - 1)
            yield replace(finding, start=encoded[first].start, end=encoded[last].end)

    def _search(self, raw: bytes) -> Iterator[Finding]:
        parted = _part(raw)
        if ANY.search(raw) or (parted != raw and ANY.search(parted)):
            yield from self._search_one_by_one(raw, parted)
        else:
            yield from self._matches(ADDRESSES, raw)

    def _search_one_by_one(self, raw: bytes, parted: bytes) -> Iterator[Finding]:
        for scan in (*SECRETS, ADDRESSES):
            yield from self._matches(scan, raw)
        for scan in (*WORDS, *(NUMBERS if SEVEN_DIGITS.search(parted) else ())):
            yield from self._matches(scan, parted)

    def _matches(self, scan: Scan, raw: bytes) -> Iterator[Finding]:
        if not all(literal in raw for literal in scan.needs):
            return
        place = 0
        while match := scan.pattern.search(raw, place):
            place = match.start() + 1
            alternative, start, end = _matched(scan, match)
            kind, confidence = alternative.kind, alternative.confidence
            for first, last in alternative.check(raw[start:end].decode("ascii")):
                place = start + last
                yield Finding(start + first, place, kind, self._classes[kind], confidence)


def _bytes_of(folded: str) -> bytes:
    return folded.encode("ascii", "replace")


def _part(raw: bytes) -> bytes:
    """`raw` with blanks for what parts words, at the same places."""
    if b"\\" in raw:
        for mark, blanks in _ESCAPES:
            raw = raw.replace(mark, blanks)
    return raw.replace(b"_", b" ")


def _matched(scan: Scan, match: Any) -> tuple[Alternative, int, int]:
    """The alternative that matched, and where: its group is the one that is set."""
    for group, alternative in enumerate(scan.alternatives, 1):
        start = match.start(group)
        if start >= 0:
            return alternative, start, match.end(group)
    raise AssertionError("each alternative has a group")


def _outermost(found: Iterable[Finding]) -> Iterator[Finding]:
    """Without repetitions and without what lies inside a finding of the same or a higher class."""
    kept: Finding | None = None
    for finding in sorted(found, key=lambda f: (f.start, -f.end, -f.privacy)):
        if kept and finding.end <= kept.end and finding.privacy <= kept.privacy:
            continue
        kept = finding
        yield finding

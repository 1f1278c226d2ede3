"""Finds structured identifiers and secrets in time linear in the text.

The text is folded (`fold.py`) and then read as one byte per character, "?" for all beyond ASCII:
a place in the bytes is a place in the folded text, and the patterns are ASCII throughout. What is
encoded in it (`encoded.py`) is decoded and searched as well, to a bounded depth.

Few texts hold anything, so the question is asked three times, each time more dearly: `clears` looks
for signs of anything in a whole request, `scan` has one pass to see which scans match, and only those
then have a pass of their own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
from msgspec.structs import replace

from gateway.errors import ConfigError
from gateway.privacy.encoded import decode
from gateway.privacy.fold import fold, origins
from gateway.privacy.patterns import CLASSES, MARKS, SCANS, SIGNS, SURVEY
from gateway.privacy.patterns.shape import Alternative, Scan
from router_policies.privacy import DEFAULT_SCALE, PrivacyClass, Scale

# How many encodings may be wrapped around each other. Each is at most 2.3 times as long as the last one.
MAX_LAYERS = 3
# Text that every scan has to read.
_EVERYTHING = "mail a@b.example, eyJa, ab12, 0x1, 1.2.3.4, call 12 34 56 78 90, pwd, dob, bic, " + "x1" * 16
# Up to so many bytes the survey is as quick as the one pass that may save it.
_SHORT = 256
_SHORTEST = 4  # bytes of a finding, a link's "t.co": with fewer left there is nothing more to search
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
        self._links_matter = self._classes["url"] > scale.lowest
        self.scan(_EVERYTHING)  # numbering plans and automata are made now, not while a request waits

    def clears(self, pieces: str) -> bool:
        """Whether there is no sign of anything. Signs are in identifiers or words, and those in one piece."""
        raw = _bytes_of(fold(pieces))
        return SIGNS.search(raw) is None and not (self._links_matter and b"." in raw)

    def scan(self, text: str) -> tuple[Finding, ...]:
        """Findings in order, none inside another of the same or a higher class. Never raises."""
        found = layered(text, self._find)
        return tuple(outermost(found) if len(found) > 1 else found)

    def _find(self, folded: str) -> tuple[list[Finding], bool]:
        raw = _bytes_of(folded)
        if len(raw) > _SHORT and not MARKS.search(raw):
            return [], False
        parted = _part(raw)
        places = SURVEY.matching(raw)
        encoded = len(SCANS) in places
        if parted is not raw:
            also = SURVEY.matching(parted)
            places = [n for n, (_, is_parted) in enumerate(SCANS) if n in (also if is_parted else places)]
        found: list[Finding] = []
        for place in places:
            if place < len(SCANS):
                scan, is_parted = SCANS[place]
                found += self._matches(scan, parted if is_parted else raw)
        return found, encoded

    def _matches(self, scan: Scan, raw: bytes) -> list[Finding]:
        found: list[Finding] = []
        place, last_place = 0, len(raw) - _SHORTEST
        while place <= last_place and (match := _next(scan, raw, place)):
            alternative, start, end = _matched(scan, match)
            place = end if scan.disjoint else match.start() + 1
            for first, last, kind, confidence in alternative.read(raw[start:end].decode("ascii")):
                place = max(place, start + last)
                found.append(Finding(start + first, start + last, kind, self._classes[kind], confidence))
        return found


def layered(
    text: str, find: Callable[[str], tuple[list[Finding], bool]], layers: int = MAX_LAYERS
) -> Sequence[Finding]:
    """What `find` finds in `text` and in `layers` layers of encoding, at its places in `text`.

    `find` takes folded text, and answers also whether something may be encoded in it.
    """
    folded = fold(text)
    found, encoded = find(folded)
    decoded = decode(_bytes_of(folded)) if encoded and layers else None
    if decoded:
        for finding in layered(decoded.text, find, layers - 1):
            start, end = decoded.origin(finding.start, finding.end)
            found.append(replace(finding, start=start, end=end))
    if found and folded is not text:
        places = origins(text)
        found = [replace(f, start=places[f.start], end=places[f.end - 1] + 1) for f in found]
    return found


def _next(scan: Scan, raw: bytes, place: int) -> Any:
    """The next match; where there is `first`, it tells the places to look at."""
    if scan.first is None:
        return scan.pattern.search(raw, place)
    while begun := scan.first.search(raw, place):
        match = scan.pattern.match(raw, begun.start())
        if match:
            return match
        place = begun.start() + 1
    return None


def _bytes_of(folded: str) -> bytes:
    return folded.encode("ascii", "replace")


def _part(raw: bytes) -> bytes:
    """`raw` with blanks for what parts words, at the same places; `raw` itself where there is none."""
    if b"\\" in raw:
        for mark, blanks in _ESCAPES:
            raw = raw.replace(mark, blanks)
    return raw.replace(b"_", b" ") if b"_" in raw else raw


def _matched(scan: Scan, match: Any) -> tuple[Alternative, int, int]:
    """The alternative that matched, and where: its group is the one that is set."""
    for group, alternative in enumerate(scan.alternatives, 1):
        start, end = match.span(group)
        if start >= 0:
            return alternative, start, end
    raise AssertionError("each alternative has a group")


def outermost(found: Iterable[Finding]) -> Iterator[Finding]:
    """Without repetitions and without what lies inside a finding of the same or a higher class."""
    kept: Finding | None = None
    for finding in sorted(found, key=lambda f: (f.start, -f.end, -f.privacy)):
        if kept and finding.end <= kept.end and finding.privacy <= kept.privacy:
            continue
        kept = finding
        yield finding

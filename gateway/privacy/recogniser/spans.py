"""What a recogniser finds, and long texts in pieces."""

from collections.abc import Iterable, Iterator

import msgspec

TYPES = ("person", "street_address", "place", "organisation")
OVERLAP = 256  # characters that two pieces share: no name or address is longer, so one piece holds it whole
_BORDERS = ("\n", ". ", " ")


class Span(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Something of `type`, one of TYPES, at [start, end) of the text."""

    start: int
    end: int
    type: str
    confidence: float


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Of the worker process: what it found or, where `failure` says why not, nothing."""

    spans: list[Span] = []
    failure: str = ""


def pieces(text: str, size: int) -> Iterator[tuple[int, str]]:
    """Parts of at most `size` characters and where each begins, cut at line ends, sentences or words.

    `size` is more than twice OVERLAP.
    """
    start = 0
    while len(text) - start > size:
        end = _border(text, start + size // 2, start + size)
        yield start, text[start:end]
        start = end - OVERLAP
    yield start, text[start:]


def _border(text: str, first: int, last: int) -> int:
    for border in _BORDERS:
        place = text.rfind(border, first, last)
        if place >= 0:
            return place + len(border)
    return last


def merged(spans: Iterable[Span]) -> list[Span]:
    """In order; those of one type that overlap, for two pieces had them both, are one."""
    kept: list[Span] = []
    last: dict[str, int] = {}  # type -> place in `kept`
    for span in sorted(spans):
        i = last.get(span.type)
        if i is not None and span.start < kept[i].end:
            other = kept[i]
            end, confidence = max(other.end, span.end), max(other.confidence, span.confidence)
            kept[i] = Span(other.start, end, span.type, confidence)
        else:
            last[span.type] = len(kept)
            kept.append(span)
    return kept

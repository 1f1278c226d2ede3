"""From text to names and addresses, by the bundled network."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from gateway.privacy.fold import fold, origins
from gateway.privacy.recogniser.network import Network
from gateway.privacy.recogniser.spans import Span
from gateway.privacy.recogniser.tokens import encode

MODEL = Path(__file__).with_name("names.safetensors")
# How sure the network must be: of what is written with capitals or digits only, and of small letters.
_LEAST = {
    "person": (0.65, 0.97),
    "street_address": (0.6, 0.9),
    "place": (0.5, 0.8),
    "organisation": (0.5, 0.8),
}


class Tagger:
    """Reads any text, disguises folded away. Time is linear in it."""

    def __init__(self, model: Path = MODEL) -> None:
        """Raises OSError or ValueError when `model` is none."""
        self._network = Network(model)

    def spans(self, text: str) -> list[Span]:
        """All that is found, in order; none overlap."""
        folded = fold(text)
        found = list(self._tagged(folded))
        if not found or folded is text:
            return found
        places, last = origins(text), 0
        kept: list[Span] = []
        for span in found:
            # One character may fold to several, which two spans share: it is the first one's.
            start, end = max(places[span.start], last), places[span.end - 1] + 1
            if start < end:
                kept.append(msgspec.structs.replace(span, start=start, end=end))
                last = end
        return kept

    def _tagged(self, text: str) -> Iterator[Span]:
        places, rows = encode(text, self._network.vocabulary)
        probabilities = self._network.probabilities(rows)
        if not places:
            return
        tags = probabilities.argmax(1)
        starts = np.flatnonzero(np.diff(tags, prepend=-1))  # of the runs of one tag
        ends = np.append(starts[1:], len(tags))
        sums = np.add.reduceat(probabilities.max(1), starts)
        runs = zip(starts.tolist(), ends.tolist(), tags[starts].tolist(), sums.tolist(), strict=True)
        for first, end, tag, total in runs:
            if tag:
                confidence = min(total / (end - first), 1.0)
                span = Span(places[first][0], places[end - 1][1], self._network.types[tag - 1], confidence)
                if _sure(text, span):
                    yield span


def _sure(text: str, span: Span) -> bool:
    """Whether to report it. A lone word in a line without capitals is not taken for a person.

    Of such lines ("call rose", "a table at marcello for two") one in a hundred would raise an alarm.
    """
    mixed, small = _LEAST[span.type]
    found = text[span.start : span.end]
    if not found.islower():
        return span.confidence >= mixed
    if span.confidence < small:
        return False
    return span.type != "person" or " " in found or not _line(text, span).islower()


def _line(text: str, span: Span) -> str:
    start, end = text.rfind("\n", 0, span.start) + 1, text.find("\n", span.end)
    return text[start : end if end >= 0 else len(text)]

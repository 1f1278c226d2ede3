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
        places = origins(text)
        return [msgspec.structs.replace(s, start=places[s.start], end=places[s.end - 1] + 1) for s in found]

    def _tagged(self, text: str) -> Iterator[Span]:
        places, rows = encode(text, self._network.vocabulary)
        probabilities = self._network.probabilities(rows)
        tags = probabilities.argmax(1)
        borders = np.flatnonzero(np.diff(tags, prepend=-1, append=-1))
        for first, last in zip(borders[:-1].tolist(), (borders[1:] - 1).tolist(), strict=True):
            tag = int(tags[first])
            if tag:
                confidence = float(probabilities[first : last + 1, tag].mean())
                yield Span(
                    places[first][0], places[last][1], self._network.types[tag - 1], min(confidence, 1.0)
                )

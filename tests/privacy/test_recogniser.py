"""The bundled model: what ships, what it finds, and that long or odd texts change none of it."""

import hashlib
import json
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.privacy.fold import fold
from gateway.privacy.recogniser.detector import CARD, NOT_COVERED, coverage
from gateway.privacy.recogniser.network import Network
from gateway.privacy.recogniser.spans import OVERLAP, TYPES, Span, merged, pieces
from gateway.privacy.recogniser.tagger import MODEL, Tagger
from gateway.privacy.recogniser.tokens import encode

# Made by `held_out(320)` of benchmarks/recogniser/measure.py.
HELD_OUT = json.loads((Path(__file__).parent / "recogniser_held_out.json").read_text(encoding="utf-8"))
TAGGER = Tagger()


def characters(text: str, spans: list[tuple[int, int, str]], kind: str) -> set[int]:
    return {i for start, end, k in spans if k == kind for i in range(start, end) if not text[i].isspace()}


def test_the_model_ships_small_and_is_the_one_that_was_measured() -> None:
    """At most 10 MB, with the hash that stands on its card."""
    card = json.loads(CARD.read_text(encoding="utf-8"))
    assert MODEL.stat().st_size <= 10_000_000
    assert card["sha256"] == hashlib.sha256(MODEL.read_bytes()).hexdigest()
    assert set(card["measured"]["held-out locales"]) == set(TYPES)


@pytest.mark.parametrize(("kind", "recall"), [("person", 0.8), ("street_address", 0.85)])
def test_names_and_addresses_of_unseen_locales_are_found(kind: str, recall: float) -> None:
    """Documents of locales and templates that training never saw: most characters found, little else."""
    right = wrong = missed = 0
    for text, spans in HELD_OUT:
        want = characters(text, [tuple(s) for s in spans], kind)
        got = characters(text, [(s.start, s.end, s.type) for s in TAGGER.spans(text)], kind)
        right, wrong, missed = right + len(want & got), wrong + len(got - want), missed + len(want - got)
    assert right + missed > 1000
    assert right / (right + missed) >= recall
    assert right / (right + wrong) >= 0.85


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Please call Krisztina Szabó about the invoice.", [("Krisztina Szabó", "person")]),
        ("My name is Johannes Brandt was here.", [("Johannes Brandt", "person")]),
        ('{"full_name": "Agnieszka Nowak", "quantity": 3}', [("Agnieszka Nowak", "person")]),
        ("Ship to: 17 Mill Lane, Oxford OX1 4AB", [("17 Mill Lane, Oxford OX1 4AB", "street_address")]),
        ("How do I reset my password on the iPhone app?", []),
        ("def load(path): return json.loads(path.read_text())", []),
    ],
)  # fmt: skip
def test_plain_cases(text: str, found: list[tuple[str, str]]) -> None:
    """What anybody would expect of it."""
    assert [(text[s.start : s.end], s.type) for s in TAGGER.spans(text)] == found


def test_disguises_are_folded_away() -> None:
    """A name in full-width letters, or cut by zero-width characters, is found where it stands."""
    plain = "My name is Johannes Brandt."
    wide = plain.replace("Johannes", "".join(chr(ord(c) + 0xFEE0) for c in "Johannes"))
    split = plain.replace("Brandt", "\u200b".join("Brandt"))
    for text in (wide, split):
        (span,) = TAGGER.spans(text)
        assert (span.start, text[span.end :]) == (11, ".")


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    """No text raises; spans are in order, apart, inside of the text, with a probability."""
    end = 0
    for span in TAGGER.spans(text):
        assert end <= span.start < span.end <= len(text)
        assert 0 < span.confidence <= 1
        end = span.end


def test_spans_that_share_a_folded_character(monkeypatch: pytest.MonkeyPatch) -> None:
    """One character folds to two, a border between them: it is of the first span only."""
    assert fold("㎏ ㎏") == "kg kg"
    found = [
        Span(0, 1, "person", 0.9),
        Span(1, 3, "place", 0.9),
        Span(3, 4, "person", 0.9),
        Span(4, 5, "place", 0.9),
    ]
    monkeypatch.setattr(TAGGER, "_tagged", lambda text: found)
    spans = [(span.start, span.end, span.type) for span in TAGGER.spans("㎏ ㎏")]
    assert spans == [(0, 1, "person"), (1, 2, "place"), (2, 3, "person")]


def test_blocks_change_nothing() -> None:
    """A text of many blocks has the probabilities that it would have if it were calculated at once."""
    network = Network(MODEL)
    text = "\n".join(text for text, _ in HELD_OUT * 2)
    rows = encode(text, network.vocabulary)[1]
    assert len(rows) > 4096
    whole = network._forward(rows)
    assert np.allclose(network.probabilities(rows), whole, atol=1e-4)


def test_it_is_fast_enough() -> None:
    """A generous bound on CPU time, four times the promised 5 ms per KiB, for a busy machine."""
    text = " ".join(text for text, _ in HELD_OUT)[: 32 * 1024]
    TAGGER.spans(text)
    began = time.process_time()
    TAGGER.spans(text)
    assert (time.process_time() - began) / len(text.encode()) * 1024 < 0.020


@settings(deadline=None)
@given(st.text("ab. \n", min_size=1, max_size=4000), st.integers(2 * OVERLAP + 1, 1500))
def test_pieces_cover_the_text(text: str, size: int) -> None:
    """Each is short enough and stands where it says; between them nothing is lost, and neighbours overlap."""
    end = 0
    for start, piece in pieces(text, size):
        assert len(piece) <= size
        assert text.startswith(piece, start)
        assert start == max(end - OVERLAP, 0)
        end = start + len(piece)
    assert end == len(text)


def test_what_two_pieces_hold_is_one() -> None:
    """Overlapping spans of one type are joined; of two types both stay."""
    a, b, c = Span(0, 5, "person", 0.9), Span(3, 8, "person", 0.7), Span(4, 9, "place", 0.8)
    assert merged([c, b, a]) == [Span(0, 8, "person", 0.9), c]
    assert merged([Span(5, 6, "person", 0.9), a]) == [a, Span(5, 6, "person", 0.9)]


def test_what_is_covered_is_said() -> None:
    """Off: plainly not; bundled: with the figures that were measured; a library's: that we know none."""
    assert coverage("off") == NOT_COVERED
    assert "person 0." in coverage("bundled")
    assert "not known" in coverage("spacy")

"""Text as the recogniser's network reads it: tokens, each with the rows of a table that describe it.

A token is a word, a run of digits, one other character, or a line break, escaped ones included. Words in
scripts without spaces are cut into characters. What a network has never seen it can only judge by form,
so a word outside the vocabulary has the one row that all of these share, beside those of its beginning,
its endings and its shape.
"""

import re
import zlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

_UNSPACED = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[^\W\d_{_UNSPACED}]+|\d+|\n|\\n|[^\w\s]|[{_UNSPACED}]|_")
_LINE = re.compile(r"[^\n]*\n?")

AFFIXES = 3072  # rows for each kind of beginning or ending, shared by hash
SHAPES = 1024
CONTEXTS = 16
UNKNOWN = 0  # the row of all words outside the vocabulary
WIDTH = 8  # rows of a token
_AFFIX_KINDS = 5
FIXED = _AFFIX_KINDS * AFFIXES + SHAPES + CONTEXTS  # rows before those of the vocabulary
_SHAPES_FROM = _AFFIX_KINDS * AFFIXES
_CONTEXTS_FROM = _SHAPES_FROM + SHAPES

Rows = npt.NDArray[np.int32]


def word_key(word: str) -> int:
    """What the vocabulary knows a word by."""
    return zlib.crc32(word.lower().encode("utf-8", "replace"))


def encode(text: str, vocabulary: Mapping[int, int]) -> tuple[list[tuple[int, int]], Rows]:
    """The places [start, end) of the tokens and their rows, `(tokens, WIDTH)`.

    `vocabulary` maps the key of a word to its row, counted from UNKNOWN.
    """
    places: list[tuple[int, int]] = []
    contexts: list[int] = []
    described: list[tuple[int, ...]] = []
    known: dict[str, tuple[int, ...]] = {}
    for line in _LINE.finditer(text):
        start, end = line.span()
        case = _case(line.group())
        first = 2
        for match in _TOKEN.finditer(text, start, end):
            token = match.group()
            rows = known.get(token)
            if rows is None:
                rows = known[token] = _describe(token, vocabulary)
            described.append(rows)
            at = match.start()
            contexts.append(_CONTEXTS_FROM + 4 * case + first + (at > start and text[at - 1] == " "))
            places.append(match.span())
            first = 0
    rows_of = np.empty((len(places), WIDTH), np.int32)
    if places:
        rows_of[:, :-1] = described
        rows_of[:, -1] = contexts
    return places, rows_of


def _case(line: str) -> int:
    """0 mixed, 1 small letters only, 2 capitals only, 3 no letters that have a case."""
    lower, upper = line == line.lower(), line == line.upper()
    return (3 if upper else 1) if lower else 2 if upper else 0


def _describe(found: str, vocabulary: Mapping[int, int]) -> tuple[int, ...]:
    word = "\n" if found == "\\n" else found.lower()
    parts = (word[:3], word[:4], word[-2:], word[-3:], word[-4:])
    affixes = [
        kind * AFFIXES + zlib.crc32(part.encode("utf-8", "replace")) % AFFIXES
        for kind, part in enumerate(parts)
    ]
    shape = _SHAPES_FROM + zlib.crc32(_shape(found).encode("utf-8", "replace")) % SHAPES
    key = zlib.crc32(word.encode("utf-8", "replace"))
    return (FIXED + vocabulary.get(key, UNKNOWN), *affixes, shape)


def _shape(token: str) -> str:
    """Kind and length: "Xx4" for "Anna", "d5" for a postcode; other characters themselves."""
    if token.isdigit():
        return f"d{min(len(token), 9)}"
    if not token[0].isalpha():
        return token[:2]
    size = min(len(token), 9)
    script = "" if token[0] < "\u0250" else hex(ord(token[0]) >> 7)
    if token.islower():
        return f"x{size}{script}"
    if token.isupper():
        return f"X{size}{script}"
    if token.istitle():
        return f"Xx{size}{script}"
    return f"mixed{script}" if token[0].isupper() else f"inner{script}"

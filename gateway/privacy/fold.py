"""Text as the patterns want it: disguises folded away. What is encoded, encoded.py decodes.

Folding maps each character on its own, so that every place in folded text has one origin in the
text that was given: compatibility forms (full-width digits) to plain ones, digits of all scripts
and all dashes to ASCII, and zero-width characters, bidirectional controls and combining marks to
nothing. What is ASCII, or needs none of this, is passed through as it is.
"""

import unicodedata
from collections.abc import Iterable

import re2

# What NFKC leaves as it is and folding must change. A double negation is RE2's way to say "but not".
# The marks come first for a reason: without them NFKC sorts nothing, and takes linear time.
_FOLDED = re2.compile(r"[\p{Mn}\p{Me}\p{Mc}\p{Cf}]|[^\P{Nd}0-9]|[^\P{Pd}\-]|\x{2212}")
_DROPPED = frozenset({"Mn", "Me", "Cf"})
_FEW = 16  # different characters, up to which replacing one after the other is the faster way
_ASCII = bytes(range(128))
_TABLE_LIMIT = 8192  # a cache of folds must not grow with what clients send


class _Folds(dict[int, str]):
    """`str.translate`'s table, filled as characters turn up."""

    def __missing__(self, code: int) -> str:
        folded = _fold_character(chr(code))
        if len(self) < _TABLE_LIMIT:
            self[code] = folded
        return folded


def _fold_character(character: str) -> str:
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    category = unicodedata.category(character)
    if category == "Pd" or character == "\u2212":
        return "-"
    return "" if category in _DROPPED else unicodedata.normalize("NFKC", character)


_FOLDS = _Folds()


def fold(text: str) -> str:
    """`text` without disguises; the same object when it wears none."""
    if text.isascii():
        return text
    if not _FOLDED.search(text.encode("utf-8", "replace")) and unicodedata.is_normalized("NFKC", text):
        return text
    strange = set(
        text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
    )
    return text.translate(_FOLDS) if len(strange) > _FEW else _fold_few(text, strange)


def _fold_few(text: str, strange: Iterable[str]) -> str:
    """As `translate` does, and several times faster for prose with a dash here and there.

    Characters that become ASCII go first. The compatibility form of another may hold one of them, and
    `translate` leaves that as it is.
    """
    folds = [(character, _FOLDS[ord(character)]) for character in strange]
    for character, folded in sorted(folds, key=lambda fold: not fold[1].isascii()):
        text = text.replace(character, folded)
    return text


def origins(text: str) -> list[int]:
    """For each character of `fold(text)` the place in `text` that it came from, and the end of `text`."""
    places = [place for place, character in enumerate(text) for _ in _FOLDS[ord(character)]]
    return [*places, len(text)]

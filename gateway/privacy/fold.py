"""Text as the patterns want it: disguises folded away, encoded parts decoded.

Folding maps each character on its own, so that every place in folded text has one origin in the
text that was given: compatibility forms (full-width digits) to plain ones, digits of all scripts
and all dashes to ASCII, and zero-width characters, bidirectional controls and combining marks to
nothing. What is ASCII, or needs none of this, is passed through as it is.
"""

import binascii
import unicodedata
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

import msgspec
import re2

# What NFKC leaves as it is and folding must change. A double negation is RE2's way to say "but not".
# The marks come first for a reason: without them NFKC sorts nothing, and takes linear time.
_FOLDED = re2.compile(r"[\p{Mn}\p{Me}\p{Mc}\p{Cf}]|[^\P{Nd}0-9]|[^\P{Pd}\-]|\x{2212}")
_DROPPED = frozenset({"Mn", "Me", "Cf"})
_FEW = 16  # different characters, up to which replacing one after the other is the faster way
_ASCII = bytes(range(128))
_TABLE_LIMIT = 8192  # a cache of folds must not grow with what clients send

_PERCENT = re2.compile(r"\S*%[0-9A-Fa-f]{2}\S*")
# Lines of base64 are one token, so that an identifier across a line break is whole again.
_BASE64 = re2.compile(r"[A-Za-z0-9+/_-]{24,}(?:\r?\n[A-Za-z0-9+/_-]{24,})*(?:\r?\n[A-Za-z0-9+/_-]{2,23}=*)?")
# What all of `layers` hold.
ENCODED = r"%[0-9A-Fa-f]{2}|[A-Za-z0-9+/_-]{24}"
_STANDARD = bytes.maketrans(b"-_", b"+/")
_ASCII_ONLY = bytes(b if b < 128 else ord("?") for b in range(256))
_PRINTABLE = bytes([9, 10, 13, *range(32, 127)])


class Layer(msgspec.Struct, frozen=True):
    """Text that stood encoded at [start, end) of another."""

    text: str
    start: int
    end: int


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


def layers(raw: bytes) -> Iterator[Layer]:
    """What stands percent-encoded or in base64 in `raw`, one layer deep; binary data is left out."""
    if b"%" in raw:
        for match in _PERCENT.finditer(raw):
            yield Layer(_readable(unquote_to_bytes(match.group())), match.start(), match.end())
    for match in _BASE64.finditer(raw):
        text = _readable(_from_base64(match.group()))
        if text:
            yield Layer(text, match.start(), match.end())


def _from_base64(token: bytes) -> bytes:
    """The bytes of a token in either alphabet, padded or not, as far as it goes."""
    token = token.translate(_STANDARD, b"\r\n=")
    if len(token) % 4 == 1:  # six bits make no byte
        token = token[:-1]
    return binascii.a2b_base64(token + b"=" * (-len(token) % 4))


def _readable(data: bytes) -> str:
    """`data` as text: UTF-8, or else what is mostly ASCII (Latin-1, UTF-16); "" for binary data."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        data = data.translate(_ASCII_ONLY, b"\0")
    strange = len(data.translate(None, _PRINTABLE)) + data.count(b"?")
    return data.decode("ascii") if strange * 4 <= len(data) else ""

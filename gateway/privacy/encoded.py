"""What stands encoded in a text, decoded once: percent, HTML entities, JSON escapes, base64 and hex.

Escapes are undone where they stand, and the text around them stays; so an identifier is whole again
of which only a part was escaped. A terminal's colours are escapes that stand for nothing. A token of base64
or hex becomes a paragraph of its own. Places in the
decoded text lead back to the text it came from: exactly, or to the whole run of escapes or token.
"""

import binascii
from bisect import bisect_right
from collections.abc import Iterator
from html import unescape
from urllib.parse import unquote_to_bytes

import msgspec
import re2

_PERCENT = r"(?:%[0-9A-Fa-f]{2})+"
_ENTITY = r"(?:&(?:#(?:[0-9]{1,7}|[xX][0-9A-Fa-f]{1,6});?|[A-Za-z][A-Za-z0-9]{1,30};))+"
# In JSON within JSON the backslash is escaped as well, and at each further level twice as often.
_JSON = r"(?:\\+u[0-9A-Fa-f]{4})+|(?:\\+x[0-9A-Fa-f]{2})+"
_COLOUR = r"\x1b\[[0-9;?]*[@-~]"
_ESCAPES = re2.compile(f"{_PERCENT}|{_ENTITY}|{_JSON}|{_COLOUR}")
_HEX = re2.compile(r"[0-9A-Fa-f]{24,}")
_BYTE = "(?:0x)?[0-9A-Fa-f]{2}"
_BYTES = f"{_BYTE}(?:[ ,:;-]{{1,2}}{_BYTE}){{8}}"  # apart from each other, as in a dump
_DUMP = re2.compile(rf"\b{_BYTES}(?:[ ,:;-]{{1,2}}{_BYTE})*\b")
_64 = "[A-Za-z0-9+/_-]"
# A digit or what parts digits, and two characters more: short base64 is looked into where it may be a number.
_QUAD = f"[ILMNO]{_64}{{3}}"
_SHORT = f"{_64}{{4}}{_QUAD}{_QUAD}"
_BREAK = r"(?:\r|\\+r)?(?:\n|\\+n)"
_BREAKS = re2.compile(r"[\r\n]|\\+[rn]")
# Lines of base64 are one token, so that an identifier across a line break is whole again.
_BASE64 = re2.compile(
    rf"{_64}{{24,}}(?:{_BREAK}{_64}{{24,}})*(?:{_BREAK}{_64}{{2,23}}=*)?|\b{_SHORT}{_64}{{0,12}}"
)
# What all that is encoded holds.
ENCODED = "|".join(
    [
        r"%[0-9A-Fa-f]{2}|&#[0-9xX]|&[A-Za-z][A-Za-z0-9]{1,30};|\\[ux][0-9A-Fa-f]{2}|\x1b\[",
        rf"{_64}{{24}}|{_SHORT}|{_BYTES}",
    ]
)
_STANDARD = bytes.maketrans(b"-_", b"+/")
_ASCII = bytes(range(128))
_ASCII_ONLY = bytes(b if b < 128 else ord("?") for b in range(256))
_MARKS = (b"%", b"&", b"\\", b"\x1b")
_PRINTABLE = bytes([9, 10, 13, *range(32, 127)])


class _Piece(msgspec.Struct, frozen=True):
    """Where a part of the decoded text begins, and [start, end) of what it came from."""

    begins: int
    start: int
    end: int
    exact: bool  # the same character by character?


class Decoded(msgspec.Struct, frozen=True):
    text: str
    pieces: tuple[_Piece, ...]

    def origin(self, start: int, end: int) -> tuple[int, int]:
        """Where [start, end) of `text` came from."""
        return self._place(start, False), self._place(end - 1, True)

    def _place(self, place: int, end: bool) -> int:
        piece = self.pieces[bisect_right(self.pieces, place, key=lambda piece: piece.begins) - 1]
        if piece.exact:
            return min(piece.start + place - piece.begins + end, piece.end)
        return piece.end if end else piece.start


def decode(raw: bytes) -> Decoded | None:
    """What stands encoded in `raw`, one layer deep; None when nothing does. Binary data is left out."""
    parts = [*_unescaped(raw), *_tokens(raw)]
    if not parts:
        return None
    pieces, texts, begins = [], [], 0
    for text, start, end, exact in parts:
        pieces.append(_Piece(begins, start, end, exact))
        texts.append(text)
        begins += len(text)
    return Decoded("".join(texts), tuple(pieces))


_Part = tuple[str, int, int, bool]


def _unescaped(raw: bytes) -> Iterator[_Part]:
    """All of the text without its escapes, when it has any."""
    place = 0
    if any(mark in raw for mark in _MARKS):
        for match in _ESCAPES.finditer(raw):
            start, end = match.span()
            if start > place:
                yield raw[place:start].decode("ascii"), place, start, True
            yield _plain(match.group()), start, end, False
            place = end
    if place:
        yield raw[place:].decode("ascii") + "\n", place, len(raw), True


def _plain(escapes: bytes) -> str:
    if escapes.startswith(b"%"):
        return _readable(unquote_to_bytes(escapes))
    if escapes.startswith(b"&"):
        return unescape(escapes.decode("ascii"))
    if escapes.startswith(b"\x1b"):
        return ""
    digits = binascii.unhexlify(escapes.translate(None, b"\\ux"))
    return _readable(digits) if b"x" in escapes else digits.decode("utf-16-be", "replace")


def _tokens(raw: bytes) -> Iterator[_Part]:
    """What tokens of base64 or hex hide, each as a paragraph: lines next to each other would be one token."""
    for match in _BASE64.finditer(raw):
        token = match.group()
        for text in filter(None, map(_readable, (_from_base64(token), *_from_hex(token)))):
            yield text + "\n\n", match.start(), match.end(), False
    for match in _DUMP.finditer(raw):
        text = _readable(binascii.unhexlify(match.group().replace(b"0x", b"").translate(None, b" ,:;-")))
        if text:
            yield text + "\n\n", match.start(), match.end(), False


def _from_hex(token: bytes) -> Iterator[bytes]:
    """The bytes of each line of hex in `token`, after 0x too, and of all lines in one piece."""
    runs = _HEX.findall(token)
    if len(runs) > 1:
        runs.append(b"".join(runs))
    for run in runs:
        yield binascii.unhexlify(run[: len(run) & ~1])


def _from_base64(token: bytes) -> bytes:
    """The bytes of a token in either alphabet, padded or not, as far as it goes."""
    token = _BREAKS.sub(b"", token).translate(_STANDARD, b"=")
    if len(token) % 4 == 1:  # six bits make no byte
        token = token[:-1]
    return binascii.a2b_base64(token + b"=" * (-len(token) % 4))


def _readable(data: bytes) -> str:
    """`data` as text: UTF-8, or else what is mostly ASCII (Latin-1, UTF-16); "" for binary data."""
    if data.count(0) * 3 > len(data):  # every second byte, or three of four: UTF-16 or UTF-32 of ASCII
        data = data.replace(b"\0", b"")
    try:
        return data.decode()
    except UnicodeDecodeError:
        data = data.translate(_ASCII_ONLY, b"\0")
    strange = len(data.translate(None, _PRINTABLE)) + data.count(b"?")
    return data.decode("ascii") if strange * 4 <= len(data) else ""

"""Whether some bytes hold a canary, in whatever form: the judge, which shares no code with the product.

Text is unpacked as far as four layers go (percent, HTML entities, escapes of JSON, base64, hexadecimal), and
each result reduced to its letters and digits. What comes of a disguise or of an encoding is thus found too.
"""

import base64
import binascii
import html
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import unquote

import re2

LAYERS = 4
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_HEXADECIMAL = re.compile(r"(?:[0-9A-Fa-f]{2}[ :]?){8,}")
_ESCAPE = re.compile(r"\\u([0-9A-Fa-f]{4})|((?:\\x[0-9A-Fa-f]{2})+)|\\(.)")
_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "b": "", "f": ""}
_NO_LETTERS = {code: None for code in range(128) if not chr(code).isalnum()}
_TURNS = {"content", "text", "input", "prompt", "output", "arguments"}


class _Table(dict[int, str]):
    """For `str.translate`, filled as characters turn up."""

    def __init__(self, change: Callable[[str], str]) -> None:
        super().__init__()
        self._change = change

    def __missing__(self, code: int) -> str:
        self[code] = changed = self._change(chr(code))
        return changed


def _letters_and_digits(character: str) -> str:
    plain = unicodedata.normalize("NFKD", character).casefold()
    return "".join(str(unicodedata.decimal(c, c)) for c in plain if c.isalnum())


def _seen(character: str) -> str:
    unseen = unicodedata.category(character) in ("Cf", "Mn", "Me")
    return "" if unseen else unicodedata.normalize("NFKC", character)


_REDUCED, _PLAIN = _Table(_letters_and_digits), _Table(_seen)


def held(data: bytes, texts: Iterable[str]) -> list[str]:
    """Those of `texts` that `data` holds."""
    needles = {reduced(text): text for text in texts}
    if not needles:
        return []
    options = re2.Options()
    options.max_mem = 1 << 28
    wanted = re2.compile("|".join(map(re2.escape, needles)), options)
    found = {match.group() for reading in _readings(data) for match in wanted.finditer(reading)}
    return [needles[needle] for needle in found]


def _readings(data: bytes) -> Iterator[str]:
    """What can be read out of `data`, layer by layer, reduced."""
    text = data.decode("utf-8", "replace")
    text = "\n".join((text, *_conversations(text)))
    yield reduced(text)
    for _ in range(LAYERS):
        unpacked = dict.fromkeys(_unpacked(text))  # each once, in order
        unpacked.pop(text, None)
        text = "\n".join(unpacked)
        if not text:
            return
        yield reduced(text)


def reduced(text: str) -> str:
    """Letters and digits alone, each in its plainest form."""
    if text.isascii():
        return text.lower().translate(_NO_LETTERS)
    return text.translate(_REDUCED)


def _unpacked(text: str) -> Iterator[str]:
    """`text` with one layer of escapes of each kind undone, and what its base64 and hexadecimal stand for."""
    plain = html.unescape(unquote(text))
    plain = _ESCAPE.sub(_unescaped, plain).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if plain != text:
        yield plain
    if not text.isascii():
        text = text.translate(_PLAIN)
    for run in text, text.replace("\n", "").replace("\r", ""):
        for match in _BASE64.finditer(run):
            yield from _as_text(_from_base64(match.group()))
        for match in _HEXADECIMAL.finditer(run):
            yield from _as_text(bytes.fromhex(re.sub("[ :]", "", match.group())))


def _unescaped(match: re.Match[str]) -> str:
    code, octets, other = match.groups()
    if octets:  # as Python prints bytes
        return bytes.fromhex(octets.replace("\\x", "")).decode("utf-8", "replace")
    return chr(int(code, 16)) if code else _ESCAPED.get(other, other)


def _from_base64(token: str) -> bytes:
    token = token.rstrip("=").replace("-", "+").replace("_", "/")
    token = token[: len(token) - 1] if len(token) % 4 == 1 else token
    try:
        return base64.b64decode(token + "=" * (-len(token) % 4))
    except binascii.Error:
        return b""


def _as_text(data: bytes) -> Iterator[str]:
    for encoding in ("utf-8", "utf-16", "utf-16-le"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if encoding == "utf-8" or sum(c.isascii() and c.isprintable() for c in text) * 2 > len(text):
            yield text


def _conversations(text: str) -> Iterator[str]:
    """The texts of each JSON body in `text` in one piece: what was cut in two is whole there."""
    decoder = json.JSONDecoder()
    for start in (match.end() for match in re.finditer(r"\r\n\r\n(?=\{)", text)):
        try:
            body, _ = decoder.raw_decode(text, start)
        except ValueError:
            continue
        yield "".join(_turns(body, ""))


def _turns(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, str):
        if key in _TURNS:
            yield node
    elif isinstance(node, dict | list):
        for name, value in node.items() if isinstance(node, dict) else ((key, value) for value in node):
            yield from _turns(value, name)

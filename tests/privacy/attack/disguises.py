"""Ways to write an identifier so that it looks like something else, and is the same to whoever reads it.

`KNOWN_GAPS` are those that the detectors do not see through yet, each with the reason. Tests expect them to
fail, strictly: whoever closes a gap has to strike it from here.
"""

import base64
import json
import re
import textwrap
import unicodedata
from collections.abc import Callable, Mapping, Set
from urllib.parse import quote

import msgspec

from tests.privacy.attack.canaries import CASELESS, KINDS, NUMBERS

EVERY = frozenset(KINDS)
Change = Callable[[str], str]


class Gap(msgspec.Struct, frozen=True):
    """What the detectors do not see through yet."""

    reason: str
    kinds: Set[str] = frozenset()  # that are never found
    at_times: Set[str] = frozenset()  # that are found or not, as it happens


class Disguise(msgspec.Struct, frozen=True):
    change: Change
    kinds: Set[str] = EVERY  # that it suits: upper case is another key, but the same IBAN


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _padded(text: str) -> str:
    """As part of a longer text, the encoding of which takes several lines."""
    return f"Dear colleagues, what our files say of her is {text} and nothing else that would help."


def _grouped(separator: str) -> Change:
    """Digits in groups of four, or where there are groups already between those."""

    def change(text: str) -> str:
        if re.search(r"\d[-.]\d", text):
            return re.sub(r"(?<=\d)[-.](?=\d)", separator, text)
        return separator.join(textwrap.wrap(text, 4))

    return change


def _digits_of(zero: int) -> Change:
    return lambda text: text.translate({ord("0") + n: zero + n for n in range(10)})


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def _html(form: str) -> Change:
    return lambda text: "".join(f"&#{form.format(ord(c))};" for c in text)


def _json_string(text: str) -> str:
    return "".join(f"\\u{ord(c):04x}" for c in text)


def _in_json(text: str) -> str:
    return json.dumps({"note": text})


def _both(first: Change, *more: Change) -> Change:
    def change(text: str) -> str:
        for step in (first, *more):
            text = step(text)
        return text

    return change


def _between(mark: str) -> Change:
    return lambda text: mark.join(text)


def _full_width(text: str) -> str:
    return text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)})


DISGUISES: Mapping[str, Disguise] = {
    "plain": Disguise(str),
    "in a sentence": Disguise(_padded),
    "upper case": Disguise(str.upper, CASELESS),
    "lower case": Disguise(str.lower, CASELESS),
    # Unicode
    "zero-width spaces": Disguise(_between("\u200b")),
    "word joiners": Disguise(_between("\u2060")),
    "soft hyphens": Disguise(_between("\u00ad")),
    "byte order marks": Disguise(_between("\ufeff")),
    "bidi controls": Disguise(lambda text: "\u202e" + _between("\u2066")(text) + "\u202c"),
    "combining marks": Disguise(_between("\u0301")),
    "variation selectors": Disguise(_between("\ufe0f")),
    "tag characters": Disguise(_between("\U000e0041")),
    "full width": Disguise(_full_width),
    "mathematical digits": Disguise(_digits_of(0x1D7CE)),
    "Arabic digits": Disguise(_digits_of(0x660)),
    "Devanagari digits": Disguise(_digits_of(0x966)),
    "circled digits": Disguise(
        lambda text: text.translate({ord(str(n)): 0x2460 + n - 1 for n in range(1, 10)})
    ),
    "superscript digits": Disguise(
        lambda text: text.translate(dict(zip(b"0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹", strict=True)))
    ),
    "keycaps": Disguise(lambda text: re.sub(r"\d", "\\g<0>\ufe0f\u20e3", text)),
    "decomposed": Disguise(lambda text: unicodedata.normalize("NFD", f"é {text} é")),
    "full width with zero-width": Disguise(_both(_full_width, _between("\u200c"))),
    "terminal colours": Disguise(lambda text: f"\x1b[31m{text}\x1b[0m"),
    "glued to words": Disguise(lambda text: f"no{text}is", NUMBERS & {"payment_card"}),
    # Separators
    "spaces": Disguise(_grouped(" "), NUMBERS),
    "dots": Disguise(_grouped("."), NUMBERS),
    "dashes": Disguise(_grouped("-"), NUMBERS),
    "tabs": Disguise(_grouped("\t"), NUMBERS),
    "line ends": Disguise(_grouped("\n"), NUMBERS),
    "Windows line ends": Disguise(_grouped("\r\n"), NUMBERS),
    "underscores": Disguise(_grouped("_"), NUMBERS),
    "slashes": Disguise(_grouped("/"), NUMBERS),
    "no-break spaces": Disguise(_grouped("\u00a0"), NUMBERS),
    "thin spaces": Disguise(_grouped("\u2009"), NUMBERS),
    "ideographic spaces": Disguise(_grouped("\u3000"), NUMBERS),
    "no-break hyphens": Disguise(_grouped("\u2011"), NUMBERS),
    "figure dashes": Disguise(_grouped("\u2012"), NUMBERS),
    "en dashes": Disguise(_grouped("\u2013"), NUMBERS),
    "em dashes": Disguise(_grouped("\u2014"), NUMBERS),
    "minus signs": Disguise(_grouped("\u2212"), NUMBERS),
    "small hyphens": Disguise(_grouped("\ufe63"), NUMBERS),
    "dashes in spaces": Disguise(_grouped(" - "), NUMBERS),
    "digit by digit": Disguise(lambda text: re.sub(r"(?<=\d)(?=\d)", " ", text), frozenset({"payment_card"})),
    # Encodings
    "percent": Disguise(_percent),
    "percent where needed": Disguise(lambda text: quote(f"q={text}&é", safe="")),
    "form": Disguise(lambda text: "q=" + _percent(text).replace("%20", "+") + "&r=1"),
    "HTML decimal": Disguise(_html("{}")),
    "HTML hexadecimal": Disguise(_html("x{:x}")),
    "HTML padded": Disguise(_html("{:07}")),
    "base64": Disguise(_base64),
    "base64 for URLs": Disguise(lambda text: base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")),
    "base64 of a sentence": Disguise(_both(_padded, _base64)),
    "base64 in lines": Disguise(_both(_padded, lambda text: base64.encodebytes(text.encode()).decode())),
    "base64 data URL": Disguise(lambda text: f"data:text/plain;base64,{_base64(text)}"),
    "base64 of UTF-16": Disguise(lambda text: base64.b64encode(text.encode("utf-16")).decode()),
    "base64 of UTF-16, little end first": Disguise(
        lambda text: base64.b64encode(text.encode("utf-16-le")).decode()
    ),
    "hexadecimal": Disguise(lambda text: text.encode().hex()),
    "hexadecimal with 0x": Disguise(lambda text: "0x" + text.encode().hex()),
    "hexadecimal in pairs": Disguise(lambda text: text.encode().hex(" ")),
    "JSON escapes": Disguise(_json_string),
    "backslash x": Disguise(lambda text: "".join(f"\\x{byte:02x}" for byte in text.encode())),
    "JSON in a string": Disguise(_in_json),
    "JSON in JSON": Disguise(_both(_in_json, _in_json)),
    "JSON in JSON in JSON": Disguise(_both(_in_json, _in_json, _in_json)),
    "lines in JSON in a string": Disguise(lambda text: _in_json(f"one\n{text}\ntwo")),
    "full width in JSON in a string": Disguise(_both(_full_width, _in_json)),
    "zero-width in JSON in a string": Disguise(_both(_between("\u200b"), _in_json)),
    "hexadecimal in lines": Disguise(
        lambda text: "\n".join(textwrap.wrap(_padded(text).encode().hex(), 64)), EVERY - {"es_nie"}
    ),
    "JSON escapes in JSON in a string": Disguise(_both(_json_string, _in_json)),
    "base64 lines in JSON in a string": Disguise(
        _both(_padded, lambda text: base64.encodebytes(text.encode()).decode(), _in_json),
        EVERY - {"es_nie"},  # which is so short that one line has all of it
    ),
    # Layers
    "percent twice": Disguise(_both(_percent, _percent)),
    "base64 twice": Disguise(_both(_base64, _base64)),
    "base64 three times": Disguise(_both(_base64, _base64, _base64)),
    "base64 of percent": Disguise(_both(_percent, _base64)),
    "percent of base64": Disguise(_both(_base64, _percent)),
    "base64 of HTML": Disguise(_both(_html("{}"), _base64)),
    "HTML of percent": Disguise(_both(_percent, _html("{}"))),
    "base64 of hexadecimal": Disguise(_both(lambda text: text.encode().hex(), _base64)),
    "base64 of JSON escapes": Disguise(_both(_json_string, _base64)),
    "base64 of full width": Disguise(_both(_full_width, _base64)),
    "full width of base64": Disguise(_both(_base64, _full_width)),
    "zero-width in base64": Disguise(_both(_base64, _between("\u200b"))),
    "percent of zero-width": Disguise(_both(_between("\u200b"), _percent)),
}


def _gaps() -> dict[str, Gap]:
    edge = "a letter right before it"
    twice = Gap("base64 of letters in less than 18 bytes is taken for a word", frozenset({"es_nie"}))
    return {
        **dict.fromkeys(["base64 twice", "base64 three times"], twice),
        **dict.fromkeys(
            ["hexadecimal", "base64 of hexadecimal"], Gap("too short", at_times=frozenset({"es_nie"}))
        ),
        "hexadecimal with 0x": Gap("too short", frozenset({"es_nie"})),
        **dict.fromkeys(
            ["line ends", "Windows line ends"], Gap("no pattern reads on after a line end", NUMBERS)
        ),
        "glued to words": Gap(edge, EVERY),
        "tabs": Gap("of the numbers only cards may have tabs in them", NUMBERS - {"payment_card"}),
        "slashes": Gap("dates have slashes", at_times=frozenset({"payment_card"})),
        "dashes in spaces": Gap("one separator between two groups", NUMBERS - {"payment_card"}),
    }


KNOWN_GAPS = _gaps()

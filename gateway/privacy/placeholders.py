"""Placeholders: what stands for a value while a request is away, and the values themselves until it is back.

A placeholder is `[[EMAIL_KTRWD]]`: what kind of value it stands for, so that a model can write a sentence
around it, and a code of five letters drawn at random for this request. It has no digits, so that no detector
takes it for an identifier, and fewer than 24 letters in a row, so that none takes it for base64. Its code is
nowhere in the request, so that nobody can name a value that they did not send.

Models bend what they copy. A placeholder is known again in any case, with spaces, escapes or emphasis inside
its brackets, with blanks, hyphens or escapes for its underscores, and with brackets lost at either end. Label
and code must both be right: a placeholder that a model makes up never gets a value.
"""

import re
import secrets
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

import msgspec

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so that no code is a word
_WIDTH = 5
_TRIES = 64
_CODE = re.compile(rf"(?=([{_LETTERS}]{{{_WIDTH}}}))", re.IGNORECASE | re.ASCII)
_LABEL = 16  # letters, at most
_LONGEST = 128  # more than any form of a placeholder is long, in characters

_MARKUP = r"[ *_`\\]{0,3}"
_OPEN = rf"\\{{0,2}}\[(?:\\{{0,2}}\[)?{_MARKUP}"
_CLOSE = rf"{_MARKUP}\](?:\\{{0,2}}\])?"
_PART = (r"[ \\]{0,3}", r"[_ -]", " ?")  # what may stand for an underscore
# All but the last character of each of the above, and whatever comes before it.
_OPENING = rf"\\{{1,2}}|\\{{0,2}}\[(?:\\{{0,2}}\[?){_MARKUP}"
_CLOSING = rf"{_MARKUP}(?:\](?:\\{{0,2}})?)?"


class NoCodeLeft(Exception):
    """The request holds nearly every code there is: somebody wants no placeholder to be safe in it."""


class Value(msgspec.Struct, frozen=True):
    """What a placeholder stands for."""

    kind: str
    label: str
    text: str
    placeholder: str

    def __repr__(self) -> str:
        return f"<Value for {self.placeholder}>"


class Vault:
    """The values of one request, which must not outlive it. The same value has the same placeholder."""

    def __init__(self, taken: str) -> None:
        """`taken` is all the text of the request: no code will be in it."""
        self._taken = set(_codes_in(taken))
        self._by_text: dict[tuple[str, str], Value] = {}
        self._by_code: dict[str, Value] = {}

    def __len__(self) -> int:
        return len(self._by_code)

    def __contains__(self, placeholder: str) -> bool:
        """Whether it is a placeholder of this vault, as it was written."""
        value = self._by_code.get(placeholder[-2 - _WIDTH : -2])
        return value is not None and value.placeholder == placeholder

    def __repr__(self) -> str:
        return f"<Vault of {len(self)} values>"

    def placeholder(self, kind: str, text: str) -> str:
        """Raises NoCodeLeft."""
        label = label_of(kind)
        value = self._by_text.get((label, text))
        if value is None:
            code = self._new_code()
            value = Value(kind, label, text, f"[[{label}_{code}]]")
            self._by_text[label, text] = self._by_code[code] = value
        return value.placeholder

    def get(self, code: str) -> Value | None:
        """By the code of a placeholder, in any case."""
        return self._by_code.get(code.upper())

    def clear(self) -> None:
        """Forgets all values: the end of the request, whoever still holds this."""
        self._by_text.clear()
        self._by_code.clear()

    def kinds(self) -> dict[str, int]:
        """Kind -> values."""
        return dict(Counter(value.kind for value in self._by_code.values()))

    @property
    def labels(self) -> frozenset[str]:
        return frozenset(value.label for value in self._by_code.values())

    def _new_code(self) -> str:
        for _ in range(_TRIES):
            code = "".join(secrets.choice(_LETTERS) for _ in range(_WIDTH))
            if code not in self._taken and code not in self._by_code:
                return code
        raise NoCodeLeft


def label_of(kind: str) -> str:
    """A kind as it is written in a placeholder: capitals and underscores, at most 16."""
    return re.sub(r"[^A-Z_]", "", kind.upper())[:_LABEL].strip("_") or "VALUE"


def _letters(label: str) -> str:
    return re.sub(r"[^A-Z]", "", label.upper())


def _codes_in(text: str) -> Iterator[str]:
    """Whatever could be a code, overlapping ones too."""
    return (found[1].upper() for found in _CODE.finditer(text))


class Restorer:
    """Puts values back into text, whole or in parts, and counts what it cannot place."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._form, self._begun = _forms(vault.labels)
        self.unrestored = 0  # placeholders that a model made up, and codes without their label

    def whole(self, text: str, *, escaped: bool) -> str:
        """`text` with all values; those inside JSON text (`escaped`) as JSON writes them."""
        return self._form.sub(lambda found: self._value(found, escaped), text)

    def part(self, text: str, *, escaped: bool) -> tuple[str, str]:
        """What of a text that may go on is certain, with its values, and the rest: the beginning of a form.

        However a text is cut into parts, with the rest put before the next one, the same comes out.
        """
        done: list[str] = []
        place = 0
        while True:
            begun = self._begun.search(text, max(place, len(text) - _LONGEST))
            certain = begun.start() if begun else len(text)
            found = self._form.search(text, place)
            if found is None or found.start() >= certain:
                done.append(text[place:certain])
                return "".join(done), text[certain:]
            done += text[place : found.start()], self._value(found, escaped)
            place = found.end()

    def count_strays(self, text: str, before: str = "") -> str:
        """Counts the codes left in restored `text`, which follows on `before`; returns what is to stand
        before the next part."""
        text = before + text
        self.unrestored += sum(self._vault.get(code) is not None for code in _codes_in(text))
        return text[1 - _WIDTH :]

    def _value(self, found: re.Match[str], escaped: bool) -> str:
        value = self._vault.get(found["code"])
        if value is None:
            self.unrestored += 1
            return found[0]
        if _letters(value.label) != _letters(found["label"]):
            return found[0]  # a stray, and counted as such
        text = msgspec.json.encode(value.text)[1:-1].decode() if escaped else value.text
        # Where it is unbent, what stands around it is the model's own.
        return found[0].replace(value.placeholder, text) if value.placeholder in found[0] else text


@lru_cache(maxsize=256)
def _forms(labels: frozenset[str]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Every form of a placeholder with one of `labels`; every beginning of one, at the end of a text.

    Each form has a greatest length, so both take time linear in the text.
    """
    part = "".join(_PART)
    either = "|".join(label.replace("_", part) for label in sorted(labels))
    form = rf"(?:{_OPEN})?(?P<label>{either}){part}(?P<code>[{_LETTERS}]{{{_WIDTH}}})(?:{_CLOSE})?"
    begun = "|".join(_beginning(label) for label in sorted(labels))
    flags = re.IGNORECASE | re.ASCII
    return re.compile(form, flags), re.compile(rf"(?:{_OPENING}(?:{begun})?|{begun})\Z", flags)


def _beginning(label: str) -> str:
    """A pattern for every beginning of what stands between the brackets, and for what may close it."""
    pattern = _CLOSING
    for atom in reversed([*_atoms(f"{label}_"), *[f"[{_LETTERS}]"] * _WIDTH]):
        pattern = f"{atom}(?:{pattern})?"
    return pattern


def _atoms(label: str) -> list[str]:
    return [atom for letter in label for atom in (_PART if letter == "_" else (letter,))]

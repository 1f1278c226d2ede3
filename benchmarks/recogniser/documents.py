"""Generated documents: a text and where in it the names and addresses stand."""

import json
import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.recogniser import templates
from benchmarks.recogniser.pools import Pool
from benchmarks.recogniser.slots import ADDRESS, Piece, Source
from benchmarks.recogniser.words import (
    ADJECTIVES,
    BRANDS,
    CURRENCIES,
    DAYS,
    DEMONYMS,
    FORM_KEYS,
    MONTHS,
    NOUNS,
    TITLES,
    VERBS,
    english,
    inflected,
    misspelt,
    prose,
    vocabulary,
)

Span = tuple[int, int, str]
_GAP = re.compile(r"\{(\w+)\}")
_SHARES = {"PERSONS": 30, "ADDRESSES": 20, "PLACES": 6, "ORGS": 6, "OTHER": 55, "OTHER_LANGUAGES": 8}


@dataclass(frozen=True)
class Document:
    """`spans` are [start, end) and the type, in order."""

    text: str
    spans: tuple[Span, ...]


class Writer:
    """Writes documents from `pools`, all chance from `seed`."""

    def __init__(self, pools: Sequence[Pool], seed: int, *, held_out: bool) -> None:
        """`held_out`: from the templates that training never sees, every tenth of each kind, or the others."""
        self._rng = random.Random(seed)
        self._source = Source(pools, self._rng)
        self._templates = {
            kind: [
                t
                for i, t in enumerate(templates.lines(getattr(templates, kind)))
                if (i % 10 == 7) == held_out
            ]
            for kind in _SHARES
        }
        s, pick = self._source, self._rng.choice
        self._gaps: dict[str, Callable[[], list[Piece]]] = {
            "person": s.person,
            "first": s.given,
            "last": s.family,
            "full": s.full,
            "address": s.address,
            "street": s.street_only,
            "place": s.place,
            "city": s.city,
            "country": s.country,
            "org": s.organisation,
        }
        plain: dict[str, Callable[[], str]] = {
            "date": s.date,
            "phone": s.phone,
            "email": s.email,
            "url": s.url,
            "code": s.code,
            "money": s.code,
            "job": s.job,
            "thing": s.thing,
            "noun": lambda: pick(NOUNS),
            "verb": lambda: pick(VERBS),
            "adj": lambda: pick(ADJECTIVES),
            "words": self._words,
            "Words": lambda: self._words().title(),
            "word": self._word,
            "Word": lambda: self._word().capitalize(),
            "title": self._title,
            "demonym": lambda: pick(DEMONYMS),
            "currency": lambda: pick(CURRENCIES),
            "key": lambda: pick(FORM_KEYS),
            "prose": self._prose,
        }
        for name, source in plain.items():
            self._gaps[name] = lambda source=source: [(source(), "")]  # type: ignore[misc]

    def document(self) -> Document:
        rng = self._rng
        kind = rng.random()
        if kind < 0.1:
            pieces = self._object()
        elif kind < 0.22:
            pieces = self._in_prose()
        elif kind < 0.27:
            pieces = self._row()
        else:
            pieces = self._filled()
            while rng.random() < 0.18:
                pieces += [(rng.choice((" ", "\n", "\n\n", " ")), ""), *self._filled()]
        return _joined(self._disguised(self._quoted(pieces)))

    def _filled(self) -> list[Piece]:
        kind = self._rng.choices(list(_SHARES), list(_SHARES.values()))[0]
        return self._fill(self._rng.choice(self._templates[kind]))

    def _fill(self, template: str) -> list[Piece]:
        pieces: list[Piece] = []
        place = 0
        for gap in _GAP.finditer(template):
            pieces.append((template[place : gap.start()], ""))
            pieces += self._gaps[gap.group(1)]()
            place = gap.end()
        pieces.append((template[place:], ""))
        return pieces

    def _words(self) -> str:
        return " ".join(self._word() for _ in range(self._rng.randint(2, 8)))

    def _word(self) -> str:
        """Mostly one of the vocabulary, its first and commonest thousands more often; now and then none."""
        rng, known = self._rng, vocabulary()
        chance = rng.random()
        if chance < 0.07:
            return english().word(rng)
        word = known[min(int(rng.expovariate(1 / 5000)), len(known) - 1)]
        if chance < 0.1:
            return misspelt(word, rng)
        return inflected(word, rng) if chance < 0.18 else word

    def _title(self) -> str:
        words = [
            self._rng.choice(TITLES if self._rng.random() < 0.5 else (self._word(),)).title()
            for _ in range(self._rng.randint(1, 4))
        ]
        return " ".join(words)

    def _prose(self) -> str:
        rng = self._rng
        if rng.random() < 0.6:
            return rng.choice(prose())
        words = self._words().split()
        if rng.random() < 0.3:
            words[rng.randrange(len(words))] = rng.choice((*BRANDS, *DEMONYMS, *DEMONYMS, *DAYS, *MONTHS))
        return " ".join(words).capitalize() + rng.choice((".", ".", "!", "?", ""))

    def _in_prose(self) -> list[Piece]:
        """A name or a place anywhere in a sentence that says nothing about it."""
        rng = self._rng
        words = self._prose().split()
        place = rng.randint(0, len(words))
        gap = rng.choices(("person", "last", "place", "org", "street"), (60, 10, 14, 10, 6))[0]
        ending = rng.choice(("", "", "", "'s", ",", ".", ")", "’s"))
        before, after = " ".join(words[:place]), " ".join(words[place:])
        return [
            (f"{before} " if before else "", ""),
            *self._gaps[gap](),
            (f"{ending} {after}" if after else ending, ""),
        ]

    def _object(self) -> list[Piece]:
        """Keys and values: JSON, arguments, YAML, a form, XML, a row of a form on one line."""
        rng = self._rng
        kinds = rng.sample(list(templates.JSON_KEYS), k=rng.randint(1, 6))
        style = rng.choice(("json", "json", "escaped", "yaml", "form", "xml", "python"))
        before, between, after, end = {
            "json": ('"{}": "', '", ', "", '"'),
            "escaped": ('\\"{}\\": \\"', '\\", ', "", '\\"'),
            "yaml": ("{}: ", "\n", "", ""),
            "form": ("{}: ", rng.choice(("\n", "; ", " | ", ", ")), "", ""),
            "xml": ("<{}>", "\n", "", "</{}>"),
            "python": ("{}='", "', ", "", "'"),
        }[style]
        pieces: list[Piece] = [("{" if "json" in style or style == "escaped" else "", "")]
        for i, kind in enumerate(kinds):
            key = rng.choice(templates.JSON_KEYS[kind].split())
            if style == "form":
                key = key.replace("_", " ").title()
            value = self._gaps[kind]()
            if style in ("json", "escaped"):
                value = [
                    (json.dumps(text, ensure_ascii=rng.random() < 0.1)[1:-1], type_) for text, type_ in value
                ]
            joint = between if i < len(kinds) - 1 else end
            pieces += [(before.replace("{}", key), ""), *value]
            pieces.append((end.replace("{}", key) + between if style == "xml" else joint, ""))
        pieces.append(("}" if "json" in style or style == "escaped" else after, ""))
        return pieces

    def _row(self) -> list[Piece]:
        """Comma- or tab-separated values, or a list of names."""
        rng = self._rng
        separator = rng.choice((", ", ", ", ", ", ",", "\t", " | ", ";", "\n", "\n- "))
        if rng.random() < 0.5:
            kinds = [rng.choice(("full", "full", "first", "last", "org", "place"))] * rng.randint(2, 6)
        else:
            kinds = rng.choices(
                ("full", "street", "city", "email", "phone", "code", "date", "org", "noun", "Word"),
                k=rng.randint(2, 6),
            )
        pieces: list[Piece] = []
        for i, kind in enumerate(kinds):
            joint = rng.choice((" and ", separator, ", and ")) if i == len(kinds) - 1 else separator
            pieces += [(joint if i else "", ""), *self._gaps[kind]()]
        return pieces

    def _quoted(self, pieces: list[Piece]) -> list[Piece]:
        """Now and then each line behind a mark; an address then ends with its line, a place begins anew."""
        if self._rng.random() > 0.04 or not any("\n" in text for text, _ in pieces):
            return pieces
        mark = self._rng.choice(("> ", ">> ", "| ", "# ", "* ", "??? ", "// ", "- "))
        out: list[Piece] = [(mark, "")]
        for text, type_ in pieces:
            for i, line in enumerate(text.split("\n")):
                if i:
                    out.append((f"\n{mark}", ""))
                kind = "place" if type_ == ADDRESS and i and not any(c.isdigit() for c in line) else type_
                out.append((line, kind))
        return out

    def _disguised(self, pieces: list[Piece]) -> list[Piece]:
        """All in small or capital letters, or without accents, now and then."""
        rng = self._rng
        chance = rng.random()
        if chance < (0.13 if any(type_ for _, type_ in pieces) else 0.4):
            return [(text.lower(), type_) for text, type_ in pieces]
        if chance > 0.96:
            return [(text.upper(), type_) for text, type_ in pieces]
        if chance > 0.92:
            return [(_plain(text), type_) for text, type_ in pieces]
        if chance > 0.89:  # only what is to be found: a careless writer, or one who shouts
            change = rng.choice((str.lower, str.lower, str.upper))
            return [(change(text) if type_ else text, type_) for text, type_ in pieces]
        return pieces


def _plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _joined(pieces: Sequence[Piece]) -> Document:
    text, spans = "", []
    for piece, type_ in pieces:
        if type_ and piece.strip():
            start = len(text) + len(piece) - len(piece.lstrip())
            spans.append((start, start + len(piece.strip()), type_))
        text += piece
    return Document(text, tuple(spans))

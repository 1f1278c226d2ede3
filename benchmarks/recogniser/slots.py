"""What stands in the gaps of a template: a person, an address, a place, an organisation, or neither.

Each function returns pieces: (text, type) in order, type "" for what is not to be found.
"""

import random
import unicodedata
from collections.abc import Sequence

from benchmarks.recogniser.forms import (
    COINED_ENDS,
    COINED_STARTS,
    COUNTRIES,
    LOCAL_COUNTRIES,
    ORG_KINDS,
    ORG_PATTERNS,
    ORG_WORDS,
    STREETS,
    UNITS,
)
from benchmarks.recogniser.others import Others
from benchmarks.recogniser.pools import COMMON, Coined, Pool

Piece = tuple[str, str]
PERSON, ADDRESS, PLACE, ORGANISATION = "person", "street_address", "place", "organisation"


class Source(Others):
    """Draws what fills the gaps, all from one `rng` and one set of locales."""

    def __init__(self, pools: Sequence[Pool], rng: random.Random) -> None:
        super().__init__(rng)
        self._pools = pools
        self._weights = [(4.0 if p.locale in COMMON else 1.0) * (1.0 if p.latin else 0.35) for p in pools]
        self._coined = {p.locale: (Coined(p.firsts), Coined(p.lasts)) for p in pools if p.latin}
        self._cities = {p.locale: Coined(p.cities) for p in pools if p.latin and p.cities}
        self._with_addresses = [p for p in pools if p.addresses]

    def pool(self) -> Pool:
        return self.rng.choices(self._pools, self._weights)[0]

    # Persons

    def first(self, p: Pool | None = None) -> str:
        p = p or self.pool()
        if p.latin and self.chance(0.3):
            return self._coined[p.locale][0].word(self.rng)
        return self.rng.choice(p.firsts)

    def last(self, p: Pool | None = None) -> str:
        p = p or self.pool()
        if p.latin and self.chance(0.35):
            return self._coined[p.locale][1].word(self.rng)
        return self.rng.choice(p.lasts)

    def full_name(self) -> str:
        p, rng = self.pool(), self.rng
        first, last = self.first(p), self.last(p)
        if not p.latin:
            cjk = p.locale[:2] in ("ja", "zh", "ko")
            return last + (" " if self.chance(0.3) else "") + first if cjk else f"{first} {last}"
        if p.family_first and self.chance(0.5):
            return f"{last} {first}"
        letter = rng.choice("ABCDEFGHIJKLMNOPRSTVW")
        forms = (
            (f"{first} {last}", 60),
            (f"{first} {letter}. {last}", 9),
            (f"{first} {letter} {last}", 5),
            (f"{last}, {first}", 3),
            (f"{last.upper()}, {first}", 1),
            (f"{last.upper()} {first}", 2),
            (f"{first} {last.upper()}", 2),
            (f"{first[0]}. {last}", 4),
            (f"{first[0]}. {letter}. {last}", 2),
            (f"{first} {self.first(p)} {last}", 5),
            (f"{first} {last}-{self.last(p)}", 3),
            (f"{first} {last} {self.last(p)}", 4),
            (f"{first}-{self.first(p)} {last}", 1),
            (
                f"{first} {rng.choice(('de', 'van', 'von', 'di', 'da', 'bin', 'al', 'de la', 'van der'))} {last}",
                2,
            ),
            (f"{first} {rng.choice(('O', 'D'))}{rng.choice('’') if self.chance(0.2) else chr(39)}{last}", 1),
            (f"{first} {last} {rng.choice(('Jr.', 'Sr.', 'III', 'II'))}", 1),
        )
        return rng.choices([f for f, _ in forms], [w for _, w in forms])[0]

    def person(self) -> list[Piece]:
        """Mostly first and last name, titles outside of it."""
        kind = self.rng.random()
        if kind < 0.62:
            name = self.full_name()
        elif kind < 0.86:
            name = self.first()
        else:
            name = self.last()
        if self.chance(0.08):
            title = self.rng.choice(
                (
                    "Mr. ",
                    "Mrs. ",
                    "Ms. ",
                    "Mr ",
                    "Mrs ",
                    "Dr. ",
                    "Dr ",
                    "Prof. ",
                    "Herr ",
                    "Frau ",
                    "Sir ",
                    "Miss ",
                    "M. ",
                    "Mme ",
                    "Sr. ",
                    "Sra. ",
                    "Señora ",
                    "Captain ",
                    "President ",
                    "Pan ",
                    "Pani ",
                    "Judge ",
                    "Senator ",
                )
            )
            return [(title, ""), (name, PERSON)]
        return [(name, PERSON)]

    def given(self) -> list[Piece]:
        return [(self.first(), PERSON)]

    def family(self) -> list[Piece]:
        return [(self.last(), PERSON)]

    def full(self) -> list[Piece]:
        return [(self.full_name(), PERSON)]

    # Places and addresses

    def city_name(self) -> str:
        p = self.rng.choice(self._with_addresses) if self.chance(0.75) else self.rng.choice(self._pools)
        if p.latin and (not p.cities or self.chance(0.3)):
            chain = self._cities.get(p.locale) or self._coined[p.locale][1]
            name = chain.word(self.rng)
        else:
            name = self.rng.choice(p.cities or p.lasts)
        if self.chance(0.08):
            name = f"{self.rng.choice(('San', 'Bad', 'Saint', 'Nova', 'Upper', 'East', 'Los', 'La', 'Sankt', 'Stoke'))} {name}"
        elif self.chance(0.05):
            name += self.rng.choice(
                (" Town", " City", " am See", " an der Elbe", " upon Trent", "-sur-Mer", " nad Labem", " V")
            )
        return name.upper() if self.chance(0.15) else name

    def country_name(self) -> str:
        return self.rng.choice(COUNTRIES if self.chance(0.8) else LOCAL_COUNTRIES)

    def place(self) -> list[Piece]:
        return [(self.city_name() if self.chance(0.6) else self.country_name(), PLACE)]

    def city(self) -> list[Piece]:
        return [(self.city_name(), PLACE)]

    def country(self) -> list[Piece]:
        return [(self.country_name(), PLACE)]

    def number(self) -> str:
        rng = self.rng
        plain = (
            str(rng.randint(1, 30 if self.chance(0.4) else 400)) if self.chance(0.7) else self.digits(2, 5)
        )
        if self.chance(0.08):
            plain += rng.choice(("a", "b", " A", "/2", "-4", "C", " bis", "."))
        return plain

    def postcode(self) -> str:
        rng = self.rng
        letters = "ABCDEGHKLMNPRSTW"
        two = ["".join(rng.choices(letters, k=2)) for _ in range(3)]
        forms = (
            self.digits(5, 5),
            self.digits(5, 5),
            self.digits(5, 5),
            self.digits(4, 4),
            self.digits(6, 6),
            f"{self.digits(3, 3)} {self.digits(2, 2)}",
            f"{self.digits(2, 2)}-{self.digits(3, 3)}",
            f"{self.digits(4, 4)} {two[0]}",
            f"{two[1]}{self.digits(1, 2)} {self.digits(1, 1)}{two[2]}",
            f"{self.digits(5, 5)}-{self.digits(4, 4)}",
            f"{rng.choice('DAFHILS')}-{self.digits(4, 5)}",
            f"K{self.digits(1, 1)}A {self.digits(1, 1)}B{self.digits(1, 1)}",
            f"LV-{self.digits(4, 4)}",
        )
        return rng.choice(forms)

    def street_name(self) -> tuple[str, bool]:
        """And whether the number stands before it."""
        if self.chance(0.4):
            p = self.rng.choice(self._with_addresses)
            before = p.locale[:2] in ("en", "fr", "th") if self.chance(0.9) else self.chance(0.5)
            return self.rng.choice(p.streets), before
        pattern, before = self.rng.choice(STREETS)
        base = self._street_base()
        if pattern.startswith("{}") and pattern[2:3].isalpha():
            base = base.split()[-1]
        return pattern.format(base), before if self.chance(0.9) else not before

    def _street_base(self) -> str:
        kind = self.rng.random()
        if kind < 0.35:
            return self.last()
        if kind < 0.5:
            return self.first() + (" " + self.last() if self.chance(0.5) else "")
        if kind < 0.7:
            return self.city_name().title()
        if kind < 0.85:
            return self.rng.choice(self._words).title()
        return self.rng.choice(
            (
                "Main",
                "High",
                "Church",
                "Station",
                "Park",
                "Mill",
                "King",
                "Queen",
                "Haupt",
                "Bahnhof",
                "Kirch",
                "Stor",
                "Nygade",
                "Roma",
                "Garibaldi",
                "Mayor",
                "Kossuth",
                "Kesk",
                "5th",
                "42nd",
                "Oak",
                "Elm",
            )
        )

    def street(self) -> str:
        """A street with its number, or with two as careless generators of test data write them."""
        name, before = self.street_name()
        number = self.number()
        if self.chance(0.04):
            return name
        line = f"{number} {name}" if before else f"{name} {number}"
        if self.chance(0.06):
            line = line.replace(number, f"{number},", 1) if before else f"{name}, {number}"
        if self.chance(0.25):
            line = f"{self.digits(2, 5)} {line}"
        return line

    def unit(self) -> str:
        text = self.rng.choice(UNITS if self.chance(0.4) else UNITS[:6]).format(self.number())
        if self.chance(0.08):
            text += " " + self.rng.choice(UNITS[:4]).format(self.number())
        return text

    def address(self) -> list[Piece]:
        """One line or a block of lines; with postcode or country all of it is the address."""
        kind = self.rng.random()
        if kind < 0.2:
            text = self.rng.choice(self.rng.choice(self._with_addresses).addresses).strip()
            return [(text if self.chance(0.6) else text.replace("\n", ", "), ADDRESS)]
        if kind < 0.25:
            return [(self._military(), ADDRESS)]
        if kind < 0.36:
            return self._street_and_city()
        if kind < 0.44:
            return [(self.street(), ADDRESS)]
        if kind < 0.47:
            return [(self._corner(), ADDRESS)]
        if kind < 0.49:
            return [(f"P.O. Box {self.digits(2, 5)}, {self.city_name()} {self.postcode()}", ADDRESS)]
        return [(self._block(), ADDRESS)]

    def _block(self) -> str:
        rng = self.rng
        parts = [self.street()]
        if self.chance(0.45):
            parts.insert(0 if self.chance(0.12) else 1, self.unit())
        postcode, city = self.postcode(), self.city_name()
        region = rng.choice(
            ("NY", "CA", "TX", "PA", "MP", "AT", "ON", "NSW", "BC", "SK", "Z", "PR", self.country_name())
        )
        country = self.country_name()
        tails: tuple[list[str], ...] = (
            [f"{postcode} {city}"],
            [f"{postcode} {city}", country],
            [f"{city}, {region} {postcode}"],
            [city, postcode],
            [city, f"{country} {postcode}"],
            [city, country],
            [f"{city} {postcode}"],
            [city, region, postcode],
            [f"{city}, {region}", country],
            [f"{city} {region}"],
            [f"{city} {region} {postcode}"],
            [city, country, postcode],
            [f"{postcode}, {city}", country],
            [f"{city} {country}"],
            [city, f"{country} {postcode}"],
        )
        parts += rng.choice(tails)
        breaks = rng.choice(("\n", "\n ", "\n    ", ", ", ", ", " ", "\n", "\n\t", "\\n", " - ", "; ", ",\n"))
        if breaks == " " or self.chance(0.7):
            return breaks.join(parts)
        return " ".join(parts[:2]) + "".join(breaks + p for p in parts[2:])

    def _street_and_city(self) -> list[Piece]:
        """The city after a comma, without a postcode, is a place of its own."""
        return [(self.street(), ADDRESS), (", ", ""), (self.city_name(), PLACE)]

    def _corner(self) -> str:
        a, b = self.street(), self.street_name()[0]
        return self.rng.choice((f"the corner of {a} and {b}", f"corner of {b} and {a}", f"{a} & {b}"))

    def _military(self) -> str:
        rng = self.rng
        first = rng.choice(
            (
                f"PSC {self.digits(4, 4)}, Box {self.digits(4, 4)}",
                f"Unit {self.digits(4, 4)} Box {self.digits(4, 4)}",
                f"USNS {self.last()}",
                f"USS {self.last()}",
                f"CMR {self.digits(3, 3)}, Box {self.digits(3, 4)}",
            )
        )
        gap = rng.choice(("\n", "\n", ", ", " "))
        return f"{first}{gap}{rng.choice(('APO', 'FPO', 'DPO'))} {rng.choice(('AA', 'AE', 'AP'))} {self.digits(5, 5)}"

    def street_only(self) -> list[Piece]:
        return [(self.street(), ADDRESS)]

    # Organisations

    def organisation(self) -> list[Piece]:
        rng = self.rng
        kind = rng.random()
        if kind < 0.25:
            name = rng.choice(self.pool().companies)
        elif kind < 0.45:
            name = f"{self._org_base()} {rng.choice(ORG_KINDS)}"
        elif kind < 0.6:
            name = (
                rng.choice(COINED_STARTS)
                + rng.choice(COINED_ENDS)
                + (f" {rng.choice(ORG_KINDS)}" if self.chance(0.4) else "")
            )
        elif kind < 0.68:
            name = rng.choice(ORG_PATTERNS).format(self.city_name() if self.chance(0.7) else self.last())
        elif kind < 0.76:
            name = f"{self.last()} & {self.last()}" + (
                f" {rng.choice(ORG_KINDS)}" if self.chance(0.6) else ""
            )
        elif kind < 0.9:
            name = (
                "".join(w.title() for w in rng.choices(self._words, k=2))
                if self.chance(0.4)
                else " ".join(w.title() for w in rng.choices(self._words, k=2))
                + (f" {rng.choice(ORG_KINDS)}" if self.chance(0.6) else "")
            )
        else:
            name = (
                f"{rng.choice(ORG_WORDS)} {rng.choice(ORG_WORDS)}"
                if self.chance(0.5)
                else rng.choice(ORG_WORDS) + rng.choice(ORG_WORDS).lower()
            )
        return [(name, ORGANISATION)]

    def _org_base(self) -> str:
        return self.rng.choice(
            (
                self.last(),
                self.rng.choice(ORG_WORDS),
                self.rng.choice(self._words).title(),
                self.city_name().title(),
            )
        )

    # Addresses of another kind

    def email(self) -> str:
        first, last = self._ascii(self.first()), self._ascii(self.last())
        domain = f"{self.rng.choice(self._words)}.{self.rng.choice(('com', 'de', 'org', 'net', 'co.uk', 'io', 'fr', 'hu'))}"
        user = self.rng.choice(
            (
                f"{first}.{last}",
                f"{first}{last}",
                f"{first[0]}{last}",
                f"{first}_{last}{self.digits(1, 3)}",
                "info",
                "support",
            )
        )
        return f"{user if self.chance(0.3) else user.lower()}@{domain}"

    def _ascii(self, name: str) -> str:
        return (
            "".join(c for c in unicodedata.normalize("NFKD", name) if c.isascii() and c.isalpha()) or "info"
        )

"""What stands in the gaps of a template: a person, an address, a place, an organisation, or neither.

Each function returns pieces: (text, type) in order, type "" for what is not to be found.
"""

import random
import unicodedata
from collections.abc import Sequence

from faker.providers.address import Provider

from benchmarks.recogniser.pools import COMMON, Coined, Pool
from benchmarks.recogniser.words import BRANDS, DAYS, MONTHS, NOUNS, jobs, vocabulary

Piece = tuple[str, str]
PERSON, ADDRESS, PLACE, ORGANISATION = "person", "street_address", "place", "organisation"

STREET_TYPES = (  # (pattern, whether the house number comes first)
    ("{} Street", 1),
    ("{} St", 1),
    ("{} St.", 1),
    ("{} Road", 1),
    ("{} Rd", 1),
    ("{} Avenue", 1),
    ("{} Ave", 1),
    ("{} Lane", 1),
    ("{} Drive", 1),
    ("{} Dr.", 1),
    ("{} Court", 1),
    ("{} Close", 1),
    ("{} Terrace", 1),
    ("{} Way", 1),
    ("{} Boulevard", 1),
    ("{} Blvd", 1),
    ("{} Crescent", 1),
    ("{} Square", 1),
    ("{} Turnpike", 1),
    ("{} Parkway", 1),
    ("{} Gardens", 1),
    ("{} Place", 1),
    ("{} Row", 1),
    ("{} Hill", 1),
    ("{} Grove", 1),
    ("{} Mews", 1),
    ("{} Pike", 1),
    ("{} Heights", 1),
    ("{} Coves", 1),
    ("{} Squares", 1),
    ("{} Streets", 1),
    ("{} Ridge", 1),
    ("{} Trail", 1),
    ("{}strasse", 0),
    ("{}straße", 0),
    ("{}str.", 0),
    ("{} Str.", 0),
    ("{}gasse", 0),
    ("{}weg", 0),
    ("{}platz", 0),
    ("{} Allee", 0),
    ("{}ring", 0),
    ("{}straat", 0),
    ("{}laan", 0),
    ("{}singel", 0),
    ("{}gracht", 0),
    ("{}plein", 0),
    ("{}gatan", 0),
    ("{}vägen", 0),
    ("{}vegen", 0),
    ("{}veien", 0),
    ("{}gata", 0),
    ("{}gade", 0),
    ("{}vej", 0),
    ("{}vænget", 0),
    ("{}katu", 0),
    ("{}tie", 0),
    ("{}kuja", 0),
    ("{}polku", 0),
    ("{} utca", 0),
    ("{} út", 0),
    ("{} tér", 0),
    ("ul. {}", 0),
    ("ulica {}", 0),
    ("{} ulica", 0),
    ("{} cesta", 0),
    ("al. {}", 0),
    ("os. {}", 0),
    ("{}ova", 0),
    ("{}ská", 0),
    ("{} tänav", 0),
    ("{} iela", 0),
    ("{} gatvė", 0),
    ("{} Sokak", 0),
    ("{} Caddesi", 0),
    ("{}gränd", 0),
    ("{}stígur", 0),
    ("{}gata", 0),
    ("{}braut", 0),
    ("{}tún", 0),
    ("{}hlíð", 0),
    ("rue {}", 1),
    ("rue de {}", 1),
    ("Rue du {}", 0),
    ("avenue {}", 1),
    ("boulevard {}", 1),
    ("place {}", 1),
    ("allée des {}", 1),
    ("chemin de {}", 1),
    ("via {}", 0),
    ("Via {}", 0),
    ("Piazza {}", 0),
    ("Corso {}", 0),
    ("Viale {}", 0),
    ("Calle {}", 0),
    ("C/ {}", 0),
    ("Avenida {}", 0),
    ("Av. {}", 0),
    ("Plaza {}", 0),
    ("Paseo {}", 0),
    ("Rua {}", 0),
    ("Travessa {}", 0),
    ("Largo {}", 0),
    ("Praça {}", 0),
    ("Quadra {}", 0),
    ("Strada {}", 0),
    ("Jalan {}", 0),
    ("Jl. {}", 0),
    ("ул. {}", 0),
    ("οδός {}", 0),
    ("Οδός {}", 0),
)
UNITS = (
    "Apt. {}",
    "Apt {}",
    "Suite {}",
    "Ste {}",
    "Unit {}",
    "Flat {}",
    "# {}",
    "Floor {}",
    "Room {}",
    "Bldg {}",
    "Apartment {}",
    "app. {}",
    "lgh {}",
    "Top {}",
    "{}. OG",
    "{}. Stock",
    "esc. {}",
    "piso {}",
    "Bte {}",
    "bus {}",
    "m. {}",
    "as. {}",
    "Box {}",
)
COUNTRIES = tuple(c for c in Provider.countries if "(" not in c and len(c) < 30)
LOCAL_COUNTRIES = (
    "Deutschland Österreich Schweiz España Italia Brasil Polska Česko Slovensko Magyarország Suomi Sverige Norge Danmark "
    "Ísland Nederland België Belgique Türkiye Россия Україна Ελλάδα USA UK U.S.A. England Scotland Wales Slovenia Estonia "
    "France México Perú Holland Ireland"
).split()
ORG_WORDS = (
    "Global United First National General Pacific Atlantic Northern Southern Western Digital Advanced Applied Modern Prime "
    "Summit Pioneer Liberty Golden Silver Blue Green Red Star Sun Moon River Mountain Ocean Eagle Lion Bright Smart Clear "
    "Open True Alpha Delta Omega Nova Terra Aqua Solar Data Cloud Cyber Bio Med Agri Auto Aero Euro Trans Inter Micro"
).split()
ORG_KINDS = (
    "Inc Inc. LLC Ltd Ltd. Limited PLC plc Corp Corp. Corporation Company Co. Group Holdings Partners Associates Industries "
    "Systems Solutions Technologies Labs Services Consulting Foundation Institute Bank Insurance Airlines Media Energy "
    "Logistics Foods Motors Pharma Ventures Capital Stores Records Studios GmbH AG KG SE S.A. SA SARL S.r.l. SpA BV B.V. "
    "NV AB AS A/S Oy OÜ Kft. Zrt. sp. d.o.o. s.r.o. a.s. Ltda. S.L. Pty"
).split()
ORG_PATTERNS = (
    "University of {}",
    "{} University",
    "Bank of {}",
    "{} City Council",
    "{} Hospital",
    "{} High School",
    "The {} Times",
    "Museum of {}",
    "{} Chamber of Commerce",
    "{} Country Club",
    "Church of {}",
    "Ministry of {}",
    "{} Football Club",
)
_ENDS = (
    "soft",
    "tech",
    "ify",
    "ly",
    "era",
    "ix",
    "ex",
    "on",
    "io",
    "bit",
    "net",
    "sys",
    "com",
    "max",
    "fero",
    "zon",
    "ara",
)
_STARTS = (
    "Ver",
    "Micro",
    "Inno",
    "Ava",
    "Lum",
    "Zen",
    "Qua",
    "Syn",
    "Neo",
    "Tri",
    "Omni",
    "Ver",
    "Pay",
    "Net",
    "Xen",
    "Kal",
)


class Source:
    """Draws what fills the gaps, all from one `rng` and one set of locales."""

    def __init__(self, pools: Sequence[Pool], rng: random.Random) -> None:
        self.rng = rng
        self._pools = pools
        self._weights = [(4.0 if p.locale in COMMON else 1.0) * (1.0 if p.latin else 0.35) for p in pools]
        self._coined = {p.locale: (Coined(p.firsts), Coined(p.lasts)) for p in pools if p.latin}
        self._cities = {p.locale: Coined(p.cities) for p in pools if p.latin and p.cities}
        self._with_addresses = [p for p in pools if p.addresses]
        self._words = vocabulary()

    def pool(self) -> Pool:
        return self.rng.choices(self._pools, self._weights)[0]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

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

    def digits(self, low: int, high: int) -> str:
        count = self.rng.randint(low, high)
        return "".join(self.rng.choices("0123456789", k=count))

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
        pattern, before = self.rng.choice(STREET_TYPES)
        base = self._street_base()
        if pattern.startswith("{}") and pattern[2:3].isalpha():
            base = base.split()[-1]
        return pattern.format(base), bool(before) if self.chance(0.9) else not before

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
                rng.choice(_STARTS)
                + rng.choice(_ENDS)
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

    # What is none of these

    def date(self) -> str:
        rng = self.rng
        d, m, y = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1940, 2030)
        month = rng.choice(MONTHS)
        return rng.choice(
            (
                f"{y}-{m:02}-{d:02}",
                f"{d}.{m}.{y}",
                f"{m}/{d}/{y}",
                f"{month} {d}, {y}",
                f"{d} {month} {y}",
                f"{rng.choice(DAYS)}, {month} {d}",
                str(y),
                rng.choice(DAYS),
                month,
                f"{d:02}:{m:02}",
                f"{d:02}:{m:02}:31",
                f"{month[:3]} {d}",
            )
        )

    def phone(self) -> str:
        d = self.digits
        return self.rng.choice(
            (
                f"+{d(1, 2)} {d(3, 3)} {d(3, 3)} {d(4, 4)}",
                f"({d(3, 3)}) {d(3, 3)}-{d(4, 4)}",
                d(8, 11),
                f"{d(3, 3)}-{d(3, 3)}-{d(4, 4)}",
                f"{d(2, 2)} {d(2, 2)} {d(2, 2)} {d(2, 2)}",
                f"0{d(3, 3)}/{d(5, 7)}",
                f"{d(3, 3)}.{d(3, 3)}.{d(4, 4)}x{d(3, 4)}",
                f"{d(3, 3)} {d(3, 3)} {d(4, 4)}",
            )
        )

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

    def url(self) -> str:
        w = self.rng.choices(self._words, k=2)
        return self.rng.choice(
            (
                f"https://www.{w[0].title()}{w[1].title()}.com/",
                f"http://{w[0]}.org/{w[1]}",
                f"www.{w[0]}{w[1]}.net",
                f"https://{w[0]}.io/{w[1]}?id={self.digits(2, 5)}",
                f"{w[0]}.{w[1]}.example",
            )
        )

    def code(self) -> str:
        r = self.rng
        return r.choice(
            (
                self.digits(12, 19),
                f"{self.digits(4, 4)} {self.digits(4, 4)} {self.digits(4, 4)} {self.digits(4, 4)}",
                f"{r.choice('ABCDEF')}{r.choice('XYZ')}-{self.digits(3, 8)}",
                f"DE{self.digits(20, 20)}",
                self.digits(1, 6),
                f"{r.randrange(2**48):012x}",
                f"{self.digits(3, 3)}-{self.digits(2, 2)}-{self.digits(4, 4)}",
                f"#{self.digits(2, 6)}",
                f"10.{r.randint(0, 255)}.{r.randint(0, 255)}.{r.randint(1, 254)}",
                f"{r.choice('$€£')}{self.digits(1, 4)}.{self.digits(2, 2)}",
                f"{self.digits(1, 4)} {r.choice(('USD', 'EUR', 'kg', 'km', 'GB', 'ms', '%', 'hours', 'items', 'boxes', 'rows'))}",
            )
        )

    def job(self) -> str:
        return self.rng.choice(jobs()).split(",")[0]

    def thing(self) -> str:
        return self.rng.choice(BRANDS) if self.chance(0.3) else self.rng.choice(NOUNS)

"""Which parts of a matched run really are the identifier: checksums, lengths and plausible groups.

A check takes what a pattern matched (ASCII) and yields the spans in it that hold.
"""

import ipaddress
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from math import log2

import re2
from stdnum import numdb
from stdnum.gb import nhs
from stdnum.us import ssn

Spans = Iterator[tuple[int, int]]
Check = Callable[[str], Spans]

_SEPARATORS = str.maketrans("", "", " .-/()\t")
_DATE = re2.compile(r"\d{1,2}[ ./-]\d{1,2}[ ./-](?:19|20)\d\d|(?:19|20)\d\d[ ./-]\d{1,2}[ ./-]\d{1,2}")
_NO_MAC_SEPARATORS = str.maketrans("", "", ":-.")
# What else a dot parts: these are top-level domains as well.
_FILE_ENDINGS = frozenset(
    ["py", "rs", "sh", "md", "pl", "cc", "so", "ps", "in", "is", "at", "am", "it", "no", "my"]
)
_WORDY = re2.compile(r"(?:[a-z]{3,12}[_./-]){3}|(?i:example|placeholder|your[_-])")
_BLANKS = str.maketrans(".-\t", "   ")
_DOUBLED = str.maketrans("123456789", "246813579")  # and the digits of the sum added: 5 -> 10 -> 1
_LONG_CARDS = (16, 17, 18, 19)
_MAESTRO = (16, 12, 13, 14, 15, 17, 18, 19)
# Issuer prefix -> lengths of its card numbers, the usual one first. The longest prefix that fits counts.
_ISSUERS: dict[str, tuple[int, ...]] = {
    "4": (16, 19, 13),
    **dict.fromkeys(["51", "52", "53", "54", "55", *map(str, range(2221, 2721))], (16,)),
    **dict.fromkeys(["34", "37", "1800", "2131"], (15,)),
    **dict.fromkeys(["300", "301", "302", "303", "304", "305", "309", "36", "38", "39"], (14, 16)),
    **dict.fromkeys(["35", "62", "6011", "644", "645", "646", "647", "648", "649", "65"], _LONG_CARDS),
    **dict.fromkeys(["2200", "2201", "2202", "2203", "2204"], _LONG_CARDS),
    **dict.fromkeys(["0604", "50", "56", "57", "58", "6"], _MAESTRO),
}
_GROUPED_LENGTHS = frozenset({14, 15, 16, 19})


def _iban_lengths() -> dict[str, int]:
    """Country -> length of its IBANs: four characters, then fields as in python-stdnum's "4!a6!n8!n"."""
    countries = numdb.get("iban").prefixes
    return {
        code: 4 + sum(map(int, re2.findall(r"\d+", fields["bban"]))) for _, code, _, fields, _ in countries
    }


IBAN_LENGTHS = _iban_lengths()


def always(matched: str) -> Spans:
    """The shape alone is proof."""
    yield 0, len(matched)


def whole(is_valid: Callable[[str], bool]) -> Check:
    """All of the match, when `is_valid` says so of it."""

    def check(matched: str) -> Spans:
        if holds(is_valid, matched):
            yield 0, len(matched)

    return check


def holds(is_valid: Callable[[str], bool], number: str) -> bool:
    """Whether `is_valid` says so. Some of python-stdnum's raise for a region or date that does not exist."""
    try:
        return is_valid(number)
    except (LookupError, ValueError):
        return False


def digits_of(matched: str) -> str:
    return matched.translate(_SEPARATORS)


def compact(is_valid: Callable[[str], bool]) -> Check:
    """All of the match, when `is_valid` says so of it without its separators."""
    return whole(lambda matched: is_valid(digits_of(matched)))


def us_ssn(digits: str) -> bool:
    return bool(ssn.is_valid(f"{digits[:3]}-{digits[3:5]}-{digits[5:]}"))


def luhn(digits: str) -> bool:
    """ISO/IEC 7812: as in python-stdnum, at a third of its time."""
    backwards = digits[::-1]
    return (sum(map(int, backwards[::2])) + sum(map(int, backwards[1::2].translate(_DOUBLED)))) % 10 == 0


def uk_nhs(digits: str) -> bool:
    return bool(nhs.is_valid(digits))


def cards(run: str) -> Spans:
    """The card numbers in a run of digits, in groups as people write them.

    Each group but the last has three digits or more: every table of numbers would hold a "card"
    otherwise. The unusual lengths count only unbroken.
    """
    if run.isdigit() and not any(len(run) == n and luhn(run) for n in _card_lengths(run[:4])):
        return
    groups = run.translate(_BLANKS).split()
    digits = "".join(groups)
    begins = [0, *accumulate(map(len, groups))]
    ends, places, past = set(begins), None, 0
    for begin, group in zip(begins, groups, strict=False):
        if len(group) < 3 or begin < past:
            continue
        for length in _card_lengths(digits[begin : begin + 4]):
            end = begin + length
            if end in ends and _grouped(begins, begin, end) and luhn(digits[begin:end]):
                places = places or [place for place, character in enumerate(run) if character.isdigit()]
                start = places[begin]
                if start < 2 or run[start - 1] != "." or not run[start - 2].isdigit():  # it is no fraction
                    yield start, places[end - 1] + 1
                    past = end
                break


def spelled_card(run: str) -> Spans:
    """A card number given digit by digit, with nothing else in `run`."""
    digits = digits_of(run)
    if len(digits) in _card_lengths(digits) and luhn(digits):
        yield 0, len(run)


def _card_lengths(digits: str) -> tuple[int, ...]:
    return next((_ISSUERS[digits[:n]] for n in (4, 3, 2, 1) if digits[:n] in _ISSUERS), ())


def _grouped(begins: list[int], begin: int, end: int) -> bool:
    """Whether the digits from `begin` to `end` are unbroken, or grouped as a card's are."""
    inside = begins[bisect_left(begins, begin) : bisect_left(begins, end) + 1]
    return len(inside) == 2 or (
        end - begin in _GROUPED_LENGTHS and min(after - before for before, after in pairwise(inside)) >= 3
    )


def ibans(matched: str) -> Spans:
    """The IBAN that `matched` begins with: words after it may have been taken for groups of it."""
    length = IBAN_LENGTHS.get(matched[:2].upper(), 0)
    places = [place for place, character in enumerate(matched) if character.isalnum()][:length]
    if not length or len(places) < length:
        return
    end = places[-1] + 1
    ended = end == len(matched) or not matched[end].isalnum()
    if ended and _iban(matched[:end]):
        yield 0, end


def _iban(written: str) -> bool:
    """ISO 7064 mod 97-10, letters counting from 10: as in python-stdnum, at a fifth of its time."""
    plain = "".join(filter(str.isalnum, written))
    return int("".join(str(int(character, 36)) for character in plain[4:] + plain[:4])) % 97 == 1


def phones(matched: str) -> Spans:
    """Seven to fifteen digits that are not a date."""
    if 7 <= sum(map(str.isdigit, matched)) <= 15 and not _DATE.match(matched.lstrip("(+")):
        yield 0, len(matched)


def national_phones(matched: str) -> Spans:
    """Numbers with a leading zero: nine digits at least, so that dates and part numbers fall out."""
    if 9 <= sum(map(str.isdigit, matched)) <= 12:
        yield from phones(matched)


def emails(matched: str) -> Spans:
    """All but git's own: `git@host` names a protocol, not a person. A question mark may end the sentence."""
    if not matched.lower().startswith("git@"):
        bare = matched.rstrip("?")  # also what stands for a letter of another script
        yield 0, len(matched if bare.endswith(".") else bare)


def ipv6(matched: str) -> Spans:
    """Addresses with a long first group: `a::b` is more often a name in a program."""
    if matched.find(":") < 3 or not any(map(str.isdigit, matched)):
        return
    try:
        ipaddress.IPv6Address(matched)
    except ValueError:
        return
    yield 0, len(matched)


def mac(matched: str) -> Spans:
    """Not all zeros or all ones, nor digits alone: dates and times in pairs look so."""
    digits = matched.lower().translate(_NO_MAC_SEPARATORS)
    if len(set(digits)) > 1 and not digits.isdigit():
        yield 0, len(matched)


def urls(matched: str) -> Spans:
    """Without the punctuation that ends the sentence, or a bracket that begins before it."""
    end = len(matched.rstrip(".,;:!?*"))
    if matched[end - 1] in ")]" and matched.count("(") + matched.count("[") == 0:
        end -= 1
    yield 0, end


def domains(matched: str) -> Spans:
    """Names of hosts, not of files, modules or initials: those in lower case or well known at their end."""
    host = matched.split("/", 1)[0]
    labels = host.split(".")
    if (
        max(map(len, labels)) >= 3
        and labels[-1].lower() not in _FILE_ENDINGS
        and not host.replace(".", "").isdigit()
    ):
        yield 0, len(matched.rstrip(".,;:!?*)]"))


def assigned(matched: str) -> Spans:
    """Values that look drawn at random: letters and digits, many different ones, and no words in a row."""
    value = matched.rstrip(".=")
    digits = sum(map(str.isdigit, value))
    if digits >= 2 and len(value) - digits >= 2 and _entropy(value) >= 3.2 and not _WORDY.search(value):
        yield 0, len(matched)


def passwords(matched: str) -> Spans:
    """Values that no word is: letters beside digits or signs, and no variable, call or path."""
    value = matched.rstrip(".,:?*")
    letters = any(map(str.isalpha, value))
    others = any(map(str.isdigit, value)) or any(sign in value for sign in "!@#$%^&*+=~|")
    if len(value) >= 6 and letters and others and value[0] not in "$%&@/\\*-=:" and "://" not in value:
        yield 0, len(value)


def _entropy(text: str) -> float:
    """Shannon's, in bits a character."""
    size = len(text)
    return -sum(n / size * log2(n / size) for n in Counter(text).values())

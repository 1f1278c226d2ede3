"""Which parts of a matched run really are the identifier: checksums, lengths and plausible groups.

A check takes what a pattern matched (ASCII) and yields the spans in it that hold.
"""

import ipaddress
from collections.abc import Callable, Iterator
from itertools import pairwise

import re2
from stdnum import iban, luhn, numdb
from stdnum.us import ssn

Spans = Iterator[tuple[int, int]]
Check = Callable[[str], Spans]

_SEPARATORS = str.maketrans("", "", " .-/()\t")
_DATE = re2.compile(r"\d{1,2}[ ./-]\d{1,2}[ ./-](?:19|20)\d\d|(?:19|20)\d\d[ ./-]\d{1,2}[ ./-]\d{1,2}")
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
    **dict.fromkeys(["50", "56", "57", "58", "6"], _MAESTRO),
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
        if is_valid(matched):
            yield 0, len(matched)

    return check


def digits_of(matched: str) -> str:
    return matched.translate(_SEPARATORS)


def compact(is_valid: Callable[[str], bool]) -> Check:
    """All of the match, when `is_valid` says so of it without its separators."""
    return whole(lambda matched: is_valid(digits_of(matched)))


def us_ssn(digits: str) -> bool:
    return bool(ssn.is_valid(f"{digits[:3]}-{digits[3:5]}-{digits[5:]}"))


def card(run: str) -> Spans:
    """The card number that begins where `run` does, in groups as people write them.

    Each group but the last has three digits or more: every table of numbers would hold a "card"
    otherwise. The unusual lengths count only unbroken.
    """
    digits = digits_of(run)
    lengths = _card_lengths(digits)
    if not lengths:
        return
    places = [place for place, character in enumerate(run) if character.isdigit()]
    for length in lengths:
        if _grouped(places, length) and luhn.is_valid(digits[:length]):
            yield 0, places[length - 1] + 1
            return


def spelled_card(run: str) -> Spans:
    """A card number given digit by digit, with nothing else in `run`."""
    digits = digits_of(run)
    if len(digits) in _card_lengths(digits) and luhn.is_valid(digits):
        yield 0, len(run)


def _card_lengths(digits: str) -> tuple[int, ...]:
    return next((_ISSUERS[digits[:n]] for n in (4, 3, 2, 1) if digits[:n] in _ISSUERS), ())


def _grouped(places: list[int], length: int) -> bool:
    """Whether the first `length` digits, at `places`, end with a group and are grouped as a card's."""
    ends = [k for k in range(1, len(places)) if places[k] != places[k - 1] + 1] + [len(places)]
    inside = [end for end in ends if end <= length]
    if length not in inside:
        return False
    sizes = [end - start for start, end in pairwise([0, *inside])]
    return len(sizes) == 1 or (min(sizes) >= 3 and length in _GROUPED_LENGTHS)


def ibans(matched: str) -> Spans:
    """The IBAN that `matched` begins with: words after it may have been taken for groups of it."""
    length = IBAN_LENGTHS.get(matched[:2].upper(), 0)
    places = [place for place, character in enumerate(matched) if character.isalnum()][:length]
    if not length or len(places) < length:
        return
    end = places[-1] + 1
    ended = end == len(matched) or not matched[end].isalnum()
    if ended and iban.is_valid(matched[:end], check_country=False):
        yield 0, end


def phones(matched: str) -> Spans:
    """Seven to fifteen digits that are not a date."""
    if 7 <= sum(map(str.isdigit, matched)) <= 15 and not _DATE.match(matched.lstrip("(+")):
        yield 0, len(matched)


def national_phones(matched: str) -> Spans:
    """Numbers with a leading zero: nine digits at least, so that dates and part numbers fall out."""
    if 9 <= sum(map(str.isdigit, matched)) <= 12:
        yield from phones(matched)


def emails(matched: str) -> Spans:
    """All but git's own: `git@host` names a protocol, not a person."""
    if not matched.lower().startswith("git@"):
        yield 0, len(matched)


def ipv6(matched: str) -> Spans:
    """Addresses with a long first group: `a::b` is more often a name in a program."""
    try:
        ipaddress.IPv6Address(matched)
    except ValueError:
        return
    if matched.find(":") >= 3 and any(map(str.isdigit, matched)):
        yield 0, len(matched)

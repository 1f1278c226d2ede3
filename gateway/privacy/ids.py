"""Checks of numbers that python-stdnum does not know, or knows without their check digit.

Each takes the number without separators, in upper case.
"""

import datetime
from collections.abc import Sequence

from stdnum import luhn, verhoeff

_TAIWAN = {c: n for n, c in enumerate("ABCDEFGHJKLMNPQRSTUVXYWZIO", 10)}
_SINGAPORE = {
    "S": "JZIHGFEDCBA",
    "T": "GFEDCBAJZIH",
    "F": "XWUTRQPNMLK",
    "G": "XWUTRQPNMLK",
    "M": "XWUTRQPNJLK",
}
_NINO_NEVER = frozenset({"BG", "GB", "NK", "KN", "TN", "NT", "ZZ"})


def _weighted(digits: str, weights: Sequence[int]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def _date(day: str, month: str, year: str) -> bool:
    try:
        datetime.date(2000 + int(year[-2:]), int(month), int(day))
    except ValueError:
        return False
    return True


def jp_my_number(number: str) -> bool:
    rest = _weighted(number, (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)) % 11
    return len(number) == 12 and int(number[11]) == (0 if rest <= 1 else 11 - rest)


def at_svnr(number: str) -> bool:
    """Social security: the fourth digit checks the others, the last six are a date of birth."""
    total = _weighted(number[:3] + number[4:], (3, 7, 9, 5, 8, 4, 2, 1, 6))
    return len(number) == 10 and total % 11 == int(number[3]) and int(number[6:8]) <= 15


def hk_id(number: str) -> bool:
    """One or two letters, six digits, and a check digit 0-9 or A; sum of weights 9..1 divides by 11."""
    if not number[0].isalpha():
        return False
    padded = number.rjust(9, " ")
    values = [36 if c == " " else int(c, 36) for c in padded]
    return sum(value * weight for value, weight in zip(values, range(9, 0, -1), strict=False)) % 11 == 0


def sg_nric(number: str) -> bool:
    letters = _SINGAPORE.get(number[0])
    if letters is None or not number[1:8].isdigit():
        return False
    offset = {"T": 4, "G": 4, "M": 3}.get(number[0], 0)
    total = _weighted(number[1:8], (2, 7, 6, 5, 4, 3, 2)) + offset
    place = 10 - total % 11 if number[0] == "M" else total % 11
    return letters[place] == number[8]


def tw_id(number: str) -> bool:
    first = _TAIWAN.get(number[0])
    if first is None or number[1] not in "1289ABCD":
        return False
    digits = f"{first}{number[1:]}"
    return digits.isdigit() and _weighted(digits, (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)) % 10 == 0


def ru_snils(number: str) -> bool:
    total = _weighted(number[:9], range(9, 0, -1)) % 101
    return len(number) == 11 and int(number[9:]) == total % 100


def in_aadhaar(number: str) -> bool:
    """As in python-stdnum, which spends most of its time on separators."""
    return number[0] > "1" and number != number[::-1] and bool(verhoeff.is_valid(number))


def fr_nir(number: str) -> bool:
    """The key is 97 less the rest by 97; Corsica's 2A and 2B count as 19 and 18."""
    body = number[:13].replace("2A", "19").replace("2B", "18")
    return number[0] in "123478" and body.isdigit() and 97 - int(body) % 97 == int(number[13:])


def uk_nino(number: str) -> bool:
    return (
        number[0] not in "DFIQUV"
        and number[1] not in "DFIOQUV"
        and number[:2] not in _NINO_NEVER
        and number[8] in "ABCD"
    )


def hu_taj(number: str) -> bool:
    return len(number) == 9 and _weighted(number, (3, 7) * 4) % 10 == int(number[8])


def au_medicare(number: str) -> bool:
    return number[0] in "23456" and _weighted(number, (1, 3, 7, 9, 1, 3, 7, 9)) % 10 == int(number[8])


def us_npi(number: str) -> bool:
    return len(number) == 10 and number[0] in "12" and bool(luhn.is_valid("80840" + number))


def us_dea(number: str) -> bool:
    digits = number[2:]
    odd, even = (sum(map(int, digits[start:6:2])) for start in (0, 1))
    return digits.isdigit() and (odd + 2 * even) % 10 == int(digits[6])


def clabe(number: str) -> bool:
    """Mexico's account numbers: the last digit checks the others, with weights 3, 7, 1."""
    total = sum(int(d) * w % 10 for d, w in zip(number[:17], (3, 7, 1) * 6, strict=False))
    return len(number) == 18 and int(number[17]) == -total % 10


def dated(number: str) -> bool:
    """DDMMYY and four digits: Denmark has no check digit any more."""
    return _date(number[:2], number[2:4], number[4:6])


def plausible(number: str) -> bool:
    """Not one digit over and over: what people type when they have no number."""
    return len({c for c in number if c.isdigit()}) > 2

"""Identifiers that must not leave, one of its own for each case, so that no case masks another.

`text` is what a person would write, with the word beside it that people write there. All are valid: each has
the checksum that its issuer gives it.
"""

import random
from collections.abc import Callable, Mapping
from string import ascii_letters, ascii_lowercase, ascii_uppercase, digits

import msgspec
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.es import nie
from stdnum.us import ssn

LETTERS_AND_DIGITS = ascii_letters + digits
MARKER = "kestrel"


class Canary(msgspec.Struct, frozen=True):
    kind: str
    text: str


def canary(kind: str, number: int | str) -> Canary:
    """The one of this kind and number, always the same."""
    return Canary(kind, KINDS[kind](random.Random(f"{kind} {number}")))


def marker(number: int | str) -> Canary:
    """A word that no shipped detector knows: for what is restricted on other grounds."""
    return Canary("marker", f"{MARKER}-{random.Random(number).getrandbits(48):012x}")


def _of(chance: random.Random, characters: str, count: int) -> str:
    return "".join(chance.choices(characters, k=count))


def _card(chance: random.Random) -> str:
    number = "4" + _of(chance, digits, 14)
    return number + luhn.calc_check_digit(number)


def _iban(chance: random.Random) -> str:
    bban = "37040044" + _of(chance, digits, 10)
    return f"DE{iban.calc_check_digits('DE00' + bban)}{bban}"


def _ssn(chance: random.Random) -> str:
    while not ssn.is_valid(
        number := f"{_of(chance, digits, 3)}-{_of(chance, digits, 2)}-{_of(chance, digits, 4)}"
    ):
        pass
    return f"SSN {number}"


def _cpf(chance: random.Random) -> str:
    number = _of(chance, digits, 9)
    return f"CPF {cpf.format(number + cpf._calc_check_digits(number))}"


def _nie(chance: random.Random) -> str:
    number = "X" + _of(chance, digits, 7)
    return number + nie.calc_check_digit(number)


def _email(chance: random.Random) -> str:
    first, last, host = (_of(chance, ascii_lowercase, 7) for _ in range(3))
    return f"{first}.{last}@{host}.org"


def _jwt(chance: random.Random) -> str:
    parts = (_of(chance, LETTERS_AND_DIGITS, size) for size in (16, 24, 32))
    return "eyJ{}.eyJ{}.{}".format(*parts)


KINDS: Mapping[str, Callable[[random.Random], str]] = {
    "payment_card": _card,
    "iban": _iban,
    "us_ssn": _ssn,
    "br_cpf": _cpf,
    "es_nie": _nie,
    "email": _email,
    "openai_key": lambda chance: f"sk-{_of(chance, LETTERS_AND_DIGITS, 40)}",
    "github_token": lambda chance: f"ghp_{_of(chance, LETTERS_AND_DIGITS, 36)}",
    "aws_key": lambda chance: f"AKIA{_of(chance, ascii_uppercase + digits, 16)}",
    "jwt": _jwt,
    "url_credentials": lambda chance: (
        f"postgres://app:{_of(chance, LETTERS_AND_DIGITS, 12)}@db.{_of(chance, ascii_lowercase, 8)}.org/x"
    ),
}
"""The structured detector's name for it -> how one is made."""
NUMBERS = frozenset({"payment_card", "iban", "us_ssn", "br_cpf"})  # that people write in groups
CASELESS = frozenset({"iban", "email", "es_nie"})

"""Telephone numbers as they are written inside a country, from the numbering plans of phonenumbers.

Its own parser would cost tens of µs a candidate and country; one RE2 object per grouping, made of the
plans of all countries that group so, answers in two.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any

import re2
from phonenumbers import SUPPORTED_REGIONS
from phonenumbers.phonemetadata import PhoneMetadata

from gateway.privacy.checks import Spans

_BLANKS = str.maketrans(".-", "  ")
_GROUP = re2.compile(r"\\d(?:\{(\d+)(?:,(\d+))?\})?")
# Below this there are too many other numbers in so many groups.
_FEWEST_DIGITS = 8
_OF_SOCIAL_SECURITY = (3, 2, 4)
# Countries whose unbroken numbers with the leading zero are told from other numbers by their plan.
_TRUNK_ZERO = (
    "GB",
    "FR",
    "DE",
    "IT",
    "AU",
    "NL",
    "BE",
    "SE",
    "CH",
    "AT",
    "IE",
    "JP",
    "KR",
    "ZA",
    "IN",
    "FI",
    "NZ",
)


def grouped(matched: str) -> Spans:
    """The whole, when its digits are grouped as in a country without a trunk prefix, and assigned there."""
    groups = matched.translate(_BLANKS).split()
    if len(groups) == 4 and "." in matched:  # an address in a network, if anything
        return
    plan = _plans().get(tuple(map(len, groups)))
    if plan is not None and plan.fullmatch("".join(groups)):
        yield 0, len(matched)


def trunk(matched: str) -> Spans:
    """The whole, when it is a mobile number with its trunk prefix, unbroken, of one of several countries."""
    if _mobiles().fullmatch(matched[1:]):
        yield 0, len(matched)


@cache
def _plans() -> dict[tuple[int, ...], Any]:
    """Sizes of the groups -> what numbers may be grouped so."""
    numbers: dict[tuple[int, ...], set[str]] = {}
    for region in SUPPORTED_REGIONS:
        plan: Any = PhoneMetadata.metadata_for_region(region)
        if plan.national_prefix is None:
            for sizes in {sizes for form in plan.number_format for sizes in _sizes(form.pattern)}:
                numbers.setdefault(sizes, set()).update(_assigned(plan))
    return {
        sizes: re2.compile("|".join(sorted(patterns)))
        for sizes, patterns in numbers.items()
        if len(sizes) > 2 and sum(sizes) >= _FEWEST_DIGITS and sizes != _OF_SOCIAL_SECURITY
    }


@cache
def _mobiles() -> Any:
    plans: list[Any] = [PhoneMetadata.metadata_for_region(region) for region in _TRUNK_ZERO]
    return re2.compile("|".join(plan.mobile.national_number_pattern for plan in plans))


def _assigned(plan: Any) -> Iterator[str]:
    for kind in (plan.fixed_line, plan.mobile):
        if kind is not None and kind.national_number_pattern:
            yield kind.national_number_pattern


def _sizes(pattern: str) -> Iterator[tuple[int, ...]]:
    r"""All sizes that the groups of "(\d{3})(\d{2,3})" may have."""
    ranges = [
        range(int(least or 1), int(most or least or 1) + 1)
        for least, most in (_GROUP.search(part).groups() for part in pattern.split(")")[:-1])
    ]
    return product(*ranges)

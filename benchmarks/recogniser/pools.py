"""Names, places, streets and organisations of some ninety locales, from Faker, and names that nobody has.

Drawn once into lists, for Faker is slow. Held-out locales give no word to training: what is measured on
them tells what the model makes of names that it never saw.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from faker import Faker

HELD_OUT = ("sl_SI", "et_EE", "hr_HR", "es_CL", "fr_CA", "nl_BE", "en_KE", "lt_LT")
# Locales with names of their own; those with addresses of their own are in ADDRESSES as well.
LATIN = (
    "az_AZ cs_CZ da_DK de_AT de_CH de_DE de_LI de_LU en_AU en_CA en_GB en_IE en_IN en_NG en_NZ en_PK en_TH "
    "en_US es_AR es_CO es_ES es_MX fi_FI fr_BE fr_CH fr_DZ fr_FR ga_IE ha_NG hu_HU id_ID ig_NG is_IS it_IT "
    "lv_LV nl_NL no_NO pl_PL pt_BR pt_PT ro_RO sk_SK sv_SE sw tr_TR tw_GH uz_UZ vi_VN yo_NG zu_ZA"
).split()
OTHER_SCRIPTS = (
    "ar_SA bg_BG bn_BD el_GR fa_IR he_IL hi_IN hy_AM ja_JP ka_GE ko_KR mk_MK mr_IN ru_RU ta_IN th_TH uk_UA "
    "zh_CN zh_TW"
).split()
ADDRESSES = frozenset(
    "az_AZ cs_CZ da_DK de_AT de_CH de_DE en_AU en_CA en_GB en_IE en_IN en_NZ en_US es_AR es_CO es_ES es_MX "
    "fi_FI fr_CH fr_DZ fr_FR hu_HU id_ID it_IT nl_NL no_NO pl_PL pt_BR pt_PT ro_RO sk_SK sv_SE vi_VN zu_ZA "
    "el_GR he_IL hi_IN hy_AM ja_JP ka_GE ko_KR mk_MK ru_RU th_TH uk_UA zh_CN zh_TW bn_BD "
    "sl_SI hr_HR es_CL fr_CA nl_BE".split()
)
COMMON = ("en_US", "en_GB", "de_DE", "fr_FR", "es_ES", "it_IT")  # drawn more often


@dataclass(frozen=True)
class Pool:
    """What one locale has to offer."""

    locale: str
    firsts: Sequence[str]
    lasts: Sequence[str]
    cities: Sequence[str]
    streets: Sequence[str]
    addresses: Sequence[str]
    companies: Sequence[str]
    family_first: bool
    latin: bool


def pool(locale: str, seed: int) -> Pool:
    fake = Faker(locale)
    fake.seed_instance(seed)
    own = locale in ADDRESSES
    firsts, lasts = _draw(fake.first_name, 400), _draw(fake.last_name, 500)
    return Pool(
        locale=locale,
        firsts=firsts,
        lasts=lasts,
        cities=_draw(fake.city, 300) if own else (),
        streets=_draw(fake.street_name, 300) if own else (),
        addresses=_draw(fake.address, 300) if own else (),
        companies=tuple(c for c in _draw(fake.company, 300) if "," not in c),
        family_first=locale in ("hu_HU", "ja_JP", "ko_KR", "zh_CN", "zh_TW", "vi_VN"),
        latin=locale not in OTHER_SCRIPTS,
    )


def _draw(source: Callable[[], str], count: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys(source() for _ in range(count)))


class Coined:
    """Words that look like those it was given: a chain over letters, each drawn by the three before it."""

    def __init__(self, words: Sequence[str]) -> None:
        self._next: dict[str, list[str]] = defaultdict(list)
        for word in words:
            padded = f"^^^{word}$"
            for i in range(len(padded) - 3):
                self._next[padded[i : i + 3]].append(padded[i + 3])

    def word(self, rng: random.Random) -> str:
        """Two to sixteen letters; what the chain ends too early or too late is drawn again."""
        while True:
            letters = "^^^"
            while len(letters) < 20 and (letter := rng.choice(self._next[letters[-3:]])) != "$":
                letters += letter
            if 5 <= len(letters) < 20:
                return letters[3:]

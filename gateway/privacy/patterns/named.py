"""Numbers whose shape is too common or whose check digits are too weak, unless a word before them names them.

All words stand in one alternation and all numbers after them have one shape, so that the automaton
stays small however many kinds there are; what the word and the number make together is looked up.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import msgspec
import re2
from stdnum.ar import dni as ar_dni
from stdnum.at import tin as at_tin
from stdnum.au import abn, tfn
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ch_ssn
from stdnum.co import nit
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.ec import ci
from stdnum.ee import ik
from stdnum.eg import tn
from stdnum.es import ccc
from stdnum.gr import amka
from stdnum.gr import vat as gr_afm
from stdnum.hr import oib
from stdnum.id import nik
from stdnum.ie import pps
from stdnum.il import idnr as il_idnr
from stdnum.lt import asmens
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.nz import ird
from stdnum.pe import cui
from stdnum.pl import nip, pesel
from stdnum.pt import cc, nif
from stdnum.ro import cnp
from stdnum.rs import pib
from stdnum.ru import inn
from stdnum.se import personnummer
from stdnum.si import emso
from stdnum.th import pin
from stdnum.tr import tckimlik
from stdnum.ua import rntrc
from stdnum.us import ein, itin, rtn
from stdnum.uy import rut as uy_rut
from stdnum.za import idnr as za_id

from gateway.privacy import checks, ids
from gateway.privacy.patterns.shape import Alternative, Reading, scan


class Named(msgspec.Struct, frozen=True):
    """A kind, the words that announce it, and its shape. `is_valid` takes it in upper case, no separators.

    Words are ASCII; "?" stands for any other letter and a blank for a blank, a hyphen or nothing.
    """

    kind: str
    words: tuple[str, ...]
    shape: Any  # a compiled re2 object that matches from the start, separators included
    is_valid: Callable[[str], bool]
    confidence: float


def _digits(least: int, most: int | None = None) -> Any:
    return re2.compile(rf"\d(?:[ ./-]{{0,2}}\d){{{least - 1},{(most or least) - 1}}}\b")


def _named(
    kind: str,
    words: str,
    shape: Any,
    is_valid: Callable[[str], bool] = ids.plausible,
    confidence: float = 0.9,
) -> Named:
    return Named(kind, tuple(words.split("|")), shape, is_valid, confidence)


# Letters and digits as on documents: seven digits, or six beside a letter.
_DOCUMENT = re2.compile(
    r"(?i)(?:(?:[A-Z]{1,5}[ -]?)?\d(?:[ .-]?\d){6,17}(?:-?[A-Z]{1,2})?"
    r"|[A-Z0-9]{0,5}[A-Z]\d{6,12}[A-Z0-9]{0,6}|\d{6,12}[A-Z][A-Z0-9]{0,6})\b"
)
_DOCUMENT_SHORT = re2.compile(r"(?i)[A-Z]{0,6}[ -]?\d(?:[ .-]?[A-Z]{0,3}\d){4,13}[A-Z]{0,2}\b")

NAMED = (
    _named("us_ssn", "ssn|social security", _digits(9), checks.us_ssn),
    _named("us_itin", "itin|taxpayer id|tax id", _digits(9), itin.is_valid),
    _named("us_ein", "employer identification|fein", _digits(9), ein.is_valid, 0.7),
    _named(
        "ca_sin", "social insurance|sin number|sin no|num?ro d'assurance sociale", _digits(9), sin.is_valid
    ),
    _named("uk_nhs", "nhs", _digits(10), checks.uk_nhs),
    _named("uk_utr", "utr|unique taxpayer", _digits(10), ids.plausible, 0.7),
    _named(
        "ie_pps", "pps|ppsn|personal public service", re2.compile(r"(?i)\d{7}[A-W][A-IW]?\b"), pps.is_valid
    ),
    _named("nl_bsn", "bsn|burgerservicenummer|sofinummer|sofi nummer", _digits(9), bsn.is_valid),
    _named(
        "de_idnr",
        "steuer id|steuerliche id|steueridentifikation|steuer ident|idnr|id nr|steuernummer|tin|tax id",
        _digits(11),
        idnr.is_valid,
    ),
    _named(
        "de_rentenversicherung",
        "rentenversicherungs|sozialversicherungs|versicherungsnummer|rvnr|svnr",
        re2.compile(r"(?i)\d{2} ?\d{6} ?[A-Z] ?\d{3}\b"),
    ),
    _named("at_svnr", "sozialversicherungs|svnr|sv nummer|versicherungsnummer", _digits(10), ids.at_svnr),
    _named("at_tin", "abgabenkontonummer|steuernummer", _digits(9), at_tin.is_valid),
    _named("ch_ahv", "ahv|avs|sozialversicherungs", _digits(13), ch_ssn.is_valid),
    _named(
        "be_rijksregister",
        "rijksregister|registre national|national register|niss|insz",
        _digits(11),
        nn.is_valid,
    ),
    _named("pt_nif", "nif|contribuinte|n?mero de identifica??o fiscal", _digits(9), nif.is_valid),
    _named(
        "pt_cc", "cart?o de cidad?o|citizen card", re2.compile(r"(?i)\d{8} ?\d ?[A-Z0-9]{2}\d\b"), cc.is_valid
    ),
    _named("gr_amka", "amka", _digits(11), amka.is_valid),
    _named("gr_afm", "afm", _digits(9), gr_afm.is_valid),
    _named("se_personnummer", "personnummer|personal identity", _digits(10, 12), personnummer.is_valid),
    _named("dk_cpr", "cpr|personnummer", _digits(10), cpr.is_valid, 0.8),
    _named(
        "no_fodselsnummer",
        "f?dselsnummer|fodselsnummer|personnummer|fnr",
        _digits(11),
        fodselsnummer.is_valid,
    ),
    _named("ee_isikukood", "isikukood|personal code", _digits(11), ik.is_valid),
    _named("lt_asmens_kodas", "asmens kod|personal code", _digits(11), asmens.is_valid),
    _named("pl_pesel", "pesel", _digits(11), pesel.is_valid),
    _named("pl_nip", "nip", _digits(10), nip.is_valid),
    _named("cz_rodne_cislo", "rodn? ??slo|rodne cislo|birth number", _digits(9, 10), rc.is_valid),
    _named("hu_taj", "taj", _digits(9), ids.hu_taj),
    _named("ro_cnp", "cnp|cod numeric personal", _digits(13), cnp.is_valid),
    _named("bg_egn", "egn|edinen grazhdanski", _digits(10), egn.is_valid),
    _named("hr_oib", "oib", _digits(11), oib.is_valid),
    _named("si_emso", "emso|em?o|jmbg", _digits(13), emso.is_valid),
    _named("rs_pib", "pib", _digits(9), pib.is_valid, 0.7),
    _named("tr_kimlik", "tckn|t.c. kimlik|kimlik|tc no", _digits(11), tckimlik.is_valid),
    _named("ru_inn", "inn", _digits(10, 12), inn.is_valid, 0.8),
    _named("ru_snils", "snils", _digits(11), ids.ru_snils),
    _named("ua_rntrc", "rntrc|rnokpp|ipn", _digits(10), rntrc.is_valid),
    _named("jp_my_number", "my number|individual number|kojin bango", _digits(12), ids.jp_my_number),
    _named(
        "tw_id",
        "taiwan id|national id|id number|id card",
        re2.compile(r"(?i)[A-Z][1289A-D]\d{8}\b"),
        ids.tw_id,
    ),
    _named(
        "hk_id", "hkid|hong kong id|id card", re2.compile(r"(?i)[A-Z]{1,2}\d{6} ?\(?[0-9A]\)?"), ids.hk_id
    ),
    _named("th_id", "thai id|national id|citizen id", _digits(13), pin.is_valid),
    _named("id_nik", "nik|ktp", _digits(16), nik.is_valid),
    _named("in_aadhaar", "aadhaar|aadhar|uidai|uid number", _digits(12), ids.in_aadhaar),
    _named("au_tfn", "tfn|tax file", _digits(8, 9), tfn.is_valid),
    _named("au_abn", "abn|australian business", _digits(11), abn.is_valid, 0.7),
    _named("nz_ird", "ird", _digits(8, 9), ird.is_valid),
    _named("za_id", "rsa id|sa id|south african id|identity number|id number", _digits(13), za_id.is_valid),
    _named("eg_tax", "egyptian tax", _digits(9), tn.is_valid, 0.7),
    _named("il_id", "teudat zehut|mispar zehut|israeli id|id number", _digits(8, 9), il_idnr.is_valid, 0.8),
    _named("br_cpf", "cpf", _digits(11), cpf.is_valid),
    _named(
        "ar_dni", "dni|documento nacional", re2.compile(r"\d{1,2}\.?\d{3}\.?\d{3}\b"), ar_dni.is_valid, 0.8
    ),
    _named("pe_dni", "dni|cui", _digits(8, 9), cui.is_valid, 0.6),
    _named("co_nit", "nit", _digits(9, 10), nit.is_valid, 0.8),
    _named("ec_cedula", "c?dula|cedula", _digits(10), ci.is_valid),
    _named("co_cedula", "c?dula|cedula|c.c.", _digits(8, 10), ids.plausible, 0.7),
    _named("uy_rut", "rut", _digits(12), uy_rut.is_valid),
    _named(
        "national_id",
        "national id|national identity|identity card|id card number|personal id number|identity number"
        "|personalausweis|ausweisnummer|carte d'identit?|documento de identidad|carta d'identit?",
        _DOCUMENT,
        ids.plausible,
        0.6,
    ),
    _named(
        "passport",
        "passport|passeport|pasaporte|passaporto|passaporte|reisepass|passnummer|paspoort|paszport|pasnummer",
        _DOCUMENT_SHORT,
        ids.plausible,
        0.8,
    ),
    _named(
        "driver_licence",
        "driver's license|driver's licence|drivers license|drivers licence|driver license|driver licence"
        "|driver?s license|driving licence|driving license|permis de conduire"
        "|licencia de conducir|permiso de conducir|patente di guida|rijbewijs|carta de condu??o|prawo jazdy"
        "|cnh|k?rkort|dl number|dl no",
        _DOCUMENT,
        ids.plausible,
        0.8,
    ),
    _named("driver_licence", "f?hrerschein|fuehrerschein", _DOCUMENT_SHORT, ids.plausible, 0.8),
    _named("health_id", "medicare", re2.compile(r"[2-6]\d{3} ?\d{5} ?\d(?:[ /-]?\d)?\b"), ids.au_medicare),
    _named(
        "health_id",
        "medicare|mbi",
        re2.compile(r"(?i)[1-9][A-Z][A-Z0-9]\d-?[A-Z][A-Z0-9]\d-?[A-Z]{2}\d{2}\b"),
    ),
    _named("us_npi", "npi|national provider", _digits(10), ids.us_npi),
    _named(
        "us_dea", "dea number|dea no|dea", re2.compile(r"(?i)[ABCDEFGHJKLMPRSTUX][A-Z9]\d{7}\b"), ids.us_dea
    ),
    _named(
        "health_id",
        "health card|health insurance|health id|ohip|ehic|medical record|mrn|patient id|patient number"
        "|member id"
        "|krankenversicher|versichertennummer|kvnr|carte vitale|assurance maladie|tarjeta sanitaria"
        "|tessera sanitaria|seguridad social|zorgverzekering|n?mero de utente|cart?o sus|medicaid"
        "|insurance policy|insurance number",
        _DOCUMENT,
        ids.plausible,
        0.7,
    ),
    _named("us_bank_routing", "routing|rtn|aba", _digits(9), rtn.is_valid),
    _named("bank_account", "clabe", _digits(18), ids.clabe, 1.0),
    _named("bank_account", "ccc|cuenta", _digits(20), ccc.is_valid, 1.0),
    _named(
        "bank_account",
        "account number|account no|account nr|account #|account|acct|acc no|bank account|a/c|checking|savings"
        "|kontonummer|konto nr|konto|num?ro de compte|n?mero de cuenta|cuenta|numero di conto|conto corrente"
        "|rekeningnummer|rekening|n?mero da conta|bankgiro|plusgiro",
        re2.compile(r"(?:\d{7,18}|\d{4}(?:[ -]\d{4}){1,4}(?:[ -]\d{1,4})?)\b"),
        ids.plausible,
        0.6,
    ),
    _named(
        "uk_sort_code", "sort code|sortcode", re2.compile(r"\d{2}[ -]?\d{2}[ -]?\d{2}\b"), ids.plausible, 0.8
    ),
    _named("au_bsb", "bsb", re2.compile(r"\d{3}[ -]?\d{3}\b"), ids.plausible, 0.8),
    _named("in_ifsc", "ifsc", re2.compile(r"(?i)[A-Z]{4}0[A-Z0-9]{6}\b"), ids.plausible, 0.8),
)

# Words that are parts of others, or words of another language, unless what follows is no letter.
_SHORT = 6
_GAP = r"(?:[^0-9A-Za-z](?:[^0-9]{0,24}[^0-9A-Za-z])?)?"
_GAP_IN_WORD = r"(?:[^0-9]{0,24}[^0-9A-Za-z])?"
# What all shapes have in common: five digits or more, few letters among them.
_NUMBER = (
    r"[A-Z]{0,6}[ -]?\d(?:[ ./-]{0,2}\(?[A-Z]{0,3} ?\d){4,19}(?:[ -]?[A-Z]{1,2}|\)|\(A\)|[A-Z0-9]{1,4})?"
)


def _spelled(word: str) -> str:
    # Text holds "?" where a letter is not ASCII, or the letter that people write instead.
    letters = {" ": "[ -]{0,2}", "?": "(?:[?]|[a-z]{1,2})", "'": "['?]?", ".": r"\.?", "/": "/", "#": "#"}
    return "".join(letters.get(c, c) for c in word)


_WORDS = sorted({word for named in NAMED for word in named.words}, key=lambda word: (-len(word), word))
_LONG_WORD = "|".join(_spelled(word) for word in _WORDS if len(word) > _SHORT)
_SHORT_WORD = "|".join(_spelled(word) for word in _WORDS if len(word) <= _SHORT)
_SPELLINGS = [
    (re2.compile(f"(?i){_spelled(word)}"), tuple(named for named in NAMED if word in named.words))
    for word in _WORDS
]
_WORD = re2.compile(f"(?i)(?:{_LONG_WORD}|{_SHORT_WORD})")


@lru_cache(maxsize=1024)
def _announced(word: str) -> tuple[Named, ...]:
    """The kinds that `word`, as written, announces."""
    return next(kinds for spelling, kinds in _SPELLINGS if spelling.fullmatch(word))


def _plain(number: str) -> str:
    return "".join(filter(str.isalnum, number)).upper()


def _read(matched: str) -> Iterator[Reading]:
    """The number after the word, with letters before it or without, when it is one of the kinds announced."""
    digit = next(place for place, character in enumerate(matched) if character.isdigit())
    token = digit
    while matched[token - 1].isalpha():
        token -= 1
    for named in _announced(_WORD.match(matched).group()):
        for start in {token, digit}:
            shaped = named.shape.match(matched, start)
            if shaped and checks.holds(named.is_valid, _plain(shaped.group())):
                yield start, shaped.end(), named.kind, named.confidence
                return


NAMES = scan(
    Alternative(
        frozenset(named.kind for named in NAMED),
        rf"(?i)\b((?:(?:{_LONG_WORD}){_GAP_IN_WORD}|(?:{_SHORT_WORD}){_GAP}){_NUMBER})\b",
        _read,
    )
)
NAMES_SIGN = (
    r"[A-Za-z]\d{6}|\d{6}[+A-Za-z]|(?i:pass|reisep|pasap|sort.{0,2}code|bsb|ifsc|mbi|medicare|hrerschein)"
)

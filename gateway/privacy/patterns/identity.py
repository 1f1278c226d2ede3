"""Numbers that states give to people, told by their shape: 9 is a digit, A a letter, X either.

What shapes alike is told apart by its check digits; where these are weak or the shape is common, the
kind is in named.py, behind a word that says what it is.
"""

from collections.abc import Callable, Iterator
from itertools import groupby, product

import msgspec
from stdnum.ar import cuit
from stdnum.be import nn
from stdnum.br import cnpj, cpf
from stdnum.ch import ssn as ch_ssn
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.do import cedula
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.gb import nhs
from stdnum.in_ import gstin, pan
from stdnum.is_ import kennitala
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.lv import pvn
from stdnum.mx import curp, rfc
from stdnum.my import nric
from stdnum.no import fodselsnummer
from stdnum.nz import bankaccount
from stdnum.pk import cnic
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.si import emso
from stdnum.th import pin
from stdnum.us import itin
from stdnum.za import idnr as za_id

from gateway.privacy import checks, ids
from gateway.privacy.checks import whole
from gateway.privacy.patterns.shape import Alternative, Reading, known, scan


class Shaped(msgspec.Struct, frozen=True):
    """A kind with the shapes it is written in. `is_valid` takes it as written, in upper case."""

    kind: str
    shapes: tuple[str, ...]
    is_valid: Callable[[str], bool]
    confidence: float = 0.9


def _plain(is_valid: Callable[[str], bool]) -> Callable[[str], bool]:
    """For checks that take no separators."""
    return lambda written: is_valid("".join(filter(str.isalnum, written)))


def _varied(is_valid: Callable[[str], bool]) -> Callable[[str], bool]:
    """For long numbers without separators, of which one digit over and over passes many a check."""
    return lambda written: ids.plausible(written) and is_valid(written)


_NIR_SHAPES = ("999999X99999999", "999999X999999 99", "9 99 99 9X 999 999 99", "9 99 999X 999 999 99")

NUMBERED = (
    Shaped("us_ssn", ("999-99-9999", "999 99 9999"), _plain(checks.us_ssn)),
    Shaped("us_itin", ("999-99-9999", "999 99 9999"), itin.is_valid),
    Shaped("br_cpf", ("999.999.999-99",), cpf.is_valid, 1.0),
    Shaped("br_cnpj", ("99.999.999/9999-99",), cnpj.is_valid, 1.0),
    Shaped("uk_nhs", ("999 999 9999",), _plain(nhs.is_valid), 0.6),
    Shaped("in_aadhaar", ("9999 9999 9999", "9999-9999-9999"), _plain(ids.in_aadhaar), 0.6),
    Shaped("se_personnummer", ("999999-9999", "999999+9999", "99999999-9999"), personnummer.is_valid, 0.9),
    Shaped(
        "fi_hetu",
        ("999999-9999", "999999+9999", "999999X999X", "999999-999A", "999999+999A"),
        hetu.is_valid,
        1.0,
    ),
    Shaped("is_kennitala", ("999999-9999",), kennitala.is_valid, 0.8),
    Shaped("lv_personas_kods", ("999999-99999",), pvn.is_valid, 0.8),
    Shaped("cz_rodne_cislo", ("999999/9999", "999999/999"), rc.is_valid),
    Shaped("kr_rrn", ("999999-9999999",), rrn.is_valid),
    Shaped("es_dni", ("99999999A", "99999999-A"), _plain(dni.is_valid)),
    Shaped("es_nie", ("A9999999A", "A-9999999-A"), _plain(nie.is_valid), 1.0),
    Shaped("sg_nric", ("A9999999A",), ids.sg_nric),
    Shaped("be_rijksregister", ("99.99.99-999.99", "99.99.99-999-99", "99 99 99 999 99"), nn.is_valid, 1.0),
    Shaped("ch_ahv", ("999.9999.9999.99",), ch_ssn.is_valid, 1.0),
    Shaped("ru_snils", ("999-999-999 99", "999-999-999-99"), _plain(ids.ru_snils), 1.0),
    Shaped("cn_resident_id", ("9" * 18, "9" * 17 + "A"), ric.is_valid, 1.0),
    Shaped("hk_id", ("A999999(X)", "AA999999(X)"), _plain(ids.hk_id)),
    Shaped("my_nric", ("999999-99-9999",), nric.is_valid),
    Shaped("th_id", ("9-9999-99999-99-9", "9 9999 99999 99 9"), pin.is_valid, 1.0),
    Shaped("pk_cnic", ("99999-9999999-9",), cnic.is_valid, 0.8),
    Shaped("ar_cuit", ("99-99999999-9",), cuit.is_valid),
    Shaped("cl_rut", ("99.999.999-X", "9.999.999-X"), rut.is_valid),
    Shaped("do_cedula", ("999-9999999-9",), cedula.is_valid),
    Shaped("in_pan", ("AAAAA9999A",), pan.is_valid),
    Shaped("in_gstin", ("99AAAAA9999AXAX",), gstin.is_valid, 1.0),
    Shaped("mx_curp", ("AAAA999999AAAAAAX9",), curp.is_valid, 1.0),
    Shaped("mx_rfc", ("AAAA999999XXX", "AAAA-999999-" + 3 * "X"), rfc.is_valid, 0.8),
    Shaped("uk_nino", ("AA999999A", "AA 99 99 99 A", "AA 999999 A"), _plain(ids.uk_nino)),
    Shaped("no_fodselsnummer", ("9" * 11, "999999 99999"), fodselsnummer.is_valid, 0.7),
    Shaped("za_id", ("9" * 13,), _varied(za_id.is_valid), 0.6),
    Shaped("ro_cnp", ("9" * 13,), _varied(cnp.is_valid), 0.6),
    Shaped("si_emso", ("9" * 13,), _varied(emso.is_valid), 0.6),
    Shaped("fr_nir", _NIR_SHAPES, _plain(ids.fr_nir), 1.0),
    Shaped("bank_account", ("99-9999-9999999-99", "99-9999-9999999-999"), bankaccount.is_valid, 0.9),
)

_SIGNATURE = str.maketrans("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", "9" * 10 + "A" * 26)
_CLASS = {"9": r"\d", "A": "[A-Za-z]"}


def _spelled(shape: str) -> Iterator[str]:
    """All that `shape` may be, X being a digit or a letter."""
    return map("".join, product(*("9A" if c == "X" else c for c in shape)))


_BY_SHAPE: dict[str, list[Shaped]] = {}
for _shaped in NUMBERED:
    for _shape in _shaped.shapes:
        for _signature in _spelled(_shape):
            _BY_SHAPE.setdefault(_signature, []).append(_shaped)


def _pattern(signature: str) -> str:
    runs = ((mark, len(list(run))) for mark, run in groupby(signature))
    return "".join(
        f"{_CLASS[mark]}{{{size}}}" if mark in _CLASS else f"\\{mark}" * size for mark, size in runs
    )


def _read(matched: str) -> Iterator[Reading]:
    written = matched.upper()
    for shaped in _BY_SHAPE[written.translate(_SIGNATURE)]:
        if checks.holds(shaped.is_valid, written):
            yield 0, len(matched), shaped.kind, shaped.confidence
            return


# Longer shapes first, so that no shorter one hides what it begins.
_SHAPES = sorted(_BY_SHAPE, key=lambda signature: (-len(signature), signature))
SHAPED = scan(
    Alternative(
        frozenset(shaped.kind for shaped in NUMBERED),
        rf"\b({'|'.join(map(_pattern, _SHAPES))})(?:\b|$|[^0-9A-Za-z])",
        _read,
    ),
)
CODICE_FISCALE = known(
    "it_codice_fiscale",
    r"(?i)\b([A-Z]{6}[0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z])\b",
    whole(codicefiscale.is_valid),
    1.0,
)

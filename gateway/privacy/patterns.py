"""What structured identifiers and secrets look like, and how sensitive each kind is.

A `Scan` is one pass of RE2 over the text: an alternation with one group per alternative, each
group telling its kind. RE2 never backtracks; two more rules keep all of it linear and complete:

* An alternative is bounded up to where its match is certain and may be greedy only after that.
  Otherwise RE2 reads far ahead for a match that does not come, once for every match that does.
* A match that its check turns down hides nothing: the search goes on one place further. So it must
  be short, and alternatives of one scan that can begin at the same place must not shape alike.

Most texts hold nothing, and one pass should be enough to see that: `SIGNS` asks for what none of
these can be without, be it as little as an "@". Hence one more rule:

* A scan's `sign` is in every identifier that it finds, whatever stands around it. It holds in the
  text as it was before detect.py put blanks for what parts words. Together the signs stay a small
  automaton, about 5,000 states whatever the text: within RE2's memory, so never its slower search.

`re2.Set` would do all in one pass, but when its automaton outgrows its memory it reports no match
at all, and nobody hears of it. A single RE2 object falls back to a slower search instead.

The shapes of the secrets are their issuers' published ones, as in gitleaks; the checksums are
python-stdnum's.
"""

from typing import Any

import msgspec
import re2
from stdnum.br import cpf
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel

from gateway.privacy import checks
from gateway.privacy.checks import Check, always, compact, whole
from gateway.privacy.fold import ENCODED
from router_policies.types import PrivacyClass


class Alternative(msgspec.Struct, frozen=True):
    """One way to write one kind of identifier. `pattern` has one group: the identifier.

    Where `word` is set, `pattern` goes on right after it.
    """

    kind: str
    pattern: str
    check: Check = always
    confidence: float = 0.9
    word: str = ""


class Scan(msgspec.Struct, frozen=True):
    """Alternatives that are looked for in one pass; `pattern` has one group for each."""

    alternatives: tuple[Alternative, ...]
    pattern: Any  # a compiled re2 object
    sign: str  # a pattern without groups
    needs: tuple[bytes, ...] = ()  # without all of these in the text there is nothing to find; rarest first


def _scan(*alternatives: Alternative, sign: str, needs: tuple[bytes, ...] = ()) -> Scan:
    return Scan(alternatives, _either(*(a.word + a.pattern for a in alternatives)), sign, needs)


def _either(*patterns: str) -> Any:
    # In brackets each, so that one's (?i) does not reach the next.
    return re2.compile("|".join(f"(?:{pattern})" for pattern in patterns))


# A secret's left edge: a word boundary, or an escaped line break as in JSON within JSON.
_EDGE = r"(?:\b|\\[nrt])"

# Keys and tokens are long, and so is what base64 hides.
_RUN = r"[A-Za-z0-9+/_-]{20}"

SECRETS = (
    _scan(
        Alternative("private_key", r"(-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----)"),
        Alternative("aws_key", r"((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16})\b"),
        Alternative(
            "aws_key",
            r"(?i:secret_?access_?key|aws_?secret(?:_?key)?)[^A-Za-z0-9/+]{1,8}([A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+]|$)",
        ),
        Alternative("github_token", r"(gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,})"),
        Alternative("anthropic_key", _EDGE + r"(sk-ant-[A-Za-z0-9_-]{20,})"),
        Alternative(
            "openai_key", _EDGE + r"(sk-(?:(?:proj|svcacct|admin)-[A-Za-z0-9_-]{20,}|[A-Za-z0-9]{20,}))"
        ),
        Alternative(
            "google_key", r"(AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{20,})"
        ),
        Alternative(
            "slack_token", r"(xox[abeprs]-[A-Za-z0-9-]{10,}|hooks\.slack\.com/services/[A-Za-z0-9/]{20,})"
        ),
        Alternative("stripe_key", r"([sr]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9]{24,})"),
        Alternative("huggingface_token", _EDGE + r"(hf_[A-Za-z0-9]{30,})"),
        Alternative("connection_string", r"(?i)\b((?:accountkey|sharedaccesskey)=[A-Za-z0-9+/]{20,})"),
        sign=rf"{_RUN}|PRIVATE KEY|xox[abeprs]-",
    ),
    _scan(
        Alternative(
            "connection_string",
            r"(?i)(;\s?(?:password|pwd)\s?=\s?[^;\s'\"]{3,100}|\b(?:password|pwd)=[^;\s'\"]{3,100};)",
        ),
        sign=r"(?i:password|pwd)\s?=",
        needs=(b";", b"="),
    ),
    _scan(
        Alternative("jwt", r"(eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?)"),
        sign=r"\.eyJ",
        needs=(b"J", b".eyJ"),
    ),
)

# "?" stands for every character beyond ASCII (see detect.py).
ADDRESSES = _scan(
    Alternative(
        "url_credentials",
        r"([A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s/@:'\"<>]{0,64}:[^\s/@'\"<>]{1,128}@[A-Za-z0-9\[?])",
    ),
    Alternative(
        "email",
        r"((?:\b[A-Za-z0-9_]|\?)(?:[A-Za-z0-9._%+?'-]{0,63})@(?:[A-Za-z0-9?-]{1,63}\.){1,8}[A-Za-z?]{2,24})",
        checks.emails,
    ),
    sign="@",
    needs=(b"@",),
)

# Identifiers that may have fewer digits in a row than NUMBERS need.
WORDS = (
    _scan(
        Alternative(
            "iban",
            rf"(?i)\b((?:{'|'.join(checks.IBAN_LENGTHS)})\d{{2}}"
            r"(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?)\b",
            checks.ibans,
            1.0,
        ),
        Alternative(
            "it_codice_fiscale",
            r"(?i)\b([A-Z]{6}[0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{2}[A-Z][0-9LMNPQRSTUV]{3}[A-Z])\b",
            whole(codicefiscale.is_valid),
            1.0,
        ),
        Alternative(
            "ip_address",
            r"\b((?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d))\b",
            confidence=0.6,
        ),
        Alternative("ip_address", r"\b([0-9A-Fa-f]{3,4}(?::[0-9A-Fa-f]{0,4}){2,7})", checks.ipv6, 0.8),
        sign=r"[A-Za-z]{2}\d\d|[A-Za-z0-9]{16}|\d\.\d{1,3}\.\d|:[0-9A-Fa-f]{0,4}:",
    ),
)

# No scan of NUMBERS can match without this.
SEVEN_DIGITS = re2.compile(r"\d(?:[^0-9A-Za-z]{0,4}[A-Za-z]?[^0-9A-Za-z]{0,4}\d){6}")

# The same within one identifier, where gaps are shorter and escapes are still what they were.
_DIGITS = r"\d(?:(?:[ _\t./()-]|\\[nrt]){0,3}\d){6}"

_LONG = r"\d(?:[ .-]?\d)"
_AFTER_WORD = r"[^0-9]{0,24}"

NUMBERS = (
    _scan(
        # Digit by digit, as speech is written down, and no further digits around: first, since the
        # other would begin at the same place and be turned down.
        Alternative(
            "payment_card",
            r"(?:^|[^0-9 -])[ -]?(\d(?:[ -]\d){11,18})(?:[ -]?[^0-9 -]|$)",
            checks.spelled_card,
        ),
        # What follows "+" is a telephone number; what follows a decimal point, a fraction.
        Alternative(
            "payment_card",
            r"(?:^\.?|[^0-9A-Za-z+.]|[^0-9]\.)([1-6]\d\d(?:[ \t.-]{0,3}\d){9,16})\b",
            checks.card,
        ),
        sign=_DIGITS,
    ),
    _scan(
        Alternative("us_ssn", r"\b(\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4})\b", compact(checks.us_ssn)),
        Alternative("br_cpf", r"\b(\d{3}\.\d{3}\.\d{3}-\d{2})\b", whole(cpf.is_valid), 1.0),
        Alternative("uk_nhs", r"\b(\d{3} \d{3} \d{4})\b", compact(nhs.is_valid), 0.6),
        Alternative(
            "fr_nir",
            r"(?i)\b([1-478] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2})\b",
            whole(nir.is_valid),
            1.0,
        ),
        Alternative("in_aadhaar", r"\b([2-9]\d{3}[ -]\d{4}[ -]\d{4})\b", compact(aadhaar.is_valid), 0.6),
        Alternative("fi_hetu", r"(?i)\b(\d{6}[-+A-FU-Y]\d{3}[0-9A-Y])\b", whole(hetu.is_valid), 1.0),
        Alternative("es_dni", r"(?i)\b(\d{8}-?[A-Z])\b", compact(dni.is_valid)),
        Alternative("es_nie", r"(?i)\b([XYZ]-?\d{7}-?[A-Z])\b", compact(nie.is_valid), 1.0),
        # Too common a shape, or too weak a checksum, unless a word before it says what it is.
        Alternative(
            "us_ssn",
            rf"{_AFTER_WORD}({_LONG}{{8}})\b",
            compact(checks.us_ssn),
            word=r"(?i)\b(?:ssn|social security)",
        ),
        Alternative("uk_nhs", rf"{_AFTER_WORD}({_LONG}{{9}})\b", compact(nhs.is_valid), word=r"(?i)\bnhs"),
        Alternative(
            "nl_bsn",
            rf"{_AFTER_WORD}({_LONG}{{8}})\b",
            compact(bsn.is_valid),
            word=r"(?i)\b(?:bsn|burgerservicenummer|sofinummer|sofi-nummer)",
        ),
        Alternative(
            "de_idnr",
            rf"[^0-9]{{0,32}}({_LONG}{{10}})\b",
            compact(idnr.is_valid),
            word=r"(?i)\b(?:steuer-?id|steuerliche id|steueridentifikation|idnr|id-nr)",
        ),
        Alternative(
            "pl_pesel", rf"{_AFTER_WORD}({_LONG}{{10}})\b", compact(pesel.is_valid), word=r"(?i)\bpesel"
        ),
        Alternative(
            "in_aadhaar",
            rf"{_AFTER_WORD}({_LONG}{{11}})\b",
            compact(aadhaar.is_valid),
            word=r"(?i)\b(?:aadh?aar|uidai)",
        ),
        Alternative("br_cpf", rf"{_AFTER_WORD}({_LONG}{{10}})\b", compact(cpf.is_valid), word=r"(?i)\bcpf"),
        sign=rf"{_DIGITS}|\d{{6}}[+A-Za-z]",
    ),
    _scan(
        Alternative(
            "phone", r"(\+[1-9](?:[ ./()-]{0,3}\d){7,14}(?: ?(?:x|ext\.?) ?\d{1,5})?)\b", checks.phones
        ),
        Alternative("phone", r"\b(00[1-9]\d{0,2}[ ./(-](?:[ ./()-]{0,2}\d){6,12}(?:x\d{1,5})?)\b", always),
        Alternative(
            "phone",
            r"((?:\b1[ .-])?(?:\([2-9]\d{2}\) ?|\b[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}"
            r"(?: ?(?:x|ext\.?) ?\d{1,5})?)\b",
            always,
            0.8,
        ),
        Alternative(
            "phone",
            r"((?:\(0[1-9]\d{0,4}\)|\b0[1-9]\d{0,4})(?:[ ./-]{1,2}\d{2,8}){1,4})\b",
            checks.national_phones,
            0.7,
        ),
        Alternative("phone", r"\b([679]\d{2} \d{3} \d{3})\b", always, 0.5),
        Alternative(
            "phone",
            r"[^0-9+(]{0,24}([+(]{0,2}\d(?:[ ./()-]{0,2}\d){6,13}(?:x\d{1,5})?)\b",
            checks.phones,
            0.7,
            word=r"(?i)\b(?:(?:tele|cell|i)?phone|tel|telefon|handy|mobile|desk|cell|fax|whatsapp|dial|"
            r"(?:call(?:ing)?|reach|text|contact|ring) (?:me|us|him|her|them|back|at|on))\b",
        ),
        sign=_DIGITS,
    ),
)

SCANS = (*SECRETS, ADDRESSES, *WORDS, *NUMBERS)
# Without this in a text there is nothing to find in it, encoded or not.
SIGNS = _either(ENCODED, *sorted({scan.sign for scan in SCANS}))
# Without this no scan but ADDRESSES matches. Words instead of what comes after them, and no
# ADDRESSES: with these the automaton would outgrow RE2's memory.
ANY = _either(*(a.word or a.pattern for scan in (*SECRETS, *WORDS, *NUMBERS) for a in scan.alternatives))

_LOWER = {
    "email": PrivacyClass.CONFIDENTIAL,
    "phone": PrivacyClass.CONFIDENTIAL,
    "ip_address": PrivacyClass.INTERNAL,
}
# Kind -> class. Whatever identifies a person to a state or a bank, or opens a door, is restricted.
CLASSES: dict[str, PrivacyClass] = {
    alternative.kind: _LOWER.get(alternative.kind, PrivacyClass.RESTRICTED)
    for scan in SCANS
    for alternative in scan.alternatives
}

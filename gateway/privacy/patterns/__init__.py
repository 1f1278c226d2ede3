"""What structured identifiers and secrets look like, and how sensitive each kind is.

Most texts hold nothing, and one pass should be enough to see that: `SIGNS` asks for what none of
these can be without, be it as little as an "@". Together the signs stay a small automaton: within
RE2's memory, so never its slower search. `SURVEY` tells in one pass which scans have something to find.

The checksums are python-stdnum's, the numbering plans those of phonenumbers.
"""

from gateway.privacy.encoded import ENCODED
from gateway.privacy.patterns import announced, contact, identity, named, payment, secrets
from gateway.privacy.patterns.contact import DIGITS
from gateway.privacy.patterns.shape import Group, either, group, scan
from gateway.privacy.survey import Survey
from router_policies.privacy import PrivacyClass

# In the order of their findings where these are alike.
GROUPS: tuple[Group, ...] = (
    *secrets.GROUPS,
    contact.ADDRESSES,
    group(
        scan(payment.IBANS, identity.CODICE_FISCALE, *contact.NETWORK),
        sign=rf"[A-Za-z]{{2}}\d\d|[A-Za-z0-9]{{16}}|{contact.NETWORK_SIGN}",
    ),
    group(
        payment.CARDS,
        identity.SHAPED,
        contact.PHONES,
        contact.GROUPED_PHONES,
        named.NAMES,
        # Shapes with letters may have fewer digits in a row.
        sign=rf"{DIGITS}|[A-Za-z]{{2}}[ _]?\d\d[ _]?\d\d|[A-Za-z]{{4}}-?\d|{named.NAMES_SIGN}",
    ),
    # Signs that are words: what comes after them is too common.
    group(secrets.PASSWORDS, sign=rf"(?i:{secrets.ANNOUNCING})", parted=False),
    group(scan(announced.BIRTH), scan(announced.BIC), sign=rf"{announced.BIRTH_SIGN}|(?i:swift|bic)"),
)
# Looked for beside the others; harmless in themselves, so no sign for the glance.
LINKS = contact.LINKS
# Without this in a text there is nothing to find in it, encoded or not.
SIGNS = either(ENCODED, *sorted({found.sign for found in GROUPS}))
# Without this in a text there is nothing to find in it, public or not.
MARKS = either(SIGNS.pattern, r"\.[A-Za-z]{2}|://")
# Every scan, and whether it reads what detect.py puts blanks into.
SCANS = tuple((looked, found.parted) for found in (LINKS, *GROUPS) for looked in found.scans)
# Numbers the scans, in that order; the last number is what is encoded.
SURVEY = Survey([looked.hint or looked.pattern.pattern for looked, _ in SCANS] + [ENCODED])


_CLASSES = {
    "url": PrivacyClass.PUBLIC,
    "ip_address": PrivacyClass.INTERNAL,
    "mac_address": PrivacyClass.INTERNAL,
    "bic": PrivacyClass.INTERNAL,
    "email": PrivacyClass.CONFIDENTIAL,
    "phone": PrivacyClass.CONFIDENTIAL,
    "date_of_birth": PrivacyClass.CONFIDENTIAL,
    "crypto_wallet": PrivacyClass.CONFIDENTIAL,
}
# Kind -> class. Whatever identifies a person to a state or a bank, or opens a door, is restricted.
CLASSES: dict[str, PrivacyClass] = {
    kind: _CLASSES.get(kind, PrivacyClass.RESTRICTED)
    for found in (*GROUPS, LINKS)
    for looked in found.scans
    for alternative in looked.alternatives
    for kind in sorted(alternative.kinds)
}

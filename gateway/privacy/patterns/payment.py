"""Cards, accounts and wallets."""

from gateway.privacy import checks, wallets
from gateway.privacy.patterns.shape import known, scan

CARDS = scan(
    # Digit by digit, as speech is written down, and no further digits around: first, since the
    # other would begin at the same place and be turned down.
    known(
        "payment_card",
        r"(?:^|[^0-9 -])[ -]?(\d(?:[ -]\d){11,18})(?:[ -]?[^0-9 -]|$)",
        checks.spelled_card,
    ),
    # What follows "+" is a telephone number; what follows a decimal point, a fraction.
    known(
        "payment_card",
        r"(?:^\.?|[^0-9A-Za-z+.]|[^0-9]\.)([0-6]\d\d(?:[ \t.-]{0,3}\d){9,})\b",
        checks.cards,
    ),
    hint=r"\d(?:[ \t.-]{0,3}\d){11}",
    disjoint=True,
)
IBANS = known(
    "iban",
    rf"(?i)\b((?:{'|'.join(checks.IBAN_LENGTHS)})\d{{2}}"
    r"(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,4})?)\b",
    checks.ibans,
    1.0,
)
# By their checksums; Ethereum's hides in the case of its letters and may be absent.
WALLETS = scan(
    known("crypto_wallet", r"\b([13LMDXTA9][1-9A-HJ-NP-Za-km-z]{24,34})\b", wallets.base58),
    known(
        "crypto_wallet",
        r"\b((?:bc1|ltc1|tb1|BC1|LTC1)[02-9ac-hj-np-zAC-HJ-NP-Z]{20,87})\b",
        wallets.bech32,
        1.0,
    ),
    known("crypto_wallet", r"\b(addr1[02-9ac-hj-np-z]{50,100})\b", confidence=0.8),
    known("crypto_wallet", r"\b(0x[0-9a-fA-F]{40})\b", confidence=0.8),
    known("crypto_wallet", r"\b(r[1-9A-HJ-NP-Za-km-z]{24,34})\b", wallets.ripple),
    known("crypto_wallet", r"\b([48][0-9AB][1-9A-HJ-NP-Za-km-z]{93})\b", confidence=0.8),
)

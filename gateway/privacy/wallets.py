"""Checksums of crypto-currency addresses: base58check and bech32 (BIP 173, BIP 350)."""

from hashlib import sha256

from gateway.privacy.checks import Spans

_BITCOIN = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RIPPLE = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_BECH32 = {character: value for value, character in enumerate("qpzry9x8gf2tvdw0s3jn54khce6mua7l")}
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CONSTANTS = (1, 0x2BC830A3)  # bech32, bech32m


def base58(matched: str) -> Spans:
    """Bitcoin, Litecoin, Dogecoin, Dash, Tron: whatever version byte, four bytes of it are the checksum."""
    if _checked(matched, _BITCOIN):
        yield 0, len(matched)


def ripple(matched: str) -> Spans:
    if _checked(matched, _RIPPLE):
        yield 0, len(matched)


def _checked(address: str, alphabet: str) -> bool:
    value = 0
    for character in address:
        value = value * 58 + alphabet.index(character)
    try:
        data = value.to_bytes(25, "big")
    except OverflowError:
        return False
    return sha256(sha256(data[:21]).digest()).digest()[:4] == data[21:]


def bech32(matched: str) -> Spans:
    prefix, _, data = matched.lower().rpartition("1")
    if all(character in _BECH32 for character in data) and matched in (matched.lower(), matched.upper()):
        expanded = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]
        if _polymod(expanded + [_BECH32[c] for c in data]) in _CONSTANTS:
            yield 0, len(matched)


def _polymod(values: list[int]) -> int:
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATORS):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum

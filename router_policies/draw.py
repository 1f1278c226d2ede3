"""Draws without chance: 64 bits from what is known of a request, the same for the same words.

A word is hashed once; each thing that is drawn for mixes its own salt in, so that draws for several things
are independent of one another.
"""

import math
from collections.abc import Callable
from hashlib import blake2b

from .types import Facts

SPAN = 2**64
_MASK = SPAN - 1

WORDS: dict[str, Callable[[Facts], str]] = {
    "call": lambda facts: facts.call_id,
    "user": lambda facts: facts.user or facts.call_id,
    "session": lambda facts: facts.session or facts.call_id,
    "key": lambda facts: facts.key_id,
}
"""What a draw goes by; a request that names no user or session is drawn for by itself."""


def hashed(word: str) -> int:
    return int.from_bytes(blake2b(word.encode("utf-8", "surrogateescape"), digest_size=8).digest())


def mixed(word: int, salt: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    x = word ^ salt
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def race(word: int, salt: int, weight: int) -> float:
    """Whoever has the least wins, with a chance in proportion to its weight (weighted rendezvous hashing).

    Who joins or leaves changes nothing between the others, so that what is drawn for stays where it is.
    """
    return -math.log((mixed(word, salt) + 1) / SPAN) / weight

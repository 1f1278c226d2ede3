"""Near duplicates by MinHash: texts whose sets of character 5-grams overlap in at least 80 %.

128 hashes of each set in 32 bands of 4 (Broder 1997; banding as in Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, 3.4): a pair that is 80 % alike shares a band with probability above 0.999 999. What shares
one is compared exactly, so nothing is called alike that is not.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

ALIKE = 0.8  # Jaccard index
GRAM = 5  # characters
HASHES, BANDS = 128, 32
PRIME = (1 << 31) - 1  # so that a product of two values below it fits 64 bits
MOST_IN_BUCKET = 64  # of which all pairs are compared; a chain of neighbours stands for larger ones

Shingles = frozenset[int]


def shingles(text: str) -> Shingles:
    """The 5-grams of a text as numbers; case, white space and punctuation at its ends set aside."""
    words = " ".join(text.lower().split()).strip(" .!?,;:")
    grams = {words[at : at + GRAM] for at in range(max(1, len(words) - GRAM + 1))}
    return frozenset(
        int.from_bytes(hashlib.blake2b(gram.encode(), digest_size=8).digest(), "big") % PRIME
        for gram in grams
    )


def alike(one: Shingles, other: Shingles) -> float:
    """The Jaccard index, 0 to 1."""
    return len(one & other) / len(one | other)


def near_pairs(sets: Sequence[Shingles], least: float = ALIKE) -> Iterator[tuple[int, int]]:
    """Every pair of positions whose sets are alike, each once, the lower position first."""
    if not sets:
        return
    signatures = np.stack([_signature(each) for each in sets])
    rows = HASHES // BANDS
    seen: set[tuple[int, int]] = set()
    for band in range(BANDS):
        buckets: defaultdict[bytes, list[int]] = defaultdict(list)
        for at, part in enumerate(signatures[:, band * rows : (band + 1) * rows]):
            buckets[part.tobytes()].append(at)
        for bucket in buckets.values():
            for pair in _pairs(bucket):
                if pair not in seen:
                    seen.add(pair)
                    if alike(sets[pair[0]], sets[pair[1]]) >= least:
                        yield pair


def groups(size: int, pairs: Iterator[tuple[int, int]]) -> list[list[int]]:
    """Positions 0 to `size` - 1 that hang together by pairs; only groups of two or more, in order."""
    leader = list(range(size))

    def find(at: int) -> int:
        while leader[at] != at:
            leader[at] = leader[leader[at]]
            at = leader[at]
        return at

    for one, other in pairs:
        first, second = sorted((find(one), find(other)))
        leader[second] = first
    members: defaultdict[int, list[int]] = defaultdict(list)
    for at in range(size):
        members[find(at)].append(at)
    return [group for group in members.values() if len(group) > 1]


def _pairs(bucket: Sequence[int]) -> Iterator[tuple[int, int]]:
    if len(bucket) <= MOST_IN_BUCKET:
        yield from combinations(bucket, 2)
    else:
        yield from pairwise(bucket)


def _coefficients() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Of the hash functions (a x + b) mod PRIME: the same in every run."""
    rng = np.random.default_rng(0x68656164)
    a, b = rng.integers(1, PRIME, size=(2, HASHES), dtype=np.uint64)
    return a, b


_A, _B = _coefficients()


def _signature(each: Shingles) -> NDArray[np.uint64]:
    """[HASHES] minima."""
    values = np.fromiter(each, dtype=np.uint64, count=len(each))
    hashed = (values[:, None] * _A + _B) % np.uint64(PRIME)
    least: NDArray[np.uint64] = hashed.min(axis=0)
    return least

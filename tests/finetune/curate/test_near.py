"""Near duplicates: what is alike is found, what is not is not called so."""

import random
from itertools import combinations

import pytest

from finetune.curate.near import ALIKE, alike, groups, near_pairs, shingles

WORDS = ["card", "transfer", "lost", "account", "rent", "money", "rome", "hotel", "flight", "weather", "rain"]


def sentences(count: int, seed: int = 1) -> list[str]:
    """Random ones, and for every third a slightly changed copy."""
    rng = random.Random(seed)
    made = []
    for n in range(count):
        text = " ".join(rng.choices(WORDS, k=rng.randint(4, 20)))
        made.append(text)
        if n % 3 == 0:
            made.append(text + rng.choice((" now", "!", " please", "s")))
    return made


def test_all_pairs_are_found_and_no_others() -> None:
    """On 400 sentences: exactly the pairs that comparing each with each finds."""
    sets = [shingles(text) for text in sentences(300)]
    wanted = {(a, b) for a, b in combinations(range(len(sets)), 2) if alike(sets[a], sets[b]) >= ALIKE}
    assert len(wanted) > 50
    assert set(near_pairs(sets)) == wanted


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("I lost my card yesterday", "i lost my card  yesterday!", True),
        ("please tell me how to reset my password", "please tell me how to reset my passwords", True),
        ("turn on the light", "turn off the light", False),
        ("a", "b", False),
        ("", "", True),
    ],
)
def test_examples(one: str, other: str, same: bool) -> None:
    """Case, spaces and an ending do not matter; a word that matters does."""
    assert bool(list(near_pairs([shingles(one), shingles(other)]))) == same


def test_many_equal_texts_are_one_group() -> None:
    """A thousand copies do not cost a million comparisons, and still hang together."""
    sets = [shingles("the very same question")] * 1000 + [shingles("something else entirely")]
    assert groups(len(sets), near_pairs(sets)) == [list(range(1000))]


def test_nothing_is_alike_in_nothing() -> None:
    """No texts, no pairs."""
    assert list(near_pairs([])) == []

"""No text takes much longer than others of its size: texts made to be slow beside a page full of identifiers.

`HEADGATE_FUZZ_SECONDS=600 pytest tests/privacy/test_detect_fuzz.py` looks for longer, up to 1 MiB, with a
seed of its own that is printed. Time is the process's own CPU time, which others do not lengthen much.
"""

import os
import random
import time
from collections.abc import Callable

import pytest

from gateway.privacy.detect import StructuredDetector
from tests.privacy.test_detect import FOUND, WITH_A_WORD
from tests.privacy.test_detect_kinds import AFTER_A_WORD, NUMBERS, SECRETS

DETECTOR = StructuredDetector()
SECONDS = float(os.environ.get("HEADGATE_FUZZ_SECONDS", "0"))
SEED = int(time.time()) if SECONDS else 20261125
LIMIT = 5
RECORD = (
    "Card 4111 1111 1111 1111, jane@example.com, +44 7700 900123, SSN 123-45-6780, GB82WEST12345698765432.\n"
)
EXAMPLES = [text for table in (FOUND, NUMBERS, SECRETS) for texts in table.values() for text in texts]
EXAMPLES += [*WITH_A_WORD.values(), *AFTER_A_WORD.values()]
ALPHABETS = [
    "0123456789",
    "0123456789 .-()/+",
    "abcdef0123456789:",
    "ABCxyz019+/=_-",
    "%&#;\\u041x",
    "a@b.c ",
]
ALPHABETS += [
    "GBDE89 ",
    "sk-ant_ghp",
    "ssn dob pwd:=1",
    "".join(map(chr, range(32, 127))),
    "é１٣\u200b\u202e4",
]


def cpu_s(text: str, times: int = 3) -> float:
    """The best of three: what else went on only adds."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        DETECTOR.scan(text)
        taken.append(time.process_time() - started)
    return min(taken)


def repeated(chance: random.Random, size: int) -> str:
    """A short unit over and over."""
    alphabet = chance.choice(ALPHABETS)
    unit = "".join(chance.choices(alphabet, k=chance.randint(1, 12))) + chance.choice(["", " ", ".", "\n"])
    return (unit * size)[:size]


def drawn(chance: random.Random, size: int) -> str:
    """Characters at random."""
    return "".join(chance.choices(chance.choice(ALPHABETS), k=size))


def almost(chance: random.Random, size: int) -> str:
    """An identifier with a part cut off or a digit changed, over and over."""
    text = chance.choice(EXAMPLES)
    start, end = sorted((chance.randint(0, len(text)), chance.randint(0, len(text))))
    unit = text[:start] + text[end:] if chance.random() < 0.5 else text[start:end]
    if digits := [place for place, character in enumerate(unit) if character.isdigit()]:
        place = chance.choice(digits)
        unit = unit[:place] + chance.choice("0123456789") + unit[place + 1 :]
    return ((unit + chance.choice([" ", ",", "\n", "-", ""])) * size)[:size] or "x" * size


MAKERS: list[Callable[[random.Random, int], str]] = [repeated, drawn, almost]


def slowest(size: int, rounds: int, seconds: float) -> tuple[float, str]:
    """How many times the page's time the slowest text took, and how that begins."""
    page = cpu_s((RECORD * size)[:size])
    chance = random.Random(f"{SEED} {size}")
    until = time.monotonic() + seconds
    worst = (0.0, "")
    while rounds > 0 or time.monotonic() < until:
        rounds -= 1
        text = chance.choice(MAKERS)(chance, size)
        ratio = cpu_s(text, 1) / page
        if ratio > LIMIT:
            ratio = cpu_s(text) / page
        worst = max(worst, (ratio, text[:60]))
    return worst


@pytest.mark.parametrize(("size", "rounds"), [(1 << 10, 150), (8 << 10, 40), (1 << 16, 4)])
def test_no_text_is_over_five_times_its_size_class(size: int, rounds: int) -> None:
    """At random, but the same each time."""
    ratio, begins = slowest(size, rounds, 0)
    assert ratio <= LIMIT, f"{ratio:.1f} times, seed {SEED}: {begins!r}"


@pytest.mark.skipif(not SECONDS, reason="HEADGATE_FUZZ_SECONDS is not set")
@pytest.mark.timeout(0)
@pytest.mark.parametrize("size", [1 << 10, 8 << 10, 1 << 16, 1 << 20])
def test_longer(size: int) -> None:
    """As long as was asked for, to 1 MiB."""
    print(f"seed {SEED}")
    ratio, begins = slowest(size, 1, SECONDS / 4)
    print(f"{size} characters: {ratio:.2f} times, {begins!r}")
    assert ratio <= LIMIT, f"{ratio:.1f} times, seed {SEED}: {begins!r}"


def test_time_is_linear_to_a_mebibyte() -> None:
    """Sixteen times the text takes about sixteen times the time, for a text with everything in it."""
    text = " ".join(EXAMPLES) + "\nThe meeting is at three, as before.\n"
    small, large = (cpu_s((text * (size // len(text) + 1))[:size], 2) for size in (1 << 16, 1 << 20))
    assert large < 16 * small * 2

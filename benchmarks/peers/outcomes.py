"""What became of the soak's requests, held against what was done to them on purpose."""

from collections.abc import Mapping, Sequence
from pathlib import Path

GIVEN_UP = "given up"
CUT = ("stream-cut", "stream-broken")  # faults after the first chunk: no retry can hide them


def unwell(path: Path) -> dict[int, str]:
    """The number of each request that was not answered well, and why."""
    lines = [line.split(" ", 2) for line in path.read_text().splitlines()]
    return {int(number): reason for number, _, reason in lines}


def outcomes(planted: Sequence[tuple[int, str]], unwell: Mapping[int, str]) -> dict[str, int]:
    """Holds what clients saw against what was planted; a retry may have healed a fault."""
    faults = dict(planted)
    failed = {number for number, reason in unwell.items() if reason != GIVEN_UP}
    cut = {number for number, kind in planted if kind in CUT}
    return {
        "faults": len(faults),
        "given_up": len(unwell) - len(failed),
        "failed": len(failed),
        "unexplained_failures": len(failed - faults.keys()),
        "lies": len(cut - unwell.keys()),
    }

"""The whole product of fields, disguises, canaries, paths and streams: `make attack`, some ten minutes.

Prints each leak with the case that made it, then one line of counts; the exit status says if there is one.
"""

import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.privacy.attack.arena import LEAKY, arena
from tests.privacy.attack.canaries import KINDS
from tests.privacy.attack.disguises import DISGUISES, KNOWN_GAPS
from tests.privacy.attack.fields import FIELDS, GAPS
from tests.privacy.attack.locks import unproved
from tests.privacy.attack.product import PATHS, everything
from tests.privacy.attack.test_matrix import strike


def attack(field: str, counts: Counter[str]) -> None:
    """All cases of one field, in an arena of their own: what it wrote is read in one go at its end."""
    with tempfile.TemporaryDirectory() as folder, unproved():
        try:
            with arena(Path(folder), *LEAKY) as ring:
                for case in everything([field]):
                    counts["cases"] += 1
                    try:
                        strike(ring, case)
                    except AssertionError as leak:
                        counts["leaks"] += 1
                        print("LEAK", *case, leak, sep="\n  ")
                ring.bystand()
                counts["at_home"] += ring.at_home
                counts["bytes_outside"] += len(ring.outside())
        except AssertionError as leak:
            counts["leaks"] += 1
            print("LEAK", field, leak, sep="\n  ")


def main() -> int:
    counts, started = Counter[str](leaks=0, bytes_outside=0), time.monotonic()
    for number, field in enumerate(FIELDS, start=1):
        attack(field, counts)
        print(
            f"{number} of {len(FIELDS)} fields, {counts['cases']} cases, {counts['leaks']} leaks: {field}",
            flush=True,
        )
    sizes = {"fields": len(FIELDS), "disguises": len(DISGUISES), "kinds": len(KINDS), "paths": len(PATHS)}
    gaps = {
        "known_gaps": sum(len(gap.kinds & DISGUISES[name].kinds) for name, gap in KNOWN_GAPS.items())
        + len(GAPS)
    }
    print(json.dumps({**sizes, **counts, **gaps, "seconds": round(time.monotonic() - started)}))
    return min(counts["leaks"], 1)


if __name__ == "__main__":
    sys.exit(main())

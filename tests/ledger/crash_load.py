"""A gateway in miniature for test_crash: begins and settles without end, until it is killed.

    python -m tests.ledger.crash_load DATABASE_URL SPOOL_DIR PREFIX

Says on standard output what it has done, a line for each step, right after each step.
"""

import os
import sys

from gateway.ledger import Ledger
from tests.ledger.samples import begun, entry


def say(what: str, call_id: str) -> None:
    os.write(1, f"{what} {call_id}\n".encode())


def main(url: str, spool_dir: str, prefix: str) -> None:
    ledger = Ledger(url, spool_dir, segment_bytes=20_000)
    i = 0
    while True:
        call_id = f"{prefix}-{i}"
        ledger.begin(begun(call_id))
        say("begun", call_id)
        if i % 10:  # every tenth is still running when the end comes
            ledger.settle(entry(call_id))
            say("settled", call_id)
        i += 1


if __name__ == "__main__":
    main(*sys.argv[1:])

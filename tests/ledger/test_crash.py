"""kill -9 of real processes in mid-load."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

from gateway.ledger.store import Store
from gateway.types import Outcome
from tests.ledger.conftest import OpenLedger

ROOT = Path(__file__).parents[2]


def killed_in_mid_load(database: str, spool_dir: Path, prefix: str, steps: int) -> list[tuple[str, str]]:
    """Runs the load until it has said `steps` things, kills it, and returns all that it said."""
    command = [sys.executable, "-m", "tests.ledger.crash_load", database, str(spool_dir), prefix]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(steps)]
        process.kill()
        said += process.stdout.readlines()
    steps_seen = [line.decode().split() for line in said if line.endswith(b"\n")]
    return [(what, call_id) for what, call_id in steps_seen]


def test_nothing_is_lost_or_doubled_by_kill_9(
    tmp_path: Path, database: str, open_ledger: OpenLedger, store: Store
) -> None:
    """Two processes on one spool are killed in mid-load, one after the other, so that the second adopts
    what the first left. Every settled call is in once and settled; every call that only began is LOST.
    """
    said = killed_in_mid_load(database, tmp_path / "spool", "a", 3000)
    said += killed_in_mid_load(database, tmp_path / "spool", "b", 1500)
    ledger = open_ledger()
    assert ledger.flush(20)

    rows = store.last(100_000)
    assert max(Counter(row.call_id for row in rows).values()) == 1
    outcome = {row.call_id: row.outcome for row in rows}
    begun = {call_id for what, call_id in said if what == "begun"}
    settled = {call_id for what, call_id in said if what == "settled"}
    assert len(settled) > 1500
    assert {outcome[call_id] for call_id in settled} == {Outcome.OK}
    # A kill between a step and its announcement leaves one call of each process unsaid.
    unsaid = len(outcome.keys() - begun)
    assert begun <= outcome.keys()
    assert unsaid <= 2
    lost = {call_id for call_id, how in outcome.items() if how is Outcome.LOST}
    every_tenth = {call_id for call_id in outcome if int(call_id.split("-")[1]) % 10 == 0}
    assert every_tenth <= lost
    assert len(lost - every_tenth) <= 2
    assert ledger.backlog() == 0
    assert ledger.close()
    assert [p.name for p in (tmp_path / "spool").iterdir()] == ["lock"]

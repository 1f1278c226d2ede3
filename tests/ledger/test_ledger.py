"""begin and settle, and the way from there to the database."""

import os
import sqlite3
from pathlib import Path

import msgspec
import pytest

from gateway.ledger import spool
from gateway.ledger.spool import BEGUN, SpoolUnwritable
from gateway.ledger.store import Store
from gateway.ledger.tables import encode
from gateway.types import Outcome, Usage
from tests.ledger.conftest import OpenLedger
from tests.ledger.samples import begun, entry


def test_a_settled_call_is_in_the_database(open_ledger: OpenLedger, store: Store) -> None:
    """The whole way, with nothing left behind."""
    ledger = open_ledger()
    ledger.begin(begun("a"))
    assert ledger.stats().open_calls == 1
    ledger.settle(entry("a"))
    assert ledger.flush(10)
    assert ledger.ready
    assert store.last(9) == [entry("a")]
    stats = ledger.stats()
    assert (stats.backlog, stats.open_calls, stats.inserted, stats.lost) == (0, 0, 1, 0)
    assert ledger.close()


def test_a_refused_call_is_settled_without_having_begun(open_ledger: OpenLedger, store: Store) -> None:
    """Rows for requests that never reached a backend take the same way."""
    ledger = open_ledger()
    ledger.settle(entry("a", outcome=Outcome.REFUSED, backend="", cost_nano=0))
    assert ledger.flush(10)
    assert store.last(1)[0].outcome is Outcome.REFUSED


def test_the_second_settle_is_ignored_and_counted(open_ledger: OpenLedger, store: Store) -> None:
    """The first account of a call stands, whether the second comes at once or after the row is in."""
    ledger = open_ledger()
    ledger.begin(begun("a"))
    ledger.settle(entry("a", cost_nano=1))
    ledger.settle(entry("a", cost_nano=2))
    assert ledger.flush(10)
    ledger.settle(entry("a", cost_nano=3))
    assert ledger.flush(10)
    assert [e.cost_nano for e in store.last(9)] == [1]
    assert ledger.stats().duplicates == 2
    assert ledger.backlog() == 0


def test_calls_that_never_settled_become_lost(open_ledger: OpenLedger, store: Store) -> None:
    """What a process that is gone had begun is the row that was written before, as LOST."""
    first = open_ledger()
    first.begin(begun("a"))
    first.begin(begun("b", cost_nano=None))
    first.close()
    second = open_ledger()
    assert second.flush(10)
    assert {e.call_id: e for e in store.last(9)} == {
        "a": begun("a", outcome=Outcome.LOST),
        "b": begun("b", outcome=Outcome.LOST, cost_nano=None),
    }
    assert second.stats().lost == 2


def test_a_call_settled_late_by_a_living_process_is_not_lost(open_ledger: OpenLedger, store: Store) -> None:
    """Another process that starts meanwhile leaves it alone."""
    first = open_ledger()
    first.begin(begun("a"))
    second = open_ledger()
    assert second.flush(10)
    assert store.last(9) == []
    first.settle(entry("a"))
    assert first.flush(10)
    assert [e.outcome for e in store.last(9)] == [Outcome.OK]


def test_a_locked_database_holds_up_nobody(
    tmp_path: Path, open_ledger: OpenLedger, store: Store, database: str
) -> None:
    """While another holds the lock, calls settle and the backlog shows; afterwards all is in, once."""
    ledger = open_ledger(f"{database}?timeout=0.01")
    ledger.settle(entry("before"))
    assert ledger.flush(10)
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for i in range(20):
        ledger.begin(begun(f"{i}"))
        ledger.settle(entry(f"{i}"))
    assert not ledger.flush(0.3)
    assert ledger.backlog() == 20
    assert "locked" in ledger.stats().last_failure
    other.execute("ROLLBACK")
    other.close()
    assert ledger.flush(20)
    assert len(store.last(99)) == 21
    assert ledger.backlog() == 0


def test_a_ledger_starts_without_its_database(tmp_path: Path, open_ledger: OpenLedger) -> None:
    """The database may come later; a restart in between loses nothing."""
    url = f"sqlite:///{tmp_path}/later/ledger.db"
    first = open_ledger(url)
    first.begin(begun("a"))
    first.settle(entry("a"))
    assert not first.flush(0.2)
    assert not first.ready
    assert not first.close(timeout=0.2)
    second = open_ledger(url)
    assert second.backlog() == 1
    (tmp_path / "later").mkdir()
    assert second.flush(20)
    assert [e.call_id for e in second.store.last(9)] == ["a"]
    assert second.backlog() == 0


def test_a_torn_last_line_costs_that_line_alone(
    tmp_path: Path, open_ledger: OpenLedger, store: Store
) -> None:
    """A crash in mid-write of a settle: skipped, counted, and the call is LOST, not gone."""
    dead = tmp_path / "spool" / "1-1"
    dead.mkdir(parents=True)
    (dead / "lock").touch()
    writer = spool.Writer(dead)
    for call_id in ("a", "b"):
        writer.append(BEGUN, msgspec.json.encode(begun(call_id, outcome=Outcome.LOST)))
    writer.append(spool.SETTLED, msgspec.json.encode(entry("a")))
    writer.close()
    whole = spool.seal(spool.SETTLED, msgspec.json.encode(entry("b")))
    with (dead / "00000001.log").open("ab") as file:
        file.write(whole[:-20])
    ledger = open_ledger()
    assert ledger.flush(10)
    assert {e.call_id: e.outcome for e in store.last(9)} == {"a": Outcome.OK, "b": Outcome.LOST}
    assert ledger.stats().torn == 1
    assert ledger.backlog() == 0
    assert not dead.exists()


def test_segments_go_once_all_in_them_is_in_the_database(tmp_path: Path, open_ledger: OpenLedger) -> None:
    """After 300 calls in segments of 10 kB there is the newest left, and the one with the open call."""
    ledger = open_ledger(segment_bytes=10_000)
    ledger.begin(begun("open"))
    for i in range(300):
        ledger.begin(begun(f"{i}"))
        ledger.settle(entry(f"{i}"))
    assert ledger.flush(20)
    (directory,) = (p for p in (tmp_path / "spool").iterdir() if p.is_dir())
    left = sorted(spool.segments(directory))
    assert left[0] == 1
    assert len(left) == 2
    ledger.settle(entry("open"))
    assert ledger.flush(10)
    assert sorted(spool.segments(directory)) == left[1:]


def test_a_removed_settle_does_not_make_its_call_lost(open_ledger: OpenLedger, store: Store) -> None:
    """A segment may outlive the next one, which held the settle of one of its calls: the row stays OK."""
    first = open_ledger(segment_bytes=5_000)
    first.begin(begun("open"))
    first.begin(begun("a"))
    for i in range(20):
        first.settle(entry(f"{i}"))
    first.settle(entry("a"))
    for i in range(20, 40):
        first.settle(entry(f"{i}"))
    assert first.flush(10)
    first.close()
    second = open_ledger()
    assert second.flush(10)
    assert {e.call_id: e.outcome for e in store.last(2000) if not e.call_id.isdigit()} == {
        "open": Outcome.LOST,
        "a": Outcome.OK,
    }
    assert second.stats().lost == 1
    assert second.stats().duplicates == 0


def test_a_full_disk_refuses_new_calls_and_keeps_settled_ones(
    open_ledger: OpenLedger, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """begin raises, so that the pipeline can refuse; what was running still gets its row."""
    ledger = open_ledger()
    ledger.begin(begun("a"))

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(SpoolUnwritable, match="No space left"):
        ledger.begin(begun("b"))
    ledger.settle(entry("a"))
    monkeypatch.undo()
    assert ledger.flush(10)
    assert [e.call_id for e in store.last(9)] == ["a"]
    assert ledger.stats().unspooled == 1
    assert ledger.stats().open_calls == 0


def test_a_row_that_the_database_will_never_take_is_put_aside(
    tmp_path: Path, open_ledger: OpenLedger, store: Store
) -> None:
    """A provider that reports 2^70 tokens does not hold up everybody else's rows."""
    ledger = open_ledger()
    for call_id, n in (("a", 1), ("bad", 2**70), ("c", 3)):
        ledger.settle(entry(call_id, usage=Usage(input_tokens=n)))
    assert ledger.flush(10)
    assert {e.call_id for e in store.last(9)} == {"a", "c"}
    assert ledger.stats().rejected == 1
    assert b'"bad"' in (tmp_path / "spool" / "rejected.jsonl").read_bytes()


def test_a_settle_that_only_memory_holds_keeps_its_begun_line(
    tmp_path: Path, open_ledger: OpenLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until its row is in the database the spool owes a LOST one, should this process die."""
    ledger = open_ledger(f"sqlite:///{tmp_path}/later/ledger.db")
    ledger.begin(begun("a"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: 0)
        ledger.settle(entry("a"))
    assert not ledger.flush(0.1)
    assert (ledger.backlog(), ledger.stats().open_calls) == (1, 1)
    (tmp_path / "later").mkdir()
    assert ledger.flush(20)
    assert (ledger.backlog(), ledger.stats().open_calls) == (0, 0)
    assert ledger.store.last(9) == [entry("a")]


def test_bad_rows_among_many_are_the_only_ones_put_aside(
    tmp_path: Path, open_ledger: OpenLedger, store: Store
) -> None:
    """They are found in a full batch, wherever they stand, and named for the operator."""
    ledger = open_ledger()
    for i in range(400):
        usage = Usage(input_tokens=2**70 if i in (0, 150, 399) else i)
        ledger.settle(entry(f"{i}", usage=usage))
    assert ledger.flush(20)
    assert len(store.last(999)) == 397
    assert ledger.backlog() == 0
    rejected = (tmp_path / "spool" / "rejected.jsonl").read_bytes().splitlines()
    assert [msgspec.json.decode(line)["call_id"] for line in rejected] == ["0", "150", "399"]


def test_a_line_of_an_unknown_version_is_put_aside(
    tmp_path: Path, open_ledger: OpenLedger, store: Store
) -> None:
    """It is kept as it is, and holds up nothing."""
    dead, _ = spool.claim(tmp_path / "spool")
    writer = spool.Writer(dead.directory)
    writer.append(spool.SETTLED, b'["from the future"]')
    writer.append(spool.SETTLED, encode(entry("a")))
    writer.close()
    dead.release(remove=False)
    ledger = open_ledger()
    assert ledger.flush(10)
    assert [e.call_id for e in store.last(9)] == ["a"]
    assert (ledger.stats().rejected, ledger.backlog()) == (1, 0)
    assert (tmp_path / "spool" / "rejected.jsonl").read_bytes() == b'["from the future"]\n'


def test_a_closed_ledger_takes_nothing(open_ledger: OpenLedger) -> None:
    """What could no longer be written down is refused aloud; closing twice is no mistake."""
    ledger = open_ledger()
    assert ledger.close()
    assert ledger.close()
    with pytest.raises(SpoolUnwritable, match="closed"):
        ledger.begin(begun("a"))
    with pytest.raises(RuntimeError, match="closed"):
        ledger.settle(entry("a"))

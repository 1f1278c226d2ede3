"""What the thread reads of a spool, and when it lets go of it."""

from pathlib import Path

from gateway.ledger.drain import SpoolSource
from gateway.ledger.spool import BEGUN, SETTLED, Claim, Writer, claim, segments
from gateway.ledger.tables import COLUMNS, Row, encode
from gateway.types import Outcome
from tests.ledger.samples import begun, entry

CALLS = 3000  # several batches


SIGNATURE = COLUMNS.index("signature")


def sign(row: Row) -> None:
    """Stands for a signature: says which row it was that was signed."""
    row[SIGNATURE] = f"{row[0]} {row[COLUMNS.index('outcome')]}"


def spooled(root: Path) -> Claim:
    """A directory in which one call began and all others are settled, over many segments."""
    owner, _ = claim(root)
    writer = Writer(owner.directory, segment_bytes=100_000)
    writer.append(BEGUN, encode(begun("open")))
    for i in range(CALLS):
        writer.append(BEGUN, encode(begun(f"{i}")))
        writer.append(SETTLED, encode(entry(f"{i}")))
    writer.close()
    return owner


def test_a_backlog_frees_its_disk_as_it_goes(tmp_path: Path) -> None:
    """A database on the same full disk gets room; the segment with the open call stays to the end."""
    source = SpoolSource(spooled(tmp_path), sign, orphaned=True)
    assert source.left == CALLS
    left, rows = [segments(source.claim.directory)], []
    while source.fill():
        rows += source.batch
        source.commit({})
        left.append(segments(source.claim.directory))
    assert source.finished
    assert source.left == 0
    assert [row[0] for row in rows] == [*map(str, range(CALLS)), "open"]
    assert rows[-1][COLUMNS.index("outcome")] == Outcome.LOST
    assert rows[-1][SIGNATURE] == "open lost"  # signed as it stands in the database
    assert {row[SIGNATURE] for row in rows[:-1]} == {f"{n} ok" for n in range(CALLS)}
    assert len(left[0]) > len(left[1]) > len(left[2]) > 1
    assert all(1 in numbers for numbers in left[:-1])
    source.claim.release(remove=True)


def test_a_living_owner_says_which_segments_stay(tmp_path: Path) -> None:
    """Its begun lines are not even decoded, so the reader cannot know."""
    source = SpoolSource(spooled(tmp_path), sign)
    rows = []
    while source.fill():
        rows += source.batch
        source.commit({"open": 1, "another": 3})
    assert [row[0] for row in rows] == [*map(str, range(CALLS))]
    newest = max(segments(source.claim.directory))
    assert sorted(segments(source.claim.directory)) == [1, 3, newest]
    source.commit({})
    assert segments(source.claim.directory) == [newest]
    source.claim.release(remove=True)

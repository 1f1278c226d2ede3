"""The files between a request and the database."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger import spool
from gateway.ledger.spool import BEGUN, SETTLED, Reader, SpoolUnwritable, Writer, claim, seal, unseal


def everything(reader: Reader) -> Iterator[bytes]:
    while (chunk := reader.read()) is not None:
        yield from (payload for _, payload in chunk.lines)


@given(st.binary().filter(lambda b: b"\n" not in b), st.integers(0, 10**6), st.integers(1, 255))
def test_a_line_comes_back_or_is_seen_to_be_altered(payload: bytes, place: int, flip: int) -> None:
    """Any changed byte of any line is found out."""
    line = seal(SETTLED, payload)[:-1]
    assert unseal(line) == (SETTLED, payload)
    at = place % len(line)
    assert unseal(line[:at] + bytes([line[at] ^ flip]) + line[at + 1 :]) is None


@given(st.binary().filter(lambda b: b"\n" not in b), st.integers(0, 10**6))
def test_a_cut_line_is_seen_to_be_torn(payload: bytes, place: int) -> None:
    """A crash in mid-write leaves nothing that could be taken for a whole line."""
    line = seal(BEGUN, payload)[:-1]
    assert unseal(line[: place % len(line)]) is None


def test_a_reader_follows_a_writer_over_segments(tmp_path: Path) -> None:
    """All lines, in order, once, while segments of 100 bytes rotate under the reader."""
    writer, reader = Writer(tmp_path, segment_bytes=100), Reader(tmp_path, sealed=False)
    seen: list[bytes] = []
    for i in range(50):
        writer.append(SETTLED, b"%d" % i)
        if i % 7 == 0:
            seen += everything(reader)
    seen += everything(reader)
    assert seen == [b"%d" % i for i in range(50)]
    assert len(spool.segments(tmp_path)) > 5
    assert not reader.finished
    writer.close()


def test_a_line_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    """Half a line in the newest segment is not torn: its other half may come."""
    reader = Reader(tmp_path, sealed=False)
    line = seal(SETTLED, b"payload")
    path = tmp_path / "00000001.log"
    path.write_bytes(line[:10])
    assert list(everything(reader)) == []
    path.write_bytes(line)
    assert list(everything(reader)) == [b"payload"]


def test_torn_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    """One torn in the middle (disk full), one at the end (crash): the whole ones are all there."""
    good = [seal(SETTLED, b"%d" % i) for i in range(3)]
    (tmp_path / "00000003.log").write_bytes(good[0] + good[1][:9] + b"\n" + good[2])
    (tmp_path / "00000007.log").write_bytes(good[1] + good[0][:-3])
    reader = Reader(tmp_path, sealed=True)
    chunks = list(iter(reader.read, None))
    assert [payload for c in chunks for _, payload in c.lines] == [b"0", b"2", b"1"]
    assert sum(c.torn for c in chunks) == 2
    assert reader.finished
    assert spool.count_settled(tmp_path) == 5


def test_after_a_short_write_the_next_line_stands_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fills up in mid-line costs that line, which the caller hears of, and no other."""
    writer, write = Writer(tmp_path), os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:12]))
    with pytest.raises(SpoolUnwritable, match="12 of"):
        writer.append(SETTLED, b"first")
    monkeypatch.undo()
    writer.append(SETTLED, b"second")
    writer.close()
    assert list(everything(Reader(tmp_path, sealed=True))) == [b"second"]


def test_only_the_dead_are_adopted(tmp_path: Path) -> None:
    """A living process keeps its directory; once it lets go the next start takes it, and only one does."""
    first, none = claim(tmp_path)
    second, still_none = claim(tmp_path)
    assert none == still_none == []
    first.release(remove=False)
    third, orphans = claim(tmp_path)
    assert [o.directory for o in orphans] == [first.directory]
    fourth, taken = claim(tmp_path)
    assert taken == []
    for each in (second, third, fourth, *orphans):
        each.release(remove=True)
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_spool_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A file where the directory should be is an error with the path in it."""
    (tmp_path / "spool").write_text("")
    with pytest.raises(SpoolUnwritable, match="spool"):
        claim(tmp_path / "spool")

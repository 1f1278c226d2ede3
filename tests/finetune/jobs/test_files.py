"""Stored files: whole or not there, seen by their owners only, gone when they expire."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from finetune.jobs.errors import UnknownCursor, UnknownFile
from finetune.jobs.files import FINE_TUNE, RESULTS, FileStore
from finetune.jobs.records import Owner
from tests.finetune.jobs.conftest import OWNER


def stored(files: FileStore, content: bytes = b"{}\n", purpose: str = FINE_TUNE, owner: Owner = OWNER) -> str:
    return files.write(content, filename="../../rows.jsonl", purpose=purpose, owner=owner).id


def test_a_name_never_becomes_a_path(files: FileStore, tmp_path: Path) -> None:
    """The bytes lie under the id, whatever the client calls the file."""
    id = stored(files, b"abc")
    assert files.path(id).read_bytes() == b"abc"
    assert [path.name for path in (tmp_path / "files").iterdir()] == [id]
    assert files.get(id).filename == "../../rows.jsonl"
    assert files.get(id).bytes == 3


def test_what_breaks_off_leaves_nothing(files: FileStore, tmp_path: Path) -> None:
    """An upload that fails halfway is no file."""
    with files.incoming() as incoming:
        incoming.write(b"half")
        assert incoming.path.exists()
    assert list((tmp_path / "files").iterdir()) == []
    assert files.page(OWNER, limit=9) == ([], False)


def test_a_database_that_is_away_leaves_nothing(files: FileStore, tmp_path: Path) -> None:
    """Bytes without a row would never be found again."""

    @contextmanager
    def away() -> Iterator[Connection]:
        raise ConnectionError
        yield

    broken = FileStore(tmp_path / "files", files._reading, away)
    with pytest.raises(ConnectionError):
        stored(broken)
    assert list((tmp_path / "files").iterdir()) == []


def test_pages_both_ways(files: FileStore) -> None:
    """By cursor, in either order, of one purpose."""
    made = [stored(files, purpose=RESULTS if n == 2 else FINE_TUNE) for n in range(4)]
    down, more = files.page(OWNER, limit=2)
    assert ([file.id for file in down], more) == (made[:1:-1], True)
    up, more = files.page(OWNER, limit=9, after=made[0], newest_first=False)
    assert ([file.id for file in up], more) == (made[1:], False)
    results, _ = files.page(OWNER, limit=9, purpose=RESULTS)
    assert [file.id for file in results] == [made[2]]
    with pytest.raises(UnknownCursor):
        files.page(OWNER, limit=9, after="file-none")


def test_others_see_nothing(files: FileStore) -> None:
    """Another team's file can be neither read, deleted nor used as a cursor."""
    id, other = stored(files), Owner("legal")
    for ask in (files.get, files.delete):
        with pytest.raises(UnknownFile):
            ask(id, other)
    assert files.path(id).exists()
    files.delete(id, OWNER)
    assert not files.path(id).exists()


def test_expired_files_are_gone(files: FileStore) -> None:
    """At once for every reader, and from the disk with the next upload."""
    with files.incoming() as incoming:
        incoming.write(b"x")
        old = files.keep(incoming, filename="a.jsonl", purpose=FINE_TUNE, owner=OWNER, seconds=0)
    with pytest.raises(UnknownFile):
        files.get(old.id, OWNER)
    assert files.page(OWNER, limit=9) == ([], False)
    assert files.path(old.id).exists()
    stored(files)
    assert not files.path(old.id).exists()

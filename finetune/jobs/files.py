"""Uploaded and resulting files: rows in the database, bytes in one folder of the machine (or a shared disk).

Bytes come first and under another name, so that a row never stands for a file that is not whole. A file's
name on disk is its id: what a client calls it is never part of a path.
"""

import hashlib
import os
import secrets
import time
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, true

from finetune.jobs.errors import UnknownCursor, UnknownFile
from finetune.jobs.records import Owner, StoredFile
from finetune.jobs.store import Transaction
from finetune.jobs.tables import FILE

FINE_TUNE, RESULTS = "fine-tune", "fine-tune-results"
NS = 1_000_000_000


class Incoming:
    """A file on its way in. Leaving the context without `FileStore.keep` forgets it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / f".incoming-{secrets.token_hex(8)}"
        self.bytes = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO = self.path.open("wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def finish(self) -> str:
        """On disk for good; the SHA-256 of the content in hex."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def __enter__(self) -> "Incoming":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


class FileStore:
    """`folder` holds the bytes; the transactions are those of `JobStore`."""

    def __init__(self, folder: Path, reading: Transaction, writing: Transaction) -> None:
        self._folder, self._reading, self._writing = folder, reading, writing

    def incoming(self) -> Incoming:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Incoming(self._folder)

    def keep(
        self, incoming: Incoming, *, filename: str, purpose: str, owner: Owner, seconds: int | None = None
    ) -> StoredFile:
        """Take the file in, for so many `seconds` or for good."""
        digest, now = incoming.finish(), time.time_ns()
        stored = StoredFile(
            id=f"file-{secrets.token_hex(12)}",
            created_ns=now,
            owner=owner,
            filename=filename,
            purpose=purpose,
            bytes=incoming.bytes,
            sha256=digest,
            expires_at=None if seconds is None else now // NS + seconds,
        )
        self._sweep()
        incoming.path.rename(self.path(stored.id))
        try:
            with self._writing() as connection:
                connection.execute(insert(FILE).values(**_values(stored)))
        except BaseException:
            self.path(stored.id).unlink()
            raise
        return stored

    def write(self, content: bytes, *, filename: str, purpose: str, owner: Owner) -> StoredFile:
        with self.incoming() as incoming:
            incoming.write(content)
            return self.keep(incoming, filename=filename, purpose=purpose, owner=owner)

    def path(self, id: str) -> Path:
        """Where the bytes of a file are. `id` is one that the store has given."""
        return self._folder / id

    def get(self, id: str, owner: Owner | None = None) -> StoredFile:
        """Raises UnknownFile, also where it is another owner's or has expired."""
        with self._reading() as connection:
            row = connection.execute(select(FILE).where(FILE.c.id == id, _of(owner), _alive())).one_or_none()
        if row is None:
            raise UnknownFile(id)
        return _stored(row)

    def page(
        self, owner: Owner, *, purpose: str = "", after: str = "", limit: int, newest_first: bool = True
    ) -> tuple[list[StoredFile], bool]:
        """Up to `limit` files, and whether there are more. Raises UnknownCursor."""
        query = select(FILE).where(_of(owner), _alive(), FILE.c.purpose == purpose if purpose else true())
        if after:
            query = query.where(self._beyond(after, owner, newest_first))
        keys = (FILE.c.created_ns, FILE.c.id)
        order = [key.desc() if newest_first else key.asc() for key in keys]
        with self._reading() as connection:
            rows = connection.execute(query.order_by(*order).limit(limit + 1)).all()
        return [_stored(row) for row in rows[:limit]], len(rows) > limit

    def kept(self, team: str) -> int:
        """Bytes of all files of a team."""
        total = select(func.coalesce(func.sum(FILE.c.bytes), 0)).where(FILE.c.team == team, _alive())
        with self._reading() as connection:
            return int(connection.execute(total).scalar_one())

    def delete(self, id: str, owner: Owner) -> None:
        """Raises UnknownFile. Whoever is reading its bytes reads on."""
        self.get(id, owner)
        self._forget([id])

    def _beyond(self, after: str, owner: Owner, newest_first: bool) -> ColumnElement[bool]:
        try:
            at = self.get(after, owner)
        except UnknownFile:
            raise UnknownCursor(after) from None
        if newest_first:
            same = and_(FILE.c.created_ns == at.created_ns, FILE.c.id < at.id)
            return or_(FILE.c.created_ns < at.created_ns, same)
        same = and_(FILE.c.created_ns == at.created_ns, FILE.c.id > at.id)
        return or_(FILE.c.created_ns > at.created_ns, same)

    def _sweep(self) -> None:
        """What has expired goes when the next file comes."""
        with self._reading() as connection:
            gone = [id for (id,) in connection.execute(select(FILE.c.id).where(~_alive()))]
        self._forget(gone)

    def _forget(self, ids: list[str]) -> None:
        if not ids:
            return
        with self._writing() as connection:
            connection.execute(delete(FILE).where(FILE.c.id.in_(ids)))
        for id in ids:
            self.path(id).unlink(missing_ok=True)


def _of(owner: Owner | None) -> ColumnElement[bool]:
    if owner is None:
        return true()
    return and_(FILE.c.team == owner.team, FILE.c.project == owner.project if owner.project else true())


def _alive() -> ColumnElement[bool]:
    return or_(FILE.c.expires_at.is_(None), FILE.c.expires_at > int(time.time()))


def _values(stored: StoredFile) -> dict[str, Any]:
    return {
        "id": stored.id,
        "created_ns": stored.created_ns,
        "team": stored.owner.team,
        "project": stored.owner.project,
        "key_id": stored.owner.key_id,
        "filename": stored.filename,
        "purpose": stored.purpose,
        "bytes": stored.bytes,
        "sha256": stored.sha256,
        "expires_at": stored.expires_at,
    }


def _stored(row: Any) -> StoredFile:
    return StoredFile(
        id=row.id,
        created_ns=row.created_ns,
        owner=Owner(row.team, row.project, row.key_id),
        filename=row.filename,
        purpose=row.purpose,
        bytes=row.bytes,
        sha256=row.sha256,
        expires_at=row.expires_at,
    )

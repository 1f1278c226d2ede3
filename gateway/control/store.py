"""All queries on the control plane's tables. Every change is one transaction that writes one row of the audit
log, and the number of that row is the revision that other processes watch.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select, true, update

from gateway.control.audit import GENESIS, Entry, Proof, canonical, digest, prove, sealed
from gateway.control.migrations import MIGRATIONS
from gateway.control.records import Kind, masked
from gateway.control.tables import ANSWER, AUDIT, RECORD, VERSIONS
from gateway.errors import ApiError, BadRequest, NotFound
from gateway.ledger.database import lock, open_engine, reading, writing
from gateway.ledger.migrations import migrate, pending

DAY_S = 86_400
_WRITERS = 0x636F6E74726F6C  # "control": the key of PostgreSQL's advisory lock
_AT_A_TIME = 1_000
_AUDIT_FIELDS = Entry.__struct_fields__


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A record as it stands. `version` names the change that wrote it, and is its ETag."""

    kind: str
    id: str
    version: int
    body: dict[str, Any]
    created_at: int
    changed_at: int


class Author(msgspec.Struct, frozen=True):
    """Who changes something, and why."""

    actor: str
    reason: str = ""


class Once(msgspec.Struct, frozen=True, kw_only=True):
    """A POST that is carried out once, however often it is sent within a day."""

    route: str
    key: str
    asked: str  # SHA-256 of the request


class Conflict(ApiError):
    status = 409
    type = "invalid_request_error"


class Transaction:
    """One change under way. What raises in it leaves nothing behind."""

    def __init__(self, connection: Connection, author: Author) -> None:
        self._connection, self._author = connection, author
        self.now = int(time.time())
        self.revision = 0  # of the last change that was made in it

    def find(self, kind: Kind, id: str) -> Stored | None:
        return _find(self._connection, kind, id)

    def get(self, kind: Kind, id: str) -> Stored:
        """Raises NotFound."""
        return _get(self._connection, kind, id)

    def has_of_team(self, kind: Kind, team: str) -> bool:
        """Whether a record of that kind belongs to the team."""
        of_team = select(RECORD.c.id).where(RECORD.c.kind == kind.value, RECORD.c.team == team).limit(1)
        return self._connection.execute(of_team).first() is not None

    def holds(self, kind: Kind, field: str, value: str) -> bool:
        """Whether a record of that kind has `value` in a field of its body."""
        rows = self._connection.execute(select(RECORD).where(RECORD.c.kind == kind.value))
        return any(_stored(row).body.get(field) == value for row in rows)

    def create(self, kind: Kind, id: str, body: Mapping[str, Any], action: str = "create") -> Stored:
        """Raises Conflict where there is one of that id already."""
        if self.find(kind, id) is not None:
            raise Conflict(f"There is a {kind.value} {id!r} already.", code="already_exists", param="id")
        return self._put(kind, id, dict(body), None, action)

    def replace(
        self, before: Stored, body: Mapping[str, Any], if_match: str = "", action: str = "change"
    ) -> Stored:
        """Raises ApiError 412 where `if_match` names another version than `before`."""
        _check_version(before, if_match)
        return self._put(Kind(before.kind), before.id, dict(body), before, action)

    def remove(self, before: Stored, if_match: str = "") -> None:
        _check_version(before, if_match)
        gone = and_(RECORD.c.kind == before.kind, RECORD.c.id == before.id)
        self._connection.execute(delete(RECORD).where(gone))
        self._log(f"{before.kind}.delete", before.kind, before.id, before.body, None)

    def note(self, action: str, kind: str, target: str, after: Mapping[str, Any]) -> None:
        """Logs what was done elsewhere: there is no record of it here."""
        self._log(f"{kind}.{action}", kind, target, None, dict(after), kept=False)

    def _put(self, kind: Kind, id: str, body: dict[str, Any], before: Stored | None, action: str) -> Stored:
        written = _text(body)
        version = self._log(f"{kind.value}.{action}", kind, id, before.body if before else None, body)
        values = {
            "version": version,
            "team": body.get("team") or "",
            "body": written,
            "changed_at": self.now,
        }
        if before is None:
            statement: Any = insert(RECORD).values(kind=kind.value, id=id, created_at=self.now, **values)
        else:
            this = and_(RECORD.c.kind == kind.value, RECORD.c.id == id)
            statement = update(RECORD).where(this).values(**values)
        self._connection.execute(statement)
        return self.get(kind, id)

    def _log(
        self,
        action: str,
        kind: str,
        target: str,
        before: dict[str, Any] | None,
        after: dict[str, Any] | None,
        *,
        kept: bool = True,
    ) -> int:
        newest = select(AUDIT.c.seq, AUDIT.c.hash).order_by(AUDIT.c.seq.desc()).limit(1)
        seq, previous = self._connection.execute(newest).one_or_none() or (0, GENESIS)
        entry = Entry(
            seq=seq + 1,
            at=self.now,
            actor=self._author.actor,
            reason=self._author.reason,
            action=action,
            kind=str(kind),
            target=target,
            before=canonical(before and masked(kind, before)),
            after=canonical(after and masked(kind, after)),
            digest=digest(_text(after)) if after is not None and kept else "",
            previous=previous,
        )
        self._connection.execute(insert(AUDIT).values(**msgspec.structs.asdict(sealed(entry))))
        self.revision = entry.seq
        return entry.seq


Operation = Callable[[Transaction], dict[str, Any]]


class ControlStore:
    """The database behind the control plane; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Opens nothing yet. Raises ConfigError."""
        self._engine = open_engine(url)

    def migrate(self) -> tuple[int, ...]:
        """Raises StoreUnavailable, ConfigError."""
        with writing(self._engine) as connection:
            return migrate(connection, MIGRATIONS, VERSIONS)

    def pending(self) -> tuple[int, ...]:
        """Numbers of the changes that `migrate` would make. Raises StoreUnavailable, ConfigError."""
        with reading(self._engine) as connection:
            return tuple(version for version, _ in pending(connection, MIGRATIONS, VERSIONS))

    def revision(self) -> int:
        """The number of the last change; 0: there was none. Raises StoreUnavailable."""
        with reading(self._engine) as connection:
            return connection.execute(select(func.max(AUDIT.c.seq))).scalar() or 0

    def read(self, kinds: Sequence[Kind]) -> list[Stored]:
        """All records of these kinds, as they were at one instant. Raises StoreUnavailable."""
        of_kinds = RECORD.c.kind.in_([kind.value for kind in kinds])
        with reading(self._engine) as connection:
            return [_stored(row) for row in connection.execute(select(RECORD).where(of_kinds))]

    def find(self, kind: Kind, id: str) -> Stored | None:
        """Raises StoreUnavailable."""
        with reading(self._engine) as connection:
            return _find(connection, kind, id)

    def get(self, kind: Kind, id: str) -> Stored:
        """Raises NotFound, StoreUnavailable."""
        with reading(self._engine) as connection:
            return _get(connection, kind, id)

    def page(self, kind: Kind, *, after: str, limit: int, team: str = "") -> list[Stored]:
        """Up to `limit` records with ids beyond `after`, by id. Raises StoreUnavailable."""
        of_team = RECORD.c.team == team if team else true()
        query = select(RECORD).where(RECORD.c.kind == kind.value, RECORD.c.id > after, of_team)
        with reading(self._engine) as connection:
            return [_stored(row) for row in connection.execute(query.order_by(RECORD.c.id).limit(limit))]

    def log(self, *, before: int, limit: int, **equal: str) -> list[Entry]:
        """The audit log, newest first, from below row `before`; `equal` are columns and their values.

        Raises StoreUnavailable.
        """
        wanted: list[ColumnElement[bool]] = [AUDIT.c[name] == value for name, value in equal.items() if value]
        query = select(AUDIT).where(AUDIT.c.seq < before, *wanted).order_by(AUDIT.c.seq.desc()).limit(limit)
        with reading(self._engine) as connection:
            return [_entry(row) for row in connection.execute(query)]

    def prove(self, expected: str = "") -> Proof:
        """Proves the audit log, see `audit.prove`. Raises StoreUnavailable."""
        with reading(self._engine, one_instant=True) as connection:
            rows = connection.execute(select(RECORD.c.kind, RECORD.c.id, RECORD.c.body))
            records = {(kind, id): body for kind, id, body in rows}
            return prove(_oldest_first(connection), records, expected)

    def once(self, author: Author, once: Once | None, operation: Operation) -> tuple[dict[str, Any], int]:
        """The answer of `operation`, which is carried out in one transaction, and the revision it made.

        Where the same request was answered within a day, that answer, with revision 0 and secrets left out.
        Raises what `operation` raises, ApiError 409 where the Idempotency-Key came with another request,
        StoreUnavailable.
        """
        with self._changing(author) as changes:
            if once and (answer := changes.answered(once)) is not None:
                return answer, 0
            answer = operation(changes)
            if once:
                changes.keep(once, answer)
            return answer, changes.revision

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _changing(self, author: Author) -> Iterator["_Locked"]:
        """One writer at a time, in all processes: the chain of the audit log has one end."""
        with writing(self._engine) as connection:
            lock(connection, _WRITERS)
            yield _Locked(connection, author)


class _Locked(Transaction):
    """What the store itself does while nobody else writes."""

    def answered(self, once: Once) -> dict[str, Any] | None:
        self._connection.execute(delete(ANSWER).where(ANSWER.c.at < self.now - DAY_S))
        this = select(ANSWER.c.asked, ANSWER.c.answer).where(
            ANSWER.c.actor == self._author.actor, ANSWER.c.route == once.route, ANSWER.c.key == once.key
        )
        found = self._connection.execute(this).one_or_none()
        if found is None:
            return None
        if found.asked != once.asked:
            raise Conflict(
                "This Idempotency-Key was used for another request within the last day; use a new one.",
                code="idempotency_key_reused",
            )
        answer: dict[str, Any] = msgspec.json.decode(found.answer)
        return answer

    def keep(self, once: Once, answer: dict[str, Any]) -> None:
        shown = {**answer, "key": None} if "key" in answer else answer
        values = {"actor": self._author.actor, "at": self.now, "answer": canonical(shown)}
        self._connection.execute(
            insert(ANSWER).values(route=once.route, key=once.key, asked=once.asked, **values)
        )


def _oldest_first(connection: Connection) -> Iterator[Entry]:
    last = 0
    while rows := connection.execute(
        select(AUDIT).where(AUDIT.c.seq > last).order_by(AUDIT.c.seq).limit(_AT_A_TIME)
    ).all():
        yield from map(_entry, rows)
        last = rows[-1].seq


def _find(connection: Connection, kind: Kind, id: str) -> Stored | None:
    this = select(RECORD).where(RECORD.c.kind == kind.value, RECORD.c.id == id)
    row = connection.execute(this).one_or_none()
    return None if row is None else _stored(row)


def _get(connection: Connection, kind: Kind, id: str) -> Stored:
    found = _find(connection, kind, id)
    if found is None:
        raise NotFound(f"There is no {kind.value} {id!r}.", code=f"{kind.value}_not_found", param="id")
    return found


def _stored(row: Any) -> Stored:
    return Stored(
        kind=row.kind,
        id=row.id,
        version=row.version,
        body=msgspec.json.decode(row.body),
        created_at=row.created_at,
        changed_at=row.changed_at,
    )


def _entry(row: Any) -> Entry:
    return Entry(**{name: getattr(row, name) for name in _AUDIT_FIELDS})


def _text(body: Mapping[str, Any]) -> str:
    """Raises BadRequest."""
    try:
        return canonical(body)
    except ValueError as error:
        raise BadRequest(f"The request {error}.") from None


def _check_version(before: Stored, if_match: str) -> None:
    wanted = if_match.strip().removeprefix("W/").strip('"')
    if wanted not in ("", "*", str(before.version)):
        raise ApiError(
            f"The {before.kind} {before.id!r} is now version {before.version}: read it again.",
            status=412,
            type="invalid_request_error",
            code="precondition_failed",
        )

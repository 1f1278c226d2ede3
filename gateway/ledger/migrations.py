"""Numbered schema changes, applied in order under a lock, each exactly once.

A migration is DDL that SQLite and PostgreSQL both take, frozen once it has been released: a later change is
a further migration. Any number of processes may call `migrate` at the same time.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, Table, func, insert, inspect, select, text

from gateway.errors import ConfigError
from gateway.ledger.budgets.store import NOTICE_TABLE
from gateway.ledger.budgets.store import TABLES as BUDGET_TABLES
from gateway.ledger.database import lock
from gateway.ledger.tables import SCHEMA_VERSION

_LOCK = 0x6865616467617465  # "headgate": the key of PostgreSQL's advisory lock

_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS {name} (
    version INTEGER NOT NULL PRIMARY KEY,
    applied_at TEXT NOT NULL
)
"""

_ENTRY_TABLE = """
CREATE TABLE entry (
    call_id TEXT NOT NULL PRIMARY KEY,
    started_ns BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    team TEXT NOT NULL,
    tags JSON NOT NULL,
    endpoint TEXT NOT NULL,
    model_asked TEXT NOT NULL,
    privacy TEXT NOT NULL,
    findings JSON NOT NULL,
    policy TEXT NOT NULL,
    route TEXT NOT NULL,
    reason TEXT NOT NULL,
    backend TEXT NOT NULL,
    zone TEXT NOT NULL,
    model TEXT NOT NULL,
    adapter TEXT NOT NULL,
    stream BOOLEAN NOT NULL,
    attempts BIGINT NOT NULL,
    status BIGINT NOT NULL,
    outcome TEXT NOT NULL,
    error_class TEXT,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    estimated BOOLEAN NOT NULL,
    cost_nano BIGINT,
    price TEXT NOT NULL,
    first_byte_ms DOUBLE PRECISION,
    duration_ms DOUBLE PRECISION NOT NULL
)
"""

_SESSION_TABLE = """
CREATE TABLE session (
    key TEXT NOT NULL PRIMARY KEY,
    privacy TEXT NOT NULL,
    seen_ns BIGINT NOT NULL
)
"""

_ROLLUP_TABLE = """
CREATE TABLE rollup (
    day BIGINT NOT NULL,
    team TEXT NOT NULL,
    key_id TEXT NOT NULL,
    tags TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    model TEXT NOT NULL,
    adapter TEXT NOT NULL,
    route TEXT NOT NULL,
    backend TEXT NOT NULL,
    zone TEXT NOT NULL,
    privacy TEXT NOT NULL,
    outcome TEXT NOT NULL,
    estimated BIGINT NOT NULL,
    unknown_price BIGINT NOT NULL,
    price TEXT NOT NULL,
    requests BIGINT NOT NULL,
    input_tokens BIGINT NOT NULL,
    cached_input_tokens BIGINT NOT NULL,
    cache_write_tokens BIGINT NOT NULL,
    output_tokens BIGINT NOT NULL,
    reasoning_tokens BIGINT NOT NULL,
    cost_nano BIGINT
)
"""

_METERS_6 = (
    "cache_write_1h_tokens BIGINT NOT NULL DEFAULT 0",
    "audio_input_tokens BIGINT NOT NULL DEFAULT 0",
    "image_input_tokens BIGINT NOT NULL DEFAULT 0",
    "audio_output_tokens BIGINT NOT NULL DEFAULT 0",
    "image_output_tokens BIGINT NOT NULL DEFAULT 0",
    "service_tier TEXT NOT NULL DEFAULT ''",
)
_CORRECTION_6 = (
    "corrects TEXT NOT NULL DEFAULT ''",
    "resolves BIGINT NOT NULL DEFAULT 0",
    "recorded_ns BIGINT NOT NULL DEFAULT 0",
)
_ROLLUP_6 = ("correction BIGINT NOT NULL DEFAULT 0", "resolves BIGINT NOT NULL DEFAULT 0")

Migrations = Sequence[tuple[int, tuple[str, ...]]]  # version, statements

MIGRATIONS: Migrations = (
    (
        1,
        (
            _ENTRY_TABLE,
            "CREATE INDEX entry_started ON entry (started_ns)",
            "CREATE INDEX entry_team_started ON entry (team, started_ns)",
        ),
    ),
    # No query asks for one team, and reports by team read a period of all teams.
    (2, ("DROP INDEX entry_team_started",)),
    (
        3,
        (
            "ALTER TABLE entry ADD COLUMN cause TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE entry ADD COLUMN session TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE entry ADD COLUMN response_id TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE entry ADD COLUMN reached JSON NOT NULL DEFAULT '[]'",
            "ALTER TABLE entry ADD COLUMN signed_by TEXT NOT NULL DEFAULT ''",
            "ALTER TABLE entry ADD COLUMN signature TEXT NOT NULL DEFAULT ''",
            "CREATE INDEX entry_response ON entry (response_id) WHERE response_id <> ''",
            _SESSION_TABLE,
        ),
    ),
    (4, BUDGET_TABLES),
    (
        5,
        (
            _ROLLUP_TABLE,
            "CREATE INDEX rollup_by_day ON rollup (day)",
            "CREATE TABLE rollup_day (day BIGINT NOT NULL PRIMARY KEY)",
        ),
    ),
    (
        6,
        (
            *(f"ALTER TABLE entry ADD COLUMN {column}" for column in (*_METERS_6, *_CORRECTION_6)),
            "CREATE INDEX entry_corrects ON entry (corrects) WHERE corrects <> ''",
            # What stands in a roll-up was summed from rows to which the defaults apply.
            *(f"ALTER TABLE rollup ADD COLUMN {column}" for column in (*_METERS_6, *_ROLLUP_6)),
        ),
    ),
    # Days whose entries were removed: their roll-ups are all that is left.
    (7, ("CREATE TABLE pruned_day (day BIGINT NOT NULL PRIMARY KEY)",)),
    (8, (NOTICE_TABLE,)),
)


def migrate(
    connection: Connection, migrations: Migrations | None = None, versions: Table = SCHEMA_VERSION
) -> tuple[int, ...]:
    """Brings a schema up to date; returns the versions that were applied, none when it was.

    `versions` is the table that keeps count of `migrations`, the ledger's by default: each part of the
    database has its own.

    `connection` is in a transaction that on SQLite holds the write lock already (BEGIN IMMEDIATE); on
    PostgreSQL an advisory lock is taken until its end. ConfigError: the database is ahead of this program.
    """
    lock(connection, _LOCK)
    connection.execute(text(_VERSION_TABLE.format(name=versions.name)))
    due = pending(connection, migrations, versions)
    for version, statements in due:
        _apply(connection, version, statements, versions)
    return tuple(version for version, _ in due)


def pending(
    connection: Connection, migrations: Migrations | None = None, versions: Table = SCHEMA_VERSION
) -> Migrations:
    """What `migrate` would apply. ConfigError: the database is ahead of this program."""
    migrations = MIGRATIONS if migrations is None else migrations
    current = 0
    if inspect(connection).has_table(versions.name):
        current = connection.execute(select(func.max(versions.c.version))).scalar() or 0
    newest = migrations[-1][0]
    if current > newest:
        problem = f"its schema is version {current}, this Headgate knows up to {newest}: upgrade Headgate"
        raise ConfigError("ledger database", [problem])
    return [(version, statements) for version, statements in migrations if version > current]


def _apply(connection: Connection, version: int, statements: tuple[str, ...], versions: Table) -> None:
    for statement in statements:
        connection.execute(text(statement))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute(insert(versions).values(version=version, applied_at=now))

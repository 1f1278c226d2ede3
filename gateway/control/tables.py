"""The control plane's tables. `migrations` holds the DDL that makes them."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text

METADATA = MetaData()

# The present state: one row for each team, project, key, policy version …; `body` is the JSON of its record.
RECORD = Table(
    "control_record",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),  # the number of the change that wrote it
    Column("team", Text, nullable=False),  # that it belongs to; empty: to none
    Column("body", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),  # Unix seconds
    Column("changed_at", BigInteger, nullable=False),
)

# Every change, in order: never updated, never deleted. See `audit`.
AUDIT = Table(
    "control_audit",
    METADATA,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", BigInteger, nullable=False),  # Unix seconds
    Column("actor", Text, nullable=False),  # id of the key
    Column("reason", Text, nullable=False),  # in the actor's words
    Column("action", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("before", Text, nullable=False),  # JSON, secrets masked; null: there was none
    Column("after", Text, nullable=False),
    Column("digest", Text, nullable=False),  # SHA-256 of the record's body after it; empty: there is none
    Column("previous", Text, nullable=False),  # the hash of the row before
    Column("hash", Text, nullable=False),
)

# What was answered to a POST with an Idempotency-Key.
ANSWER = Table(
    "control_answer",
    METADATA,
    Column("actor", Text, primary_key=True),
    Column("route", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("asked", Text, nullable=False),  # SHA-256 of the request
    Column("answer", Text, nullable=False),  # JSON, without secrets
    Column("at", BigInteger, nullable=False),  # Unix seconds
)

VERSIONS = Table(
    "control_schema_version",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", Text, nullable=False),  # ISO 8601, UTC
)

"""The tables of files and jobs. `migrations` holds the DDL that makes them."""

from sqlalchemy import BigInteger, Column, Integer, MetaData, Table, Text

METADATA = MetaData()

# One row for each uploaded or resulting file; its bytes are on disk, see `files`.
FILE = Table(
    "tuning_file",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("created_ns", BigInteger, nullable=False),  # Unix time; the order of lists
    Column("team", Text, nullable=False),
    Column("project", Text, nullable=False),  # empty: none
    Column("key_id", Text, nullable=False),  # that uploaded it
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("expires_at", BigInteger),  # Unix seconds; null: it stays
)

# One row for each job. `worker`, `attempt` and `beat` are its lease, see `store`.
JOB = Table(
    "tuning_job",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("created_ns", BigInteger, nullable=False),  # Unix time; the order of lists and of the queue
    Column("team", Text, nullable=False),
    Column("project", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("training_file", Text, nullable=False),
    Column("validation_file", Text, nullable=False),  # empty: none
    Column("status", Text, nullable=False),
    Column("worker", Text, nullable=False),  # that is at it; empty: nobody
    Column("attempt", BigInteger, nullable=False),  # leases so far
    Column("beat", BigInteger, nullable=False),  # renewals of the present lease
    Column("events", BigInteger, nullable=False),  # so many there are
    Column("asked", Text, nullable=False),  # JSON, never changed
    Column("outcome", Text, nullable=False),  # JSON
)

# What happened to a job, in order. Append-only.
EVENT = Table(
    "tuning_event",
    METADATA,
    Column("job", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),  # from 1
    Column("created_at", BigInteger, nullable=False),  # Unix seconds
    Column("level", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", Text, nullable=False),  # JSON object
)

CHECKPOINT = Table(
    "tuning_checkpoint",
    METADATA,
    Column("job", Text, primary_key=True),
    Column("step", BigInteger, primary_key=True, autoincrement=False),
    Column("created_at", BigInteger, nullable=False),  # Unix seconds
    Column("metrics", Text, nullable=False),  # JSON object
)

VERSIONS = Table(
    "tuning_schema_version",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", Text, nullable=False),  # ISO 8601, UTC
)

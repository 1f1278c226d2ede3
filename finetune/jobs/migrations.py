"""The numbered schema changes of files and jobs, as data: `gateway.ledger.migrations` applies them.

DDL that SQLite and PostgreSQL both take, frozen once released: a later change is a further migration.
"""

_FILE = """
CREATE TABLE tuning_file (
    id TEXT NOT NULL PRIMARY KEY,
    created_ns BIGINT NOT NULL,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    key_id TEXT NOT NULL,
    filename TEXT NOT NULL,
    purpose TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    sha256 TEXT NOT NULL,
    expires_at BIGINT
)
"""

_JOB = """
CREATE TABLE tuning_job (
    id TEXT NOT NULL PRIMARY KEY,
    created_ns BIGINT NOT NULL,
    team TEXT NOT NULL,
    project TEXT NOT NULL,
    key_id TEXT NOT NULL,
    training_file TEXT NOT NULL,
    validation_file TEXT NOT NULL,
    status TEXT NOT NULL,
    worker TEXT NOT NULL,
    attempt BIGINT NOT NULL,
    beat BIGINT NOT NULL,
    events BIGINT NOT NULL,
    asked TEXT NOT NULL,
    outcome TEXT NOT NULL
)
"""

_EVENT = """
CREATE TABLE tuning_event (
    job TEXT NOT NULL,
    seq BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    level TEXT NOT NULL,
    type TEXT NOT NULL,
    message TEXT NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (job, seq)
)
"""

_CHECKPOINT = """
CREATE TABLE tuning_checkpoint (
    job TEXT NOT NULL,
    step BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    metrics TEXT NOT NULL,
    PRIMARY KEY (job, step)
)
"""

MIGRATIONS: tuple[tuple[int, tuple[str, ...]], ...] = (
    (
        1,
        (
            _FILE,
            _JOB,
            _EVENT,
            _CHECKPOINT,
            "CREATE INDEX tuning_file_by_team ON tuning_file (team, created_ns)",
            "CREATE INDEX tuning_job_by_team ON tuning_job (team, created_ns)",
            "CREATE INDEX tuning_job_by_status ON tuning_job (status, created_ns)",
        ),
    ),
)

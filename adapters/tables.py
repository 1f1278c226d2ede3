"""The registry's tables: the gateway's migrations create them with the others, or `create_tables` does."""

from sqlalchemy import BigInteger, Column, Engine, Table, Text, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Field, SQLModel


class AdapterVersion(SQLModel, table=True):
    """One release that was ever registered. Never deleted; only `state` and `reason` change."""

    __tablename__ = "adapter_version"

    release: str = Field(primary_key=True)
    name: str = Field(index=True)
    base: str
    state: str
    reason: str = ""  # why it failed
    manifest: str = Field(sa_column=Column(Text, nullable=False))  # JSON, as it was registered
    registered_ns: int = Field(sa_column=Column(BigInteger, nullable=False))  # Unix time


class AdapterAlias(SQLModel, table=True):
    """Where an alias points now."""

    __tablename__ = "adapter_alias"

    alias: str = Field(primary_key=True)  # "name@stable"
    name: str = Field(index=True)
    release: str = Field(foreign_key="adapter_version.release")
    previous: str | None = Field(default=None, foreign_key="adapter_version.release")
    moved_ns: int = Field(sa_column=Column(BigInteger, nullable=False))
    moved_by: str


class AliasMove(SQLModel, table=True):
    """Every move of every alias, in order. Append-only."""

    __tablename__ = "alias_move"

    id: int | None = Field(default=None, primary_key=True)
    alias: str = Field(index=True)
    from_release: str | None = None
    to_release: str
    moved_ns: int = Field(sa_column=Column(BigInteger, nullable=False))
    moved_by: str


class AdapterRow(SQLModel, table=True):
    """One row of a dataset that a release was trained or evaluated on, by the digest of its content."""

    __tablename__ = "adapter_row"

    row: str = Field(primary_key=True)  # SHA-256 of its canonical JSON
    release: str = Field(primary_key=True, foreign_key="adapter_version.release", index=True)
    split: str = Field(primary_key=True)  # "train" or "held_out"


class ErasedRow(SQLModel, table=True):
    """One row that must not be used any more, as when a person asked for the erasure of their data."""

    __tablename__ = "erased_row"

    row: str = Field(primary_key=True)
    block: bool  # releases that were trained on it must not be served
    erased_ns: int = Field(sa_column=Column(BigInteger, nullable=False))
    erased_by: str


class AdapterTrial(SQLModel, table=True):
    """One canary: its plan, and the numbers of the sequential test as they last stood."""

    __tablename__ = "adapter_trial"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
    release: str = Field(foreign_key="adapter_version.release")
    against: str = Field(foreign_key="adapter_version.release")  # the stable release at its beginning
    weight: float  # share of the traffic, in (0, 1)
    started_ns: int = Field(sa_column=Column(BigInteger, nullable=False))
    started_by: str
    ended_ns: int | None = Field(default=None, sa_column=Column(BigInteger, nullable=True))
    verdict: str = ""  # "promoted", "rolled back"; empty: under way
    reason: str = ""
    numbers: str = Field(default="{}", sa_column=Column(Text, nullable=False))  # JSON


_LOCK = 0x61646170746572  # "adapter": the key of PostgreSQL's advisory lock
TABLES: tuple[Table, ...] = tuple(
    SQLModel.metadata.tables[name]
    for name in (
        "adapter_version",
        "adapter_alias",
        "alias_move",
        "adapter_row",
        "erased_row",
        "adapter_trial",
    )
)


def create_tables(engine: Engine) -> None:
    """Create the tables that are not there yet; may be called again, and by several processes at once."""
    for _ in TABLES:
        try:
            _create_missing(engine)
        except (
            DBAPIError
        ):  # SQLite has no such lock: another process made one between the look and the making
            continue
        return
    _create_missing(engine)


def _create_missing(engine: Engine) -> None:
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # looking and creating are two steps
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        SQLModel.metadata.create_all(connection, tables=TABLES)

"""The registry's tables: the gateway's migrations create them with the others, or `create_tables` does."""

from sqlalchemy import BigInteger, Column, Engine, Table, Text, text
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


_LOCK = 0x61646170746572  # "adapter": the key of PostgreSQL's advisory lock
TABLES: tuple[Table, ...] = tuple(
    SQLModel.metadata.tables[name] for name in ("adapter_version", "adapter_alias", "alias_move")
)


def create_tables(engine: Engine) -> None:
    """Create the tables that are not there yet; may be called again, and by several processes at once."""
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":  # looking and creating are two steps
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        SQLModel.metadata.create_all(connection, tables=TABLES)

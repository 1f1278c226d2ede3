"""The ledger's tables, and how an Entry becomes a row and a row an Entry.

The columns here are what queries are written against; `migrations` holds the DDL that makes them, and a
test holds the two together.
"""

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from sqlalchemy import JSON, BigInteger, Index, Table, Text
from sqlmodel import Field, SQLModel

from gateway.types import Entry, Usage


class EntryRow(SQLModel, table=True):
    """One request, settled. The usage meters of `Entry.usage` stand as columns of their own."""

    __tablename__ = "entry"
    __table_args__ = (
        Index("entry_started", "started_ns"),
        Index("entry_team_started", "team", "started_ns"),
    )

    call_id: str = Field(primary_key=True, sa_type=Text)
    started_ns: int = Field(sa_type=BigInteger)
    key_id: str = Field(sa_type=Text)
    team: str = Field(sa_type=Text)
    tags: list[str] = Field(sa_type=JSON)
    endpoint: str = Field(sa_type=Text)
    model_asked: str = Field(sa_type=Text)
    privacy: str = Field(sa_type=Text)
    findings: dict[str, int] = Field(sa_type=JSON)
    policy: str = Field(sa_type=Text)
    route: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    backend: str = Field(sa_type=Text)
    zone: str = Field(sa_type=Text)
    model: str = Field(sa_type=Text)
    adapter: str = Field(sa_type=Text)
    stream: bool
    attempts: int = Field(sa_type=BigInteger)
    status: int = Field(sa_type=BigInteger)
    outcome: str = Field(sa_type=Text)
    error_class: str | None = Field(sa_type=Text)
    input_tokens: int = Field(sa_type=BigInteger)
    cached_input_tokens: int = Field(sa_type=BigInteger)
    cache_write_tokens: int = Field(sa_type=BigInteger)
    output_tokens: int = Field(sa_type=BigInteger)
    reasoning_tokens: int = Field(sa_type=BigInteger)
    estimated: bool
    cost_nano: int | None = Field(sa_type=BigInteger)
    price: str = Field(sa_type=Text)
    first_byte_ms: float | None
    duration_ms: float


class SchemaVersion(SQLModel, table=True):
    """One row for each migration that was applied."""

    __tablename__ = "schema_version"

    version: int = Field(primary_key=True)
    applied_at: str = Field(sa_type=Text)  # ISO 8601, UTC


ENTRY: Table = SQLModel.metadata.tables["entry"]
SCHEMA_VERSION: Table = SQLModel.metadata.tables["schema_version"]
_USAGE = Usage.__struct_fields__


def to_row(entry: Entry) -> dict[str, Any]:
    """The entry's columns. NUL characters, which PostgreSQL's text cannot hold, become U+FFFD."""
    row = cast(dict[str, Any], msgspec.to_builtins(entry))
    row |= row.pop("usage")
    for name, value in row.items():
        if isinstance(value, str) and "\x00" in value:
            row[name] = value.replace("\x00", "\ufffd")
    return row


def to_entry(row: Mapping[str, Any]) -> Entry:
    """The entry that was stored. msgspec.ValidationError: the row is none of ours."""
    values = dict(row)
    values["usage"] = {name: values.pop(name) for name in _USAGE}
    return msgspec.convert(values, Entry)

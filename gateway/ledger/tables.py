"""The ledger's tables, and how an Entry becomes a row and a row an Entry.

The columns here are what queries are written against; `migrations` holds the DDL that makes them, and a
test holds the two together.

On its way to the database an entry is a payload, then a row: plain values, ready to be bound, in the order
of the columns. A payload is a JSON array in the order of Entry's fields, so that it is short and nobody
looks up names; the row is that array with the usage spread out and what is a JSON column encoded. Spools may
still hold payloads of earlier versions, which `to_row` reads as well: JSON objects with the fields by name,
and arrays without the fields that came later. Whoever adds a field adds it at the end, with a default, and
leaves shorter arrays behind; a test holds a payload of each kind.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import JSON, BigInteger, Index, Table, Text, text
from sqlmodel import Field, SQLModel

from gateway.types import Entry, Outcome, Usage

Row = list[Any]

_HAS_RESPONSE, _IS_CORRECTION = text("response_id <> ''"), text("corrects <> ''")


class EntryRow(SQLModel, table=True):
    """One request, settled. The usage meters of `Entry.usage` stand as columns of their own.

    Call ids sort by time, as `started_ns` does: both indexes grow at their ends, which makes rows cheap.
    """

    __tablename__ = "entry"
    __table_args__ = (
        Index("entry_started", "started_ns"),
        Index("entry_response", "response_id", sqlite_where=_HAS_RESPONSE, postgresql_where=_HAS_RESPONSE),
        Index("entry_corrects", "corrects", sqlite_where=_IS_CORRECTION, postgresql_where=_IS_CORRECTION),
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
    cause: str = Field(sa_type=Text)
    session: str = Field(sa_type=Text)
    response_id: str = Field(sa_type=Text)
    reached: list[dict[str, Any]] = Field(sa_type=JSON)
    signed_by: str = Field(sa_type=Text)
    signature: str = Field(sa_type=Text)
    cache_write_1h_tokens: int = Field(sa_type=BigInteger)
    audio_input_tokens: int = Field(sa_type=BigInteger)
    image_input_tokens: int = Field(sa_type=BigInteger)
    audio_output_tokens: int = Field(sa_type=BigInteger)
    image_output_tokens: int = Field(sa_type=BigInteger)
    service_tier: str = Field(sa_type=Text)
    corrects: str = Field(sa_type=Text)
    resolves: int = Field(sa_type=BigInteger)
    recorded_ns: int = Field(sa_type=BigInteger)


class SessionRow(SQLModel, table=True):
    """A conversation that something above the lowest class was said in. All others need no row."""

    __tablename__ = "session"

    key: str = Field(primary_key=True, sa_type=Text)
    privacy: str = Field(sa_type=Text)  # the highest so far
    seen_ns: int = Field(sa_type=BigInteger)  # Unix time of its last request, to within a day


class SchemaVersion(SQLModel, table=True):
    """One row for each migration that was applied."""

    __tablename__ = "schema_version"

    version: int = Field(primary_key=True)
    applied_at: str = Field(sa_type=Text)  # ISO 8601, UTC


ENTRY: Table = SQLModel.metadata.tables["entry"]
SESSION: Table = SQLModel.metadata.tables["session"]
SCHEMA_VERSION: Table = SQLModel.metadata.tables["schema_version"]
COLUMNS = tuple(ENTRY.columns.keys())
_FIELDS, _METERS = Entry.__struct_fields__, Usage.__struct_fields__
_TAGS, _FINDINGS, _USAGE, _REACHED = map(_FIELDS.index, ("tags", "findings", "usage", "reached"))
_LATER: dict[str, Any] = {  # fields that earlier payloads do not have, in order
    "cause": "", "session": "", "response_id": "", "reached": [], "signed_by": "", "signature": "",
    "corrects": "", "resolves": 0, "recorded_ns": 0,
}  # fmt: skip
# The columns that come after the signature: the later meters, then the later fields. All at their defaults
# they say nothing, and then the signature does not cover them.
_FIRST_METERS = _METERS.index("estimated") + 1
LATER_COLUMNS = COLUMNS.index("signature") + 1
_LATER_METERS: Row = [0, 0, 0, 0, 0, ""]
UNSAID: Row = [*_LATER_METERS, "", 0, 0]
_LATER_VALUES: Row = list(_LATER.values())
_LENGTHS = {len(_FIELDS) - n for n in (0, 3, len(_LATER))}  # of whole payloads, by version
_SIGNATURE_FIELD = _FIELDS.index("signature") + 1
_OUTCOME = COLUMNS.index("outcome")
_USAGE_COLUMNS = slice(_USAGE, _USAGE + _FIRST_METERS)
_LATER_METER_COLUMNS = slice(LATER_COLUMNS, LATER_COLUMNS + len(_LATER_METERS))

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Any] | dict[str, Any]).decode


def to_row(payload: bytes) -> Row:
    """The columns of an encoded entry. NUL characters, which PostgreSQL's text cannot hold, become U+FFFD.

    msgspec.ValidationError: it was written by a version with other fields.
    """
    values = _decode(payload)
    row: Row = _by_position(values) if isinstance(values, dict) else values
    if len(row) not in _LENGTHS:
        raise msgspec.ValidationError(f"{len(row)} fields, not {len(_FIELDS)}")
    row += _LATER_VALUES[len(row) - len(_FIELDS) :] if len(row) < len(_FIELDS) else ()
    row[_TAGS] = encode(row[_TAGS]).decode() if row[_TAGS] else "[]"
    row[_FINDINGS] = encode(row[_FINDINGS]).decode() if row[_FINDINGS] else "{}"
    row[_REACHED] = encode(row[_REACHED]).decode() if row[_REACHED] else "[]"
    meters = row[_USAGE]
    row[_SIGNATURE_FIELD:_SIGNATURE_FIELD] = meters[_FIRST_METERS:] or _LATER_METERS
    row[_USAGE : _USAGE + 1] = meters[:_FIRST_METERS]
    if b"\\u0000" in payload:
        return [v.replace("\x00", "\ufffd") if isinstance(v, str) else v for v in row]
    return row


def to_lost(row: Row) -> Row:
    """The row of a call that began and was never settled."""
    return [*row[:_OUTCOME], Outcome.LOST.value, *row[_OUTCOME + 1 :]]


def to_entry(row: Sequence[Any]) -> Entry:
    """The entry that was stored: its columns as SQLAlchemy reads them, in order.

    msgspec.ValidationError: the row is none of ours.
    """
    values = list(row)
    later = values[_LATER_METER_COLUMNS]
    del values[_LATER_METER_COLUMNS]
    values[_USAGE_COLUMNS] = [values[_USAGE_COLUMNS] + later]
    return msgspec.convert(values, Entry)


def _by_position(values: dict[str, Any]) -> Row:
    try:
        usage = [values["usage"][name] for name in _METERS[:_FIRST_METERS]]
        values = _LATER | values
        return [usage if name == "usage" else values[name] for name in _FIELDS]
    except KeyError as e:
        raise msgspec.ValidationError(f"no field {e}") from e

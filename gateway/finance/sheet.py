"""A report as finance gets it: named columns that say what they mean, rows, a total that ties, notes."""

from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

Value = str | int | Decimal | date | datetime | None


class Kind(StrEnum):
    """What the values of a column are."""

    TEXT = "text"
    DAY = "day"  # a date
    TIME = "time"  # a datetime in UTC
    COUNT = "count"  # an int
    USD = "USD"  # an int of nano-dollars, shown as dollars
    DECIMAL = "decimal"  # a Decimal as it is
    RATIO = "ratio"  # a Decimal; 1 is 100 %


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """`name` heads the column in files; `heading` on a terminal, where a column without one is left out."""

    name: str
    kind: Kind
    meaning: str
    heading: str = ""


class Sheet(msgspec.Struct, frozen=True, kw_only=True):
    """One table. A None is a value that is not known or does not apply; never a zero."""

    name: str  # a slug, for files
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    total: tuple[Value, ...] | None = None  # None: what is listed is not to be added up
    notes: tuple[str, ...] = ()


def adds_up(columns: tuple[Column, ...], rows: tuple[tuple[Value, ...], ...]) -> tuple[Value, ...]:
    """The total row: the sum of each column of counts and dollars over the values that are known."""
    total: list[Value] = []
    for i, column in enumerate(columns):
        known = [row[i] for row in rows if row[i] is not None]
        adds = column.kind in (Kind.COUNT, Kind.USD)
        total.append(sum(v for v in known if isinstance(v, int)) if adds and (known or not rows) else None)
    return tuple(total)

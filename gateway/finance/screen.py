"""Sheets for a terminal of 100 columns."""

from datetime import UTC, date, datetime
from decimal import Decimal

from rich import box
from rich.table import Table
from rich.text import Text

from gateway.finance.files import ABSENT
from gateway.finance.sheet import Column, Kind, Sheet, Value
from gateway.ledger.prices import usd

UNPRICED = "requests_with_unknown_price"  # a column by which an amount is known to be a lower bound


def render(sheet: Sheet) -> Table:
    """The columns with a heading; "≥" marks an amount that leaves unpriced requests out."""
    table = Table(
        show_footer=sheet.total is not None, title=sheet.title, box=box.SIMPLE, padding=0, show_edge=False
    )
    shown = [i for i, column in enumerate(sheet.columns) if column.heading]
    total = _cells(sheet, sheet.total) if sheet.total is not None else None
    for place, i in enumerate(shown):
        column = sheet.columns[i]
        footer = Text("") if total is None else total[i]
        words = column.kind in (Kind.TEXT, Kind.DAY, Kind.TIME)
        table.add_column(
            column.heading,
            footer=Text("Total")
            if words and place == 0 and total is not None
            else Text("")
            if words
            else footer,
            justify="left" if words else "right",
            no_wrap=not words,
            overflow="fold",
        )
    for row in sheet.rows:
        cells = _cells(sheet, row)
        table.add_row(*(cells[i] for i in shown))
    return table


def _cells(sheet: Sheet, row: tuple[Value, ...]) -> list[Text]:
    names = [column.name for column in sheet.columns]
    partly = UNPRICED in names and bool(row[names.index(UNPRICED)])
    return [_cell(column, value, partly) for column, value in zip(sheet.columns, row, strict=True)]


def _cell(column: Column, value: Value, partly: bool) -> Text:
    if value is None:
        return Text("unknown" if column.kind is Kind.USD else "")
    if column.kind is Kind.USD and isinstance(value, int):
        return Text(f"≥ {usd(value)}" if partly else usd(value))
    if column.kind is Kind.COUNT and isinstance(value, int):
        return Text(_short(value))
    if column.kind is Kind.RATIO and isinstance(value, Decimal):
        return Text(f"{value * 100:.1f} %")
    if isinstance(value, Decimal):
        return Text(f"{value:.6f}")
    if isinstance(value, datetime):
        return Text(value.astimezone(UTC).strftime("%Y-%m-%d %H:%M"))
    return Text(value.isoformat()) if isinstance(value, date) else _plain(str(value))


def _short(count: int) -> str:
    """At most seven characters: exact below a million, else millions (M) or billions (G) to two places."""
    if abs(count) < 10**6:
        return str(count)
    unit, letter = (10**6, "M") if abs(count) < 10**9 else (10**9, "G")
    hundredths = abs(count) * 100 // unit
    return f"{'-' if count < 0 else ''}{hundredths // 100}.{hundredths % 100:02d}{letter}"


def _plain(text: str) -> Text:
    """Not read as rich's markup, and without control characters, which a terminal would obey."""
    return Text("".join(c if c.isprintable() else "\ufffd" for c in text) or ABSENT)

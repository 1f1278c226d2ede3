"""Sheets as CSV, JSON, XLSX and Parquet. Amounts are exact in each but XLSX, whose numbers have 15 digits."""

import csv
import io
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import xlsxwriter

from gateway.errors import ConfigError
from gateway.finance.sheet import Column, Kind, Sheet, Value

ABSENT = "—"  # shown for a key that a request does not have, such as the adapter where there is none
# What a spreadsheet takes for the beginning of a formula, full-width forms included.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
_XLSX_FORMATS = {
    Kind.DAY: "yyyy-mm-dd",
    Kind.TIME: "yyyy-mm-dd hh:mm:ss",
    Kind.COUNT: "#,##0",
    Kind.USD: "#,##0.00####",
    Kind.DECIMAL: "#,##0.00####",
    Kind.RATIO: "0.0%",
}


def to_csv(sheet: Sheet) -> bytes:
    """One line for each row and, where there is a total, a last one of row_type "total".

    UTF-8 with the mark that Excel needs. Texts that a spreadsheet would take for a formula get an apostrophe
    in front.
    """
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    typed = sheet.total is not None
    names = [column.name for column in sheet.columns]
    writer.writerow(["row_type", *names] if typed else names)
    for kind, row in _typed_rows(sheet):
        cells = [_csv_cell(c, v) for c, v in zip(sheet.columns, row, strict=True)]
        writer.writerow([kind, *cells] if typed else cells)
    return file.getvalue().encode("utf-8-sig")


def to_json(sheet: Sheet) -> bytes:
    """Columns, rows, total and notes; amounts are strings, since JSON's numbers are floats to many."""

    def named(row: tuple[Value, ...]) -> dict[str, Any]:
        return {c.name: _json_value(c, v) for c, v in zip(sheet.columns, row, strict=True)}

    return msgspec.json.encode(
        {
            "report": sheet.name,
            "title": sheet.title,
            "columns": [{"name": c.name, "kind": c.kind, "meaning": c.meaning} for c in sheet.columns],
            "rows": [named(row) for row in sheet.rows],
            "total": None if sheet.total is None else named(sheet.total),
            "notes": sheet.notes,
        }
    )


def to_xlsx(sheet: Sheet) -> bytes:
    """A worksheet with the rows and their total, and one named "notes" that says what each column means."""
    file = io.BytesIO()
    options = {"in_memory": True, "strings_to_formulas": False, "strings_to_urls": False}
    with xlsxwriter.Workbook(file, options) as book:
        bold = book.add_format({"bold": True})
        page = book.add_worksheet(sheet.name[:31])
        formats = {kind: book.add_format({"num_format": f}) for kind, f in _XLSX_FORMATS.items()}
        totals = {
            k: book.add_format({"num_format": f, "bold": True, "top": 1}) for k, f in _XLSX_FORMATS.items()
        }
        page.freeze_panes(1, 0)
        for i, column in enumerate(sheet.columns):
            page.write_string(0, i, column.name, bold)
            page.set_column(i, i, max(12, min(40, len(column.name) + 2)))
        for n, (kind, row) in enumerate(_typed_rows(sheet), start=1):
            for i, (column, value) in enumerate(zip(sheet.columns, row, strict=True)):
                chosen = totals if kind == "total" else formats
                _xlsx_cell(page, (n, i), column, value, chosen.get(column.kind))
        if sheet.total is not None and sheet.columns[0].kind is Kind.TEXT:
            page.write_string(len(sheet.rows) + 1, 0, "Total", bold)
        if sheet.rows:
            page.autofilter(0, 0, len(sheet.rows), len(sheet.columns) - 1)
        _xlsx_notes(book.add_worksheet("notes"), sheet, bold)
    return file.getvalue()


def to_parquet(sheet: Sheet) -> bytes:
    """The rows without the total. Amounts are decimals, times are UTC. ConfigError: pyarrow is not there."""
    try:  # an extra, and 60 MB of memory: it is loaded by whoever writes Parquet, not by every gateway
        import pyarrow as arrow  # noqa: PLC0415
        import pyarrow.parquet as parquet  # noqa: PLC0415
    except ModuleNotFoundError as e:
        raise ConfigError("Parquet", ["pyarrow is not installed: pip install 'headgate[parquet]'"]) from e
    types = {
        Kind.TEXT: arrow.string(),
        Kind.DAY: arrow.date32(),
        Kind.TIME: arrow.timestamp("us", tz="UTC"),
        Kind.COUNT: arrow.int64(),
        Kind.USD: arrow.decimal128(38, 9),
        Kind.DECIMAL: arrow.decimal128(38, 18),
        Kind.RATIO: arrow.decimal128(38, 18),
    }
    fields = [arrow.field(c.name, types[c.kind], metadata={"meaning": c.meaning}) for c in sheet.columns]
    columns = zip(*sheet.rows, strict=True) if sheet.rows else [[] for _ in fields]
    arrays = [
        arrow.array([_exact(column, v) for v in values], type=types[column.kind])
        for column, values in zip(sheet.columns, columns, strict=True)
    ]
    file = io.BytesIO()
    parquet.write_table(arrow.table(arrays, schema=arrow.schema(fields)), file)
    return file.getvalue()


WRITERS: dict[str, Callable[[Sheet], bytes]] = {
    "csv": to_csv,
    "json": to_json,
    "xlsx": to_xlsx,
    "parquet": to_parquet,
}
MEDIA_TYPES = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "parquet": "application/vnd.apache.parquet",
}


def _typed_rows(sheet: Sheet) -> Iterable[tuple[str, tuple[Value, ...]]]:
    yield from (("group", row) for row in sheet.rows)
    if sheet.total is not None:
        yield "total", sheet.total


def _exact(column: Column, value: Value) -> Value:
    """Dollars as a Decimal with nine places; all else as it is."""
    return Decimal(value).scaleb(-9) if column.kind is Kind.USD and isinstance(value, int) else value


def _json_value(column: Column, value: Value) -> str | int | None:
    value = _exact(column, value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return _instant(value)
    return value.isoformat() if isinstance(value, date) else value


def _csv_cell(column: Column, value: Value) -> str | int:
    plain = _json_value(column, value)
    if plain is None:
        return ""
    return _text_cell(plain) if column.kind is Kind.TEXT and isinstance(plain, str) else plain


def _text_cell(text: str) -> str:
    if not text:
        return ABSENT
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _xlsx_cell(page: Any, at: tuple[int, int], column: Column, value: Value, style: Any) -> None:
    value = _exact(column, value)
    if value is None:
        page.write_blank(*at, None, style)
    elif isinstance(value, datetime):
        page.write_datetime(*at, value.astimezone(UTC).replace(tzinfo=None), style)
    elif isinstance(value, date):
        page.write_datetime(*at, value, style)
    elif isinstance(value, str):
        page.write_string(*at, value or ABSENT)
    else:
        page.write_number(*at, float(value), style)


def _xlsx_notes(page: Any, sheet: Sheet, bold: Any) -> None:
    page.set_column(0, 0, 44)
    page.set_column(1, 1, 100)
    page.write_string(0, 0, sheet.title, bold)
    lines = [("column", "meaning"), *((c.name, c.meaning) for c in sheet.columns)]
    for n, (name, meaning) in enumerate(lines, start=2):
        page.write_string(n, 0, name, bold)
        page.write_string(n, 1, meaning)
    for n, note in enumerate(sheet.notes, start=len(lines) + 3):
        page.write_string(n, 0, "note", bold)
        page.write_string(n, 1, note)


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""What was spent, by whom and on what: the ledger's sums as frozen rows, CSV, table and JSON.

A cost that is not known is never shown as zero: a group of which nothing is priced has no cost, and one of
which something is not priced says that it is a lower bound.
"""

import csv
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, TextIO

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from gateway.ledger.pricing import usd
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy, Sums

NONE = "—"  # shown for a key that a request does not have, such as the adapter where there is none
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What a spreadsheet takes for the beginning of a formula, full-width forms included.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
_CSV_SUMS = (
    "requests",
    "requests_refused_by_policy_or_limits",
    "requests_failed",
    "requests_with_unknown_price",
    "requests_with_estimated_tokens",
    "input_tokens_including_cached",
    "cached_input_tokens",
    "output_tokens_including_reasoning",
    "cost_of_priced_requests_usd",
    "cost_of_priced_requests_nano_usd",
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One group of requests. Costs in integer nano-dollars (1e-9 USD); tokens are the providers' counts."""

    keys: tuple[str, ...]  # in the report's order; a day is YYYY-MM-DD; empty: the requests have none
    requests: int
    refused: int  # by us, before any backend was reached
    failed: int  # reached a backend and got no whole answer
    unknown_price_requests: int
    estimated_requests: int  # of which the tokens are an estimate
    input_tokens: int  # cached ones included
    cached_input_tokens: int
    output_tokens: int  # reasoning included
    cost_nano: int | None  # of the requests with a known price; None: not one of them has


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that started at or after `since` and before `until`, by group. `total` sums the rows."""

    group_by: tuple[GroupBy, ...]
    since: datetime | None
    until: datetime | None
    rows: tuple[Row, ...]
    total: Row

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-able values; costs also in USD, as decimal strings."""
        return {
            "group_by": [g.value for g in self.group_by],
            "since": _when(self.since) or None,
            "until": _when(self.until) or None,
            "rows": [self._row_dict(row) for row in self.rows],
            "total": self._row_dict(self.total),
        }

    def _row_dict(self, row: Row) -> dict[str, Any]:
        values = msgspec.structs.asdict(row)
        keys = values.pop("keys")
        named = {g.value: key for g, key in zip(self.group_by, keys, strict=False)}
        return named | values | {"cost_usd": None if row.cost_nano is None else usd(row.cost_nano)}


def cost_report(
    store: Store,
    group_by: Sequence[GroupBy],
    since: datetime | None = None,
    until: datetime | None = None,
) -> Report:
    """Requests with since <= start < until, by group; None: no bound. Days are days of UTC.

    Raises ValueError (a time without a zone; the same group twice), StoreUnavailable.
    """
    groups = tuple(GroupBy(g) for g in group_by)
    if len(set(groups)) < len(groups):
        raise ValueError("a report cannot be grouped by the same thing twice")
    sums = store.sums(groups, _to_ns(since), _to_ns(until))
    rows = tuple(_row(groups, s) for s in sums)
    return Report(group_by=groups, since=since, until=until, rows=rows, total=_total(rows))


def write_csv(report: Report, file: TextIO) -> None:
    """Writes one line for each row and a last one, of row_type "total", for their sum.

    Open `file` with newline="" and encoding="utf-8-sig", which Excel needs. Texts that a spreadsheet would
    take for a formula get an apostrophe in front.
    """
    writer = csv.writer(file)
    keys = ["day_utc" if g is GroupBy.DAY else g.value for g in report.group_by]
    writer.writerow(["row_type", "period_start_utc", "period_end_utc_exclusive", *keys, *_CSV_SUMS])
    period = [_when(report.since), _when(report.until)]
    for row in report.rows:
        writer.writerow(["group", *period, *(_text_cell(k) for k in row.keys), *_numbers(row)])
    writer.writerow(["total", *period, *("" for _ in keys), *_numbers(report.total)])


def render_table(report: Report) -> Table:
    """The report for a terminal of 100 columns; "≥" marks a cost that leaves unpriced requests out."""
    table = Table(show_footer=True, title=_title(report), box=box.SIMPLE, padding=0, show_edge=False)
    for i, group in enumerate(report.group_by):
        table.add_column(group.value.capitalize(), footer="" if i else "Total", overflow="fold")
    names = ("Requests", "Failed", "No price", "Input", "Cached", "Output", "Cost USD")
    for name, total in zip(names, _cells(report.total), strict=True):
        table.add_column(name, footer=total, justify="right", no_wrap=True)
    for row in report.rows:
        table.add_row(*(_plain(key) for key in row.keys), *_cells(row))
    return table


def _row(groups: tuple[GroupBy, ...], sums: Sums) -> Row:
    named = zip(groups, sums.keys, strict=True)
    keys = tuple(_day(int(key)) if group is GroupBy.DAY else str(key) for group, key in named)
    return Row(
        keys=keys,
        requests=sums.requests,
        refused=sums.refused,
        failed=sums.failed,
        unknown_price_requests=sums.unknown_price,
        estimated_requests=sums.estimated,
        input_tokens=sums.input_tokens,
        cached_input_tokens=sums.cached_input_tokens,
        output_tokens=sums.output_tokens,
        cost_nano=_known_cost(sums.cost_nano, sums.unknown_price),
    )


def _total(rows: tuple[Row, ...]) -> Row:
    costs = [row.cost_nano for row in rows if row.cost_nano is not None]
    unknown = sum(row.unknown_price_requests for row in rows)
    return Row(
        keys=(),
        requests=sum(row.requests for row in rows),
        refused=sum(row.refused for row in rows),
        failed=sum(row.failed for row in rows),
        unknown_price_requests=unknown,
        estimated_requests=sum(row.estimated_requests for row in rows),
        input_tokens=sum(row.input_tokens for row in rows),
        cached_input_tokens=sum(row.cached_input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        cost_nano=_known_cost(sum(costs) if costs else None, unknown),
    )


def _known_cost(cost_nano: int | None, unknown: int) -> int | None:
    """Nothing spent is zero where nothing was left unpriced, and unknown otherwise."""
    return 0 if cost_nano is None and not unknown else cost_nano


def _numbers(row: Row) -> Iterable[int | str]:
    return (
        row.requests,
        row.refused,
        row.failed,
        row.unknown_price_requests,
        row.estimated_requests,
        row.input_tokens,
        row.cached_input_tokens,
        row.output_tokens,
        "" if row.cost_nano is None else usd(row.cost_nano),
        "" if row.cost_nano is None else row.cost_nano,
    )


def _cells(row: Row) -> tuple[str, ...]:
    cost = "unknown" if row.cost_nano is None else usd(row.cost_nano)
    partly = row.unknown_price_requests and row.cost_nano is not None
    counts = (row.requests, row.failed, row.unknown_price_requests)
    tokens = (row.input_tokens, row.cached_input_tokens, row.output_tokens)
    return (*map(str, counts), *map(_short, tokens), f"≥ {cost}" if partly else cost)


def _short(tokens: int) -> str:
    """At most seven characters: exact below a million, else millions (M) or billions (G) to two places."""
    if tokens < 10**6:
        return str(tokens)
    unit, letter = (10**6, "M") if tokens < 10**9 else (10**9, "G")
    hundredths = tokens * 100 // unit
    return f"{hundredths // 100}.{hundredths % 100:02d}{letter}"


def _text_cell(text: str) -> str:
    if not text:
        return NONE
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def _plain(text: str) -> Text:
    """Not read as rich's markup, and without control characters, which a terminal would obey."""
    return Text("".join(c if c.isprintable() else "\ufffd" for c in text) or NONE)


def _title(report: Report) -> str:
    since, until = _when(report.since) or "the beginning", _when(report.until) or "now"
    return f"Cost from {since} until {until} (UTC)"


def _when(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=number)).isoformat()


def _to_ns(moment: datetime | None) -> int | None:
    """Unix time in nanoseconds, in whole numbers."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("a report's bounds need a time zone")
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000

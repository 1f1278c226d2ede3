"""A month of requests in the ledger, and how long finance waits for a report on it: part of `ledger.py`.

The database makes the rows up itself, so that ten million are there within minutes (how fast the gateway
brings them is `ingest_per_s`). The first request is made ready by the gateway's own code, and every other one
is that row with another time and other groups: 20 teams with 3 keys each, 6 models on 3 backends, 2 sets of
tags, 2 routes, 3 outcomes.

    month_rows            requests in the month
    month_groups          groups a day, as roll-ups keep them
    rollup_day_s          one day's entries into its roll-up
    month_report_s        a month by team and model, a table's worth
    month_all_s           the same by day, team, key, tag, model, adapter, route, backend and class
    month_focus_s         the same as FOCUS 1.2 rows
    month_entries_s       by team and model from the entries, as it would be without roll-ups
"""

import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import text

from gateway.finance.focus import Exporter
from gateway.finance.list_prices import ListPrices
from gateway.finance.periods import Period
from gateway.finance.reports import chargeback
from gateway.ledger.prices import PriceBook
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from gateway.ledger.tables import COLUMNS, ENTRY, encode, to_row
from gateway.types import Entry

DAYS = 30
START = datetime(2026, 11, 1, tzinfo=UTC)
NOVEMBER = Period(label="2026-11", since=START, until=datetime(2026, 12, 1, tzinfo=UTC))
PART = 250_000  # rows a statement
VARIED = {
    "call_id": "'month-' || i",
    "team": "'team-' || (i % 20)",
    "key_id": "'key-' || (i % 60)",
    "model": "'model-' || (i / 7 % 6)",
    "backend": "'backend-' || (i / 7 % 3)",
    "tags": "CASE WHEN i / 11 % 2 = 0 THEN '[\"batch\",\"eu\"]' ELSE '[]' END",
    "route": "'route-' || (i / 13 % 2)",
    "outcome": "CASE WHEN i % 97 = 0 THEN 'failed' WHEN i % 53 = 0 THEN 'client_closed' ELSE 'ok' END",
    "input_tokens": "500 + i % 1000",
    "cost_nano": "100000 + i % 1000",
}


def month(store: Store, template: Entry, rows: int) -> dict[str, float]:
    """Fills the month and measures; the store is of nobody else."""
    fill(store, template, rows)
    entries = _timed(lambda: chargeback(store, ["team", "model"], NOVEMBER), times=1)
    days = store.days_to_roll_up(NOVEMBER.until_ns + DAY_NS)
    rolling = [_timed(lambda day=day: store.roll_up(day), times=1) for day in days]
    with store.writing() as connection:
        groups = connection.execute(text("SELECT count(*) FROM rollup")).scalar() or 0
    exporter = Exporter(store, ListPrices(PriceBook({}, "none"), {}), {})
    everything = ["day", "team", "key", "tags", "model", "adapter", "route", "backend", "privacy"]
    return {
        "month_rows": rows,
        "month_groups": groups / len(days),
        "rollup_day_s": statistics.median(rolling),
        "month_report_s": _timed(lambda: chargeback(store, ["team", "model"], NOVEMBER)),
        "month_all_s": _timed(lambda: chargeback(store, everything, NOVEMBER)),
        "month_focus_s": _timed(lambda: exporter.export(NOVEMBER), times=1),
        "month_entries_s": entries,
    }


def fill(store: Store, template: Entry, rows: int) -> None:
    values = dict(zip(COLUMNS, to_row(encode(template)), strict=True))
    step = DAYS * DAY_NS // rows
    varied = VARIED | {"started_ns": f"{NOVEMBER.since_ns} + i * {step}"}
    for first in range(0, rows, PART):
        with store.writing() as connection:
            postgresql = connection.dialect.name == "postgresql"
            chosen = [_typed(name, varied.get(name, f":{name}"), postgresql) for name in COLUMNS]
            numbers = (
                "SELECT i FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n(i)"
                if postgresql
                else "WITH RECURSIVE n(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM n WHERE i < :last) "
                "SELECT i FROM n"
            )
            made = f"SELECT {', '.join(chosen)} FROM ({numbers}) AS made"
            sql = f"INSERT INTO entry ({', '.join(COLUMNS)}) {made}"
            bound = {name: value for name, value in values.items() if name not in varied}
            last = min(first + PART, rows) - 1
            connection.execute(text(sql), bound | {"first": first, "last": last})


def _typed(name: str, expression: str, postgresql: bool) -> str:
    if not postgresql:
        return expression
    types = {"JSON": "json", "BIGINT": "bigint", "BOOLEAN": "boolean", "FLOAT": "double precision"}
    return f"CAST({expression} AS {types.get(str(ENTRY.c[name].type), 'text')})"


def _timed(work: Callable[[], object], times: int = 3) -> float:
    """Seconds, the median of so many times."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)

"""The same code on PostgreSQL.

Runs where psycopg is installed and HEADGATE_TEST_POSTGRES names a database that may be written to, such as
postgresql://postgres@127.0.0.1:5432/headgate_test.
"""

import importlib.util
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest
from sqlalchemy import create_engine, text

from gateway.finance.periods import read_period, zone
from gateway.finance.reports import chargeback
from gateway.ledger.store import RowRefused, Store
from gateway.types import Outcome, Usage
from tests.ledger.conftest import OpenLedger
from tests.ledger.samples import begun, entry

URL = os.environ.get("HEADGATE_TEST_POSTGRES", "")
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("psycopg") is None, reason="psycopg is not installed"),
    pytest.mark.skipif(not URL, reason="HEADGATE_TEST_POSTGRES names no database"),
]


@pytest.fixture
def postgres() -> Iterator[Store]:
    engine = create_engine(URL)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE; CREATE SCHEMA public"))
    engine.dispose()
    store = Store(URL)
    yield store
    store.close()


def test_rows_and_reports_are_the_same(postgres: Store, open_ledger: OpenLedger) -> None:
    """Migrations, the spool's way in, idempotence, refused rows and sums, all by URL alone."""
    ledger = open_ledger(URL)
    ledger.begin(begun("a"))
    ledger.settle(entry("a", model_asked="nul\x00", tags=("nul\x00",)))
    ledger.settle(entry("b", outcome=Outcome.LOST, cost_nano=None))
    ledger.settle(entry("bad", usage=Usage(input_tokens=2**70)))
    assert ledger.flush(20)
    assert postgres.migrate() == ()
    assert postgres.insert([entry("a"), entry("c")]) == 1
    assert {e.call_id for e in postgres.last(9)} == {"a", "b", "c"}
    assert ledger.stats().rejected == 1
    january = read_period("2026-01", zone("UTC"), datetime.now(UTC))
    sheet = chargeback(postgres, ["team", "day"], january)
    names = [column.name for column in sheet.columns]
    (row,) = (dict(zip(names, row, strict=True)) for row in sheet.rows)
    assert (row["team"], row["day_utc"]) == ("search", date(2026, 1, 1))
    assert (row["requests"], row["requests_failed"], row["cost_of_priced_requests_usd"]) == (3, 1, 300_000)
    with pytest.raises(RowRefused):
        postgres.insert([entry("worse", status=2**70)])

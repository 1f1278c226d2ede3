"""`/admin/reports` over HTTP: who may ask, what comes back."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from gateway.admission import Keys
from gateway.api import errors
from gateway.api.auth import Right, key_with
from gateway.api.reports import reports_router
from gateway.finance.desk import REPORTS, Desk
from gateway.ledger.store import Store
from gateway.settings import Settings
from gateway.types import Principal
from tests.cli.test_report import CONFIG
from tests.ledger.samples import entry

HEADERS = {"x-api-key": "finance"}
NOW = datetime(2026, 1, 20, tzinfo=UTC)


@pytest.fixture
def client(store: Store, tmp_path: Path) -> Iterator[TestClient]:
    store.insert([entry("1"), entry("2", backend="vllm", model="base", cost_nano=2_000_000)])
    keys = Keys(
        (
            sha256(name.encode()).hexdigest(),
            Principal(key_id=name, team="t", role="finance" if name == "finance" else ""),
        )
        for name in ("finance", "app")
    )
    api = FastAPI()
    errors.install(api)
    desk = Desk(store, Settings.model_validate(CONFIG), now=lambda: NOW)
    api.include_router(reports_router(key_with(keys, Right.READ_COSTS), desk))
    with TestClient(api) as client:
        yield client


def test_json_and_csv_agree(client: TestClient) -> None:
    """The same rows; the file has a name."""
    asked = {"by": "team", "period": "2026-01"}
    values = client.get("/admin/reports/chargeback", params=asked, headers=HEADERS).json()
    answer = client.get("/admin/reports/chargeback", params=asked | {"format": "csv"}, headers=HEADERS)
    rows = list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"))))
    assert rows[-1]["cost_of_priced_requests_usd"] == values["total"]["cost_of_priced_requests_usd"]
    assert answer.headers["content-disposition"] == 'attachment; filename="chargeback.csv"'
    assert answer.headers["content-type"].startswith("text/csv")


def test_whoever_may_not_see_costs_is_refused(client: TestClient) -> None:
    """No key and a plain key."""
    assert client.get("/admin/reports/chargeback").status_code == 401
    assert client.get("/admin/reports/chargeback", headers={"x-api-key": "app"}).status_code == 403


@pytest.mark.parametrize("params", [{"by": "nobody"}, {"period": "x"}, {"tz": "Mars"}, {"each": "hour"}])
def test_questions_without_an_answer(client: TestClient, params: dict[str, str]) -> None:
    """A 400 in OpenAI's envelope that says what is known."""
    answer = client.get("/admin/reports/chargeback", params=params, headers=HEADERS)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unanswerable_report"


def test_every_report_has_its_route(client: TestClient) -> None:
    """None is left to the command line alone; an unknown one is not found out by a traceback."""
    params = {
        "period": "2026-01",
        "against": "openai-main/gpt-4o-mini",
        "replica": "vllm",
    }
    for name in REPORTS:
        answer = client.get(f"/admin/reports/{name}", params=params, headers=HEADERS)
        assert answer.status_code == 200, (name, answer.text)
    assert client.get("/admin/reports/nothing", headers=HEADERS).status_code == 400
    svg = client.get("/admin/reports/breakeven.svg", params=params, headers=HEADERS)
    assert svg.headers["content-type"].startswith("image/svg+xml")


def test_a_database_that_is_away_is_said(client: TestClient, store: Store, tmp_path: Path) -> None:
    """503: ask again later."""
    store.close()
    (tmp_path / "ledger.db").unlink()
    answer = client.get("/admin/reports/chargeback", headers=HEADERS)
    assert answer.status_code == 503

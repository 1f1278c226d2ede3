"""Tells a webhook when a budget is used to 80 and to 100 %: once for each period, whichever process sees it.

The webhook stands on our own network and is reached through the door. It is told amounts and the budget's id:

    {"event": "budget.used", "budget": "support-month", "percent": 80, "hard": false, "share_used": 0.8123,
     "spent_usd": "203.075000000", "cap_usd": "250.000000000",
     "period_start": "2026-11-01T00:00:00+00:00", "period_end": "2026-12-01T00:00:00+00:00"}

A period without an end has null there. What cannot be delivered is tried again while it is true.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx

from gateway.errors import HeadgateError
from gateway.ledger.budgets.budget import FOREVER_NS, Budget, Window
from gateway.ledger.budgets.leases import Purse
from gateway.ledger.budgets.store import Standing, claim_notice, drop_notice
from gateway.ledger.prices import usd
from gateway.ledger.store import Store
from gateway.privacy.egress import local_client
from router_policies.privacy import PrivacyClass
from router_policies.types import Zone

log = logging.getLogger("headgate.budgets")

PERCENTS = (80, 100)
_EVERY_S = 1.0
_TIMEOUT_S = 5.0


class BudgetNotices:
    """Of one process. `running` looks at its budgets once a second."""

    def __init__(self, purse: Purse, store: Store, url: str, *, every_s: float = _EVERY_S) -> None:
        """Without a `url` nobody is told."""
        self._purse, self._store, self._url, self._every_s = purse, store, url, every_s
        self._told: set[tuple[str, int, int]] = set()  # by this process or another

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        if not self._url:
            yield
            return
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        zone = Zone(name="webhook", ceiling=PrivacyClass.PUBLIC, local=True)
        async with local_client("budget webhook", zone, self._url) as client:
            while True:
                for budget, window, standing in self._purse.standings():
                    for percent in PERCENTS:
                        if standing.spent_nano * 100 >= standing.cap_nano * percent:
                            await self._tell(client, budget, window, standing, percent)
                await asyncio.sleep(self._every_s)

    async def _tell(
        self, client: httpx.AsyncClient, budget: Budget, window: Window, standing: Standing, percent: int
    ) -> None:
        notice = (budget.id, window.start_ns, percent)
        if notice in self._told:
            return
        try:
            if await asyncio.to_thread(self._claim, notice):
                await self._send(client, notice, _event(budget, window, standing, percent))
            self._told.add(notice)
        except (httpx.HTTPError, HeadgateError) as error:
            log.warning(
                "budget %s is used to %d %%, and the webhook is not told: %s", budget.id, percent, error
            )

    async def _send(
        self, client: httpx.AsyncClient, notice: tuple[str, int, int], event: dict[str, Any]
    ) -> None:
        try:
            answer = await client.post(self._url, json=event, timeout=_TIMEOUT_S)
            answer.raise_for_status()
        except BaseException:  # also where this process ends meanwhile: another has to tell
            await asyncio.shield(asyncio.to_thread(self._drop, notice))
            raise

    def _claim(self, notice: tuple[str, int, int]) -> bool:
        with self._store.writing() as connection:
            return claim_notice(connection, *notice)

    def _drop(self, notice: tuple[str, int, int]) -> None:
        with self._store.writing() as connection:
            drop_notice(connection, *notice)


def _event(budget: Budget, window: Window, standing: Standing, percent: int) -> dict[str, Any]:
    return {
        "event": "budget.used",
        "budget": budget.id,
        "percent": percent,
        "hard": budget.hard,
        "share_used": round(standing.spent_nano / standing.cap_nano, 4) if standing.cap_nano else 1.0,
        "spent_usd": usd(standing.spent_nano),
        "cap_usd": usd(standing.cap_nano),
        "period_start": _moment(window.start_ns),
        "period_end": None if window.end_ns == FOREVER_NS else _moment(window.end_ns),
    }


def _moment(ns: int) -> str:
    return datetime.fromtimestamp(ns // 10**9, UTC).isoformat()

"""The composition root: `build_app(settings)` puts every part together. Nothing runs at import.

Tests hand in fakes for what they want to break; everything else is as it ships.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI

from adapters.errors import AdapterError
from finetune.jobs.release import NotReleased
from gateway.admission import Keys
from gateway.api import admin, errors, files
from gateway.api.auth import Right, any_key
from gateway.api.body_limit import BodyLimit
from gateway.api.decisions import decisions_router
from gateway.api.desk import REFUSALS, Desk, reading
from gateway.api.files import owner_of
from gateway.api.fine_tuning import fine_tuning_router
from gateway.api.health import health_router, live, readiness
from gateway.api.models import Card, models_router
from gateway.api.reports import reports_router
from gateway.backends.base import Backend
from gateway.calls import Caller
from gateway.control import principals
from gateway.control.budget_notices import BudgetNotices
from gateway.control.follow import Follower
from gateway.control.jobs import Tuning
from gateway.control.money import Money, budgets_of
from gateway.control.policies import Policies
from gateway.control.rules import Classifiers
from gateway.control.state import ControlState
from gateway.control.store import Author, ControlStore, Transaction
from gateway.dataplane.plane import Dataplane
from gateway.dataplane.protocol import HotProtocol, Instant, Limits
from gateway.errors import HeadgateError
from gateway.finance.desk import Desk as FinanceDesk
from gateway.finance.list_prices import price_book
from gateway.fleet import Fleet
from gateway.holds import Holds
from gateway.ledger.budgets.leases import Purse
from gateway.ledger.database import StoreUnavailable
from gateway.ledger.ledger import Ledger
from gateway.ledger.store import BudgetStanding
from gateway.monitor.observers import observers
from gateway.parts import (
    build_backend,
    build_caller,
    build_charge,
    build_classifier,
    build_detectors,
    build_limiter,
    gauge_fleet,
    seen_now,
)
from gateway.pipeline import Pipeline
from gateway.policy_file import build_catalog, load_policy
from gateway.privacy.classify import THREADS
from gateway.privacy.detect import Detector
from gateway.privacy.evidence import open_keyring
from gateway.privacy.recogniser.detector import NameDetector
from gateway.privacy.sessions import Sessions
from gateway.privacy.workers import Workers
from gateway.record import Recorder
from gateway.settings import (
    Settings,
    VllmSettings,
    read_yaml,
)
from gateway.types import Principal
from router_policies.compiled import CompiledPolicy
from router_policies.load import load
from router_policies.names import TUNED_PREFIX, tuned_alias
from router_policies.types import Snapshot

log = logging.getLogger("headgate")

START_S = 5.0  # a start waits so long for the control plane's database


class Headgate:
    """The gateway: the hot endpoints by the data plane, all else by FastAPI, on one port."""

    def __init__(
        self,
        dataplane: Dataplane,
        api: FastAPI,
        *,
        policies: Policies,
        ledger: Ledger,
        fleet: Fleet,
        caller: Caller,
    ) -> None:
        self._dataplane, self._api = dataplane, api
        self.policies, self.ledger, self.fleet, self.caller = policies, ledger, fleet, caller

    @property
    def policy(self) -> CompiledPolicy:
        """The one in force; before the database says so the configuration's."""
        return self.policies.stable

    def server_config(self, **options: Any) -> uvicorn.Config:
        """How uvicorn serves this gateway; `options` go over it."""
        shipped: dict[str, Any] = {
            "http": partial(HotProtocol, plane=self._dataplane),
            "ws": "none",
            "loop": "uvloop",
            "lifespan": "on",
            "proxy_headers": False,
            "access_log": False,
            "server_header": False,
            "log_level": "warning",
            "timeout_graceful_shutdown": 30,
        }
        return uvicorn.Config(self._api, **(shipped | options))


def build_app(
    settings: Settings,
    *,
    detectors: Sequence[Detector] | None = None,
    backends: Mapping[str, Backend] | None = None,
) -> Headgate:
    """Raises ConfigError, listing everything, when the configuration or its policy cannot be used."""
    prices = price_book(settings)
    catalog = build_catalog(settings, prices)
    policy = load_policy(settings, catalog)
    watching = observers(settings, [t.model for route in policy.routes for t in route.targets if t.model])
    settings.state.mkdir(parents=True, exist_ok=True)
    keyring = open_keyring(settings.state, settings.privacy.signing_key_env, os.environ)
    ledger = Ledger(
        settings.database_url,
        settings.state / "spool",
        sign=keyring.sign,
        budgets=budgets_of(settings),
    )
    sessions = Sessions(ledger.store, days=settings.privacy.session_days, scale=settings.scale)
    fleet, tuning = Fleet(settings), Tuning(settings)
    backends = backends or {
        name: build_backend(name, b, settings, fleet) for name, b in settings.backends.items()
    }
    gauge_fleet(fleet, watching.metrics)
    charges = {name: build_charge(backend, prices) for name, backend in settings.backends.items()}
    caller = build_caller(settings, backends, watching.metrics)
    holds = Holds(ledger.purse, charges)
    notices = BudgetNotices(ledger.purse, ledger.store, settings.budget_webhook)
    keys = Keys(principals.of_file(settings))
    policies = Policies(policy, lambda document, source: load(document, source, catalog))
    store = ControlStore(settings.database_url)
    workers = Workers(THREADS)  # of all classifiers: rules come and go
    shipped = build_detectors(settings) if detectors is None else detectors
    classifiers = Classifiers(
        lambda rules: build_classifier(settings, shipped, rules, workers), settings.scale
    )
    money = Money(settings, prices)
    follower = build_follower(settings, store, keys, policies, classifiers, money, ledger.purse)
    watching.metrics.gauge(
        "headgate_control_age_seconds", "Since keys and policies were known to be up to date.", follower.age_s
    )

    fleet.measured(watching.speeds, caller.busy)

    def snapshot() -> Snapshot:
        return seen_now(fleet.snapshot, caller.breakers)

    def snapshot_for(unit: str) -> Snapshot:
        found, taken = snapshot(), fleet.taken_by_canaries(unit)
        return msgspec.structs.replace(found, aliases={**found.aliases, **taken}) if taken else found

    pipeline = Pipeline(
        keys=keys,
        classifier_of=classifiers,
        policy=policies,
        snapshot=snapshot_for,
        caller=caller,
        recorder=Recorder(ledger, charges, watching, fleet.in_flight, sessions.kept),
        sessions=sessions,
        permit_s=settings.privacy.permit_s,
        holds=holds,
        limiter=build_limiter(settings.limits),
    )
    limits = Limits(
        max_body=settings.limits.max_body_bytes,
        body_timeout=settings.limits.body_timeout_s,
        max_in_flight=settings.limits.max_in_flight,
    )

    def ready() -> tuple[int, bytes]:
        checks = {
            "ledger": ledger.ready,
            "fleet": fleet.ready(),
            "control": follower.loaded and classifiers.ready and policies.ready,
        }
        return readiness(checks, control=follower.status())

    health: dict[bytes, Instant] = {b"/live": live, b"/ready": ready}
    dataplane = Dataplane(pipeline, watching, limits, health)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower.start()
        await asyncio.to_thread(follower.reached, 0, START_S)  # else it is not ready until it has
        training = tuning_here(tuning, fleet, store) if settings.finetune.worker else nullcontext()
        async with (
            fleet.running(),
            dataplane.running(),
            holds.running(),
            notices.running(),
            training,
        ):
            yield
        await pipeline.aclose()
        tuning.close()
        await asyncio.to_thread(follower.stop)
        await close_all(backends.values(), shipped)
        ledger.close()
        await asyncio.to_thread(watching.close)

    desk = Desk(
        store=store,
        follower=follower,
        keys=keys,
        file_keys=settings.keys,
        file_budgets=frozenset(budget.id for budget in settings.budgets),
        currencies=frozenset(settings.currencies),
        policies=policies,
        file_policy=msgspec.convert(read_yaml(settings.policy), dict[str, Any]),
        classifier_of=classifiers,
        scale=settings.scale,
        snapshot=snapshot,
    )
    api = FastAPI(
        title="Headgate",
        description="Routes each request to a model you own or one you rent.",
        lifespan=lifespan,
        docs_url="/admin/docs",
        openapi_url="/admin/openapi.json",
    )
    errors.install(api)
    admin.install(api)
    files.install(api)
    api.add_middleware(BodyLimit)
    api.include_router(health_router(ready, watching.metrics, ledger.backlog))

    def served() -> Mapping[str, str]:
        return fleet.snapshot.aliases

    def cards(client: Principal, aliases: Mapping[str, str]) -> list[Card]:
        shown = model_cards(settings, policies.stable, aliases, fleet.base)
        return [*shown, *tuned_cards(tuning, client, aliases)]

    def standings() -> Sequence[BudgetStanding]:
        return ledger.store.standings(ledger.purse.covering.budgets, time.time_ns())

    api.include_router(models_router(any_key(keys), served, cards))
    api.include_router(
        files.files_router(
            any_key(keys), tuning.files, tuning.jobs, most_bytes=int(settings.finetune.team_gib * 2**30)
        )
    )
    api.include_router(
        fine_tuning_router(any_key(keys), tuning.jobs, tuning.files, base=tuning.base, aliases=served)
    )
    api.include_router(admin.admin_router(desk, fleet, standings, settings))
    spent = FinanceDesk(ledger.store, settings, prices)
    api.include_router(reports_router(reading(desk, Right.READ_COSTS), spent), responses=REFUSALS)
    decisions = decisions_router(reading(desk), ledger.store, keyring, settings.scale)
    api.include_router(decisions, responses=REFUSALS)
    return Headgate(dataplane, api, policies=policies, ledger=ledger, fleet=fleet, caller=caller)


async def close_all(backends: Iterable[Backend], detectors: Iterable[Detector]) -> None:
    for backend in backends:
        await backend.aclose()
    for detector in detectors:
        if isinstance(detector, NameDetector):
            detector.close()


def build_follower(
    settings: Settings,
    store: ControlStore,
    keys: Keys,
    policies: Policies,
    classifiers: Classifiers,
    money: Money,
    purse: Purse,
) -> Follower:
    """What brings changes in the database into this process."""

    def apply(state: ControlState) -> list[str]:
        admitted, faults = principals.of_state(state, settings)
        faults += classifiers.follow(state)  # first: nothing is decided before the rules are known
        budgets, unpriced = money.follow(state)
        purse.follow(budgets)
        faults += unpriced
        keys.follow(admitted)
        return [*faults, *policies.follow(state)]

    return Follower(store, apply)


def model_cards(
    settings: Settings, policy: CompiledPolicy, aliases: Mapping[str, str], base: str
) -> list[Card]:
    """Names that routes answer to, base models, rented models, and adapters with their base."""
    now = int(time.time())
    named = {model for route in policy.routes for model in route.conditions.models}
    cards = {name: Card(id=name, created=now, owned_by="headgate") for name in named}
    for name, backend in settings.backends.items():
        models = (backend.model,) if isinstance(backend, VllmSettings) else backend.models
        cards |= {m: Card(id=m, created=now, owned_by=name) for m in models if "*" not in m}
    for alias, release in aliases.items():
        if not alias.startswith(TUNED_PREFIX):  # those have names of their own, and are their team's
            for adapter in (alias, release):
                cards[adapter] = Card(id=adapter, created=now, owned_by="headgate", parent=base)
    return list(cards.values())


def tuned_cards(tuning: Tuning, client: Principal, aliases: Mapping[str, str]) -> list[Card]:
    """What the jobs of the client's team or project made, as far as it is served."""
    try:
        made = tuning.jobs.models(owner_of(client))
    except StoreUnavailable as error:  # all other models can be asked for all the same
        log.warning("fine-tuned models are not listed: %s", error)
        return []
    return [
        Card(id=name, created=since, owned_by=client.team, parent=tuning.base)
        for name, since in made
        if tuned_alias(name, client.team) in aliases
    ]


@asynccontextmanager
async def tuning_here(tuning: Tuning, fleet: Fleet, store: ControlStore) -> AsyncIterator[None]:
    """Works on fine-tuning jobs until left. Of all gateways of a machine one at a time does."""
    loop = asyncio.get_running_loop()

    def release(folder: Path, by: str) -> str:
        try:
            done = asyncio.run_coroutine_threadsafe(fleet.release(folder, by=by), loop).result()
        except AdapterError as error:
            raise NotReleased(str(error)) from error

        def note(changes: Transaction) -> dict[str, Any]:
            changes.note("release", "adapter", done.release.partition("@")[0], msgspec.to_builtins(done))
            return {}

        try:
            store.once(Author(by, "fine-tuning job"), None, note)
        except HeadgateError as error:  # what is done is done
            log.error("the release %s by %s is not in the audit log: %s", done.release, by, error)
        return done.release

    worker = tuning.worker(release)
    thread = threading.Thread(target=tuning.alone, args=(worker,), name="fine-tuning")
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        await asyncio.to_thread(thread.join)

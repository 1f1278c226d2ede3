"""The composition root: `build_app(settings)` puts every part together. Nothing runs at import.

Tests hand in fakes for what they want to break; everything else is as it ships.
"""

import asyncio
import importlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from itertools import product
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI

from gateway.admission import Keys
from gateway.api import admin, errors
from gateway.api.auth import Right, any_key
from gateway.api.body_limit import BodyLimit
from gateway.api.decisions import decisions_router
from gateway.api.desk import REFUSALS, Desk, reading
from gateway.api.health import health_router, live, readiness
from gateway.api.models import Card, models_router
from gateway.api.reports import reports_router
from gateway.backends.base import Backend
from gateway.backends.cloud_providers import origin
from gateway.backends.dialect import as_openai
from gateway.backends.http1 import Timeouts
from gateway.backends.openai_wire import OpenAIWire
from gateway.backends.replica_set import ReplicaSet
from gateway.calls import Caller, Upstream
from gateway.control import principals
from gateway.control.follow import Follower
from gateway.control.policies import Policies
from gateway.control.rules import Classifiers
from gateway.control.state import ControlState
from gateway.control.store import ControlStore
from gateway.dataplane.plane import Dataplane
from gateway.dataplane.protocol import HotProtocol, Instant, Limits
from gateway.finance.desk import Desk as FinanceDesk
from gateway.fleet import Fleet
from gateway.holds import Holds
from gateway.ledger.budgets.budget import Budget, Period, Scope
from gateway.ledger.charges import ByTheHour, ByToken, Charge
from gateway.ledger.ledger import Ledger
from gateway.ledger.pricing import NANO_PER_USD, Override, PriceBook
from gateway.monitor.metrics import Metrics
from gateway.monitor.observers import observers
from gateway.pipeline import Pipeline
from gateway.policy_file import build_catalog, load_policy
from gateway.privacy.classify import THREADS, Classifier
from gateway.privacy.detect import Detector, StructuredDetector
from gateway.privacy.egress import Door
from gateway.privacy.evidence import open_keyring
from gateway.privacy.recogniser.detector import CLASSES as NAME_CLASSES
from gateway.privacy.recogniser.detector import NameDetector, start
from gateway.privacy.sessions import Sessions
from gateway.privacy.workers import Workers
from gateway.record import Recorder
from gateway.resilience.breaker import Breakers, State
from gateway.resilience.slots import Slots
from gateway.settings import (
    AnyBackend,
    BudgetSettings,
    LitellmSettings,
    OpenAISettings,
    Settings,
    VllmSettings,
    read_yaml,
)
from router_policies.compiled import CompiledPolicy
from router_policies.load import load
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
    catalog = build_catalog(settings)
    policy = load_policy(settings, catalog)
    prices = PriceBook.bundled({name: Override(**dict(p)) for name, p in settings.prices.items()})
    watching = observers(settings, [t.model for route in policy.routes for t in route.targets if t.model])
    settings.state.mkdir(parents=True, exist_ok=True)
    keyring = open_keyring(settings.state, settings.privacy.signing_key_env, os.environ)
    ledger = Ledger(
        settings.database_url,
        settings.state / "spool",
        sign=keyring.sign,
        budgets=[build_budget(budget) for budget in settings.budgets],
    )
    sessions = Sessions(ledger.store, days=settings.privacy.session_days, scale=settings.scale)
    fleet = Fleet(settings)
    backends = backends or {
        name: build_backend(name, b, settings, fleet) for name, b in settings.backends.items()
    }
    gauge_fleet(fleet, watching.metrics)
    charges = {name: build_charge(backend, prices) for name, backend in settings.backends.items()}
    caller = build_caller(settings, backends, watching.metrics)
    holds = Holds(ledger.purse, charges) if settings.budgets else None
    keys = Keys(principals.of_file(settings))
    policies = Policies(policy, lambda document, source: load(document, source, catalog))
    store = ControlStore(settings.database_url)
    workers = Workers(THREADS)  # of all classifiers: rules come and go
    shipped = build_detectors(settings) if detectors is None else detectors
    classifiers = Classifiers(
        lambda rules: build_classifier(settings, shipped, rules, workers), settings.scale
    )
    follower = build_follower(settings, store, keys, policies, classifiers)
    watching.metrics.gauge(
        "headgate_control_age_seconds", "Since keys and policies were known to be up to date.", follower.age_s
    )

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
        async with fleet.running(), dataplane.running(), holds.running() if holds else nullcontext():
            yield
        await asyncio.to_thread(follower.stop)
        for backend in backends.values():
            await backend.aclose()
        for detector in shipped:
            if isinstance(detector, NameDetector):
                detector.close()
        ledger.close()
        await asyncio.to_thread(watching.close)

    desk = Desk(
        store=store,
        follower=follower,
        keys=keys,
        file_keys=settings.keys,
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
    api.add_middleware(BodyLimit)
    api.include_router(health_router(ready, watching.metrics, ledger.backlog))
    api.include_router(models_router(any_key(keys), lambda: model_cards(settings, policies.stable, fleet)))
    api.include_router(admin.admin_router(desk, fleet))
    spent = FinanceDesk(ledger.store, settings)
    api.include_router(reports_router(reading(desk, Right.READ_COSTS), spent), responses=REFUSALS)
    decisions = decisions_router(reading(desk), ledger.store, keyring, settings.scale)
    api.include_router(decisions, responses=REFUSALS)
    return Headgate(dataplane, api, policies=policies, ledger=ledger, fleet=fleet, caller=caller)


def build_follower(
    settings: Settings, store: ControlStore, keys: Keys, policies: Policies, classifiers: Classifiers
) -> Follower:
    """What brings changes in the database into this process."""

    def apply(state: ControlState) -> list[str]:
        admitted, faults = principals.of_state(state, settings)
        faults += classifiers.follow(state)  # first: nothing is decided before the rules are known
        keys.follow(admitted)
        return [*faults, *policies.follow(state)]

    return Follower(store, apply)


def build_detectors(settings: Settings) -> list[Detector]:
    """Those that the configuration switches on; a recogniser's process runs by then."""
    privacy, scale, recogniser = settings.privacy, settings.scale, settings.privacy.recogniser
    names = {kind: privacy.classes[kind] for kind in privacy.classes.keys() & NAME_CLASSES.keys()}
    others = {kind: privacy.classes[kind] for kind in privacy.classes.keys() - NAME_CLASSES.keys()}
    found: list[Detector] = [StructuredDetector(others, scale)]
    if recogniser.kind != "off":
        found.append(start(recogniser.kind, recogniser.model, recogniser.deadline_s, names, scale))
    return found


def build_classifier(
    settings: Settings,
    detectors: Sequence[Detector],
    rules: Sequence[Detector] = (),
    workers: Workers | None = None,
) -> Classifier:
    """`rules` are what admins add to the configuration's `detectors`."""
    privacy, scale = settings.privacy, settings.scale
    return Classifier(
        [*detectors, *rules],
        deadline_s=privacy.deadline_s,
        scale=scale,
        attachment_class=privacy.attachments,
        workers=workers,
    )


def build_backend(name: str, backend: AnyBackend, settings: Settings, fleet: Fleet | None = None) -> Backend:
    """`fleet` knows which of our replicas serve what; without it the first gets everything."""
    zone, key = settings.zone_of(backend), backend.api_key.get_secret_value()
    timeouts = Timeouts(
        connect=backend.connect_s,
        first_byte=backend.first_byte_s,
        between_bytes=backend.between_bytes_s,
        total=backend.total_s,
    )
    if isinstance(backend, LitellmSettings):
        # Imported only where it is configured: litellm takes seconds and 200 MB to load.
        cloud = importlib.import_module("gateway.backends.cloud")
        door = Door(backend=name, zone=zone, allowed=[origin(backend.provider, backend.url)])
        built: Backend = cloud.CloudBackend(
            name, zone, door, provider=backend.provider, api_key=key, api_base=backend.url, timeouts=timeouts
        )
        return built
    if isinstance(backend, OpenAISettings):
        return OpenAIWire(name, zone, backend.url, api_key=key, timeouts=timeouts)
    replicas = {
        replica: OpenAIWire(replica, zone, url, api_key=key, timeouts=timeouts, mend=as_openai)
        for replica, url in backend.replicas(name).items()
    }
    if fleet is None or (backend.url and backend.slots is None):
        return next(iter(replicas.values()))
    bring_in = fleet.bring_in if backend.slots is not None else None
    return ReplicaSet(name, zone, replicas, fleet.able, random=random.random, bring_in=bring_in)


def build_caller(settings: Settings, backends: Mapping[str, Backend], metrics: Metrics) -> Caller:
    """What carries decisions out, with its numbers among the metrics."""
    upstreams = {}
    for name, backend in settings.backends.items():
        slots = Slots(backend.max_concurrent, max_queue=backend.max_queue)
        upstreams[name] = Upstream(backends[name], slots, backend.queue_s)
        metrics.gauge(
            "headgate_backend_in_use",
            "Requests at a backend.",
            partial(getattr, slots, "in_use"),
            backend=name,
        )
        metrics.gauge(
            "headgate_backend_waiting",
            "Requests that wait for one.",
            partial(getattr, slots, "waiting"),
            backend=name,
        )
    states = {
        name: metrics.gauge("headgate_backend_ejected", "1: it kept failing and is left alone.", backend=name)
        for name in upstreams
    }

    def moved(name: str, state: State) -> None:
        states[name].value = float(state is not State.CLOSED)
        log.warning("backend %s: its circuit breaker is now %s", name, state.name.lower().replace("_", "-"))

    return Caller(upstreams, Breakers(upstreams, random=random.random, on_change=moved))


def gauge_fleet(fleet: Fleet, metrics: Metrics) -> None:
    """What our own replicas say of their work, among the metrics; autoscalers read them there."""
    help_of = {
        "running": "Requests that a replica computes.",
        "waiting": "Requests in a replica's queue.",
        "kv_use": "Share of a replica's KV cache in use.",
    }
    for backend, replicas in fleet.replicas_of().items():
        for replica, (field, text) in product(replicas, help_of.items()):
            read = partial(_load_of, fleet, replica, field)
            metrics.gauge(f"headgate_replica_{field}", text, read, replica=replica)
        wanted = partial(fleet.replicas_wanted, backend)
        metrics.gauge("headgate_replicas_wanted", "That the present work is for.", wanted, backend=backend)


def _load_of(fleet: Fleet, replica: str, field: str) -> float:
    return float(getattr(fleet.load(replica), field))


def seen_now(snapshot: Snapshot, breakers: Breakers) -> Snapshot:
    """`snapshot`, less the backends that are left alone for now."""
    ejected = breakers.down(time.monotonic())
    return msgspec.structs.replace(snapshot, down=snapshot.down | ejected) if ejected else snapshot


def build_charge(backend: AnyBackend, prices: PriceBook) -> Charge:
    if isinstance(backend, VllmSettings):
        return ByTheHour(int(backend.usd_per_hour * NANO_PER_USD) * max(1, len(backend.urls)))
    return ByToken(prices, backend.price_as if isinstance(backend, OpenAISettings) else backend.provider)


def build_budget(budget: BudgetSettings) -> Budget:
    return Budget(
        id=budget.id,
        scope=Scope(key=budget.key, team=budget.team, tag=budget.tag, route=budget.route),
        cap_nano=int(budget.usd * NANO_PER_USD),
        period=Period(budget.per),
        time_zone=budget.time_zone,
        hard=budget.hard,
        carry_over=budget.carry_over,
    )


def model_cards(settings: Settings, policy: CompiledPolicy, fleet: Fleet) -> list[Card]:
    """Names that routes answer to, base models, rented models, and adapters with their base."""
    now = int(time.time())
    named = {model for route in policy.routes for model in route.conditions.models}
    cards = {name: Card(id=name, created=now, owned_by="headgate") for name in named}
    for name, backend in settings.backends.items():
        models = (backend.model,) if isinstance(backend, VllmSettings) else backend.models
        cards |= {m: Card(id=m, created=now, owned_by=name) for m in models if "*" not in m}
    for alias, release in fleet.snapshot.aliases.items():
        for adapter in (alias, release):
            cards[adapter] = Card(id=adapter, created=now, owned_by="headgate", parent=fleet.base)
    return list(cards.values())

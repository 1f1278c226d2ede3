"""What the gateway is put together from, each made of the settings. Nothing runs at import."""

import importlib
import logging
import random
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product

import msgspec

from gateway.backends.base import Backend
from gateway.backends.cloud_providers import origin
from gateway.backends.dialect import as_openai
from gateway.backends.http1 import Timeouts
from gateway.backends.openai_wire import OpenAIWire
from gateway.backends.replica_set import ReplicaSet
from gateway.calls import Caller, Upstream
from gateway.fleet import Fleet
from gateway.ledger.charges import ByTheHour, ByToken, Charge
from gateway.ledger.prices import NANO_PER_USD, PriceBook
from gateway.limits.limiter import Limiter, Rules
from gateway.limits.shared import Shared
from gateway.monitor.metrics import Metrics
from gateway.privacy.classify import Classifier
from gateway.privacy.detect import Detector, StructuredDetector
from gateway.privacy.egress import Door
from gateway.privacy.recogniser.detector import CLASSES as NAME_CLASSES
from gateway.privacy.recogniser.detector import start
from gateway.privacy.workers import Workers
from gateway.resilience.breaker import Breakers, State
from gateway.resilience.slots import Slots
from gateway.settings import (
    AnyBackend,
    LimitSettings,
    LitellmSettings,
    OpenAISettings,
    Settings,
    VllmSettings,
)
from router_policies.types import Snapshot

log = logging.getLogger("headgate")


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
        attachment_classes={str(medium): most for medium, most in privacy.attachments.items()},
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


def build_limiter(limits: LimitSettings) -> Limiter:
    """Rate limits of the configuration, counted together with other processes where there is a Redis."""
    rules = Rules(
        keys={rule.key: rule.rates for rule in limits.rates if rule.key},
        teams={rule.team: rule.rates for rule in limits.rates if rule.team},
        routes={rule.route: rule.rates for rule in limits.rates if rule.route},
    )
    redis = limits.redis
    if redis is None:
        return Limiter(rules)
    shared = Shared(redis.url.get_secret_value())
    return Limiter(rules, shared, refuse=redis.unreachable == "refuse", processes=redis.processes)


def build_charge(backend: AnyBackend, prices: PriceBook) -> Charge:
    if isinstance(backend, VllmSettings):
        return ByTheHour(int(backend.loaded_usd_per_hour * NANO_PER_USD))
    return ByToken(prices, backend.price_as if isinstance(backend, OpenAISettings) else backend.provider)

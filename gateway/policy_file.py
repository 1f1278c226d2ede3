"""The configuration's policy: what it may send requests to, its proof, and the cases beside it."""

from gateway.errors import ConfigError
from gateway.finance.list_prices import price_book
from gateway.ledger.price_list import PriceList
from gateway.ledger.prices import PriceBook
from gateway.privacy.detect import StructuredDetector
from gateway.privacy.recogniser.detector import NAME
from gateway.settings import AnyBackend, LitellmSettings, Settings, VllmSettings, read_yaml
from router_policies.cases import Case, parse_cases, run_cases
from router_policies.compiled import CompiledPolicy
from router_policies.errors import PolicyError
from router_policies.load import load
from router_policies.types import BackendInfo, Catalog, Feature

TEXT_ENDPOINTS = frozenset({"chat/completions", "completions"})
VLLM_FEATURES = frozenset(Feature) - {Feature.VISION, Feature.AUDIO, Feature.FILES}


def build_catalog(settings: Settings, prices: PriceBook | None = None) -> Catalog:
    """What the policy may send requests to, and at which prices."""
    backends = {name: _info(name, b, settings) for name, b in settings.backends.items()}
    on = {StructuredDetector.name} | ({NAME} if settings.privacy.recogniser.kind != "off" else set())
    known = PriceList(settings.backends, prices or price_book(settings))
    return Catalog(backends=backends, scale=settings.scale, detectors=frozenset(on), prices=known)


def _info(name: str, backend: AnyBackend, settings: Settings) -> BackendInfo:
    zone = settings.zone_of(backend)
    if isinstance(backend, VllmSettings):
        return BackendInfo(
            name=name,
            zone=zone,
            models=(backend.model,),
            adapters=True,
            features=VLLM_FEATURES,
            endpoints=TEXT_ENDPOINTS | {"responses"},
        )
    if isinstance(backend, LitellmSettings):
        return BackendInfo(name=name, zone=zone, models=backend.models, endpoints=TEXT_ENDPOINTS)
    return BackendInfo(name=name, zone=zone, models=backend.models)


def load_policy(settings: Settings, catalog: Catalog, *, try_cases: bool = True) -> CompiledPolicy:
    """Raises ConfigError with every problem: paths that could leak, and cases beside it that fail."""
    try:
        policy = load(read_yaml(settings.policy), str(settings.policy), catalog)
    except PolicyError as error:
        raise ConfigError(error.source, error.problems) from error
    if try_cases and (failures := run_cases(policy, policy_cases(settings))):
        raise ConfigError(policy.label, list(map(str, failures)))
    return policy


def policy_cases(settings: Settings) -> tuple[Case, ...]:
    """Those beside the policy, in policy.tests.yaml for policy.yaml; none without. Raises ConfigError."""
    path = settings.policy.with_suffix(".tests.yaml")
    if not path.exists():
        return ()
    try:
        return parse_cases(read_yaml(path), str(path), settings.scale)
    except PolicyError as error:
        raise ConfigError(error.source, error.problems) from error

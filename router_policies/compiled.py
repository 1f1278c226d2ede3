"""A policy in the form that `decide` and `verify` work on: every name resolved, nothing left to look up."""

from collections.abc import Mapping

import msgspec

from .conditions import Conditions
from .index import RouteIndex
from .privacy import PrivacyClass, Scale
from .types import BackendInfo, ErrorClass, Parameters, Place, Price, Resilience

ORDERED = "ordered"  # the strategy of targets that stay as they are


class CompiledTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One backend and what to ask of it: a model, an adapter or, with neither, the model asked for."""

    backend: BackendInfo
    model: str
    adapter: str  # "name@alias", or "name@digest12" when `pinned`
    pinned: bool
    mask: bool  # may take a request above its zone's ceiling once it is masked down to that
    label: str  # for people: "vllm/support-intents@stable"
    position: int  # among all targets of the route, from 1
    place: str  # for people: "fallback 2"
    chosen: str  # for people: the label and the place
    weight: int
    salt: int  # 64 bits, by what is drawn between targets


class CompiledDenial(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    status: int
    code: str


class CompiledGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Targets whose order among themselves is found by the strategy."""

    strategy: str  # of `schema.Group`
    by: str  # what `sticky` draws by
    targets: tuple[CompiledTarget, ...]


class CompiledCanary(msgspec.Struct, frozen=True, kw_only=True):
    """Groups that go before the route's own, for draws (64 bits) below `below`."""

    below: int
    by: str
    salt: int
    groups: tuple[CompiledGroup, ...]


class CompiledShadow(msgspec.Struct, frozen=True, kw_only=True):
    """A target that gets a copy, for draws (64 bits) below `below`."""

    below: int
    salt: int
    target: CompiledTarget


class CompiledRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Has targets or a denial."""

    name: str
    conditions: Conditions
    privacy_floor: PrivacyClass  # of whatever takes this route
    targets: tuple[CompiledTarget, ...]  # all that it may lead to, canary and shadow included
    groups: tuple[CompiledGroup, ...]
    canary: CompiledCanary | None
    shadow: CompiledShadow | None
    parameters: Parameters | None
    fallback_on: frozenset[ErrorClass]
    resilience: Resilience
    deny: CompiledDenial | None


class CompiledPolicy(msgspec.Struct, frozen=True, kw_only=True):
    label: str  # name@version
    routes: tuple[CompiledRoute, ...]
    index: RouteIndex
    scale: Scale
    masks_above: PrivacyClass | None  # requests above it are masked for some target; None: for no target
    reads_language: bool  # some route asks for one
    prices: Mapping[Place, Price]

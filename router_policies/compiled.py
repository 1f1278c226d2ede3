"""A policy in the form that `decide` and `verify` work on: every name resolved, nothing left to look up."""

import msgspec

from .conditions import Conditions
from .index import RouteIndex
from .privacy import PrivacyClass, Scale
from .types import BackendInfo, ErrorClass, Resilience


class CompiledTarget(msgspec.Struct, frozen=True, kw_only=True):
    """One backend and what to ask of it: a model, an adapter or, with neither, the model asked for."""

    backend: BackendInfo
    model: str
    adapter: str  # "name@alias", or "name@digest12" when `pinned`
    pinned: bool
    mask: bool  # may take a request above its zone's ceiling once it is masked down to that
    label: str  # for people: "vllm/support-intents@stable"
    position: int  # in the document, from 1
    chosen: str  # for people: the label, and where it stands among the targets


class CompiledDenial(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    status: int
    code: str


class CompiledRoute(msgspec.Struct, frozen=True, kw_only=True):
    """Has targets or a denial."""

    name: str
    conditions: Conditions
    privacy_floor: PrivacyClass  # of whatever takes this route
    targets: tuple[CompiledTarget, ...]
    fallback_on: frozenset[ErrorClass]
    resilience: Resilience
    deny: CompiledDenial | None


class CompiledPolicy(msgspec.Struct, frozen=True, kw_only=True):
    label: str  # name@version
    routes: tuple[CompiledRoute, ...]
    index: RouteIndex
    scale: Scale
    masks_above: PrivacyClass | None  # requests above it are masked for some target; None: for no target

"""Frozen values that the stages of `pipeline.py` hand on."""

from enum import IntFlag, StrEnum

import msgspec

from gateway.rates import Rates
from router_policies.types import ErrorClass, Facts, PrivacyClass


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asking, as the key says."""

    key_id: str
    team: str
    tags: frozenset[str] = frozenset()
    privacy_floor: PrivacyClass = PrivacyClass.PUBLIC  # its own or its team's
    may_lower_privacy: bool = False  # below the floor, never below what is found
    project: str = ""  # of the team
    models: frozenset[str] | None = None  # it may ask for; * at the end stands for any end; None: all
    routes: frozenset[str] | None = None  # its requests may take; None: all
    role: str = ""  # below /admin, see gateway.control.records.Role
    limits: Rates | None = None  # its own, in place of the configuration's
    team_limits: Rates | None = None  # its team's, in place of the configuration's


class Place(msgspec.Struct, frozen=True):
    """A finding at [start, end) of the text of that number among those that were scanned."""

    text: int
    start: int
    end: int
    kind: str
    privacy: PrivacyClass


class Classification(msgspec.Struct, frozen=True, kw_only=True):
    """How sensitive a request is and what said so. Never holds what was found."""

    privacy: PrivacyClass
    findings: dict[str, int] = {}  # kind -> count
    reason: str = ""
    places: tuple[Place, ...] = ()  # of the findings; empty where a detector failed: then nothing is known
    least: PrivacyClass = PrivacyClass.PUBLIC  # the class were there no findings


class Usage(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Meters of one call, in tokens, as the provider counted them; `estimated` when we had to.

    The spool and the ledger hold these by their order: new ones come last (see `ledger/tables.py`).
    """

    input_tokens: int = 0  # all of the prompt, cached part included
    cached_input_tokens: int = 0  # part of input_tokens
    cache_write_tokens: int = 0  # part of input_tokens
    output_tokens: int = 0  # all of the answer, reasoning included
    reasoning_tokens: int = 0  # part of output_tokens
    estimated: bool = False
    cache_write_1h_tokens: int = 0  # part of cache_write_tokens: kept for an hour, not five minutes
    audio_input_tokens: int = 0  # part of input_tokens, beside the cached and written ones
    image_input_tokens: int = 0  # the same
    audio_output_tokens: int = 0  # part of output_tokens, beside reasoning
    image_output_tokens: int = 0  # the same
    service_tier: str = ""  # that the answer says served it, which is the one that is billed


class Outcome(StrEnum):
    """How a call ended."""

    OK = "ok"
    REFUSED = "refused"  # by us, before any backend was reached
    FAILED = "failed"  # a backend or all of them failed before the first byte
    INTERRUPTED = "interrupted"  # the backend broke off in mid-answer
    CLIENT_CLOSED = "client_closed"
    LOST = "lost"  # this process died in between; found in the spool afterwards


class Resolves(IntFlag):
    """What was unknown of a call and is known by a correction."""

    PRICE = 1
    TOKENS = 2  # they were an estimate of ours, and now are the provider's


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted and classified request."""

    facts: Facts
    principal: Principal
    classification: Classification
    started_ns: int  # Unix time
    clock: float  # the same moment on time.perf_counter
    traceparent: str = ""  # the client's header, W3C Trace Context
    session: str = ""  # its key, see gateway.privacy.sessions; empty: none was named
    tags: frozenset[str] = frozenset()  # of the facts, as they may be written down
    model_withheld: bool = False  # detectors find something in the model's name: it is not written down


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at one backend: what was about to leave, for where, and by whose leave."""

    backend: str
    zone: str
    local: bool  # the zone's, as its ceiling, at that moment
    ceiling: str
    privacy: str  # the class of what was sent
    masked: bool = False  # that was not all of the request: hence a class below the request's
    permit: str = ""  # its id; empty: there was none
    digest: str = ""  # of the content, where it needed a permit
    refused: bool = False  # at the door: nothing left


class Entry(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One row of the ledger: one request, settled. Money in integer nano-dollars (1e-9 USD).

    The spool holds entries by the order of these fields: see `ledger/tables.py`.
    """

    call_id: str
    started_ns: int
    key_id: str
    team: str
    tags: tuple[str, ...]
    endpoint: str
    model_asked: str
    privacy: str
    findings: dict[str, int]
    policy: str
    route: str
    reason: str
    backend: str = ""  # that answered, or was tried last; empty: none was reached
    zone: str = ""
    model: str = ""
    adapter: str = ""
    stream: bool = False
    attempts: int = 0
    status: int = 0  # HTTP status that the client saw; 0: it never saw one
    outcome: Outcome
    error_class: ErrorClass | None = None
    usage: Usage = Usage()
    cost_nano: int | None = None  # None: the price is unknown
    price: str = ""  # where the price came from
    first_byte_ms: float | None = None
    duration_ms: float = 0.0
    cause: str = ""  # what gave the request its class: a floor, findings, a detector that failed
    session: str = ""
    response_id: str = ""  # of an answer of the Responses API, which a later request may go on from
    reached: tuple[Reach, ...] = ()  # all attempts, in order
    signed_by: str = ""  # the key's id; this and the signature are given where the row is made
    signature: str = ""
    corrects: str = ""  # of a correction: the call; tokens and cost are what is to be added to that call's
    resolves: int = 0  # of a correction: the flags of Resolves
    recorded_ns: int = 0  # of a correction: when it was made; `started_ns` is the call's own

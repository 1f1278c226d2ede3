"""The frozen values that go into a decision and come out of it."""

import sys
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from .privacy import DEFAULT_SCALE, Scale
from .privacy import PrivacyClass as PrivacyClass  # who deals in decisions deals in classes

UNBOUNDED = sys.maxsize  # tokens, where nothing sets an upper end


class ErrorClass(StrEnum):
    """Why an attempt failed, in the words that a route's `fallback_on` uses."""

    CONNECTION = "connection"  # refused, reset, DNS, TLS
    TIMEOUT = "timeout"
    RATE_LIMIT = "rate_limit"  # 429
    SERVER_ERROR = "server_error"  # 5xx, or an answer that is not HTTP
    NOT_FOUND = "not_found"  # 404: the backend does not serve that model
    REFUSED = "refused"  # any other 4xx: the request itself is at fault
    CONTENT_POLICY = "content_policy"  # the provider's safety system said no


class Feature(StrEnum):
    """What a request makes use of and a backend must support."""

    STREAM = "stream"
    TOOLS = "tools"
    JSON_OBJECT = "json_object"
    JSON_SCHEMA = "json_schema"
    LOGPROBS = "logprobs"
    VISION = "vision"
    AUDIO = "audio"
    FILES = "files"


class Zone(msgspec.Struct, frozen=True, kw_only=True):
    """Where a backend stands. Requests classed above `ceiling` never go there."""

    name: str
    ceiling: PrivacyClass
    local: bool = False  # on our own machines: reached without an egress permit


class BackendInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the policy needs to know of a backend."""

    name: str
    zone: Zone
    models: tuple[str, ...]  # that it serves, as it names them itself; ("*",): any
    adapters: bool = False  # can load LoRA adapters
    features: frozenset[Feature] = frozenset(Feature)
    endpoints: frozenset[str] = frozenset({"chat/completions", "completions", "embeddings", "responses"})


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's tokens cost in nano-dollars (1e-9 USD) a million, or a replica of our own an hour."""

    input: int = 0
    output: int = 0
    cached: int | None = None  # of the prompt; None: as other input
    tiers: tuple[tuple[int, int, int], ...] = ()  # prompt tokens to exceed, then input and output; ascending
    hour: int = 0  # shared by the requests that are under way there


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How a model at a backend has answered of late."""

    first_byte_s: float  # median
    tokens_per_s: float  # of the answer, once it has begun
    cached: float = 0.0  # share of the prompts' tokens that the provider had in its cache


Place = tuple[str, str]  # a backend, and a model as it is named there


class Catalog(msgspec.Struct, frozen=True, kw_only=True):
    """All backends by name, and the classes: what a policy is compiled and verified against."""

    backends: Mapping[str, BackendInfo]
    prices: Mapping[Place, Price] | None = None  # None: nobody knows, and nothing is checked
    scale: Scale = DEFAULT_SCALE
    detectors: frozenset[str] = frozenset()  # that look at every request, by name


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision may depend on. Holds no content."""

    call_id: str
    endpoint: str  # below /v1/: "chat/completions", "completions", "embeddings"
    model: str  # as the client asked for it
    key_id: str
    team: str
    tags: frozenset[str]
    features: frozenset[Feature]
    prompt_tokens: int  # an estimate, see gateway.ledger.tokens
    privacy: PrivacyClass
    holder: str | None = None  # the only backend that has what the request goes on from
    masked: PrivacyClass | None = None  # the class of what is left when it is masked; None: it cannot be
    masked_kinds: Mapping[str, int] = {}  # what is masked: kind -> values
    project: str = ""
    metadata: Mapping[str, str] = {}
    findings: frozenset[str] = frozenset()  # kinds that detectors found
    output_tokens: int = UNBOUNDED  # the most that the client wants
    task: str = ""  # a free label of the client's
    language: str = ""  # of the conversation, see language.py; empty: it cannot be told, or no policy asks
    user: str = ""  # the client's word for who it asks for
    session: str = ""
    at_s: float = 0.0  # when it came in, Unix time
    budget_used: float = 0.0  # the largest share used of the budgets that cover it; 1: all of one


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The moving part of the world at one instant, replaced as a whole when it changes."""

    aliases: Mapping[str, str] = {}  # "name@stable" -> "name@digest12", only what is served
    down: frozenset[str] = frozenset()  # backends known to be unhealthy
    speeds: Mapping[Place, Speed] = {}  # where requests were answered of late
    busy: Mapping[str, int] = {}  # backend -> requests under way or waiting there


class Permit(msgspec.Struct, frozen=True, kw_only=True):
    """Leave to send one request to one zone; `decide` alone mints it, `gateway.privacy.egress` checks it.

    It opens the door only once it is sealed there for one content and until one moment.
    """

    id: str  # the call's, and the target's place in its route, from 1
    call_id: str
    backend: str
    zone: str
    model: str
    privacy: PrivacyClass
    policy: str


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One place that may answer the request."""

    backend: str
    zone: str
    model: str  # the name that goes upstream
    adapter: str | None  # its immutable name, when `model` is an adapter
    permit: Permit | None  # None in a local zone
    privacy: PrivacyClass | None = None  # of what it is sent; None: the request's
    ceiling: PrivacyClass = PrivacyClass.PUBLIC  # of the zone, as it was when this was decided
    local: bool = False  # whether the zone is
    masked: bool = False  # gets the request with placeholders, and `permit` is for what is left of it


class Resilience(msgspec.Struct, frozen=True, kw_only=True):
    """What a route does beyond one attempt at each candidate; by default nothing."""

    retries: int = 0  # further attempts at a candidate that failed, before the next one's turn
    retry_on: frozenset[ErrorClass] = frozenset()
    backoff_s: float = 0.0  # the longest wait before the first retry; doubles with each further one
    max_backoff_s: float = 0.0
    hedge_after_s: float | None = None  # no answer has begun by then: the next candidate starts beside it
    deadline_s: float | None = None  # for the whole request, all attempts together


class Parameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a route changes in a request: numbers only, so that its class stays what it is."""

    most_output: int | None = None  # tokens of the answer
    most_choices: int | None = None  # answers to one prompt
    override: Mapping[str, float | int] = {}  # as the chat API names them


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes: candidates in the order in which they are tried.

    Retries and hedges choose among these candidates and no others, so they need no permit of their own.
    """

    route: str
    policy: str  # name@version
    privacy: PrivacyClass  # of the request, the route's floor included
    candidates: tuple[Candidate, ...]
    fallback_on: frozenset[ErrorClass]
    reason: str  # one line for people
    resilience: Resilience = Resilience()
    shadow: Candidate | None = None  # gets a copy, under `shadow_id`; its answer goes nowhere
    parameters: Parameters | None = None


def shadow_id(call_id: str) -> str:
    """The id of the copy of a call, and of the permit's call that it leaves by."""
    return f"{call_id}-shadow"


class Denial(msgspec.Struct, frozen=True, kw_only=True):
    """No candidate is left, or a route says no."""

    policy: str
    route: str | None
    privacy: PrivacyClass  # of the request, the route's floor included
    status: int  # HTTP
    code: str  # OpenAI error code
    message: str  # for the client
    reason: str  # for the operator: the route and what ruled each target out

"""The policy document: its keys, and `parse`, which lists everything that is wrong with one at once."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
    model_validator,
)

from .consistency import contradictions
from .errors import PolicyError, did_you_mean
from .privacy import DEFAULT_SCALE, PrivacyClass, Scale
from .types import UNBOUNDED as UNBOUNDED  # prompt tokens, when a route sets no upper end
from .types import ErrorClass
from .words import (
    DAYS,
    AdapterName,
    ClassName,
    DayName,
    ErrorName,
    FeatureNames,
    Given,
    Hours,
    Languages,
    Milliseconds,
    ModelPatterns,
    OneOrMany,
    Part,
    RetryName,
    Seconds,
    Share,
    Slug,
    Some,
    Text,
    Texts,
    TimeZone,
    Values,
)

UNLIMITED = PrivacyClass(UNBOUNDED, "any")  # above all scales
FALLBACK_ON = (ErrorClass.CONNECTION, ErrorClass.TIMEOUT, ErrorClass.RATE_LIMIT, ErrorClass.SERVER_ERROR)
# Not timeout: the backend may still be at work on the request, and would be given it twice.
RETRY_ON = (ErrorClass.CONNECTION, ErrorClass.RATE_LIMIT, ErrorClass.SERVER_ERROR)


class Range(Part):
    """From `at_least` to `at_most`, both included."""

    at_least: float
    at_most: float

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at_least > self.at_most:
            raise ValueError("at_least is above at_most, so nothing can match")
        return self


class TokenRange(Range):
    at_least: Annotated[StrictInt, Field(ge=0)] = 0
    at_most: Annotated[StrictInt, Field(ge=0)] = UNBOUNDED


class ShareRange(Range):
    """1 is all of it; what is spent beyond a soft cap is more."""

    at_least: Annotated[StrictFloat, Field(ge=0, allow_inf_nan=False)] = 0.0
    at_most: Annotated[StrictFloat, Field(ge=0)] = math.inf


class ClassRange(Range):
    at_least: ClassName = PrivacyClass.PUBLIC
    at_most: ClassName = UNLIMITED


class Times(Part):
    """Hours of days of the week in a time zone. Hours that pass midnight belong to the day they begin on."""

    days: Annotated[tuple[DayName, ...], OneOrMany()] = DAYS
    hours: Annotated[tuple[Hours, ...], OneOrMany()] = ("00:00-24:00",)
    zone: TimeZone = "UTC"


class Match(Part):
    """All keys that are given must hold; an absent one matches anything."""

    endpoint: Texts = ()
    model: ModelPatterns = ()
    key: Texts = ()
    team: Texts = ()
    project: Texts = ()
    tags: Texts = ()  # all of them present
    metadata: Values = Field(default_factory=dict)
    task: Texts = ()
    language: Languages = ()  # of the conversation, where it can be told
    features: FeatureNames = ()  # all of them used
    without_features: FeatureNames = ()  # none of them used
    prompt_tokens: TokenRange = TokenRange()
    output_tokens: TokenRange = TokenRange()  # that the client wants at most; without a limit any number
    privacy: ClassRange = ClassRange()
    findings: Texts = ()  # at least one of these kinds found
    without_findings: Texts = ()  # none of them found
    time: Annotated[Times | None, Given] = None
    budget: ShareRange = ShareRange()  # share that is used of the fullest budget that covers the request
    down: Texts = ()  # backends, all of them down
    up: Texts = ()  # backends, none of them down


class Target(Part):
    """A model, an adapter or, with neither, whatever model the client asked for.

    `mask`: a request above the zone's ceiling may go there too, if it is within it once all findings that
    can be masked are replaced by placeholders.
    """

    backend: Text
    model: Text = ""
    adapter: AdapterName = ""
    mask: StrictBool = False


class Member(Target):
    """A target of a group. `weight`: how often it comes first, beside the others' weights."""

    weight: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = 1


class Group(Part):
    """Targets in an order that is found for each request; those after the first are fallbacks.

    weighted      drawn anew for each request
    sticky        drawn once for each user, session or key
    cheapest      by what the request is expected to cost
    fastest       by how soon its answer is expected to be whole
    least_busy    by the requests that are under way at the backend
    """

    strategy: Literal["ordered", "weighted", "sticky", "cheapest", "fastest", "least_busy"]
    by: Literal["user", "session", "key"] = "session"
    targets: Annotated[tuple[Member, ...], Some()]


class Item(Target):
    """A target or, with `group` and no other key, a group of them."""

    backend: Text = ""
    group: Annotated[Group | None, Given] = None


Items = Annotated[tuple[Item, ...], Some()]


class Canary(Part):
    """A share of the requests asks these targets first, and the route's own after them."""

    share: Share
    by: Literal["call", "user", "session", "key"] = "call"
    targets: Items


class Shadow(Part):
    """A share of the requests goes to this target too; nobody waits for its answer, and nobody sees it."""

    share: Share
    target: Target


class Cap(Part):
    """The most that a request may ask for; one that asks for more is brought down to it."""

    output_tokens: Annotated[StrictInt | None, Field(ge=1), Given] = None
    choices: Annotated[StrictInt | None, Field(ge=1, le=128), Given] = None  # answers to one prompt


class Override(Part):
    """What a request has in place of the client's own word, where its endpoint knows it."""

    temperature: Annotated[StrictFloat | None, Field(ge=0, le=2, allow_inf_nan=False), Given] = None
    top_p: Annotated[StrictFloat | None, Field(gt=0, le=1, allow_inf_nan=False), Given] = None
    presence_penalty: Annotated[StrictFloat | None, Field(ge=-2, le=2, allow_inf_nan=False), Given] = None
    frequency_penalty: Annotated[StrictFloat | None, Field(ge=-2, le=2, allow_inf_nan=False), Given] = None
    seed: Annotated[StrictInt | None, Given] = None


class Deny(Part):
    message: Text
    status: Annotated[StrictInt, Field(ge=400, le=499)] = 403
    code: Slug = "route_denied"


class Retry(Part):
    """Attempts at one target beyond the first, each after a random part of a wait that doubles."""

    attempts: Annotated[StrictInt, Field(ge=0, le=5)]
    on: Annotated[tuple[RetryName, ...], OneOrMany()] = RETRY_ON
    backoff_ms: Milliseconds = 100
    max_backoff_ms: Milliseconds = 5000

    @model_validator(mode="before")
    @classmethod
    def _spell_on(cls, value: object) -> object:
        # YAML 1.1, which PyYAML reads, takes a bare `on` for true.
        if isinstance(value, dict) and "on" not in value:
            return {"on" if key is True else key: item for key, item in value.items()}
        return value

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.backoff_ms > self.max_backoff_ms:
            raise ValueError(f"backoff_ms is above max_backoff_ms, {self.max_backoff_ms}")
        return self


class Hedge(Part):
    """No answer has begun after so long: the next target, or the only one again, is asked as well."""

    after_ms: Milliseconds


class Route(Part):
    name: Slug
    match: Match = Match()
    privacy_floor: ClassName = PrivacyClass.PUBLIC  # what takes this route has at least this class
    targets: Items = ()
    canary: Annotated[Canary | None, Given] = None
    shadow: Annotated[Shadow | None, Given] = None
    cap: Cap = Cap()
    override: Override = Override()
    fallback_on: tuple[ErrorName, ...] = FALLBACK_ON
    retry: Retry = Retry(attempts=0)
    hedge: Annotated[Hedge | None, Given] = None
    deadline_s: Annotated[Seconds | None, Given] = None  # for the whole request
    deny: Annotated[Deny | None, Given] = None


class PolicyDocument(Part):
    name: Slug
    version: Annotated[StrictInt, Field(ge=1)]
    requires: Texts = ()  # detectors without which the policy must not be used
    routes: Annotated[tuple[Route, ...], Some()]


# Which part stands under a key, to suggest what an unknown key there may have meant.
PARTS: Mapping[str, type[Part]] = {
    "": PolicyDocument,
    "routes": Route,
    "match": Match,
    "prompt_tokens": TokenRange,
    "output_tokens": TokenRange,
    "privacy": ClassRange,
    "time": Times,
    "budget": ShareRange,
    "targets": Item,
    "group": Group,
    "canary": Canary,
    "shadow": Shadow,
    "target": Target,
    "cap": Cap,
    "override": Override,
    "retry": Retry,
    "hedge": Hedge,
    "deny": Deny,
}
# pydantic's own words speak of Python's types, which who writes YAML need not know.
WORDS: Mapping[str, str] = {
    "missing": "is required",
    "model_type": "should be a mapping",
    "tuple_type": "should be a list",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "bool_type": "should be true or false",
    "string_too_short": "should not be empty",
}


def parse(document: object, source: str, scale: Scale = DEFAULT_SCALE) -> PolicyDocument:
    """Reads a parsed YAML or JSON value; PolicyError lists every problem, each with its path."""
    broken = contradictions(document)
    try:
        parsed = PolicyDocument.model_validate(document, context=scale)
    except ValidationError as error:
        broken = [_line(problem) for problem in error.errors(include_url=False)] + broken
    if broken:
        raise PolicyError(source, broken)
    return parsed


def _line(problem: Any) -> str:
    """One of pydantic's error details as `path: what is wrong`."""
    location: tuple[int | str, ...] = problem["loc"]
    return f"{_path(location) or 'the document'}: {_words(problem, location)}"


def _part(location: tuple[int | str, ...]) -> type[Part]:
    """What stands at that place of the document."""
    above = [key for key in location if isinstance(key, str)]
    return Member if above[-2:] == ["group", "targets"] else PARTS[above[-1] if above else ""]


def _words(problem: Any, location: tuple[int | str, ...]) -> str:
    kind: str = problem["type"]
    if kind == "extra_forbidden":
        return "unknown key" + did_you_mean(str(location[-1]), _part(location[:-1]).model_fields)
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"{problem['input']!r} should be small letters, digits, '.', '_' and '-', at most 64"
    return WORDS.get(kind) or f"{problem['msg']}, not {problem['input']!r}"


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")

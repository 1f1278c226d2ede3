"""The policy document: its keys, and `parse`, which lists everything that is wrong with one at once.

A key that is given must say something: `model:` with nothing behind it is an error, never "any model".
That is why absent is an empty default here, and never None.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from .consistency import contradictions
from .errors import PolicyError, did_you_mean
from .names import SLUG, is_adapter
from .privacy import DEFAULT_SCALE, PrivacyClass, Scale
from .types import ErrorClass, Feature

UNBOUNDED = sys.maxsize  # prompt tokens, when a route sets no upper end
UNLIMITED = PrivacyClass(sys.maxsize, "any")  # above all scales
FALLBACK_ON = (ErrorClass.CONNECTION, ErrorClass.TIMEOUT, ErrorClass.RATE_LIMIT, ErrorClass.SERVER_ERROR)
# Not timeout: the backend may still be at work on the request, and would be given it twice.
RETRY_ON = (ErrorClass.CONNECTION, ErrorClass.RATE_LIMIT, ErrorClass.SERVER_ERROR)
HOPELESS: Mapping[ErrorClass, str] = {
    ErrorClass.CONTENT_POLICY: "the same provider would say no to it again; fallback_on leads to another",
    ErrorClass.REFUSED: "the request itself is at fault",
}


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _one_of(members: Mapping[str, object]) -> Callable[[object], object]:
    """A validator that turns a word into the member of that name."""

    def member(value: object) -> object:
        if not isinstance(value, str) or value.lower() not in members:
            raise ValueError(f"unknown value {value!r}{did_you_mean(str(value), members)}")
        return members[value.lower()]

    return member


def _privacy_class(value: object, info: ValidationInfo) -> PrivacyClass:
    """A class of the scale that `parse` was given."""
    scale: Scale = info.context or DEFAULT_SCALE
    return scale.parse(str(value))


def _model_pattern(value: str) -> str:
    if "*" in value[:-1]:
        raise ValueError(f"{value!r} has a * before its end; only one * at the very end is a wildcard")
    return value


def _adapter_name(value: str) -> str:
    if not is_adapter(value):
        raise ValueError(f"{value!r} is not an adapter's name; write name@alias or name@<12 hex digits>")
    return value


def _retryable(value: ErrorClass) -> ErrorClass:
    if value in HOPELESS:
        raise ValueError(f"{value.value} is never retried: {HOPELESS[value]}")
    return value


def _given(value: object) -> object:
    if value is None:
        raise ValueError("should not be empty")
    return value


def _filled(value: tuple[object, ...]) -> tuple[object, ...]:
    # pydantic's own min_length counts items that are right, and calls a list of one wrong item empty
    if not value:
        raise ValueError("should not be empty")
    return value


Text = Annotated[str, StringConstraints(min_length=1)]
Slug = Annotated[str, StringConstraints(pattern=f"^{SLUG}$")]
ModelPattern = Annotated[Text, AfterValidator(_model_pattern)]
AdapterName = Annotated[str, AfterValidator(_adapter_name)]
FeatureName = Annotated[Feature, BeforeValidator(_one_of({f.value: f for f in Feature}))]
ErrorName = Annotated[ErrorClass, BeforeValidator(_one_of({e.value: e for e in ErrorClass}))]
RetryName = Annotated[ErrorName, AfterValidator(_retryable)]
ClassName = Annotated[PrivacyClass, PlainValidator(_privacy_class, json_schema_input_type=str)]
Given = BeforeValidator(_given)  # for a key that may be absent, and not empty
Filled = AfterValidator(_filled)
Milliseconds = Annotated[StrictInt, Field(ge=1, le=3_600_000)]
Seconds = Annotated[StrictFloat, Field(gt=0, le=86_400, allow_inf_nan=False)]
OneOrMany = BeforeValidator(_one_or_many)
Texts = Annotated[tuple[Text, ...], OneOrMany, Filled]
ModelPatterns = Annotated[tuple[ModelPattern, ...], OneOrMany, Filled]
FeatureNames = Annotated[tuple[FeatureName, ...], OneOrMany, Filled]


class Part(BaseModel):
    """Any mapping in the document: unknown keys are errors, and it does not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(Part):
    """From `at_least` to `at_most`, both included."""

    at_least: int
    at_most: int

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at_least > self.at_most:
            raise ValueError("at_least is above at_most, so nothing can match")
        return self


class TokenRange(Range):
    at_least: Annotated[StrictInt, Field(ge=0)] = 0
    at_most: Annotated[StrictInt, Field(ge=0)] = UNBOUNDED


class ClassRange(Range):
    at_least: ClassName = PrivacyClass.PUBLIC
    at_most: ClassName = UNLIMITED


class Match(Part):
    """All keys that are given must hold; an absent one matches anything."""

    endpoint: Texts = ()
    model: ModelPatterns = ()
    key: Texts = ()
    team: Texts = ()
    tags: Texts = ()  # all of them present
    features: FeatureNames = ()  # all of them used
    without_features: FeatureNames = ()  # none of them used
    prompt_tokens: TokenRange = TokenRange()
    privacy: ClassRange = ClassRange()


class Target(Part):
    """A model, an adapter or, with neither, whatever model the client asked for.

    `mask`: a request above the zone's ceiling may go there too, if it is within it once all findings that
    can be masked are replaced by placeholders.
    """

    backend: Text
    model: Text = ""
    adapter: AdapterName = ""
    mask: StrictBool = False


class Deny(Part):
    message: Text
    status: Annotated[StrictInt, Field(ge=400, le=499)] = 403
    code: Slug = "route_denied"


class Retry(Part):
    """Attempts at one target beyond the first, each after a random part of a wait that doubles."""

    attempts: Annotated[StrictInt, Field(ge=0, le=5)]
    on: Annotated[tuple[RetryName, ...], OneOrMany, Filled] = RETRY_ON
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
    targets: Annotated[tuple[Target, ...], Filled] = ()
    fallback_on: tuple[ErrorName, ...] = FALLBACK_ON
    retry: Retry = Retry(attempts=0)
    hedge: Annotated[Hedge | None, Given] = None
    deadline_s: Annotated[Seconds | None, Given] = None  # for the whole request
    deny: Deny | None = None


class PolicyDocument(Part):
    name: Slug
    version: Annotated[StrictInt, Field(ge=1)]
    requires: Texts = ()  # detectors without which the policy must not be used
    routes: Annotated[tuple[Route, ...], Filled]


# Which part stands under a key, to suggest what an unknown key there may have meant.
PARTS: Mapping[str, type[Part]] = {
    "": PolicyDocument,
    "routes": Route,
    "match": Match,
    "prompt_tokens": TokenRange,
    "privacy": ClassRange,
    "targets": Target,
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


def _words(problem: Any, location: tuple[int | str, ...]) -> str:
    kind: str = problem["type"]
    if kind == "extra_forbidden":
        above = [key for key in location[:-1] if isinstance(key, str)]
        return "unknown key" + did_you_mean(str(location[-1]), PARTS[above[-1] if above else ""].model_fields)
    if kind == "value_error":
        return str(problem["ctx"]["error"])
    if kind == "string_pattern_mismatch":
        return f"{problem['input']!r} should be small letters, digits, '.', '_' and '-', at most 64"
    return WORDS.get(kind) or f"{problem['msg']}, not {problem['input']!r}"


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    return text.removeprefix(".")

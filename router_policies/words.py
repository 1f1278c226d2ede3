"""The kinds of values in a policy document: how each is read, and how the JSON Schema describes it.

A key that is given must say something: `model:` with nothing behind it is an error, never "any model".
That is why absent is an empty default, and never None.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainValidator,
    StrictFloat,
    StrictInt,
    StringConstraints,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema

from .errors import did_you_mean
from .language import NAMES as LANGUAGES
from .names import SLUG, is_adapter
from .privacy import DEFAULT_SCALE, PrivacyClass, Scale
from .types import ErrorClass, Feature

HOPELESS: Mapping[ErrorClass, str] = {
    ErrorClass.CONTENT_POLICY: "the same provider would say no to it again; fallback_on leads to another",
    ErrorClass.REFUSED: "the request itself is at fault",
}
CLASS_FORMAT = "privacy-class"  # marks where `json_schema` puts a deployment's own classes
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([01]\d|2[0-4]):([0-5]\d)-([01]\d|2[0-4]):([0-5]\d)")
DAY = 1440  # minutes


class Part(BaseModel):
    """Any mapping in the document: unknown keys are errors, and it does not change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class OneOrMany:
    """On a tuple: one item may be written without a list, and a list that is given holds something."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        many = core_schema.no_info_before_validator_function(as_many, handler(source))
        return core_schema.no_info_after_validator_function(filled, many)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many | {"minItems": 1}]}


class Some:
    """On a tuple: it holds something."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # pydantic's own min_length counts items that are right, and calls a list of one wrong item empty
        return core_schema.no_info_after_validator_function(filled, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"minItems": 1}


def as_many(value: object) -> object:
    """One item as a tuple of it."""
    return (value,) if isinstance(value, str) else value


def filled(value: Any) -> Any:
    if not value:
        raise ValueError("should not be empty")
    return value


def _given(value: object) -> object:
    if value is None:
        raise ValueError("should not be empty")
    return value


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


def _time_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"unknown time zone {value!r}{did_you_mean(value, available_timezones())}")
    return value


def minutes(hours: str) -> tuple[int, int]:
    """ "22:00-06:00" as minutes of the day; the end is below the start where it passes midnight.

    ValueError: it is not a span of a day.
    """
    found = _HOURS.fullmatch(hours)
    start, end = (0, 0) if found is None else (_minute(found[1], found[2]), _minute(found[3], found[4]))
    if start == end or start >= DAY or end > DAY:
        raise ValueError(f'{hours!r} is not a span of hours; write it as "08:00-18:00", up to 24:00')
    return start, end


def _minute(hour: str, minute: str) -> int:
    return int(hour) * 60 + int(minute)


def _hours(value: str) -> str:
    minutes(value)
    return value


Text = Annotated[str, StringConstraints(min_length=1)]
Slug = Annotated[str, StringConstraints(pattern=f"^{SLUG}$")]
ModelPattern = Annotated[Text, AfterValidator(_model_pattern)]
AdapterName = Annotated[str, AfterValidator(_adapter_name)]
FeatureName = Annotated[Feature, BeforeValidator(_one_of({f.value: f for f in Feature}))]
ErrorName = Annotated[ErrorClass, BeforeValidator(_one_of({e.value: e for e in ErrorClass}))]
RetryName = Annotated[ErrorName, AfterValidator(_retryable)]
DayName = Annotated[
    str, BeforeValidator(_one_of({day: day for day in DAYS})), Field(json_schema_extra={"enum": list(DAYS)})
]
LanguageName = Annotated[
    str,
    BeforeValidator(_one_of({name: name for name in LANGUAGES})),
    Field(json_schema_extra={"enum": list(LANGUAGES)}),
]
ClassName = Annotated[
    PrivacyClass,
    PlainValidator(
        _privacy_class,
        json_schema_input_type=Annotated[str, Field(json_schema_extra={"format": CLASS_FORMAT})],
    ),
]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
Hours = Annotated[str, AfterValidator(_hours), Field(json_schema_extra={"pattern": f"^{_HOURS.pattern}$"})]
Given = BeforeValidator(_given)  # for a key that may be absent, and not empty
Milliseconds = Annotated[StrictInt, Field(ge=1, le=3_600_000)]
Seconds = Annotated[StrictFloat, Field(gt=0, le=86_400, allow_inf_nan=False)]
Share = Annotated[StrictFloat, Field(gt=0, le=1, allow_inf_nan=False)]
Texts = Annotated[tuple[Text, ...], OneOrMany()]
Values = Annotated[
    dict[Text, Texts], AfterValidator(filled), Field(json_schema_extra={"minProperties": 1})
]  # key -> those allowed
ModelPatterns = Annotated[tuple[ModelPattern, ...], OneOrMany()]
FeatureNames = Annotated[tuple[FeatureName, ...], OneOrMany()]
Languages = Annotated[tuple[LanguageName, ...], OneOrMany()]

"""What the control plane keeps: one model for each kind, as it is stored and as the admin API takes it.

Times are Unix seconds. A privacy class is its label; that it is on the scale is checked where it comes in.
"""

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, PlainSerializer

from gateway.rates import RateLimits
from gateway.setting_parts import known_time_zone
from router_policies.names import SLUG

SLUG_PATTERN = f"^{SLUG}$"
Slug = Annotated[str, Field(pattern=SLUG_PATTERN, max_length=64)]
Line = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Label = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[!-~]+$")]
ModelName = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[!-~]+$")]
Tags = Annotated[tuple[Label, ...], Field(max_length=32)]
RuleName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$", max_length=40)]
Example = Annotated[str, Field(min_length=1, max_length=200)]
Moment = Annotated[int, Field(ge=0, le=2**53)]


class Kind(StrEnum):
    TEAM = "team"
    PROJECT = "project"
    KEY = "key"
    POLICY = "policy"
    ROLLOUT = "rollout"
    DICTIONARY = "dictionary"
    PATTERN = "pattern"
    BUDGET = "budget"
    PRICE = "price"


class Role(StrEnum):
    """What a key may do below /admin. A key without a role may do nothing there."""

    OWNER = "owner"  # everything
    OPERATOR = "operator"  # everything but keys that have a role
    FINANCE = "finance"  # reads teams, projects and cost reports
    VIEWER = "viewer"  # reads everything


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Team(Record):
    """Who requests are booked to."""

    name: Line = ""
    privacy_floor: Label | None = Field(None, description="What its keys ask has at least this class.")
    tags: Tags = Field((), description="On every request of its keys.")
    limits: RateLimits | None = Field(
        None, description="Rate limits, in place of what the configuration says of its like."
    )
    disabled: bool = Field(False, description="None of its keys is admitted.")


class Project(Record):
    """A part of a team's work, with keys of its own."""

    team: Slug
    name: Line = ""
    privacy_floor: Label | None = None
    tags: Tags = ()
    disabled: bool = False


class KeyTerms(Record):
    """What a key may do, and for whom."""

    team: Slug
    project: Slug | None = None
    role: Role | None = Field(None, description="What it may do below /admin; without one nothing.")
    expires_at: Moment | None = Field(None, description="Unix seconds; without it the key stays valid.")
    models: Annotated[tuple[ModelName, ...], Field(max_length=256)] | None = Field(
        None, description="The only models it may ask for; one * may stand at the end. Without it: all."
    )
    routes: Annotated[tuple[Slug, ...], Field(max_length=256)] | None = Field(
        None, description="The only routes of the policy that its requests may take. Without it: all."
    )
    privacy_floor: Label | None = Field(None, description="What it asks has at least this class.")
    may_lower_privacy: bool = Field(
        False, description="It may ask for a class below the floors, never below what is found."
    )
    tags: Tags = ()
    limits: RateLimits | None = Field(
        None, description="Rate limits, in place of what the configuration says of its like."
    )
    disabled: bool = False


class FormerHash(Record):
    """A key's hash from before its rotation, which is good until then."""

    sha256: str
    until: Moment


class Key(KeyTerms):
    prefix: str  # of the secret, to know it by
    sha256: str
    former: tuple[FormerHash, ...] = ()


PolicyState = Literal["draft", "verified", "tested"]


class PolicyVersion(Record):
    """An immutable version of a policy; only its state moves."""

    document: dict[str, JsonValue]
    cases: tuple[dict[str, JsonValue], ...] = ()
    sha256: str  # of document and cases
    state: PolicyState = "draft"


class Rollout(Record):
    """Which version decides. Empty: the policy of the configuration."""

    active: str = ""
    candidate: str = ""  # decides `percent` of the requests
    percent: float = 0.0
    by: Literal["call", "key"] = (
        "call"  # what is drawn: each request for itself, or a key with all of its own
    )
    history: tuple[str, ...] = ()  # what was active before, oldest first


class Dictionary(Record):
    """Terms that give a request at least a class."""

    team: Slug | None = Field(None, description="Whose requests it guards; without it everybody's.")
    privacy: Label
    terms: Annotated[tuple[Example, ...], Field(min_length=1, max_length=50_000)]
    whole_words: bool = True
    fold_case: bool = True


class Pattern(Record):
    """A regular expression (RE2) whose matches give a request at least a class."""

    team: Slug | None = Field(None, description="Whose requests it guards; without it everybody's.")
    privacy: Label
    pattern: Annotated[str, Field(min_length=1, max_length=2_000)]
    matches: Annotated[tuple[Example, ...], Field(min_length=1, max_length=100)] = Field(
        description="Texts in each of which it has to find something."
    )
    leaves: Annotated[tuple[Example, ...], Field(max_length=100)] = Field(
        (), description="Texts in which it must find nothing."
    )


AsText = PlainSerializer(lambda amount: f"{amount:f}", return_type=str, when_used="json")
Usd = Annotated[Decimal, Field(ge=0, le=9_000_000_000, decimal_places=9), AsText]
PerMillion = Annotated[Decimal, Field(ge=0, le=1_000_000, max_digits=24), AsText]


class BudgetTerms(Record):
    """At most so much in each period, for all requests that have every one of key, team, tag and route."""

    usd: Usd
    per: Literal["day", "week", "month", "total"] = "month"
    time_zone: Annotated[str, AfterValidator(known_time_zone)] = "UTC"
    key: Slug | None = None
    team: Slug | None = None
    tag: Label | None = None
    route: Slug | None = None
    hard: bool = Field(True, description="It refuses when it is used up; a soft one only says so.")
    carry_over: bool = Field(False, description="What a period leaves is added to the next.")


class PriceTerms(Record):
    """What a model costs per million tokens. What is left out is at the price of what it is a part of."""

    model: ModelName = Field(description="As backends name it, or provider/model for that provider alone.")
    input: PerMillion
    output: PerMillion = Decimal(0)
    cached: PerMillion | None = None
    cache_write: PerMillion | None = Field(None, description="Kept for five minutes.")
    cache_write_1h: PerMillion | None = None
    audio_input: PerMillion | None = None
    image_input: PerMillion | None = None
    reasoning: PerMillion | None = None
    audio_output: PerMillion | None = None
    image_output: PerMillion | None = None
    request: PerMillion = Field(Decimal(0), description="For each call.")
    factors: dict[Label, PerMillion] = Field({}, description="Service tier -> times the price.")
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    since: date = Field(date(1970, 1, 1), description="The first day, in UTC, that it is for.")


ROLLOUT_ID = "policy"


def masked(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """`body` as the audit log may show it: no hash of a key, no confidential term, no long document."""
    shown = dict(body)
    if kind == Kind.KEY:
        shown["sha256"] = "***"
        shown["former"] = [{**former, "sha256": "***"} for former in body.get("former", ())]
    elif kind == Kind.DICTIONARY:
        shown["terms"] = f"{len(body['terms'])} terms"
    elif kind == Kind.POLICY:
        del shown["document"], shown["cases"]  # immutable, and kept with the version; the hash stays
    return shown

"""What `headgate.yaml` says of money: prices, currencies and budgets."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from router_policies.errors import did_you_mean
from router_policies.names import SLUG

Slug = Annotated[str, Field(pattern=f"^{SLUG}$")]
Price = Annotated[Decimal, Field(ge=0, le=1_000_000)]


class MoneyPart(BaseModel):
    """Any mapping in the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Meters(MoneyPart):
    """Per million tokens. What is left out is at the price of what it is a part of."""

    cached: Price | None = None
    cache_write: Price | None = None  # kept for five minutes
    cache_write_1h: Price | None = None
    audio_input: Price | None = None
    image_input: Price | None = None
    reasoning: Price | None = None
    audio_output: Price | None = None
    image_output: Price | None = None


class PriceTierSettings(Meters):
    """Prices once the whole prompt, cached part included, exceeds a length."""

    above_tokens: Annotated[int, Field(gt=0)]
    input: Price | None = None
    output: Price | None = None


class PriceSettings(Meters):
    input: Price
    output: Price = Decimal(0)
    request: Price = Decimal(0)  # for each call
    tiers: tuple[PriceTierSettings, ...] = ()
    factors: dict[str, Price] = {}  # service tier, such as batch, flex or priority -> times the price
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"  # another one needs its rates
    since: date = date(1970, 1, 1)  # the first day, in UTC, that it is for


PriceVersions = Annotated[
    tuple[PriceSettings, ...], BeforeValidator(lambda found: [found] if isinstance(found, dict) else found)
]


class PowerSettings(MoneyPart):
    """What one replica draws from its share of the machine, and what that costs."""

    watts: Annotated[Decimal, Field(gt=0)]  # under the usual load
    pue: Annotated[Decimal, Field(ge=1, le=10)] = Decimal(1)  # all that the site draws, for each watt of it
    usd_per_kwh: Price


CurrencySettings = dict[date, Annotated[Decimal, Field(gt=0)]]
"""US dollars for one unit of the currency, from a day of UTC on."""


def known_time_zone(value: str) -> str:
    if value not in available_timezones():
        raise ValueError(f"unknown time zone {value!r}{did_you_mean(value, available_timezones())}")
    return value


class BudgetSettings(MoneyPart):
    """A cap for all requests that have every one of key, team, tag and route that is given."""

    id: Slug
    usd: Annotated[Decimal, Field(ge=0, le=9_000_000_000, decimal_places=9)]
    per: Literal["day", "week", "month", "total"] = "month"
    time_zone: Annotated[str, AfterValidator(known_time_zone)] = "UTC"
    key: str = ""
    team: str = ""
    tag: str = ""
    route: str = ""
    hard: StrictBool = True  # refuses when it is used up; a soft one only says so
    carry_over: StrictBool = False  # what a period leaves is added to the next

"""Rate limits as they are written down: in the configuration, and on keys and teams of the control plane."""

from typing import Annotated, Literal, Self

import msgspec
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

Most = Annotated[int, Field(ge=1, le=10**12)]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What may be asked for in 60 seconds, and at once; None: as much as one likes."""

    requests: int | None = None
    tokens: int | None = None
    concurrent: int | None = None


class RateLimits(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: Most | None = None
    tokens_per_minute: Most | None = Field(None, description="Of prompts and answers together.")
    concurrent: Most | None = Field(None, description="Requests under way at once.")

    @property
    def rates(self) -> Rates:
        return Rates(
            requests=self.requests_per_minute, tokens=self.tokens_per_minute, concurrent=self.concurrent
        )


class RateRule(RateLimits):
    """Limits of a key, a team or a route by name; `*`: of each one for itself that has none by name."""

    key: str = ""
    team: str = ""
    route: str = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(map(bool, (self.key, self.team, self.route))) != 1:
            raise ValueError("give exactly one of key, team and route")
        if self.rates == Rates():
            raise ValueError("limits nothing: give requests_per_minute, tokens_per_minute or concurrent")
        return self


class RedisSettings(BaseModel):
    """Where processes count together, and what holds while it cannot be reached."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url_env: str  # the environment variable that holds redis://[user:password@]host[:port][/database]
    url: SecretStr = SecretStr("")  # filled from it; not a key of the file
    unreachable: Literal["refuse", "local_share"]
    processes: Annotated[int, Field(ge=1)] = 1  # in all; alone each has its share of every limit

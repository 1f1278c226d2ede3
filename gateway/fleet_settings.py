"""`fleet:` of the configuration: how adapters are released, and which of them are loaded."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CanarySettings(_Part):
    """When a canary is promoted, and when it is rolled back: see adapters/sequential.py."""

    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05  # chance of a wrong verdict
    errors: Annotated[float, Field(gt=0, lt=1)] = 0.02  # more than the stable release's, as a share
    latency: Annotated[float, Field(gt=0)] = 0.25  # longer to the first byte, as a share
    ratings: Annotated[float, Field(gt=0, lt=1)] = 0.05  # more bad ones, as a share
    hours: Annotated[float, Field(gt=0)] = 72.0  # without a verdict by then it is rolled back


class QuotaSettings(_Part):
    """How many of all slots one tenant's adapters take at once, where there are more adapters than slots."""

    adapters: Annotated[tuple[str, ...], Field(min_length=1)]  # their names; * stands for anything
    slots: Annotated[int, Field(ge=1)]


class FleetSettings(_Part):
    """What holds for all vLLM backends."""

    quorum: Annotated[float, Field(gt=0, le=1)] = 1.0  # share of the replicas that a release must pass on
    canary: CanarySettings = CanarySettings()
    pinned: tuple[str, ...] = ()  # adapters that always stay loaded, where there are more than slots
    quotas: tuple[QuotaSettings, ...] = ()
    work_per_replica: Annotated[int, Field(ge=1)] = (
        16  # requests, for the hint of how many replicas are wanted
    )
    wait_s: Annotated[float, Field(gt=0)] = 5.0  # that a request waits for its adapter to be loaded

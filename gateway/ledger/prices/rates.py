"""One model's rates, and what a call's meters cost at them."""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Protocol

import msgspec

from gateway.types import Usage

NANO_PER_USD = 10**9
ATTO_PER_NANO = 10**9
ATTO = Decimal("1e-18")
STANDARD = frozenset({"", "default", "standard", "auto", "on_demand"})
"""What providers call the service that is billed at the plain price."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Atto-dollars per token of each meter; None: no price of its own (see `FALLBACKS`)."""

    input: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    cache_write_1h: int | None = None
    audio_input: int | None = None
    image_input: int | None = None
    output: int | None = None
    reasoning: int | None = None
    audio_output: int | None = None
    image_output: int | None = None

    def of(self, meter: str) -> int | None:
        """The rate of a meter, or of the one that it is a part of; None: neither is known."""
        name: str | None = meter
        while name is not None:
            rate: int | None = getattr(self, name)
            if rate is not None:
                return rate
            name = FALLBACKS.get(name)
        return None

    def over(self, base: "Rates") -> "Rates":
        """These, and for what they leave out those of `base`."""
        found = {name: _first(getattr(self, name), getattr(base, name)) for name in METERS}
        return Rates(**found)

    def times(self, factor: Decimal) -> "Rates":
        """All of them by a factor, rounded half to even."""
        listed = {name: getattr(self, name) for name in METERS}
        return Rates(**{n: None if r is None else round(r * factor) for n, r in listed.items()})


METERS = Rates.__struct_fields__
FALLBACKS = {
    "cached": "input",
    "cache_write": "input",
    "cache_write_1h": "cache_write",
    "audio_input": "input",
    "image_input": "input",
    "reasoning": "output",
    "audio_output": "output",
    "image_output": "output",
}
_INPUT = ("input", "cached", "cache_write", "cache_write_1h", "image_input")
_SAID = ("output", "reasoning")
_MADE = ("audio_output", "image_output")


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Rates by the length of the prompt. `tiers` ascend by the tokens that must be exceeded."""

    base: Rates
    tiers: tuple[tuple[int, Rates], ...] = ()

    def rates(self, prompt_tokens: int) -> Rates:
        """The rates of the highest tier that `prompt_tokens`, cached ones included, exceed."""
        rates = self.base
        for above, higher in self.tiers:
            if prompt_tokens > above:
                rates = higher
        return rates

    def times(self, factor: Decimal) -> "Schedule":
        return Schedule(
            base=self.base.times(factor), tiers=tuple((above, r.times(factor)) for above, r in self.tiers)
        )


class ModelPrice(Schedule, frozen=True, kw_only=True):
    """One model's price: its standard schedule, and one for each other service tier that it lists."""

    services: Mapping[str, Schedule] = {}
    request: int = 0  # atto-dollars for each call, whatever its tokens

    def schedule(self, service: str) -> Schedule | None:
        """None: the model lists nothing for that service."""
        return self if service in STANDARD else self.services.get(service)


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """A cost in nano-dollars with its source, such as "litellm 1.106.2: gpt-4o-mini"; None: unknown."""

    cost_nano: int | None
    source: str


class Counted(Protocol):
    """Whatever counts tokens: one call's usage, or the sums of many."""

    @property
    def input_tokens(self) -> int: ...
    @property
    def cached_input_tokens(self) -> int: ...
    @property
    def cache_write_tokens(self) -> int: ...
    @property
    def cache_write_1h_tokens(self) -> int: ...
    @property
    def audio_input_tokens(self) -> int: ...
    @property
    def image_input_tokens(self) -> int: ...
    @property
    def output_tokens(self) -> int: ...
    @property
    def reasoning_tokens(self) -> int: ...
    @property
    def audio_output_tokens(self) -> int: ...
    @property
    def image_output_tokens(self) -> int: ...


def by_meter(counted: Counted) -> dict[str, int]:
    """Meter -> tokens, each token in one of them: the parts taken out of what they are parts of."""
    cached, written, kept = (
        counted.cached_input_tokens,
        counted.cache_write_tokens,
        counted.cache_write_1h_tokens,
    )
    heard, seen = counted.audio_input_tokens, counted.image_input_tokens
    thought, spoken, drawn = (
        counted.reasoning_tokens,
        counted.audio_output_tokens,
        counted.image_output_tokens,
    )
    return {
        "input": counted.input_tokens - cached - written - heard - seen,
        "cached": cached,
        "cache_write": written - kept,
        "cache_write_1h": kept,
        "audio_input": heard,
        "image_input": seen,
        "output": counted.output_tokens - thought - spoken - drawn,
        "reasoning": thought,
        "audio_output": spoken,
        "image_output": drawn,
    }


def cost_nano(price: ModelPrice, usage: Usage) -> int | None:
    """Nano-dollars for `usage` in its service tier, rounded half up once.

    None: a meter that was used has no price, or the model lists nothing for that service.
    """
    schedule = price.schedule(usage.service_tier)
    if schedule is None:
        return None
    rates = schedule.rates(usage.input_tokens)
    atto = price.request
    for meter, tokens in by_meter(usage).items():
        if tokens > 0:
            rate = rates.of(meter)
            if rate is None:
                return None
            atto += tokens * rate
    return round_nano(atto)


class Dearest(msgspec.Struct, frozen=True):
    """The dearest rates of a price by the length of the prompt: above so many tokens, in and out."""

    request: int
    steps: tuple[tuple[int, int, int], ...]  # ascending; the first is for any prompt

    def nano(self, usage: Usage) -> int:
        """The most that a call of up to this usage may cost, however its tokens are counted."""
        into, out = 0, 0
        for above, step_into, step_out in self.steps:
            if usage.input_tokens > above:
                into, out = step_into, step_out
        return round_nano(self.request + usage.input_tokens * into + usage.output_tokens * out)


def dearest(price: ModelPrice, asked: str, made: bool) -> Dearest:
    """`asked` is the service tier that the client wants. The plain one may come back, so the dearer counts;
    without a word of the client's any may. `made`: audio or images may be in the answer.
    """
    services = price.services if asked in STANDARD else {asked: price.services.get(asked, price)}
    schedules = (price, *services.values())
    bounds = sorted({above for schedule in schedules for above, _ in schedule.tiers})
    steps = []
    for above in (-1, *bounds):
        rates = [schedule.rates(above + 1) for schedule in schedules]
        into = max(_dearest(r, _INPUT) for r in rates)
        steps.append((above, into, max(_dearest(r, (*_SAID, *_MADE) if made else _SAID) for r in rates)))
    return Dearest(price.request, tuple(steps))


def round_nano(atto: int) -> int:
    """Nano-dollars, half up."""
    return (atto + ATTO_PER_NANO // 2) // ATTO_PER_NANO


def to_atto(price: Any) -> int | None:
    """Whole atto-dollars, rounded half to even; None for what is no price."""
    if not isinstance(price, (int, Decimal)) or price < 0:
        return None
    return int((Decimal(price) / ATTO).to_integral_value())


def usd(nano: int) -> str:
    """Nano-dollars as an exact decimal of US dollars with nine places."""
    whole, part = divmod(abs(nano), NANO_PER_USD)
    return f"{'-' if nano < 0 else ''}{whole}.{part:09d}"


def _dearest(rates: Rates, meters: Iterable[str]) -> int:
    return max((rate for meter in meters if (rate := rates.of(meter)) is not None), default=0)


def _first(rate: int | None, otherwise: int | None) -> int | None:
    return otherwise if rate is None else rate

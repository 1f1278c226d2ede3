"""Which cases are tried: field × disguise × kind of canary × path × stream, all of them or a covering part.

The part (`covering`) has every field with every kind and on every path, every kind on every path, and every
disguise with every kind that it suits and on every path: what a fault in one of these alone, or in two of
them together, would show. Of field × disguise it has a share that grows with `rounds`; the whole product
(`make attack`) has it all.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import msgspec

from gateway.backends.fake_calls import Behaviour
from tests.privacy.attack.canaries import KINDS, Canary, canary
from tests.privacy.attack.disguises import DISGUISES, KNOWN_GAPS
from tests.privacy.attack.fields import FIELDS


class Path(msgspec.Struct, frozen=True):
    """A way that a request might take outside: a leaky route, and what home does to drive it there."""

    tag: str = ""
    home: tuple[Behaviour, ...] = ()
    masks: bool = False  # what is left of a request may go this way


FAILURES = {
    "no answer": Behaviour(close=True, times=2),
    "500": Behaviour(status=500),
    "503": Behaviour(status=503, headers={"retry-after": "0"}),
    "429": Behaviour(status=429, headers={"retry-after": "0"}),
    "404": Behaviour(status=404),
    "400": Behaviour(status=400),
    "401": Behaviour(status=401),
    "content policy": Behaviour(status=400, error={"code": "content_filter"}),
}
PATHS = {
    "as shipped": Path(),
    "first choice": Path("first-choice"),
    "only choice": Path("only-choice"),
    **{f"fallback after {name}": Path("fallback", (how,)) for name, how in FAILURES.items()},
    "fallback after two": Path("late-fallback", (Behaviour(status=500),)),
    "retry": Path("retry"),
    "retry at home": Path("retry-at-home", (Behaviour(status=500, times=3),)),
    "hedge": Path("hedge", (Behaviour(latency=0.01, times=2),)),
    "hedge outside": Path("hedge-outside"),
    "broken stream": Path("fallback", (Behaviour(break_after=1),)),
    "failing stream": Path("fallback", (Behaviour(fail_after=1),)),
    "deadline": Path("deadline"),
    "masked": Path("masked", masks=True),
    "masked after 500": Path("masked-fallback", (Behaviour(status=500),), masks=True),
    "masked hedge": Path("masked-hedge", (Behaviour(latency=0.01, times=2),), masks=True),
}


class Case(NamedTuple):
    field: str
    disguise: str
    kind: str
    path: str
    stream: bool

    @property
    def canary(self) -> Canary:
        return canary(self.kind, "/".join(map(str, self)))


# In a string of JSON within JSON the escapes are themselves escaped, and line ends are escapes.
NOT_TOGETHER = frozenset(
    product(
        ("tool call arguments", "second tool call", "response: function call arguments"),
        (
            *("base64 in lines", "hexadecimal in lines", "JSON escapes", "backslash x"),
            *("full width in JSON in a string", "zero-width in JSON in a string"),
        ),
    )
)


def suits(disguise: str, kind: str) -> bool:
    """Whether the detectors are said to see through it."""
    gap = KNOWN_GAPS.get(disguise)
    return kind in DISGUISES[disguise].kinds and not (gap and kind in gap.kinds | gap.at_times)


def covering(rounds: int) -> Iterator[Case]:
    """One case for each field and kind and round, and what pairs of disguise and path these leave out."""
    suited = {kind: [name for name in DISGUISES if suits(name, kind)] for kind in KINDS}
    paths, seen = list(PATHS), set()
    for turn, (place, field), (number, kind) in product(range(rounds), enumerate(FIELDS), enumerate(KINDS)):
        step = turn * len(KINDS) + number
        disguise = suited[kind][(place + 5 * step) % len(suited[kind])]
        if (field, disguise) in NOT_TOGETHER:
            disguise = "plain"
        path = paths[(place + step) % len(paths)]
        seen.add((disguise, path))
        yield Case(field, disguise, kind, path, bool((place + turn) % 2))
    for kind, disguises in suited.items():
        for disguise, path in product(disguises, paths):
            if (disguise, path) not in seen:
                seen.add((disguise, path))
                yield Case("user message", disguise, kind, path, stream=False)


def everything(fields: Sequence[str] = tuple(FIELDS)) -> Iterator[Case]:
    """Field × disguise × kind, each pair of these on a path after the other; field × kind × path × stream."""
    paths = list(PATHS)
    for place, (field, disguise, kind) in enumerate(product(fields, DISGUISES, KINDS)):
        if suits(disguise, kind) and (field, disguise) not in NOT_TOGETHER:
            yield Case(field, disguise, kind, paths[place % len(paths)], bool(place // len(paths) % 2))
    for field, kind, path, stream in product(fields, KINDS, paths, (False, True)):
        yield Case(field, "plain", kind, path, stream)

"""Sums over the ledger by group: whole days from their roll-ups, all else from the entries."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import (
    ColumnElement,
    Label,
    Select,
    and_,
    case,
    false,
    func,
    or_,
    select,
    true,
    union_all,
)

from gateway.ledger.rollups import DAY_NS, DIMENSIONS, METERS, ROLLUP
from gateway.ledger.tables import ENTRY
from gateway.types import Outcome, Resolves

Span = tuple[int, int]  # from the first, before the second
Bounds = tuple[int | None, int | None]  # a span that may be open at either side
Columns = Mapping[str, ColumnElement[Any]]

_COUNTS = ("requests", "refused", "failed", "estimated", "unknown_price", *METERS)
_RESOLVES = [Resolves(n) for n in range(1, 4)]
_FAILED = (Outcome.FAILED.value, Outcome.INTERRUPTED.value, Outcome.LOST.value)


class GroupBy(StrEnum):
    """What a report can be grouped by: a column of the roll-ups. A day is one of UTC."""

    TEAM = "team"
    KEY = "key"
    TAGS = "tags"  # all of a request's tags together, as a JSON list
    ENDPOINT = "endpoint"
    MODEL = "model"
    ADAPTER = "adapter"
    ROUTE = "route"
    BACKEND = "backend"
    ZONE = "zone"
    PRIVACY = "privacy"
    OUTCOME = "outcome"
    ESTIMATED = "estimated"  # 1: the tokens are an estimate
    UNKNOWN_PRICE = "unknown_price"  # 1: reached a backend, and what that costs is not known
    PRICE = "price"  # where the price came from
    SERVICE_TIER = "service_tier"  # that served it, where the provider says so
    CORRECTION = "correction"  # 1: what corrections added to requests of the group
    DAY = "day"

    @property
    def column(self) -> str:
        return "key_id" if self is GroupBy.KEY else self.value


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """One group of entries. `keys` are in the order asked for; a day is its number since 1970-01-01.

    A correction is no request: it adds its tokens and cost to the group of its call, and takes the call off
    those that are estimated or of unknown price where it resolves that.
    """

    keys: tuple[str | int, ...]
    above_tokens: int = 0  # the highest of the bounds asked for that the prompts exceed; 0: none of them
    requests: int
    refused: int  # by us, before any backend was reached
    failed: int  # reached a backend and got no whole answer: failed, interrupted or lost
    estimated: int  # of which the tokens are an estimate
    unknown_price: int  # reached a backend, and what that costs is not known
    input_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cache_write_1h_tokens: int = 0
    audio_input_tokens: int = 0
    image_input_tokens: int = 0
    audio_output_tokens: int = 0
    image_output_tokens: int = 0
    cost_nano: int | None  # of those with a known price; None when there is none such


def sums_query(
    group_by: Sequence[GroupBy],
    period: Bounds,
    rolled: Sequence[Span],
    prompt_bounds: Sequence[int] = (),
    pruned: Sequence[Span] = (),
) -> Select[Any]:
    """Entries that started within `period` (Unix nanoseconds), by group in the groups' order.

    `rolled`: spans of days, ascending, whose roll-ups may stand for their entries. `prompt_bounds`: groups
    are split further by the highest of these that a prompt's tokens exceed, which only entries can tell.
    `pruned`: spans of days with a roll-up, whose entries are those that came after it; their prompts count as
    exceeding no bound, and a period that holds a part of such a day has that part alone.
    """
    names = [group.column for group in group_by]
    whole = list(_whole(pruned if prompt_bounds else rolled, period))
    rest = _gaps([(first * DAY_NS, end * DAY_NS) for first, end in whole], period)
    kept = [(first * DAY_NS, end * DAY_NS) for first, end in _whole(pruned, period)]
    rest += kept
    parts = [_from_rollups(names, whole, tiered=bool(prompt_bounds))] if whole else []
    parts.append(_from_entries(names, rest, sorted(prompt_bounds)))
    source = union_all(*parts).subquery()
    keys = [source.c[_key(name)] for name in names]
    keys += [source.c.above_tokens] if prompt_bounds else []
    counts = [func.coalesce(func.sum(source.c[name]), 0).label(name) for name in _COUNTS]
    return select(*keys, *counts, func.sum(source.c.cost_nano)).group_by(*keys).order_by(*keys)


def to_sums(row: Sequence[Any], keys: int, *, tiered: bool) -> Sums:
    """A row of the above. PostgreSQL sums bigints as numeric, which arrives as Decimal."""
    names = [*(["above_tokens"] if tiered else []), *_COUNTS, "cost_nano"]
    values = {name: None if v is None else int(v) for name, v in zip(names, row[keys:], strict=True)}
    return msgspec.convert({"keys": tuple(row[:keys]), **values}, Sums)


def spans_of(days: Iterable[int]) -> list[Span]:
    """Days as spans of days that follow each other."""
    spans: list[Span] = []
    for day in sorted(days):
        if spans and spans[-1][1] == day:
            spans[-1] = (spans[-1][0], day + 1)
        else:
            spans.append((day, day + 1))
    return spans


def _key(name: str) -> str:
    """A group's column, told apart from the count of the same name."""
    return f"by_{name}"


def _from_rollups(names: Sequence[str], spans: Sequence[Span], *, tiered: bool) -> Select[Any]:
    c: Columns = dict(ROLLUP.c.items())
    keys = [c[name].label(_key(name)) for name in names]
    if tiered:
        keys.append((c["day"] * 0).label("above_tokens"))  # a plain 0 would be a position to GROUP BY
    within = or_(*(and_(c["day"] >= a, c["day"] < b) for a, b in spans))
    return _summed(keys, _counts(c, c["requests"]), c, within)


def _from_entries(names: Sequence[str], spans: Sequence[Bounds], bounds: Sequence[int]) -> Select[Any]:
    keys = [DIMENSIONS[name].label(_key(name)) for name in names]
    if bounds:
        above = [(ENTRY.c.input_tokens > bound, bound) for bound in reversed(bounds)]
        keys.append(case(*above, else_=0).label("above_tokens"))
    within = or_(false(), *(_within(span) for span in spans))
    return _summed(keys, _counts(DIMENSIONS, 1), dict(ENTRY.c.items()), within)


def _counts(c: Columns, requests: Any) -> list[ColumnElement[Any]]:
    """How many requests there are, and how many of each kind; `requests`: for how many a row stands."""
    request = c["correction"] == 0
    kinds = {
        "requests": (request, false()),
        "refused": (and_(request, c["outcome"] == Outcome.REFUSED.value), false()),
        "failed": (and_(request, c["outcome"].in_(_FAILED)), false()),
        "estimated": (and_(request, c["estimated"] == 1), _resolved(c, Resolves.TOKENS)),
        "unknown_price": (and_(request, c["unknown_price"] == 1), _resolved(c, Resolves.PRICE)),
    }
    return [
        func.sum(case((counts, requests), (no_more, -requests), else_=0)).label(name)
        for name, (counts, no_more) in kinds.items()
    ]


def _resolved(c: Columns, what: Resolves) -> ColumnElement[bool]:
    """Rows of corrections that say so."""
    return c["resolves"].in_([int(flags) for flags in _RESOLVES if what in flags])


def _summed(
    keys: Sequence[ColumnElement[Any]],
    counts: Sequence[ColumnElement[Any]],
    c: Columns,
    within: ColumnElement[bool],
) -> Select[Any]:
    measures = [func.sum(c[name]).label(name) for name in (*METERS, "cost_nano")]
    # By the expressions, not their labels: PostgreSQL would take a label for a column of the same name.
    expressions = [key.element if isinstance(key, Label) else key for key in keys]
    return select(*keys, *counts, *measures).where(within).group_by(*expressions)


def _whole(rolled: Sequence[Span], period: Bounds) -> Iterator[Span]:
    """The parts of those spans of days that lie in the period as a whole."""
    first = None if period[0] is None else -(-period[0] // DAY_NS)
    end = None if period[1] is None else period[1] // DAY_NS
    for a, b in rolled:
        a, b = a if first is None else max(a, first), b if end is None else min(b, end)
        if a < b:
            yield a, b


def _gaps(spans: Iterable[Span], period: Bounds) -> list[Bounds]:
    """What of the period is in none of the spans, which ascend and lie in it."""
    gaps: list[Bounds] = []
    since, until = period
    for a, b in spans:
        if since is None or since < a:
            gaps.append((since, a))
        since = b
    if since is None or until is None or since < until:
        gaps.append((since, until))
    return gaps


def _within(span: Bounds) -> ColumnElement[bool]:
    since = true() if span[0] is None else ENTRY.c.started_ns >= span[0]
    until = true() if span[1] is None else ENTRY.c.started_ns < span[1]
    return and_(since, until)

"""What was spent, by whom and on what: chargeback by any groups and period, and what moved most.

A cost that is not known is never shown as zero: a group of which nothing is priced has no cost, and one of
which something is not priced counts it beside its cost, which then is a lower bound.
"""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from gateway.finance.periods import Each, Period, cut
from gateway.finance.sheet import Column, Kind, Sheet, Value, adds_up
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy, Sums

TAG = "tag"  # each tag by itself, where GroupBy.TAGS is all of a request's together
OVERLAP = "(counted under several tags)"
GROUPS = {group.value: group for group in GroupBy} | {TAG: GroupBy.TAGS}
NO_PRICE = "requests_with_unknown_price"
ESTIMATED = "requests_with_estimated_tokens"
COST = "cost_of_priced_requests_usd"

_MEANINGS = {
    "team": "Team that the key belongs to.",
    "key": "Id of the key that was used; not the key itself.",
    "tags": "All tags of the requests together, from the key and from x-headgate-tags.",
    "tag": "One tag. A request with several is in the row of each; the last row takes the surplus off again.",
    "endpoint": "API that was called, such as chat/completions.",
    "model": "Model that answered, as its backend names it; none: the request reached no backend.",
    "adapter": "LoRA adapter release that answered; none: the base model or a rented one.",
    "route": "Route of the policy that decided.",
    "backend": "Backend that answered or was tried last; none: the request reached no backend.",
    "zone": "Zone of that backend.",
    "privacy": "Privacy class of the request.",
    "outcome": "How the requests ended: ok, refused, failed, interrupted, client_closed or lost.",
    "estimated": "1: the token counts are estimates of ours; 0: the provider's own.",
    "unknown_price": "1: reached a backend whose price is not known; 0: priced, or nothing to price.",
    "price": "Where the price came from.",
    "service_tier": "Service tier that the provider billed, such as flex or priority; none: the plain one.",
    "correction": "1: what corrections added later; 0: as the requests were first recorded.",
    "day": "Day in UTC on which the requests started.",
}
MEASURES = (
    Column(
        name="requests", kind=Kind.COUNT, meaning="Requests that started in the period.", heading="Requests"
    ),
    Column(
        name="requests_refused_by_policy_or_limits",
        kind=Kind.COUNT,
        meaning="Of these, refused by the gateway before a backend was reached; they cost nothing.",
    ),
    Column(
        name="requests_failed",
        kind=Kind.COUNT,
        meaning="Of these, those that reached a backend and got no whole answer.",
        heading="Failed",
    ),
    Column(
        name=NO_PRICE,
        kind=Kind.COUNT,
        meaning="Of these, those whose price is not known: their cost is in no amount of this report.",
        heading="No price",
    ),
    Column(
        name=ESTIMATED,
        kind=Kind.COUNT,
        meaning="Of these, those whose tokens the provider did not count: estimates of ours.",
    ),
    Column(
        name="input_tokens_including_cached",
        kind=Kind.COUNT,
        meaning="Tokens of all prompts.",
        heading="Input",
    ),
    Column(
        name="cached_input_tokens",
        kind=Kind.COUNT,
        meaning="Part of the input tokens that the provider had in its cache.",
        heading="Cached",
    ),
    Column(
        name="cache_write_tokens",
        kind=Kind.COUNT,
        meaning="Part of the input tokens that the provider wrote into its cache.",
    ),
    Column(
        name="audio_and_image_input_tokens",
        kind=Kind.COUNT,
        meaning="Part of the input tokens that stood for sound or pictures.",
    ),
    Column(
        name="output_tokens_including_reasoning",
        kind=Kind.COUNT,
        meaning="Tokens of all answers.",
        heading="Output",
    ),
    Column(
        name="reasoning_tokens",
        kind=Kind.COUNT,
        meaning="Part of the output tokens that the model thought with.",
    ),
    Column(
        name="audio_and_image_output_tokens",
        kind=Kind.COUNT,
        meaning="Part of the output tokens that stood for sound or pictures.",
    ),
    Column(
        name=COST,
        kind=Kind.USD,
        meaning="What the requests with a known price cost, in US dollars; empty: not one of them has.",
        heading="Cost USD",
    ),
)


def chargeback(
    store: Store, by: Sequence[str], period: Period, *, each: Each | None = None, tz: ZoneInfo | None = None
) -> Sheet:
    """Requests and cost by group, and by each day, week or month of `tz` where `each` says so.

    Raises ValueError (an unknown group, the same one twice), StoreUnavailable.
    """
    groups = read_groups(by)
    parts = [period] if each is None else list(cut(period, each, tz or ZoneInfo("UTC")))
    rows = [
        (*span_cells(part), *key_cells(by, sums.keys), *measures(sums))
        for part in parts
        for sums in _by_tag(by, store.sums(groups, part.since_ns, part.until_ns))
        if sums.requests or sums.cost_nano is not None or not groups
    ]
    columns = (*SPAN, *group_columns(by), *MEASURES)
    return Sheet(
        name="chargeback",
        title=title("Cost", period),
        columns=columns,
        rows=tuple(rows),
        total=adds_up(columns, tuple(rows)),
        notes=unknown_notes(rows, columns),
    )


def movers(store: Store, by: Sequence[str], period: Period, top: int = 10) -> Sheet:
    """The groups whose cost changed most against the period of the same length before. Raises as above."""
    groups = read_groups(by)
    if TAG in by:
        raise ValueError("movers cannot be grouped by tag; tags, all of a request's together, can")
    before = Period(label="before", since=period.since - (period.until - period.since), until=period.since)
    then = {s.keys: s for s in store.sums(groups, before.since_ns, before.until_ns)}
    now = {s.keys: s for s in store.sums(groups, period.since_ns, period.until_ns)}
    changes = sorted((_change(then.get(keys), now.get(keys)), keys) for keys in then.keys() | now.keys())
    ranked = sorted(changes, key=lambda change: -abs(change[0][2]))
    rows = tuple((*key_cells(by, keys), *values) for values, keys in ranked[:top])
    return Sheet(
        name="movers",
        title=title(f"The {top} largest changes of cost", period),
        columns=(*group_columns(by), *_MOVED),
        rows=rows,
        notes=(
            f"Compared with the period of the same length before, from {before.since:%Y-%m-%d %H:%M} UTC.",
            f"{len(ranked)} groups in all; those not shown moved less. Unknown prices are in no cost.",
        ),
    )


SPAN = (
    Column(name="period_start_utc", kind=Kind.TIME, meaning="First instant that counts, in UTC."),
    Column(name="period_end_utc_exclusive", kind=Kind.TIME, meaning="First instant that does not, in UTC."),
    Column(name="period", kind=Kind.TEXT, meaning="The period by its name.", heading="Period"),
)
_MOVED = (
    Column(name="cost_before_usd", kind=Kind.USD, meaning="Cost in the period before.", heading="Before USD"),
    Column(name="cost_now_usd", kind=Kind.USD, meaning="Cost in this period.", heading="Now USD"),
    Column(name="change_usd", kind=Kind.USD, meaning="Now less before.", heading="Change USD"),
    Column(name="requests_before", kind=Kind.COUNT, meaning="Requests before.", heading="Requests before"),
    Column(name="requests_now", kind=Kind.COUNT, meaning="Requests now.", heading="now"),
    Column(
        name="requests_of_both_with_unknown_price",
        kind=Kind.COUNT,
        meaning="Requests in either period whose price is not known: the change leaves them out.",
        heading="No price",
    ),
    Column(
        name="requests_of_both_with_estimated_tokens",
        kind=Kind.COUNT,
        meaning="Requests in either period whose tokens are estimates of ours.",
    ),
)


def read_groups(by: Sequence[str]) -> list[GroupBy]:
    """Raises ValueError naming the known ones."""
    unknown = [name for name in by if name not in GROUPS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no group; known are {', '.join(GROUPS)}")
    groups = [GROUPS[name] for name in by]
    if len(set(groups)) < len(groups):
        raise ValueError("a report cannot be grouped by the same thing twice")
    return groups


def group_columns(by: Sequence[str]) -> tuple[Column, ...]:
    return tuple(
        Column(
            name="day_utc" if name == "day" else name,
            kind=Kind.DAY if name == "day" else Kind.TEXT,
            meaning=_MEANINGS[name],
            heading=name.capitalize(),
        )
        for name in by
    )


def key_cells(by: Sequence[str], keys: Sequence[str | int]) -> tuple[Value, ...]:
    return tuple(_key_cell(name, key) for name, key in zip(by, keys, strict=True))


def span_cells(period: Period) -> tuple[Value, ...]:
    return period.since.astimezone(UTC), period.until.astimezone(UTC), period.label


def measures(sums: Sums) -> tuple[Value, ...]:
    return (
        sums.requests,
        sums.refused,
        sums.failed,
        sums.unknown_price,
        sums.estimated,
        sums.input_tokens,
        sums.cached_input_tokens,
        sums.cache_write_tokens,
        sums.audio_input_tokens + sums.image_input_tokens,
        sums.output_tokens,
        sums.reasoning_tokens,
        sums.audio_output_tokens + sums.image_output_tokens,
        known_cost(sums),
    )


def known_cost(sums: Sums) -> int | None:
    """Nothing spent is zero where nothing was left unpriced, and unknown otherwise."""
    return 0 if sums.cost_nano is None and not sums.unknown_price else sums.cost_nano


def title(what: str, period: Period) -> str:
    return f"{what} from {_when(period.since)} until {_when(period.until)} (UTC)"


def unknown_notes(rows: Iterable[tuple[Value, ...]], columns: tuple[Column, ...]) -> tuple[str, ...]:
    """What the figures leave out, counted."""
    names = [column.name for column in columns]
    counts = {name: sum(int(str(row[names.index(name)])) for row in rows) for name in (NO_PRICE, ESTIMATED)}
    return (
        f"{counts[NO_PRICE]} requests have no known price; no amount here includes them.",
        f"{counts[ESTIMATED]} requests have estimated token counts; they are included.",
        "Dollars are exact to nine places in CSV, JSON and Parquet.",
    )


def _key_cell(name: str, key: str | int) -> Value:
    if name == "day":
        return date(1970, 1, 1) + timedelta(days=int(key))
    return ", ".join(json.loads(key)) if name == GroupBy.TAGS and isinstance(key, str) else str(key)


def _by_tag(by: Sequence[str], found: Sequence[Sums]) -> Iterable[Sums]:
    """Where a tag is asked for: the rows of each tag, and for the rest of their keys the surplus."""
    if TAG not in by:
        return found
    place = list(by).index(TAG)
    merged: dict[tuple[str | int, ...], Sums] = {}
    for sums in found:
        tags = json.loads(str(sums.keys[place]))
        for tag in tags or [""]:
            _merge(merged, sums, (*sums.keys[:place], tag, *sums.keys[place + 1 :]), 1)
        if len(tags) > 1:
            _merge(merged, sums, (*sums.keys[:place], OVERLAP, *sums.keys[place + 1 :]), 1 - len(tags))
    return [merged[keys] for keys in sorted(merged, key=lambda k: (k[place] == OVERLAP, *map(str, k)))]


def _merge(
    into: dict[tuple[str | int, ...], Sums], sums: Sums, keys: tuple[str | int, ...], times: int
) -> None:
    present = into.get(keys)
    values = msgspec.structs.asdict(sums)
    for name, value in values.items():
        if name not in ("keys", "above_tokens"):
            held = None if present is None else getattr(present, name)
            both = [v for v in (held, None if value is None else value * times) if v is not None]
            values[name] = sum(both) if both else None
    into[keys] = Sums(**(values | {"keys": keys}))


def _change(then: Sums | None, now: Sums | None) -> tuple[int, int, int, int, int, int, int]:
    before, after = ((s.cost_nano or 0) if s else 0 for s in (then, now))
    both = [s for s in (then, now) if s]
    return (
        before,
        after,
        after - before,
        then.requests if then else 0,
        now.requests if now else 0,
        sum(s.unknown_price for s in both),
        sum(s.estimated for s in both),
    )


def _when(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""The ledger beside a provider's own account: the variance by day and model, or of an invoice's total.

Nothing is changed by it. What differs call by call is put right by `headgate prices reconcile`.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from gateway.finance.periods import Period, midnight
from gateway.finance.reports import ESTIMATED, NO_PRICE, title
from gateway.finance.sheet import Column, Kind, Sheet, Value, adds_up
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy, Sums

_EPOCH, _UTC = date(1970, 1, 1), ZoneInfo("UTC")
_MEASURES = (
    Column(
        name="cost_by_provider_usd",
        kind=Kind.USD,
        meaning="What the provider's account says; empty: it does not have this.",
        heading="Provider USD",
    ),
    Column(
        name="cost_in_ledger_usd",
        kind=Kind.USD,
        meaning="What the ledger has, corrections included.",
        heading="Ledger USD",
    ),
    Column(
        name="variance_usd",
        kind=Kind.USD,
        meaning="Provider less ledger; above zero: billed more than was recorded.",
        heading="Variance USD",
    ),
    Column(
        name="variance_share", kind=Kind.RATIO, meaning="Variance / what the provider says.", heading="Share"
    ),
    Column(name="requests", kind=Kind.COUNT, meaning="Requests in the ledger.", heading="Requests"),
    Column(
        name=NO_PRICE,
        kind=Kind.COUNT,
        meaning="Of these, those whose price is not known: they are in no cost of the ledger.",
        heading="No price",
    ),
    Column(
        name=ESTIMATED,
        kind=Kind.COUNT,
        meaning="Of these, those whose tokens are estimates of ours: the likeliest cause of a variance.",
        heading="Estimated",
    ),
)
_DAYS = (
    Column(name="day_utc", kind=Kind.DAY, meaning="Day in UTC on which requests started.", heading="Day"),
    Column(name="model", kind=Kind.TEXT, meaning="Model as the backend names it.", heading="Model"),
    *_MEASURES,
)
_TOTAL = (Column(name="period", kind=Kind.TEXT, meaning="The period.", heading="Period"), *_MEASURES)


def by_day(
    store: Store, period: Period, backends: Collection[str], account: Mapping[tuple[date, str], int]
) -> Sheet:
    """A row for each day and model that either side has. `account`: (day of UTC, model) -> nano-dollars.

    Days of the account outside the period are left out and counted. Raises StoreUnavailable.
    """
    groups = (GroupBy.DAY, GroupBy.MODEL, GroupBy.BACKEND)
    ours: dict[tuple[date, str], list[Sums]] = defaultdict(list)
    for sums in store.sums(groups, period.since_ns, period.until_ns):
        day, model, backend = sums.keys
        if backend in backends:
            ours[_EPOCH + timedelta(days=int(day)), str(model)].append(sums)
    inside = {place: nano for place, nano in account.items() if _within(place[0], period)}
    rows = tuple(
        (*place, *_cells(inside.get(place), ours.get(place, ()))) for place in sorted({*ours, *inside})
    )
    return Sheet(
        name="reconcile",
        title=title("Provider against ledger", period),
        columns=_DAYS,
        rows=rows,
        total=_total(_DAYS, rows),
        notes=(
            f"{len(account) - len(inside)} lines of the account are of days outside the period.",
            *_notes(backends),
        ),
    )


def against_total(store: Store, period: Period, backends: Collection[str], total_nano: int) -> Sheet:
    """One row: an invoice's total and what the ledger has. Raises StoreUnavailable."""
    found = store.sums([GroupBy.BACKEND], period.since_ns, period.until_ns)
    ours = [sums for sums in found if sums.keys[0] in backends]
    return Sheet(
        name="reconcile",
        title=title("Invoice against ledger", period),
        columns=_TOTAL,
        rows=((period.label, *_cells(total_nano, ours)),),
        notes=_notes(backends),
    )


def _cells(provider: int | None, ours: Collection[Sums]) -> Iterator[Value]:
    ledger = sum(sums.cost_nano or 0 for sums in ours)
    yield provider
    yield ledger
    yield (provider or 0) - ledger
    yield _share((provider or 0) - ledger, provider)
    yield sum(sums.requests for sums in ours)
    yield sum(sums.unknown_price for sums in ours)
    yield sum(sums.estimated for sums in ours)


def _total(columns: tuple[Column, ...], rows: tuple[tuple[Value, ...], ...]) -> tuple[Value, ...]:
    total = list(adds_up(columns, rows))
    provider, variance = total[2], total[4]
    if isinstance(provider, int) and isinstance(variance, int):
        total[5] = _share(variance, provider)
    return tuple(total)


def _share(variance: int, provider: int | None) -> Decimal | None:
    return round(Decimal(variance) / provider, 6) if provider else None


def _within(day: date, period: Period) -> bool:
    """Whether some of the day is in the period."""
    start = midnight(day, _UTC)
    return start < period.until and start + timedelta(days=1) > period.since


def _notes(backends: Collection[str]) -> tuple[str, ...]:
    return (f"Requests to {', '.join(sorted(backends)) or 'no backend'}; days are those of UTC.",)

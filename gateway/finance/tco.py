"""What our own replicas cost, busy and idle, and from which utilisation on they are worth it.

A replica costs its hourly rate from its first request until now, whether anybody asks it or not. Requests
are charged the time that it was busy with them (`ledger/selfhost.py`); what is left over is idle, and booked
as that. Marginal cost is the busy part alone; fully loaded cost is all of it; the gap is what idleness costs.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from gateway.finance.list_prices import ListPrices
from gateway.finance.periods import Period, to_ns
from gateway.finance.reports import ESTIMATED, NO_PRICE, title
from gateway.finance.savings import list_atto
from gateway.finance.sheet import Column, Kind, Sheet, adds_up
from gateway.ledger.prices import ATTO_PER_NANO
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy, Sums

HOUR_NS = 3600 * 10**9
UTILISATIONS = tuple(Decimal(percent) / 100 for percent in range(5, 101, 5))


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """What one replica of ours did and cost in a period. Nano-dollars; times in nanoseconds."""

    backend: str
    nano_per_hour: int
    uptime_ns: int
    requests: int
    unpriced: int
    estimated: int
    busy_nano: int  # charged to requests

    @property
    def paid_nano(self) -> int:
        return self.uptime_ns * self.nano_per_hour // HOUR_NS

    @property
    def idle_nano(self) -> int:
        """Negative where requests were charged more than the clock: several processes share the replica."""
        return self.paid_nano - self.busy_nano

    @property
    def utilisation(self) -> Decimal | None:
        return _ratio(self.busy_nano, self.paid_nano)


def replicas(store: Store, period: Period, rates: Mapping[str, int], now: datetime) -> list[Replica]:
    """Those of `rates` (backend -> nano-dollars an hour). Raises StoreUnavailable.

    A replica is paid from the first request it ever had, or the period's beginning, until now or its end.
    """
    found = {s.keys[0]: s for s in store.sums([GroupBy.BACKEND], period.since_ns, period.until_ns)}
    end = min(period.until_ns, to_ns(now.astimezone(UTC)))
    return [
        _replica(name, rate, store.first_started_ns(name), (period.since_ns, end), found.get(name))
        for name, rate in sorted(rates.items())
    ]


def hosting(
    store: Store,
    period: Period,
    rates: Mapping[str, int],
    now: datetime,
    kilowatts: Mapping[str, Decimal] | None = None,
) -> Sheet:
    """Busy and idle cost, utilisation, CPTI and energy of each backend of ours. Raises StoreUnavailable.

    `kilowatts` that all its replicas draw; those that are not there are not known.
    """
    found, drawn = replicas(store, period, rates, now), kilowatts or {}
    rows = tuple(
        (
            replica.backend,
            replica.requests,
            Decimal(replica.uptime_ns) / HOUR_NS,
            replica.paid_nano,
            replica.busy_nano,
            replica.idle_nano,
            replica.utilisation,
            _per_thousand(replica.paid_nano, replica.requests),
            _per_thousand(replica.busy_nano, replica.requests),
            replica.unpriced,
            replica.estimated,
            _energy(replica, drawn.get(replica.backend)),
        )
        for replica in found
    )
    total = list(adds_up(_HOSTING, rows))
    paid, busy, requests = (sum(getattr(r, n) for r in found) for n in ("paid_nano", "busy_nano", "requests"))
    total[6:9] = [_ratio(busy, paid), _per_thousand(paid, requests), _per_thousand(busy, requests)]
    return Sheet(
        name="hosting",
        title=title("Self-hosting", period),
        columns=_HOSTING,
        rows=rows,
        total=tuple(total),
        notes=(
            "A replica is paid by the hour from its first request until the period's end or now.",
            "Paid = busy + idle. Electricity and overhead are in it where the configuration gives them.",
            "CPTI: cost per thousand inferences = 1000 × cost / requests.",
        ),
    )


class BreakEven(msgspec.Struct, frozen=True, kw_only=True):
    """A replica, or an adapter on it, against an API, over the hours of a period."""

    name: str
    fixed_nano: int  # hosting for the period, and training
    api_nano: Decimal  # one request at list price
    capacity: Decimal  # requests in that time at a utilisation of 1
    utilisation: Decimal  # at which both cost the same; above 1: never in that time
    seen: Decimal | None  # utilisation in the period


def break_even(
    store: Store,
    replica: Replica,
    period: Period,
    prices: ListPrices,
    against: tuple[str, str],
    *,
    adapter: str | None = None,
    training_nano: int = 0,
) -> BreakEven:
    """`against`: a model and its backend, at list price. Requests are those seen, with their token counts.

    With an `adapter` its requests alone, and of the hosting the share that they were of the busy time; that
    the replica would be idle without them is not considered. ValueError: nothing to go by (no answered
    requests with a cost, no list price). Raises StoreUnavailable.
    """
    model, backend = against
    keys = [GroupBy.BACKEND, GroupBy.UNKNOWN_PRICE, GroupBy.OUTCOME, GroupBy.ADAPTER]
    bounds = prices.bounds(model, backend)
    found = store.sums(keys, period.since_ns, period.until_ns, prompt_bounds=bounds)
    all_ours = [s for s in found if s.keys[:3] == (replica.backend, 0, "ok")]
    ours = [s for s in all_ours if adapter in (None, s.keys[3])]
    requests = sum(s.requests for s in ours)
    busy, all_busy = (sum(s.cost_nano or 0 for s in group) for group in (ours, all_ours))
    units = prices.unit_atto(model, backend, 0)
    if units is None or not busy or not replica.paid_nano:
        raise ValueError(
            f"there is nothing to compare {adapter or replica.backend!r} by: it needs answered requests with "
            f"a cost in the period, and a list price of {model!r}"
        )
    atto = sum(list_atto(s, prices.unit_atto(model, backend, s.above_tokens) or units) for s in ours)
    api = Decimal(atto) / ATTO_PER_NANO / requests
    capacity = Decimal(replica.paid_nano) * requests / replica.busy_nano
    fixed = replica.paid_nano * busy // all_busy + training_nano
    return BreakEven(
        name=adapter or replica.backend,
        fixed_nano=fixed,
        api_nano=api,
        capacity=capacity,
        utilisation=fixed / (api * capacity) if api else Decimal("Infinity"),
        seen=replica.utilisation,
    )


def break_even_sheet(result: BreakEven, period: Period, against: str) -> Sheet:
    """Both costs over utilisation, in steps of 5 %."""
    rows = tuple(
        (
            result.name,
            u,
            round(u * result.capacity),
            result.fixed_nano,
            round(u * result.capacity * result.api_nano),
            round(result.fixed_nano / (u * result.capacity) * 1000),
            round(result.api_nano * 1000),
        )
        for u in UTILISATIONS
    )
    even = f"{result.utilisation * 100:.1f} %" if result.utilisation <= 1 else "more than 100 %: never"
    seen = "unknown" if result.seen is None else f"{result.seen * 100:.1f} %"
    return Sheet(
        name="breakeven",
        title=title(f"{result.name} against {against}", period),
        columns=_BREAK_EVEN,
        rows=rows,
        notes=(
            f"Both cost the same at a utilisation of {even}; seen in the period: {seen}.",
            "Capacity: requests like those of the period, at their busy cost, with the replica never idle.",
            "The API: the same tokens at list price, nothing cached. Requests of unknown price are left out.",
        ),
    )


_HOSTING = (
    Column(name="backend", kind=Kind.TEXT, meaning="Replica of ours.", heading="Replica"),
    Column(name="requests", kind=Kind.COUNT, meaning="Requests that reached it.", heading="Requests"),
    Column(name="hours_paid", kind=Kind.DECIMAL, meaning="Hours that it is paid for.", heading="Hours"),
    Column(name="cost_paid_usd", kind=Kind.USD, meaning="Hours × hourly rate.", heading="Paid USD"),
    Column(name="cost_busy_usd", kind=Kind.USD, meaning="Charged to requests.", heading="Busy USD"),
    Column(name="cost_idle_usd", kind=Kind.USD, meaning="Paid less busy.", heading="Idle USD"),
    Column(name="utilisation", kind=Kind.RATIO, meaning="Busy cost / cost paid.", heading="Used"),
    Column(
        name="cost_per_1000_requests_fully_loaded_usd",
        kind=Kind.USD,
        meaning="CPTI: 1000 × cost paid / requests.",
        heading="CPTI USD",
    ),
    Column(name="cost_per_1000_requests_marginal_usd", kind=Kind.USD, meaning="1000 × busy cost / requests."),
    Column(name=NO_PRICE, kind=Kind.COUNT, meaning="Requests whose cost is not known, such as lost ones."),
    Column(name=ESTIMATED, kind=Kind.COUNT, meaning="Requests whose tokens are estimates of ours."),
    Column(name="energy_kwh", kind=Kind.DECIMAL, meaning="Hours × power × PUE; empty: not configured."),
)
_BREAK_EVEN = (
    Column(name="compared", kind=Kind.TEXT, meaning="Replica or adapter of ours.", heading="Compared"),
    Column(name="utilisation", kind=Kind.RATIO, meaning="Share of the time it is busy.", heading="Used"),
    Column(name="requests", kind=Kind.COUNT, meaning="Requests served at that.", heading="Requests"),
    Column(
        name="cost_self_hosted_usd",
        kind=Kind.USD,
        meaning="Hosting for the period, and training.",
        heading="Self-hosted USD",
    ),
    Column(name="cost_api_usd", kind=Kind.USD, meaning="The same at list price.", heading="API USD"),
    Column(
        name="cost_per_1000_requests_self_hosted_usd", kind=Kind.USD, meaning="Self-hosted, per thousand."
    ),
    Column(name="cost_per_1000_requests_api_usd", kind=Kind.USD, meaning="By the API, per thousand."),
)


def _replica(name: str, rate: int, first_ns: int | None, span: tuple[int, int], sums: Sums | None) -> Replica:
    since = span[1] if first_ns is None else max(span[0], first_ns)
    return Replica(
        backend=name,
        nano_per_hour=rate,
        uptime_ns=max(0, span[1] - since),
        requests=sums.requests if sums else 0,
        unpriced=sums.unknown_price if sums else 0,
        estimated=sums.estimated if sums else 0,
        busy_nano=(sums.cost_nano or 0) if sums else 0,
    )


def _energy(replica: Replica, kilowatts: Decimal | None) -> Decimal | None:
    return None if kilowatts is None else round(kilowatts * replica.uptime_ns / HOUR_NS, 6)


def _ratio(part: int, whole: int) -> Decimal | None:
    return round(Decimal(part) / whole, 6) if whole else None


def _per_thousand(nano: int, requests: int) -> int | None:
    return nano * 1000 // requests if requests else None

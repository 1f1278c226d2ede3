"""The ledger as FOCUS 1.2 (FinOps Open Cost and Usage Specification): one row per day, group and meter.

Each meter's row is its tokens times a unit price, exactly; unit prices are whole atto-dollars (1e-18 USD).
Where the price book still lists what a row of the ledger was priced by, that is the unit price. Elsewhere, on
our own replicas above all, the group's cost is shared out over its tokens by `_WEIGHTS`. What rounding to
nano-dollars, failed attempts and dividing leave over is an Adjustment of its own. So the rows of a group sum
to the ledger, whatever it holds.

Requests of unknown price have no cost to be exported: they are left out and counted in the notes. Once a
correction prices one, its whole cost stands in the row of that correction.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from gateway.finance.focus_columns import COLUMNS
from gateway.finance.list_prices import METERS, ListPrices, quantities
from gateway.finance.periods import Each, Period, cut
from gateway.finance.sheet import Sheet, Value
from gateway.finance.tco import replicas
from gateway.ledger.prices import ATTO_PER_NANO
from gateway.ledger.rollups import DAY_NS
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy, Sums
from gateway.types import Entry

SELF_HOSTED = "Self-hosted"
_ATTO = Decimal("1e-18")
_UTC = ZoneInfo("UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_GROUPS = (
    *(GroupBy.DAY, GroupBy.TEAM, GroupBy.KEY, GroupBy.TAGS, GroupBy.MODEL, GroupBy.ADAPTER, GroupBy.ROUTE),
    *(GroupBy.BACKEND, GroupBy.ZONE, GroupBy.PRIVACY, GroupBy.PRICE, GroupBy.SERVICE_TIER),
    *(GroupBy.UNKNOWN_PRICE, GroupBy.CORRECTION),
)
# How a cost by time is shared out: an answer's token is made one at a time, a cached one is only read.
_WEIGHTS = {
    **dict.fromkeys(("input", "cache_write", "cache_write_1h", "audio_input", "image_input"), 10),
    **dict.fromkeys(("output", "reasoning", "audio_output", "image_output"), 40),
    **{"cached": 1, "request": 0},
}
_UNITS = {"request": "Requests"}

Cells = dict[str, Value]


class Exporter:
    """Turns the ledger into FOCUS rows."""

    def __init__(
        self, store: Store, prices: ListPrices, providers: Mapping[str, str], *, account: str = "headgate"
    ) -> None:
        """`providers`: who bills a backend's use, by backend; one that is not there is self-hosted."""
        self._store, self._prices, self._providers, self._account = store, prices, providers, account

    def export(
        self,
        period: Period,
        *,
        hourly: Mapping[str, int] | None = None,
        now: datetime | None = None,
    ) -> Sheet:
        """All charges of requests that started in `period`, by days of UTC, and what corrected them since.

        `hourly`: nano-dollars an hour of each replica, whose idle time until `now` is a charge too.
        Raises StoreUnavailable.
        """
        groups = [sums for sums in self._groups(period) if sums.requests]  # none: corrections, see below
        unpriced = sum(sums.unknown_price for sums in self._store.sums([], period.since_ns, period.until_ns))
        rows = [row for sums in groups if not sums.keys[-2] for row in self._usage(period, sums)]
        for day in cut(period, Each.DAY, _UTC):
            rows += self._idle(day, hourly or {}, now or datetime.now(UTC))
        rows += [
            self._correction(period, correction)
            for correction in self._store.corrections(period.since_ns, period.until_ns)
            if correction.cost_nano
        ]
        return Sheet(
            name="focus",
            title="FOCUS 1.2",
            columns=COLUMNS,
            rows=tuple(tuple(row.get(column.name) for column in COLUMNS) for row in rows),
            notes=(f"{unpriced} requests of unknown price have no cost and are left out.",),
        )

    def _groups(self, period: Period) -> list[Sums]:
        span = period.since_ns, period.until_ns
        seen = {s.keys for s in self._store.sums([GroupBy.MODEL, GroupBy.BACKEND], *span)}
        bounds = {b for model, backend in seen for b in self._prices.bounds(str(model), str(backend))}
        return self._store.sums(_GROUPS, *span, prompt_bounds=sorted(bounds))

    def _usage(self, period: Period, sums: Sums) -> Iterator[Cells]:
        """A row for each meter, and one for what they leave over of the group's cost."""
        keys = {group.value: str(key) for group, key in zip(_GROUPS, sums.keys, strict=True)}
        group = self._group_cells(period, sums, keys)
        used = {meter: n for meter, n in quantities(sums).items() if n > 0}
        whole = (sums.cost_nano or 0) * ATTO_PER_NANO
        above = self._prices.tier(keys["model"], keys["backend"], sums.above_tokens)
        units = self._listed(keys, above, used)
        method = "Allocated" if units is None else "List"
        if units is None:
            units = _allocated(whole, used)
        labels = {name: label for label, name in METERS.items()}
        for meter in (m for m in used if m in units and (units[m] or m != "request")):
            priced = _priced(used[meter], units[meter], _UNITS.get(meter, "Tokens"))
            named = self._meter_cells(keys, above, labels[meter], method)
            if method == "Allocated":  # a price of its own for each group
                named["SkuPriceId"] = f"{named['SkuPriceId']}={units[meter]} atto-USD"
            yield group | named | priced
        rest = whole - sum(used[m] * units.get(m, 0) for m in used)
        if rest:
            small = abs(rest) <= sums.requests * len(METERS) * ATTO_PER_NANO
            why = "Rounding of each request's cost" if small else "Attempts and fees beyond the tokens"
            yield group | _adjusted(rest, why)

    def _listed(self, keys: Mapping[str, str], above: int, used: Mapping[str, int]) -> dict[str, int] | None:
        """The price book's units, if it still lists what these were priced by, for each meter used."""
        model, backend, service = keys["model"], keys["backend"], keys["service_tier"]
        units = self._prices.unit_atto(model, backend, above, service=service, source=keys["price"])
        return units if units is not None and all(meter in units for meter in used) else None

    def _group_cells(self, period: Period, sums: Sums, keys: Mapping[str, str]) -> Cells:
        start = _EPOCH + timedelta(days=int(keys["day"]))
        adapter = keys["adapter"]
        tags = json.loads(keys["tags"])
        return self._charge(
            max(start, period.since), min(start + timedelta(days=1), period.until), keys["backend"]
        ) | {
            "SubAccountId": keys["team"] or None,
            "SubAccountName": keys["team"] or None,
            "ResourceId": adapter or f"{keys['backend']}/{keys['model']}",
            "ResourceName": adapter.partition("@")[0] if "@" in adapter else None,
            "ResourceType": "Adapter" if adapter else "Model",
            "Tags": json.dumps(dict.fromkeys(tags, True), ensure_ascii=False) if tags else None,
            "x_Adapter": adapter or None,
            "x_Backend": keys["backend"] or None,
            "x_EstimatedRequests": sums.estimated,
            "x_KeyId": keys["key"],
            "x_Model": keys["model"] or None,
            "x_PrivacyClass": keys["privacy"],
            "x_Requests": sums.requests,
            "x_Route": keys["route"] or None,
            "x_Zone": keys["zone"] or None,
        }

    def _meter_cells(self, keys: Mapping[str, str], above: int, label: str, method: str) -> Cells:
        provider = self._providers.get(keys["backend"], SELF_HOSTED)
        sku = f"{provider}/{keys['model']}/{label}"
        service = keys["service_tier"]
        details = {"x_PriceSource": keys["price"]} | ({"x_PromptTokensAbove": above} if above else {})
        details |= {"x_ServiceTier": service} if service else {}
        version = f"{keys['price']}>{above}" if above else keys["price"]
        version += f" {service}" if service else ""
        return {
            "ChargeDescription": f"{label} of {keys['model']} at {provider}",
            "PricingCategory": "Standard" if method == "List" else "Other",
            "SkuId": sku,
            "SkuMeter": label,
            "SkuPriceDetails": json.dumps(details, ensure_ascii=False),
            "SkuPriceId": f"{sku}@{version}",
            "x_UnitPriceMethod": method,
        }

    def _idle(self, day: Period, hourly: Mapping[str, int], now: datetime) -> Iterator[Cells]:
        """What of each replica's day nobody asked for."""
        for replica in replicas(self._store, day, hourly, now):
            if not replica.idle_nano:
                continue
            label, name = "Idle Seconds", replica.backend
            per_second = replica.nano_per_hour * ATTO_PER_NANO // 3600
            idle = replica.idle_nano * ATTO_PER_NANO
            seconds = max(0, idle // per_second) if per_second else 0
            cells = self._charge(day.since, day.until, name) | {
                "ResourceId": name,
                "ResourceType": "Replica",
                "x_Backend": name,
            }
            if seconds:
                sku = f"{SELF_HOSTED}/{name}/{label}"
                yield (
                    cells
                    | _priced(seconds, per_second, "Seconds")
                    | {
                        "ChargeDescription": f"{label} of {name}: paid and not used",
                        "PricingCategory": "Standard",
                        "SkuId": sku,
                        "SkuMeter": label,
                        "SkuPriceDetails": json.dumps({"x_PriceSource": "hourly rate"}),
                        "SkuPriceId": f"{sku}@{replica.nano_per_hour} nano-USD per hour",
                        "x_UnitPriceMethod": "List",
                    }
                )
            if rest := idle - seconds * per_second:
                yield cells | _adjusted(rest, f"Idle time of {name} below a second, or busy beyond the clock")

    def _correction(self, period: Period, entry: Entry) -> Cells:
        """What was added to a call's cost later on. One of an earlier month is a Correction to FOCUS."""
        start = _EPOCH + timedelta(days=entry.started_ns // DAY_NS)
        end = start + timedelta(days=1)
        made = _EPOCH + timedelta(microseconds=entry.recorded_ns // 1000)
        earlier = (start.year, start.month) < (made.year, made.month)
        atto = (entry.cost_nano or 0) * ATTO_PER_NANO
        return self._charge(max(start, period.since), min(end, period.until), entry.backend) | {
            **_adjusted(atto, f"Correction of {entry.corrects}: {entry.reason}"),
            "ChargeClass": "Correction" if earlier else None,
            "SubAccountId": entry.team or None,
            "SubAccountName": entry.team or None,
            "ResourceId": entry.adapter or f"{entry.backend}/{entry.model}",
            "ResourceType": "Adapter" if entry.adapter else "Model",
            "Tags": json.dumps(dict.fromkeys(entry.tags, True), ensure_ascii=False) if entry.tags else None,
            "x_Backend": entry.backend,
            "x_KeyId": entry.key_id,
            "x_Model": entry.model,
            "x_PrivacyClass": entry.privacy,
            "x_Route": entry.route or None,
            "x_Zone": entry.zone or None,
        }

    def _charge(self, start: datetime, end: datetime, backend: str) -> Cells:
        provider = self._providers.get(backend, SELF_HOSTED)
        month = start.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        return {
            "BillingAccountId": self._account,
            "BillingAccountName": self._account,
            "BillingCurrency": "USD",
            "BillingPeriodStart": month,
            "BillingPeriodEnd": (month + timedelta(days=32)).replace(day=1),
            "ChargeFrequency": "Usage-Based",
            "ChargePeriodStart": start,
            "ChargePeriodEnd": end,
            "InvoiceIssuerName": provider,
            "ProviderName": provider,
            "PublisherName": provider,
            "ServiceCategory": "AI and Machine Learning",
            "ServiceName": f"Inference by {provider}",
            "ServiceSubcategory": "Generative AI",
        }


def _priced(quantity: int, unit_atto: int, unit: str) -> Cells:
    cost, price, n = quantity * unit_atto * _ATTO, unit_atto * _ATTO, Decimal(quantity)
    return {
        "ChargeCategory": "Usage",
        "ConsumedQuantity": n,
        "ConsumedUnit": unit,
        "PricingQuantity": n,
        "PricingUnit": unit,
        "ListUnitPrice": price,
        "ContractedUnitPrice": price,
        **_costs(cost),
    }


def _adjusted(atto: int, why: str) -> Cells:
    return {"ChargeCategory": "Adjustment", "ChargeDescription": why, **_costs(atto * _ATTO)}


def _costs(cost: Decimal) -> Cells:
    return dict.fromkeys(("BilledCost", "ContractedCost", "EffectiveCost", "ListCost"), cost)


def _allocated(whole: int, used: Mapping[str, int]) -> dict[str, int]:
    """Atto-dollars for one unit, by weight, rounded down."""
    weight = sum(n * _WEIGHTS[meter] for meter, n in used.items())
    return {m: whole * _WEIGHTS[m] // weight for m in used if _WEIGHTS[m]} if weight else {}

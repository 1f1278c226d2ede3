"""What the same requests would have cost at one model's list price, and what that leaves open.

A counterfactual, not a measurement: it takes the tokens as they were counted. Another model would have cut
prompts into other tokens and answered at another length. Nothing is taken to be cached. What has no
counterpart is left out on both sides and counted by its reason.
"""

from collections import defaultdict
from collections.abc import Sequence

from gateway.finance.list_prices import ListPrices, quantities
from gateway.finance.periods import Period
from gateway.finance.reports import ESTIMATED, NO_PRICE, group_columns, key_cells, read_groups, title
from gateway.finance.sheet import Column, Kind, Sheet, Value, adds_up
from gateway.ledger.prices.rates import ATTO_PER_NANO, round_nano
from gateway.ledger.store import Store
from gateway.ledger.sums import GroupBy, Sums
from gateway.types import Outcome

_WHOLE = (Outcome.OK.value, Outcome.CLIENT_CLOSED.value)
_REASONS = {
    "refused": "requests_left_out_as_refused",
    "failed": "requests_left_out_as_failed",
    "estimated": ESTIMATED,
    "unknown_price": NO_PRICE,
    "endpoint": "requests_left_out_as_of_another_endpoint",
}
_SAVED = (
    Column(
        name="requests_compared",
        kind=Kind.COUNT,
        meaning="Requests with an answer, counted tokens and a known price.",
        heading="Compared",
    ),
    Column(name="cost_usd", kind=Kind.USD, meaning="What these cost.", heading="Cost USD"),
    Column(
        name="cost_at_list_price_usd",
        kind=Kind.USD,
        meaning="What the same tokens cost at the list price of the model compared with, nothing cached.",
        heading="At list price USD",
    ),
    Column(
        name="saved_usd",
        kind=Kind.USD,
        meaning="List price less cost; negative: dearer than the model compared with.",
        heading="Saved USD",
    ),
    Column(
        name=_REASONS["refused"],
        kind=Kind.COUNT,
        meaning="Refused by the gateway: they would have cost nothing either way.",
    ),
    Column(
        name=_REASONS["failed"],
        kind=Kind.COUNT,
        meaning="Got no whole answer; their cost is not in this report.",
        heading="Failed",
    ),
    Column(
        name=_REASONS["estimated"],
        kind=Kind.COUNT,
        meaning="Left out: their tokens are estimates of ours.",
        heading="Estimated",
    ),
    Column(
        name=_REASONS["unknown_price"],
        kind=Kind.COUNT,
        meaning="Left out: what they cost is not known.",
        heading="No price",
    ),
    Column(
        name=_REASONS["endpoint"],
        kind=Kind.COUNT,
        meaning="Left out: embeddings, which a model that answers in text has no price for.",
    ),
)


def savings(
    store: Store, by: Sequence[str], period: Period, prices: ListPrices, model: str, backend: str
) -> Sheet:
    """Cost by group beside the cost of the same tokens at `model` of `backend`.

    ValueError: an unknown group, or no list price for the model. Raises StoreUnavailable.
    """
    groups = read_groups(by)
    bounds = prices.bounds(model, backend)
    if prices.unit_atto(model, backend, 0) is None:
        raise ValueError(
            f"no list price is known for {model!r} of {backend!r}: nothing can be compared with it"
        )
    kinds = [GroupBy.OUTCOME, GroupBy.ESTIMATED, GroupBy.UNKNOWN_PRICE, GroupBy.ENDPOINT, GroupBy.CORRECTION]
    asked = [*groups, *(kind for kind in kinds if kind not in groups)]
    found: dict[tuple[str | int, ...], list[int]] = defaultdict(lambda: [0] * (3 + len(_REASONS)))
    for sums in store.sums(asked, period.since_ns, period.until_ns, prompt_bounds=bounds):
        if not sums.requests:  # corrections: both sides take requests as they were recorded
            continue
        cells = found[sums.keys[: len(groups)]]
        reason = _left_out(dict(zip(asked, sums.keys, strict=True)))
        if reason is not None:
            cells[3 + list(_REASONS).index(reason)] += sums.requests
            continue
        cells[0] += sums.requests
        cells[1] += (sums.cost_nano or 0) * ATTO_PER_NANO
        cells[2] += list_atto(sums, prices.unit_atto(model, backend, sums.above_tokens) or {})
    columns = (*group_columns(by), *_SAVED)
    rows = tuple((*key_cells(by, keys), *_cells(cells)) for keys, cells in sorted(found.items()))
    return Sheet(
        name="savings",
        title=title(f"Against {model} at list price", period),
        columns=columns,
        rows=rows,
        total=adds_up(columns, rows),
        notes=(
            "A counterfactual: the tokens as counted, at another model's list price. That model would count "
            "and answer otherwise, and its answers may be better or worse: read it with the held-out quality "
            "of each adapter (headgate adapter list).",
            "Nothing is taken to be cached by the model compared with. Later corrections are left out.",
            "Self-hosted cost here is that of the busy time; for idle time see headgate report hosting.",
        ),
    )


def list_atto(sums: Sums, units: dict[str, int]) -> int:
    """Atto-dollars of the group's tokens with nothing cached."""
    used = quantities(sums)
    used["input"] += used.pop("cached") + used.pop("cache_write") + used.pop("cache_write_1h")
    return sum(n * units.get(meter, 0) for meter, n in used.items())


def _left_out(keys: dict[GroupBy, str | int]) -> str | None:
    outcome = keys[GroupBy.OUTCOME]
    if outcome == Outcome.REFUSED.value:
        return "refused"
    if outcome not in _WHOLE:
        return "failed"
    if keys[GroupBy.ENDPOINT] == "embeddings":
        return "endpoint"
    if keys[GroupBy.UNKNOWN_PRICE]:
        return "unknown_price"
    return "estimated" if keys[GroupBy.ESTIMATED] else None


def _cells(cells: list[int]) -> tuple[Value, ...]:
    cost, listed = (round_nano(atto) for atto in cells[1:3])
    return (cells[0], cost, listed, listed - cost, *cells[3:])

"""Stored requests as a backtest wants them: kinds of requests, and arrays of what each came to."""

from array import array
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from gateway.types import Outcome
from router_policies.privacy import Scale
from router_policies.simulate import SAMPLED, Past, Recorded
from router_policies.types import BackendInfo, shadow_id

_WITHHELD = "(withheld)"
_SHADOW = shadow_id("")  # how the ids of copies end: they are no requests of clients
_COLUMNS = (
    "call_id", "started_ns", "endpoint", "model_asked", "key_id", "team", "tags", "privacy", "findings",
    "stream", "backend", "zone", "model", "outcome",
    "input_tokens", "cached_input_tokens", "output_tokens", "cost_nano", "duration_ms",
)  # fmt: skip
_ANSWERED = frozenset({Outcome.OK.value, Outcome.INTERRUPTED.value, Outcome.CLIENT_CLOSED.value})
_NAN = float("nan")

Cell = Callable[[int, float], Hashable]


class Store(Protocol):
    """What is needed of `gateway.ledger.store.Store`."""

    def columns(self, names: Sequence[str], since_ns: int | None, until_ns: int | None) -> Any: ...


def read_past(
    store: Store,
    since_ns: int | None,
    until_ns: int | None,
    *,
    cell: Cell,
    scale: Scale,
    backends: Mapping[str, BackendInfo],
) -> Recorded:
    """All requests of a period. `cell`: what a policy can tell apart of prompt tokens and time.

    A class that is no longer on the scale counts as the highest. Raises StoreUnavailable.
    """
    kinds: dict[Hashable, int] = {}
    first: list[Sequence[Any]] = []  # row of each kind
    calls: list[list[str]] = []
    kind_of = array("q")
    meters = [array("d") for _ in range(5)]
    inputs, cached, outputs, costs, durations = (meter.append for meter in meters)
    for rows in store.columns(_COLUMNS, since_ns, until_ns):
        for row in rows:
            call_id, started_ns, *seen, outcome, tokens, from_cache, answered, cost, duration = row
            if call_id.endswith(_SHADOW):
                continue
            key = (*seen, outcome in _ANSWERED, cell(tokens, started_ns / 1e9))
            kind = kinds.setdefault(key, len(first))
            if kind == len(first):
                first.append(row)
                calls.append([])
            if len(calls[kind]) < SAMPLED:
                calls[kind].append(call_id)
            kind_of.append(kind)
            inputs(tokens)
            cached(from_cache)
            outputs(answered)
            costs(_NAN if cost is None else cost)
            durations(duration)
    arrays = [np.frombuffer(meter, dtype=np.float64) if meter else np.zeros(0) for meter in meters]
    return Recorded(
        kinds=[_past(row, tuple(ids), scale, backends) for row, ids in zip(first, calls, strict=True)],
        kind=np.frombuffer(kind_of, dtype=np.int64) if kind_of else np.zeros(0, dtype=np.int64),
        input_tokens=arrays[0],
        cached_tokens=arrays[1],
        output_tokens=arrays[2],
        cost_nano=arrays[3],
        duration_ms=arrays[4],
    )


def _past(
    row: Sequence[Any], calls: tuple[str, ...], scale: Scale, backends: Mapping[str, BackendInfo]
) -> Past:
    stored = dict(zip(_COLUMNS, row, strict=True))
    tags = frozenset(msgspec.json.decode(stored["tags"], type=list[str]))
    by_label = {privacy.label: privacy for privacy in scale}
    backend = backends.get(stored["backend"])
    answered = stored["backend"] and stored["outcome"] in _ANSWERED
    return Past(
        endpoint=stored["endpoint"],
        model=stored["model_asked"],
        key_id=stored["key_id"],
        team=stored["team"],
        tags=tags,
        privacy=by_label.get(stored["privacy"], scale.highest),
        findings=frozenset(msgspec.json.decode(stored["findings"], type=dict[str, int])),
        stream=bool(stored["stream"]),
        prompt_tokens=stored["input_tokens"],
        at_s=stored["started_ns"] / 1e9,
        calls=calls,
        withheld=stored["model_asked"] == _WITHHELD or _WITHHELD in tags,
        place=(stored["backend"], stored["model"]) if answered else None,
        local=backend is not None and backend.zone.local,
    )

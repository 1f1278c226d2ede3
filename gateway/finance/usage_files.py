"""A provider's own account of what was used, read from CSV.

By call, to be put in the place of our estimates: `call_id` (the provider saw it as `x-client-request-id`),
tokens in columns named as the ledger's (`input_tokens`, `output_tokens`, `cached_input_tokens` …), and
`service_tier` and `cost_usd` where there are such. Several lines of one call are added up.

By day, to be compared: `day` (2026-11-05), `model`, `cost_usd`.
"""

import csv
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from pathlib import Path

from gateway.errors import ConfigError
from gateway.ledger.prices import NANO_PER_USD
from gateway.types import Usage

_TOKENS = tuple(name for name in Usage.__struct_fields__ if name.endswith("_tokens"))
_BY_CALL = {"call_id", *_TOKENS, "service_tier", "cost_usd"}
_BY_DAY = {"day", "model", "cost_usd"}


def read_calls(path: Path) -> list[tuple[str, Usage, int | None]]:
    """Call id, tokens, and the cost in nano-dollars where the file says it. Raises ConfigError."""
    found: dict[str, tuple[Usage, int | None]] = {}
    for where, line in _lines(path, {"call_id", "input_tokens", "output_tokens"}, _BY_CALL):
        usage = Usage(
            **{name: _count(where, name, line) for name in _TOKENS},
            estimated=False,
            service_tier=line.get("service_tier") or "",
        )
        cost = _nano(where, line) if line.get("cost_usd") else None
        call_id = line["call_id"]
        found[call_id] = _both(found[call_id], (usage, cost)) if call_id in found else (usage, cost)
    return [(call_id, usage, cost) for call_id, (usage, cost) in found.items()]


def read_days(path: Path) -> dict[tuple[date, str], int]:
    """Day and model -> nano-dollars. Raises ConfigError."""
    found: dict[tuple[date, str], int] = {}
    for where, line in _lines(path, _BY_DAY, _BY_DAY):
        try:
            day = date.fromisoformat(line["day"])
        except ValueError:
            raise ConfigError(where, [f"day: {line['day']!r} is no date such as 2026-11-05"]) from None
        place = day, line["model"]
        found[place] = found.get(place, 0) + _nano(where, line)
    return found


def _lines(path: Path, needed: set[str], known: set[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = set(reader.fieldnames or ())
            if missing := needed - names:
                raise ConfigError(
                    str(path), [f"column {name} is missing; known: {sorted(known)}" for name in missing]
                )
            for n, line in enumerate(reader, start=2):
                yield f"{path}, line {n}", line
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(str(path), [f"cannot be read as CSV: {error}"]) from error


def _count(where: str, name: str, line: Mapping[str, str]) -> int:
    text = line.get(name) or "0"
    if not text.isdecimal():
        raise ConfigError(where, [f"{name}: {text!r} is no count of tokens"])
    return int(text)


def _nano(where: str, line: Mapping[str, str]) -> int:
    try:
        nano = Decimal(line["cost_usd"]) * NANO_PER_USD
        return int(nano.to_integral_exact())
    except InvalidOperation:
        raise ConfigError(where, [f"cost_usd: {line['cost_usd']!r} is no amount"]) from None


def _both(one: tuple[Usage, int | None], other: tuple[Usage, int | None]) -> tuple[Usage, int | None]:
    """Two lines of one call. A cost that one of them lacks is not known."""
    sums = {name: getattr(one[0], name) + getattr(other[0], name) for name in _TOKENS}
    cost = None if one[1] is None or other[1] is None else one[1] + other[1]
    return Usage(**sums, estimated=False, service_tier=other[0].service_tier or one[0].service_tier), cost

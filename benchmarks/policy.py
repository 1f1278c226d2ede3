"""How long one decision takes: 100 routes, 20 targets. Run: `make bench-policy`.

The request matches the last route on conditions of every kind that most policies have, and all 20 targets of
it are kept, each rented and so with a permit. `decide_again_us` times the same thing a second time: the
machine's noise. The other figures add to the same policy: further conditions on each route, one strategy that
orders all 20 targets, or a canary and a shadow.

`limits_none_us` is what rate limits cost a request that none covers, `limits_us` one whose key has limits on
requests, tokens and concurrent requests, `limits_three_us` one whose team and route have them too.

`backtest_million_s` is a backtest over a million stored requests in SQLite, of 720 kinds: reading them, and
deciding them by a policy with weights, a canary and a shadow.
"""

import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.load.month import fill
from gateway.ledger.past import read_past
from gateway.ledger.store import Store
from gateway.limits.limiter import Limiter, Rules
from gateway.rates import Rates
from gateway.types import Entry, Outcome, Principal, Usage
from router_policies.compiled import CompiledPolicy
from router_policies.decide import decide
from router_policies.load import load
from router_policies.privacy import DEFAULT_SCALE
from router_policies.simulate import backtest, cells
from router_policies.types import (
    BackendInfo,
    Catalog,
    Decision,
    Facts,
    Price,
    PrivacyClass,
    Snapshot,
    Speed,
    Zone,
)

ROUTES, TARGETS, ROUNDS, CALLS = 100, 20, 15, 2_000
OUT = Path(__file__).parent / "out" / "policy.json"
FACTS = Facts(
    call_id="call-1",
    endpoint="chat/completions",
    model="gpt-4o-mini",
    key_id="key-99",
    team=f"team-{ROUTES - 1}",
    tags=frozenset({"urgent"}),
    features=frozenset(),
    prompt_tokens=900,
    privacy=PrivacyClass.INTERNAL,
    project="shop",
    metadata={"region": "eu"},
    task="sort",
    findings=frozenset({"email"}),
    output_tokens=200,
    user="ann",
    session="s1",
    at_s=1_780_000_000.0,
)
FURTHER = {
    "project": "shop",
    "metadata": {"region": ["eu", "ch"]},
    "task": ["sort", "count"],
    "findings": ["email", "phone"],
    "without_findings": ["iban"],
    "output_tokens": {"at_most": 500},
    "time": {"hours": "00:00-24:00", "zone": "Europe/Berlin"},
    "budget": {"at_most": 0.9},
    "up": ["rented-0"],
}
PLACES = [(f"rented-{i}", FACTS.model) for i in range(TARGETS)]
SNAPSHOT = Snapshot(
    speeds={place: Speed(first_byte_s=0.3, tokens_per_s=50 + i) for i, place in enumerate(PLACES)},
    busy={f"rented-{i}": i % 7 for i in range(TARGETS)},
)
STRATEGIES = ("weighted", "sticky", "cheapest", "fastest", "least_busy")


def policy(further: Mapping[str, Any] = {}, strategy: str = "", **more: Any) -> CompiledPolicy:
    """`further` conditions on each route, `strategy` for all its targets, `more` keys."""
    cloud = Zone(name="us-cloud", ceiling=PrivacyClass.INTERNAL)
    backends = [BackendInfo(name=f"rented-{i}", zone=cloud, models=("*",)) for i in range(TARGETS)]
    targets = [{"backend": backend.name} for backend in backends]
    routes = [
        {
            "name": f"route-{i}",
            "match": {
                "endpoint": "chat/completions",
                "model": [f"model-{i}", f"gpt-{'4' * (i % 3 + 1)}*", "gpt-*"],
                "team": f"team-{i}",
                "tags": ["urgent"],
                "without_features": ["vision"],
                "prompt_tokens": {"at_most": 1000 + i},
                "privacy": {"at_most": "internal"},
                **further,
            },
            "targets": [{"group": {"strategy": strategy, "targets": targets}}] if strategy else targets,
            **more,
        }
        for i in range(ROUTES)
    ]
    prices = {place: Price(input=150_000_000 + i, output=600_000_000) for i, place in enumerate(PLACES)}
    catalog = Catalog(backends={backend.name: backend for backend in backends}, prices=prices)
    return load({"name": "large", "version": 1, "routes": routes}, "benchmark", catalog)


def median_us(large: CompiledPolicy) -> float:
    """Median over rounds of the mean time of one decision, in microseconds."""
    check(large)
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            decide(large, FACTS, SNAPSHOT)
        rounds.append((time.perf_counter_ns() - start) / CALLS / 1_000)
    return round(statistics.median(rounds), 2)


def check(large: CompiledPolicy) -> None:
    decision = decide(large, FACTS, SNAPSHOT)
    if not isinstance(decision, Decision) or len(decision.candidates) < TARGETS:
        raise SystemExit(f"not the decision that was to be timed: {decision}")


async def limits_us(limiter: Limiter) -> float:
    """Median over rounds of the mean time for one request's limits, in microseconds."""
    principal = Principal(key_id="key-99", team="team-99")
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            grant = limiter.open(principal)
            if grant is not None:
                await grant.take_caller(900)
                await grant.take_route("route-99")
                grant.headers()
                grant.used = 1000
                grant.close()
        rounds.append((time.perf_counter_ns() - start) / CALLS / 1_000)
    return round(statistics.median(rounds), 2)


def backtest_s(rows: int) -> float:
    """Seconds for a backtest over so many requests."""
    template = Entry(
        call_id="template", started_ns=0, key_id="", team="", tags=(), endpoint="chat/completions",
        model_asked="gpt-4o-mini", privacy="internal", findings={}, policy="p@1", route="r", reason="",
        stream=True, attempts=1, status=200, outcome=Outcome.OK, usage=Usage(output_tokens=100),
        duration_ms=900.0,
    )  # fmt: skip
    zone = Zone(name="us-cloud", ceiling=PrivacyClass.RESTRICTED)
    backends = {name: BackendInfo(name=name, zone=zone, models=("*",)) for name in ("backend-0", "backend-1")}
    targets = [{"backend": name, "model": "model-1", "weight": 2} for name in backends]
    beside = {"backend": "backend-0", "model": "model-2"}
    route = {
        "targets": [{"group": {"strategy": "weighted", "targets": targets}}],
        "canary": {"share": 0.1, "targets": [beside]},
        "shadow": {"share": 0.1, "target": beside},
    }
    routes = [
        {"name": f"team-{i}", "match": {"team": f"team-{i}", "prompt_tokens": {"at_most": 900}}, **route}
        for i in range(10)
    ]
    price = Price(input=150_000_000, output=600_000_000)
    prices = {(name, f"model-{i}"): price for name in backends for i in range(6)}
    catalog = Catalog(backends=backends, prices=prices)
    document = {"name": "new", "version": 1, "routes": [*routes, {"name": "rest", **route}]}
    new = load(document, "benchmark", catalog)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(f"sqlite:///{folder}/ledger.db")
        store.migrate()
        fill(store, template, rows)
        start = time.perf_counter()
        recorded = read_past(
            store, None, None, cell=cells(new), scale=DEFAULT_SCALE, backends=catalog.backends
        )
        found = backtest(new, recorded, {})
        taken = time.perf_counter() - start
        store.close()
    if found.requests != rows or sum(route.requests for route in found.routes) != rows:
        raise SystemExit(f"not the backtest that was to be timed: {found}")
    return round(taken, 2)


def main() -> None:
    large = policy()
    figures = {"decide_us": median_us(large), "decide_again_us": median_us(large)}
    figures["decide_further_us"] = median_us(policy(FURTHER))
    for strategy in STRATEGIES:
        figures[f"decide_{strategy}_us"] = median_us(policy(strategy=strategy))
    beside = {"share": 1.0, "target": {"backend": "rented-0"}}
    canary = {"share": 0.5, "targets": [{"backend": "rented-1"}]}
    figures["decide_canary_shadow_us"] = median_us(policy(canary=canary, shadow=beside))
    most = Rates(requests=10**9, tokens=10**12, concurrent=10**6)
    figures["limits_none_us"] = asyncio.run(limits_us(Limiter(Rules())))
    figures["limits_us"] = asyncio.run(limits_us(Limiter(Rules(keys={"*": most}))))
    three = Rules(keys={"*": most}, teams={"*": most}, routes={"*": most})
    figures["limits_three_us"] = asyncio.run(limits_us(Limiter(three)))
    figures["backtest_million_s"] = backtest_s(1_000_000)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    line = json.dumps({"suite": "policy", "figures": figures, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()

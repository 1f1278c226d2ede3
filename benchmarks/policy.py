"""How long one decision takes: 100 routes, 20 targets. Run: `make bench-policy`.

The request matches the last route on conditions of every kind, and all 20 targets of it are kept, each
rented and so with a permit. `decide_again_us` times the same thing a second time: the machine's noise.
"""

import json
import os
import platform
import statistics
import time
from pathlib import Path

from router_policies.compiled import CompiledPolicy
from router_policies.decide import decide
from router_policies.load import load
from router_policies.types import BackendInfo, Catalog, Decision, Facts, PrivacyClass, Snapshot, Zone

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
)


def policy() -> CompiledPolicy:
    cloud = Zone(name="us-cloud", ceiling=PrivacyClass.INTERNAL)
    backends = [BackendInfo(name=f"rented-{i}", zone=cloud, models=("*",)) for i in range(TARGETS)]
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
            },
            "targets": [{"backend": backend.name} for backend in backends],
        }
        for i in range(ROUTES)
    ]
    catalog = Catalog(backends={backend.name: backend for backend in backends})
    return load({"name": "large", "version": 1, "routes": routes}, "benchmark", catalog)


def median_us(large: CompiledPolicy) -> float:
    """Median over rounds of the mean time of one decision, in microseconds."""
    snapshot = Snapshot()
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            decide(large, FACTS, snapshot)
        rounds.append((time.perf_counter_ns() - start) / CALLS / 1_000)
    return round(statistics.median(rounds), 2)


def main() -> None:
    large = policy()
    decision = decide(large, FACTS, Snapshot())
    if not isinstance(decision, Decision) or len(decision.candidates) != TARGETS:
        raise SystemExit(f"not the decision that was to be timed: {decision}")
    figures = {"decide_us": median_us(large), "decide_again_us": median_us(large)}
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    line = json.dumps({"suite": "policy", "figures": figures, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()

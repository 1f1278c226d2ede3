"""A backtest against what `decide` would say request by request, and what it calls unknown."""

from pathlib import Path
from typing import Any

import pytest

from gateway.ledger.past import read_past
from gateway.ledger.store import Store
from gateway.types import Entry, Outcome, Usage
from router_policies.load import load
from router_policies.privacy import DEFAULT_SCALE
from router_policies.simulate import SEEN, Backtest, RouteChange, backtest, cells
from router_policies.types import Catalog, Price
from tests.ledger.samples import STARTED_NS, entry
from tests.router_policies.samples import OPENAI, VLLM, document

USD = 10**9
SMALL, LARGE = ("openai", "small"), ("openai", "large")
CATALOG = Catalog(
    backends={"vllm": VLLM, "openai": OPENAI},
    prices={
        SMALL: Price(input=1000 * USD, output=2000 * USD),
        LARGE: Price(input=10_000 * USD, output=20_000 * USD),
        ("vllm", "qwen3-8b"): Price(hour=3600 * USD),
    },
)
PRIVATE_AND_REST = """
- name: private
  match: {privacy: {at_least: confidential}}
  targets: [{backend: vllm, model: qwen3-8b}]
- name: rest
  targets: [{backend: openai, model: small}]
"""
SHARES = """
- name: r
  match: {privacy: {at_most: internal}}
  targets:
    - group:
        strategy: weighted
        targets: [{backend: openai, model: small}, {backend: openai, model: large}]
  shadow: {share: 1.0, target: {backend: openai, model: small}}
"""


def stored(number: int, **changes: Any) -> Entry:
    """A request that the large model answered: 1,000 tokens in, 100 out, 12 USD, 2 s."""
    usual: dict[str, Any] = {
        "backend": "openai",
        "zone": "us-cloud",
        "model": "large",
        "model_asked": "auto",
        "tags": (),
        "findings": {},
        "usage": Usage(input_tokens=1000, output_tokens=100),
        "cost_nano": 12 * USD,
        "duration_ms": 2000.0,
        "started_ns": STARTED_NS + number * 10**9,
    }
    return entry(f"call_{number:04}", **usual | changes)


def tried(folder: Path, entries: list[Entry], routes: str) -> Backtest:
    store = Store(f"sqlite:///{folder}/ledger.db")
    store.migrate()
    store.insert(entries)
    policy = load(document(routes), "new", CATALOG)
    recorded = read_past(
        store, None, None, cell=cells(policy), scale=DEFAULT_SCALE, backends=CATALOG.backends
    )
    store.close()
    return backtest(policy, recorded, {})


def route(found: Backtest, name: str) -> RouteChange:
    return next(change for change in found.routes if change.route == name)


def test_what_moves_and_what_it_saves(tmp_path: Path) -> None:
    """Costs at the stored tokens by the new prices; what stays costs what it did; private ones come home."""
    entries = [stored(n) for n in range(40)]
    entries += [stored(100 + n, model="small", cost_nano=USD, duration_ms=500.0) for n in range(30)]
    entries += [stored(200 + n, privacy="confidential") for n in range(5)]
    found = tried(tmp_path, entries, PRIVATE_AND_REST)
    rest, private = route(found, "rest"), route(found, "private")
    assert (found.requests, rest.requests, rest.moved, private.moved) == (75, 70, 40, 5)
    assert (rest.cost_before, rest.cost_after) == ((40 * 12 + 30) * USD, (40 * 1.2 + 30) * USD)
    assert rest.change_low < rest.cost_after - rest.cost_before < rest.change_high
    assert rest.latency_before_ms == (2000.0, 2000.0)
    assert rest.latency_after_ms == (500.0, 500.0)
    assert (private.cost_unknown, private.latency_unknown) == (5, 5)  # nobody saw the replica answer
    exposed = {one.privacy: (one.before, one.after) for one in found.exposure}
    assert exposed == {"internal": (70, 70), "confidential": (5, 0)}


def test_a_replica_costs_its_time(tmp_path: Path) -> None:
    """Where it was seen to answer: its hour, for as long as so many tokens took."""
    home = {"backend": "vllm", "zone": "home", "model": "qwen3-8b", "cost_nano": USD, "duration_ms": 1000.0}
    entries = [stored(n, **home) for n in range(SEEN)] + [stored(100 + n) for n in range(10)]
    found = tried(tmp_path, entries, "- {name: all, targets: [{backend: vllm, model: qwen3-8b}]}")
    change = route(found, "all")
    assert (change.moved, change.cost_unknown) == (10, 0)
    assert change.cost_after == (SEEN + 10) * USD  # a second each


def test_shares_are_weighed(tmp_path: Path) -> None:
    """Weights, canary and shadow lead their share of the requests, within what some sampled calls show."""
    entries = [stored(n, team=f"t{n % 25}") for n in range(1000)]
    found = tried(tmp_path, entries, SHARES)
    change = route(found, "r")
    assert change.moved == pytest.approx(500, abs=90)
    spent = change.moved * 1.2 + (1000 - change.moved) * 12 + 1000 * 1.2
    assert change.cost_after == pytest.approx(spent * USD, rel=0.01)
    assert found.exposure[0].after == 2000


@pytest.mark.parametrize(
    ("match", "reason"),
    [
        ("features: [tools]", "features"),
        ("without_features: [vision]", "features"),
        ("project: p", "project"),
        ("task: t", "task"),
        ("language: de", "language"),
        ("metadata: {a: b}", "metadata"),
        ("output_tokens: {at_most: 5}", "output_tokens"),
        ("budget: {at_least: 0.8}", "budget"),
        ("up: [vllm]", "health"),
    ],
)
def test_what_the_ledger_does_not_store_is_unknown(tmp_path: Path, match: str, reason: str) -> None:
    """Only for requests that the route could take: those of another team are decided by the next route."""
    routes = f"""
    - {{name: asks, match: {{team: search, {match}}}, targets: [{{backend: vllm, model: qwen3-8b}}]}}
    - {{name: rest, targets: [{{backend: vllm, model: qwen3-8b}}]}}
    """
    found = tried(tmp_path, [*(stored(n) for n in range(3)), stored(9, team="other")], routes)
    assert found.undecided == {f"route asks asks for {reason}": 3}
    assert route(found, "rest").requests == 1


def test_what_is_known_is_decided(tmp_path: Path) -> None:
    """Streaming, tokens, kinds of findings, tags and the time are stored."""
    routes = """
    - {name: stream, match: {features: [stream], tags: [x]}, targets: [{backend: vllm, model: qwen3-8b}]}
    - {name: long, match: {prompt_tokens: {at_least: 1001}}, targets: [{backend: vllm, model: qwen3-8b}]}
    - {name: found, match: {findings: [email]}, targets: [{backend: vllm, model: qwen3-8b}]}
    - {name: night, match: {time: {hours: "00:00-06:00"}}, targets: [{backend: vllm, model: qwen3-8b}]}
    """
    entries = [
        stored(1, tags=("x",), stream=True),
        stored(2, usage=Usage(input_tokens=1001)),
        stored(3, findings={"email": 1}),
        stored(4),
        stored(5, started_ns=STARTED_NS + 7 * 3600 * 10**9),
        stored(6, model_asked="(withheld)"),
    ]
    found = tried(tmp_path, entries, routes)
    assert {change.route: change.requests for change in found.routes} == dict.fromkeys(
        ("stream", "long", "found", "night"), 1
    )
    assert (found.unrouted, found.undecided) == (1, {"the model's name or a tag was withheld": 1})


def test_denials_and_what_was_never_answered(tmp_path: Path) -> None:
    """A route that denies moves what was answered; what was refused cost nothing; copies do not count."""
    nowhere = {"backend": "", "zone": "", "model": "", "cost_nano": 0, "outcome": Outcome.REFUSED}
    copy = entry("call_0001-shadow")
    entries = [stored(1), stored(2, **nowhere), copy]
    found = tried(tmp_path, entries, "- {name: never, deny: {message: No.}}")
    change = route(found, "never")
    assert (found.requests, change.requests, change.refused, change.moved) == (2, 2, 2, 1)
    assert (change.cost_before, change.cost_after) == (12 * USD, 0)


def test_an_empty_ledger(tmp_path: Path) -> None:
    """Nothing was asked, so nothing changes."""
    found = tried(tmp_path, [], "- {name: never, deny: {message: No.}}")
    assert (found.requests, found.routes, found.exposure) == (0, (), ())

"""Groups, canaries and shadows: who is asked first, by what, and for which share of the requests."""

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from router_policies.compile import compile_policy
from router_policies.compiled import CompiledPolicy
from router_policies.decide import decide
from router_policies.errors import PolicyError
from router_policies.load import load
from router_policies.schema import parse
from router_policies.types import BackendInfo, Catalog, Decision, Price, PrivacyClass, Snapshot, Speed
from router_policies.verify import guards, verify
from tests.router_policies.samples import CLOUD, HOME, catalog, document, facts

NAMES = ("a", "b", "c")
BACKENDS = {name: BackendInfo(name=name, zone=HOME, models=("m",)) for name in NAMES}
USD = 10**9  # nano-dollars
PRICES = {
    ("a", "m"): Price(input=100 * USD, output=400 * USD),
    ("b", "m"): Price(input=300 * USD, output=100 * USD),
    ("c", "m"): Price(hour=3600 * USD),
}
QUIET = Snapshot()


def priced(prices: Any) -> Catalog:
    return Catalog(backends=BACKENDS, prices=prices)


HOMELY = priced(PRICES)


def policy(group: str, rest: str = "", catalog: Catalog = HOMELY) -> CompiledPolicy:
    """One route with one group of all three; `rest` are further keys of the route."""
    members = ", ".join(f"{{backend: {name}, model: m{_weight(group, name)}}}" for name in NAMES)
    target = f"{{group: {{{group.split('|')[0]}, targets: [{members}]}}}}"
    return load(document(f"- {{name: r, targets: [{target}]{rest}}}"), "test", catalog)


def _weight(group: str, name: str) -> str:
    weights = dict(part.split("=") for part in group.partition("|")[2].split())
    return f", weight: {weights[name]}" if name in weights else ""


def order(compiled: CompiledPolicy, snapshot: Snapshot = QUIET, **given: Any) -> str:
    found = decide(compiled, facts(**given), snapshot)
    assert isinstance(found, Decision), found
    return "".join(c.backend for c in found.candidates)


def test_weights_are_kept_and_all_are_tried() -> None:
    """Who comes first is drawn by weight, within what 4,000 draws allow; the others are the fallbacks."""
    compiled = policy("strategy: weighted|a=6 b=3 c=1")
    orders = [order(compiled, call_id=f"call_{i:x}") for i in range(4000)]
    assert {"".join(sorted(found)) for found in orders} == {"abc"}
    firsts = Counter(found[0] for found in orders)
    assert [firsts[name] / 4000 for name in NAMES] == pytest.approx([0.6, 0.3, 0.1], abs=0.03)
    seconds = Counter(found[1] for found in orders if found[0] == "a")
    assert seconds["b"] / seconds.total() == pytest.approx(0.75, abs=0.04)


def test_a_decision_repeats_itself() -> None:
    """The same call is decided the same way again: nothing is drawn by chance."""
    compiled = policy("strategy: weighted|a=1 b=1", ", canary: {share: 0.5, targets: [{backend: c}]}")
    for i in range(50):
        asked = facts(call_id=f"call_{i}", model="m")
        assert decide(compiled, asked, Snapshot()) == decide(compiled, asked, Snapshot())


@pytest.mark.parametrize(("by", "field"), [("user", "user"), ("session", "session"), ("key", "key_id")])
def test_who_sticks_stays_when_others_come_and_go(by: str, field: str) -> None:
    """All calls of one user, session or key go to one backend; where another goes down, only its own move."""
    compiled = policy(f"strategy: sticky, by: {by}")
    down = Snapshot(down=frozenset({"b"}))
    moved = Counter[str]()
    for i in range(300):
        who = {field: f"name-{i}"}
        orders = {order(compiled, call_id=f"call_{n}", **who) for n in range(4)}
        assert len(orders) == 1
        (before,) = orders
        moved[before[0]] += order(compiled, down, **who)[0] != before[0]
    assert (moved["a"], moved["c"]) == (0, 0)
    assert moved["b"] > 60


def test_who_names_no_user_is_drawn_anew() -> None:
    """Requests without a user are spread by call, not all stuck to one backend."""
    compiled = policy("strategy: sticky, by: user")
    assert {order(compiled, call_id=f"call_{i}")[0] for i in range(50)} == set(NAMES)


def test_the_cheapest_depends_on_the_request() -> None:
    """Long prompts, long answers and a shared replica each change which is cheapest."""
    compiled = policy("strategy: cheapest")
    slow = Snapshot(speeds={("c", "m"): Speed(first_byte_s=20.0, tokens_per_s=10.0)})
    assert order(compiled, slow, prompt_tokens=100_000, output_tokens=10)[0] == "a"
    assert order(compiled, slow, prompt_tokens=10, output_tokens=256)[0] == "b"
    free = policy(
        "strategy: cheapest", catalog=Catalog(backends=BACKENDS, prices=PRICES | {("c", "m"): Price(hour=9)})
    )
    assert order(free, slow, prompt_tokens=10)[0] == "c"


def test_a_cached_prefix_makes_a_prompt_cheaper() -> None:
    """The share of the prompts that a provider had in its cache of late counts at the cached price."""
    prices = {
        ("a", "m"): Price(input=100, cached=10),
        ("b", "m"): Price(input=60),
        ("c", "m"): Price(input=99),
    }
    compiled = policy("strategy: cheapest", catalog=Catalog(backends=BACKENDS, prices=prices))
    assert order(compiled, prompt_tokens=10**6) == "bca"
    seen = Snapshot(speeds={("a", "m"): Speed(first_byte_s=1, tokens_per_s=9, cached=0.9)})
    assert order(compiled, seen, prompt_tokens=10**6) == "abc"


def test_a_tier_counts_above_its_bound() -> None:
    """A long prompt is priced by the tier that it exceeds."""
    prices = {
        ("a", "m"): Price(input=50, tiers=((1000, 200, 0),)),
        ("b", "m"): Price(input=100),
        ("c", "m"): Price(input=999),
    }
    compiled = policy("strategy: cheapest", catalog=Catalog(backends=BACKENDS, prices=prices))
    many = 1000 * 10**6
    assert order(compiled, prompt_tokens=1000, output_tokens=0)[0] == "a"
    assert order(compiled, prompt_tokens=many)[0] == "b"


def test_an_unknown_price_is_refused_where_it_would_count() -> None:
    """A target whose price nobody knows can never be the cheapest: the policy says so when it loads."""
    unknown = Catalog(backends=BACKENDS, prices={k: v for k, v in PRICES.items() if k[0] != "b"})
    with pytest.raises(
        PolicyError, match=r"targets\[1\]: no price is known of b/m, so it is never the cheapest"
    ):
        policy("strategy: cheapest", catalog=unknown)
    assert order(policy("strategy: ordered", catalog=unknown)) == "abc"


def test_the_fastest_is_by_first_byte_and_rate() -> None:
    """A short answer goes by the first byte, a long one by the rate; the unseen come last, mostly."""
    compiled = policy("strategy: fastest")
    seen = Snapshot(
        speeds={
            ("a", "m"): Speed(first_byte_s=0.1, tokens_per_s=10),
            ("b", "m"): Speed(first_byte_s=1, tokens_per_s=100),
        }
    )
    orders = Counter(order(compiled, seen, call_id=f"call_{i}", output_tokens=5) for i in range(2000))
    assert set(orders) == {"abc", "cab"}
    assert orders["cab"] / 2000 == pytest.approx(0.05, abs=0.02)
    assert order(compiled, seen, output_tokens=256) in ("bac", "cba")


def test_the_least_busy_goes_first() -> None:
    """By what is under way at each backend; equals stay in the document's order."""
    compiled = policy("strategy: least_busy")
    assert order(compiled, Snapshot(busy={"a": 3, "b": 1, "c": 1})) == "bca"
    assert order(compiled) == "abc"


def test_a_group_is_one_item_among_others() -> None:
    """Its targets stand together where the group stands, and the reason says what chose the first."""
    routes = """
    - name: r
      targets:
        - {backend: c, model: m}
        - group: {strategy: least_busy, targets: [{backend: a, model: m}, {backend: b, model: m}]}
    """
    compiled = load(document(routes), "test", HOMELY)
    busy = Snapshot(busy={"a": 1}, down=frozenset({"c"}))
    assert order(compiled, replace(busy, down=frozenset())) == "cba"
    found = decide(compiled, facts(), busy)
    assert found.reason == "route r: c/m down; falls to b/m (fallback 2, least_busy of 2)"


def test_a_canary_takes_its_share_and_the_route_follows() -> None:
    """A share asks the canary first and the route's own targets after it; the same users each time."""
    rest = ", canary: {share: 0.2, by: user, targets: [{backend: c, model: m}]}"
    routes = f"- {{name: r, targets: [{{backend: a, model: m}}, {{backend: b, model: m}}]{rest}}}"
    compiled = load(document(routes), "test", HOMELY)
    orders = [order(compiled, user=f"user-{i}") for i in range(2000)]
    assert set(orders) == {"ab", "cab"}
    assert orders.count("cab") / 2000 == pytest.approx(0.2, abs=0.03)
    who = f"user-{orders.index('cab')}"
    assert {order(compiled, user=who, call_id=f"call_{i}") for i in range(20)} == {"cab"}


def test_a_shadow_takes_its_share_and_no_turn() -> None:
    """A copy for a share of the calls, under an id and a permit of its own; never one of the candidates."""
    rented = BackendInfo(name="rented", zone=CLOUD, models=("m",))
    routes = """
    - name: r
      match: {privacy: {at_most: internal}}
      targets: [{backend: a, model: m}]
      shadow: {share: 0.3, target: {backend: rented, model: m}}
    """
    compiled = load(document(routes), "test", Catalog(backends=BACKENDS | {"rented": rented}))
    shadows = 0
    for i in range(2000):
        found = decide(compiled, facts(call_id=f"call_{i}"), Snapshot())
        assert isinstance(found, Decision)
        assert [c.backend for c in found.candidates] == ["a"]
        if found.shadow is not None:
            shadows += 1
            assert found.shadow.permit is not None
            assert found.shadow.permit.call_id == f"call_{i}-shadow"
    assert shadows / 2000 == pytest.approx(0.3, abs=0.03)
    down = decide(compiled, facts(call_id="call_0"), Snapshot(down=frozenset({"rented"})))
    assert isinstance(down, Decision)
    assert down.shadow is None


@pytest.mark.parametrize(
    ("rest", "place"),
    [
        (", canary: {share: 0.01, targets: [{backend: openai, model: m}]}", "canary fallback 1"),
        (", shadow: {share: 0.01, target: {backend: openai, model: m}}", "shadow"),
        (
            ", canary: {share: 0.01, targets: [{group: {strategy: cheapest, targets: [{backend: openai}]}}]}",
            "canary fallback 1, cheapest",
        ),
    ],
)
def test_a_leak_beside_the_route_is_found(rest: str, place: str) -> None:
    """However small the share: a canary or shadow where the class may not go is refused by its place."""
    routes = f"- {{name: r, targets: [{{backend: vllm, model: qwen3-8b}}]{rest}}}"
    compiled, _ = compile_policy(parse(document(routes), "test"), catalog())
    (leak,) = verify(compiled)
    assert str(leak).startswith(f'route "r" → {place} "openai/')
    masking = routes.replace("backend: openai", "mask: true, backend: openai")
    compiled, _ = compile_policy(parse(document(masking), "test"), catalog())
    assert verify(compiled) == ()
    assert len(guards(compiled)) == 1


def test_a_leak_within_a_group_names_its_member() -> None:
    """The place says which item of the route, and the strategy that could put it first."""
    group = "{strategy: least_busy, targets: [{backend: vllm, model: qwen3-8b}, {backend: openai, model: m}]}"
    compiled, _ = compile_policy(
        parse(document(f"- {{name: r, targets: [{{group: {group}}}]}}"), "t"), catalog()
    )
    (leak,) = verify(compiled)
    assert 'first choice, least_busy "openai/m" in zone "us-cloud": may receive class "restricted"' in str(
        leak
    )


def test_parameters_come_with_the_decision() -> None:
    """Caps and overrides as the route has them; a route without any changes nothing."""
    rest = ", cap: {output_tokens: 500, choices: 1}, override: {temperature: 0, seed: 7}"
    found = decide(policy("strategy: ordered", rest), facts(), Snapshot())
    assert isinstance(found, Decision)
    assert found.parameters is not None
    assert (found.parameters.most_output, found.parameters.most_choices) == (500, 1)
    assert found.parameters.override == {"temperature": 0, "seed": 7}
    plain = decide(policy("strategy: ordered"), facts(), Snapshot())
    assert isinstance(plain, Decision)
    assert plain.parameters is None


def test_down_and_up_are_seen_at_the_moment() -> None:
    """A route for an outage is taken while it lasts, and left again."""
    routes = """
    - {name: outage, match: {down: [a], up: [b]}, targets: [{backend: b, model: m}]}
    - {name: usual, targets: [{backend: a, model: m}]}
    """
    compiled = load(document(routes), "test", HOMELY)
    taken = [
        decide(compiled, facts(privacy=PrivacyClass.RESTRICTED), Snapshot(down=frozenset(down))).route
        for down in ("", "a", "ab")
    ]
    assert taken == ["usual", "outage", "usual"]

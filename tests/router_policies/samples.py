"""Backends, facts and policies that the policy tests share, and strategies that generate them."""

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import yaml
from hypothesis import strategies as st

from router_policies.compiled import CompiledPolicy
from router_policies.load import load
from router_policies.privacy import DEFAULT_SCALE
from router_policies.types import BackendInfo, Catalog, Facts, Feature, PrivacyClass, Snapshot, Zone

HOME = Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True)
CLOUD = Zone(name="us-cloud", ceiling=PrivacyClass.INTERNAL)
VLLM = BackendInfo(name="vllm", zone=HOME, models=("qwen3-8b",), adapters=True)
OPENAI = BackendInfo(name="openai", zone=CLOUD, models=("*",))
RELEASE = "support-intents@0123456789ab"
SNAPSHOT = Snapshot(aliases={"support-intents@stable": RELEASE})


def catalog(*backends: BackendInfo) -> Catalog:
    return Catalog(backends={b.name: b for b in backends or (VLLM, OPENAI)})


def facts(**given: Any) -> Facts:
    """An internal chat request for gpt-4o-mini, with the given facts changed."""
    usual: dict[str, Any] = {
        "call_id": "call-1",
        "endpoint": "chat/completions",
        "model": "gpt-4o-mini",
        "key_id": "key-1",
        "team": "support",
        "tags": frozenset(),
        "features": frozenset(),
        "prompt_tokens": 100,
        "privacy": PrivacyClass.INTERNAL,
    }
    return Facts(**usual | given)


def document(routes: str) -> Any:
    """A policy document with the routes that are written in YAML."""
    return {"name": "test", "version": 1, "routes": yaml.safe_load(routes)}


def loaded(routes: str, *backends: BackendInfo) -> CompiledPolicy:
    return load(document(routes), "test.yaml", catalog(*backends))


# Few values, so that generated requests often meet generated conditions.
ENDPOINTS, KEYS, TEAMS, TAGS = ("chat/completions", "embeddings"), ("k1", "k2"), ("t1", "t2"), ("x", "y")
MODELS = ("a", "ab", "abc", "s@stable", "s@0123456789ab")
PATTERNS = ("a", "ab", "a*", "ab*", "*", "s@stable")
FEATURES = (Feature.TOOLS, Feature.VISION)
BACKENDS = ("b0", "b1", "b2")
TOKENS = st.integers(0, 6)
CLASSES = st.sampled_from(DEFAULT_SCALE.classes)


def some_of(values: Sequence[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from([str(v) for v in values]), min_size=1, max_size=2, unique=True)


def ranges(ends: st.SearchStrategy[Any], word: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(ends, ends).map(lambda pair: {"at_least": word(min(pair)), "at_most": word(max(pair))})


def few_keys(choices: Mapping[str, st.SearchStrategy[Any]], most: int) -> st.SearchStrategy[dict[str, Any]]:
    """A mapping with at most that many of the keys: routes with many seldom match, or cover one another."""
    names = st.lists(st.sampled_from(sorted(choices)), max_size=most, unique=True)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: choices[name] for name in chosen}))


CONDITIONS = {
    "endpoint": some_of(ENDPOINTS),
    "model": some_of(PATTERNS),
    "key": some_of(KEYS),
    "team": some_of(TEAMS),
    "tags": some_of(TAGS),
    "features": some_of(FEATURES),
    "without_features": some_of(FEATURES),
    "prompt_tokens": ranges(TOKENS, int),
    "privacy": ranges(CLASSES, lambda c: c.label),
}
matches = few_keys(CONDITIONS, most=2)
named = st.sampled_from(
    [{}, {"model": "a"}, {"model": "ab"}, {"adapter": "s@stable"}, {"adapter": MODELS[-1]}]
)
masks = st.sampled_from([{}, {"mask": True}])
targets = st.builds(
    lambda backend, rest, mask: {"backend": backend, **rest, **mask}, st.sampled_from(BACKENDS), named, masks
)
actions = st.one_of(
    st.lists(targets, min_size=1, max_size=3).map(lambda found: {"targets": found}),
    st.just({"deny": {"message": "No."}}),
)


@st.composite
def variants(draw: st.DrawFn, match: Mapping[str, Any]) -> dict[str, Any]:
    """A match that differs from the given one in a key or two: here covering is decided by a hair."""
    dropped = draw(st.sets(st.sampled_from(sorted(match)), max_size=1)) if match else set()
    kept = {key: value for key, value in match.items() if key not in dropped}
    redrawn = {key: CONDITIONS[key] for key in match}
    return kept | draw(few_keys(CONDITIONS, most=1) | few_keys(redrawn or CONDITIONS, most=1))


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Up to five routes, each with a match of its own or a variant of the one before."""
    found: list[dict[str, Any]] = []
    match: dict[str, Any] = {}
    for number in range(draw(st.integers(1, 5))):
        match = draw(variants(match) | matches)
        floor = draw(st.just({}) | CLASSES.map(lambda c: {"privacy_floor": c.label}))
        found.append({"name": f"r{number}", "match": match, **floor, **draw(actions)})
    return {"name": "p", "version": 1, "routes": found}


zones = st.builds(Zone, name=st.sampled_from(["z0", "z1"]), ceiling=CLASSES, local=st.booleans())
infos = st.fixed_dictionaries(
    {
        "zone": zones,
        "models": st.sampled_from([("*",), ("a",), ("a", "ab")]),
        "adapters": st.booleans(),
        "features": st.frozensets(st.sampled_from(FEATURES)) | st.just(frozenset(Feature)),
        "endpoints": st.just(frozenset(ENDPOINTS)) | st.just(frozenset(ENDPOINTS[:1])),
    }
)
catalogs = st.tuples(infos, infos, infos).map(
    lambda found: catalog(*(BackendInfo(name=name, **i) for name, i in zip(BACKENDS, found, strict=True)))
)


def request(chance: Random) -> Facts:
    return Facts(
        call_id=f"call-{chance.randrange(9)}",
        endpoint=chance.choice(ENDPOINTS),
        model=chance.choice(MODELS),
        key_id=chance.choice(KEYS),
        team=chance.choice(TEAMS),
        tags=frozenset(chance.sample(TAGS, chance.randrange(3))),
        features=frozenset(chance.sample(FEATURES, chance.randrange(3))),
        prompt_tokens=chance.randrange(7),
        privacy=(privacy := chance.choice(DEFAULT_SCALE.classes)),
        masked=chance.choice([None, *(c for c in DEFAULT_SCALE if c <= privacy)]),
        masked_kinds={"email": 1},
    )


def crowd(chance: Random) -> list[Facts]:
    return [request(chance) for _ in range(80)]


# Many requests for each policy: drawing them from one generated seed is quick, and policies are dear.
crowds = st.integers(0, 2**32).map(lambda seed: crowd(Random(seed)))
snapshots = st.builds(
    Snapshot,
    aliases=st.sampled_from([{}, {"s@stable": "s@0123456789ab"}]),
    down=st.frozensets(st.sampled_from(BACKENDS), max_size=2),
)


def accepts(match: Mapping[str, Any], request: Facts) -> bool:
    """What a route's `match` means, written as plainly as it can be: the reference for index and proof."""
    tokens, privacy = match.get("prompt_tokens", {}), match.get("privacy", {})
    return all(
        [
            request.endpoint in match.get("endpoint", [request.endpoint]),
            any(
                request.model == p or (p.endswith("*") and request.model.startswith(p[:-1]))
                for p in match.get("model", ["*"])
            ),
            request.key_id in match.get("key", [request.key_id]),
            request.team in match.get("team", [request.team]),
            all(tag in request.tags for tag in match.get("tags", [])),
            all(feature in request.features for feature in match.get("features", [])),
            all(feature not in request.features for feature in match.get("without_features", [])),
            tokens.get("at_least", 0)
            <= request.prompt_tokens
            <= tokens.get("at_most", request.prompt_tokens),
            request.privacy >= DEFAULT_SCALE.parse(privacy.get("at_least", "public")),
            request.privacy <= DEFAULT_SCALE.parse(privacy.get("at_most", "restricted")),
        ]
    )


def first_route(policy: Mapping[str, Any], request: Facts) -> dict[str, Any] | None:
    """The first route of a document that accepts the request, found by trying each."""
    found: list[dict[str, Any]] = [r for r in policy["routes"] if accepts(r["match"], request)]
    return found[0] if found else None


def privacy_on(route: Mapping[str, Any], request: Facts) -> PrivacyClass:
    """The class of a request that takes the route, its floor included."""
    return max(request.privacy, DEFAULT_SCALE.parse(route.get("privacy_floor", "public")))

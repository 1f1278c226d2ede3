"""Backends, facts and policies that the policy tests share, and strategies that generate them."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from hypothesis import strategies as st
from msgspec.structs import replace

from router_policies.compiled import CompiledPolicy
from router_policies.load import load
from router_policies.privacy import DEFAULT_SCALE
from router_policies.types import (
    UNBOUNDED,
    BackendInfo,
    Candidate,
    Catalog,
    Decision,
    Denial,
    Facts,
    Feature,
    Price,
    PrivacyClass,
    Snapshot,
    Speed,
    Zone,
)

HOME = Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True)
CLOUD = Zone(name="us-cloud", ceiling=PrivacyClass.INTERNAL)
VLLM = BackendInfo(name="vllm", zone=HOME, models=("qwen3-8b",), adapters=True)
OPENAI = BackendInfo(name="openai", zone=CLOUD, models=("*",))
MISTRAL = BackendInfo(
    name="mistral", zone=Zone(name="eu-cloud", ceiling=PrivacyClass.INTERNAL), models=("*",)
)
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
PROJECTS, TASKS, KINDS, USERS = ("p1", "p2"), ("sort", "write"), ("email", "iban"), ("", "ann", "bob")
ZONES = ("UTC", "Asia/Kolkata")  # half an hour beside the full one
SPANS = ("00:00-24:00", "08:00-18:00", "22:00-06:00", "23:30-00:15")
DAYS = ("mon", "fri", "sun")
MONDAY = datetime(2026, 3, 2, tzinfo=ZoneInfo("UTC"))
TOKENS = st.integers(0, 6)
SHARES = st.sampled_from([0.0, 0.5, 0.8, 1.0])
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
    "project": some_of(PROJECTS),
    "task": some_of(TASKS),
    "language": some_of(["de", "cyrillic"]),
    "metadata": st.dictionaries(st.sampled_from(["a", "b"]), some_of(["1", "2"]), min_size=1, max_size=2),
    "findings": some_of(KINDS),
    "without_findings": some_of(KINDS),
    "output_tokens": ranges(TOKENS, int) | TOKENS.map(lambda least: {"at_least": least}),
    "time": st.fixed_dictionaries(
        {"days": some_of(DAYS), "hours": some_of(SPANS), "zone": st.sampled_from(ZONES)}
    ),
    "budget": ranges(SHARES, float) | SHARES.map(lambda least: {"at_least": least}),
    "down": some_of(BACKENDS),
    "up": some_of(BACKENDS),
}
matches = few_keys(CONDITIONS, most=2)
named = st.sampled_from(
    [{}, {"model": "a"}, {"model": "ab"}, {"adapter": "s@stable"}, {"adapter": MODELS[-1]}]
)
masks = st.sampled_from([{}, {"mask": True}])
targets = st.builds(
    lambda backend, rest, mask: {"backend": backend, **rest, **mask}, st.sampled_from(BACKENDS), named, masks
)
drawn_by = st.sampled_from(["call", "user", "session", "key"])
shares = st.sampled_from([0.01, 0.5, 1.0])


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    """A group of any strategy, with weights where it knows them."""
    strategy = draw(st.sampled_from(["ordered", "weighted", "sticky", "cheapest", "fastest", "least_busy"]))
    members = draw(st.lists(targets, min_size=1, max_size=3))
    if strategy in ("weighted", "sticky"):
        members = [member | {"weight": draw(st.integers(1, 3))} for member in members]
    by = {"by": draw(st.sampled_from(["user", "session", "key"]))} if strategy == "sticky" else {}
    return {"group": {"strategy": strategy, **by, "targets": members}}


items = st.lists(targets | groups(), min_size=1, max_size=3)


@st.composite
def leading(draw: st.DrawFn) -> dict[str, Any]:
    """What a route does with its requests, where it does not deny them."""
    found: dict[str, Any] = {"targets": draw(items)}
    if draw(st.booleans()):
        found["canary"] = {"share": draw(shares), "by": draw(drawn_by), "targets": draw(items)}
    if draw(st.booleans()):
        found["shadow"] = {"share": draw(shares), "target": draw(targets)}
    return found


actions = st.one_of(leading(), st.just({"deny": {"message": "No."}}))


def all_targets(route: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every target of a route as the document has it, in the order of their positions."""
    found: list[dict[str, Any]] = []
    for item in [*route.get("targets", []), *route.get("canary", {}).get("targets", [])]:
        found += item["group"]["targets"] if "group" in item else [item]
    return found + ([route["shadow"]["target"]] if "shadow" in route else [])


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


PRICES = {
    ("b0", "a"): Price(input=5, output=9),
    ("b1", "a"): Price(input=7, output=7),
    ("b2", "a"): Price(hour=3),
}
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
    lambda found: replace(
        catalog(*(BackendInfo(name=name, **i) for name, i in zip(BACKENDS, found, strict=True))),
        prices=PRICES,
    )
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
        project=chance.choice(PROJECTS),
        task=chance.choice(("", *TASKS)),
        language=chance.choice(("", "de", "en", "cyrillic")),
        metadata={key: chance.choice("123") for key in chance.sample("ab", chance.randrange(3))},
        findings=frozenset(chance.sample(KINDS, chance.randrange(3))),
        output_tokens=chance.choice((*range(7), UNBOUNDED)),
        user=chance.choice(USERS),
        session=chance.choice(USERS),
        at_s=(MONDAY + timedelta(minutes=chance.randrange(0, 14 * 1440, 5))).timestamp(),
        budget_used=chance.choice((0.0, 0.5, 0.7, 0.8, 1.0, 1.5)),
    )


def crowd(chance: Random) -> list[Facts]:
    return [request(chance) for _ in range(80)]


# Many requests for each policy: drawing them from one generated seed is quick, and policies are dear.
crowds = st.integers(0, 2**32).map(lambda seed: crowd(Random(seed)))
speeds = st.fixed_dictionaries(
    {}, optional={(b, m): st.builds(Speed, first_byte_s=st.floats(0.1, 9), tokens_per_s=st.floats(1, 99))
                  for b in BACKENDS for m in ("a", "ab")},
)  # fmt: skip
snapshots = st.builds(
    Snapshot,
    aliases=st.sampled_from([{}, {"s@stable": "s@0123456789ab"}]),
    down=st.frozensets(st.sampled_from(BACKENDS), max_size=2),
    speeds=speeds,
    busy=st.dictionaries(st.sampled_from(BACKENDS), st.integers(0, 9)),
)


def in_hours(times: Mapping[str, Any], at_s: float) -> bool:
    """Whether a `time` holds, found by asking each of its spans on the day it begins on."""
    local = datetime.fromtimestamp(at_s, ZoneInfo(times["zone"]))
    minute = local.hour * 60 + local.minute
    today, before = (
        ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(local.weekday() - d) % 7] for d in (0, 1)
    )
    for hours in times["hours"]:
        start, end = (int(h) * 60 + int(m) for h, m in (part.split(":") for part in hours.split("-")))
        late = end < start
        if today in times["days"] and start <= minute and (minute < end or late):
            return True
        if late and before in times["days"] and minute < end:
            return True
    return False


def within(given: Mapping[str, Any], number: float) -> bool:
    return bool(given.get("at_least", 0) <= number <= given.get("at_most", number))


def reached(found: Decision | Denial) -> list[Candidate]:
    """Everything that a decision may send a request to, the shadow last."""
    if isinstance(found, Denial):
        return []
    return [*found.candidates, *([found.shadow] if found.shadow else [])]


def accepts(match: Mapping[str, Any], request: Facts, down: frozenset[str] = frozenset()) -> bool:
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
            within(tokens, request.prompt_tokens),
            within(match.get("output_tokens", {}), request.output_tokens),
            within(match.get("budget", {}), request.budget_used),
            request.project in match.get("project", [request.project]),
            request.task in match.get("task", [request.task]),
            request.language in match.get("language", [request.language]),
            all(request.metadata.get(key) in named for key, named in match.get("metadata", {}).items()),
            "findings" not in match or any(kind in request.findings for kind in match["findings"]),
            not any(kind in request.findings for kind in match.get("without_findings", [])),
            "time" not in match or in_hours(match["time"], request.at_s),
            all(backend in down for backend in match.get("down", [])),
            not any(backend in down for backend in match.get("up", [])),
            request.privacy >= DEFAULT_SCALE.parse(privacy.get("at_least", "public")),
            request.privacy <= DEFAULT_SCALE.parse(privacy.get("at_most", "restricted")),
        ]
    )


def first_route(
    policy: Mapping[str, Any], request: Facts, down: frozenset[str] = frozenset()
) -> dict[str, Any] | None:
    """The first route of a document that accepts the request, found by trying each."""
    found: list[dict[str, Any]] = [r for r in policy["routes"] if accepts(r["match"], request, down)]
    return found[0] if found else None


def privacy_on(route: Mapping[str, Any], request: Facts) -> PrivacyClass:
    """The class of a request that takes the route, its floor included."""
    return max(request.privacy, DEFAULT_SCALE.parse(route.get("privacy_floor", "public")))

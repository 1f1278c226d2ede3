"""From a litellm proxy's config.yaml to our configuration and policy, with a list of what has no counterpart.

    model_list                    a backend for each provider, address and key; a route for each model_name
    router_settings               the strategy of the routes' groups, retries, fallbacks, aliases, time limits
    litellm_settings              the same keys, where they stand there
    general_settings.master_key   an admin key

litellm knows no privacy classes. So rented backends stand in a zone for `internal` at most, and what is above
that goes to the model's local deployments or, without any, is refused. Secrets are not copied: a key that is
written out has to be put into the environment.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urlsplit

import msgspec

from gateway.admission import hash_key, new_key
from gateway.networks import is_own_network

IN_ENVIRONMENT = "os.environ/"
HOME, RENTED = "home", "rented"
OPENAI = "https://api.openai.com/v1"
COMPATIBLE = {  # providers that speak OpenAI's API, and where
    "openai": OPENAI,
    "text-completion-openai": OPENAI,
    "groq": "https://api.groq.com/openai/v1",
    "mistral": "https://api.mistral.ai/v1",
    "deepseek": "https://api.deepseek.com/v1",
    "together_ai": "https://api.together.xyz/v1",
    "fireworks_ai": "https://api.fireworks.ai/inference/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "xai": "https://api.x.ai/v1",
    "cerebras": "https://api.cerebras.ai/v1",
}
OWN_ADDRESS = frozenset({"hosted_vllm", "vllm", "openai_like", "lm_studio", "llamafile", "custom_openai"})
THROUGH_LITELLM = frozenset({"anthropic", "gemini"})
BARE = (("gpt-", "openai"), ("chatgpt-", "openai"), ("o1", "openai"), ("o3", "openai"), ("o4", "openai"),
        ("text-embedding-", "openai"), ("claude-", "anthropic"), ("gemini-", "gemini"))  # fmt: skip
STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "least_busy",
    "latency-based-routing": "fastest",
    "cost-based-routing": "cheapest",
}
MOST_RETRIES = 5
_NOT_SLUG = re.compile(r"[^a-z0-9._-]+")
_HANDLED_PARAMS = frozenset(
    {"model", "api_key", "api_base", "weight", "rpm", "tpm", "input_cost_per_token", "output_cost_per_token"}
)
_HANDLED_SETTINGS = frozenset(
    {"routing_strategy", "num_retries", "timeout", "request_timeout", "fallbacks", "default_fallbacks",
     "model_group_alias"}
)  # fmt: skip


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """Two documents for YAML, and lines for people."""

    settings: dict[str, Any]
    policy: dict[str, Any]
    without_counterpart: tuple[str, ...]
    to_do: tuple[str, ...]  # what the operator has to put in place


class _Deployment(msgspec.Struct, frozen=True):
    """One entry of model_list that we can serve."""

    name: str  # that clients ask for
    backend: str
    model: str  # empty: as the client named it
    local: bool
    weight: int
    rpm: int | None
    tpm: int | None

    @property
    def target(self) -> dict[str, Any]:
        return {"backend": self.backend} | ({"model": self.model} if self.model else {})


def convert(config: Mapping[str, Any], environment: Mapping[str, str]) -> Imported:
    """`config` as YAML gave it. `environment` is asked for a master key that the file only names."""
    return _Conversion(config, environment).done()


class _Conversion:
    def __init__(self, config: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        self._config, self._environment = config, environment
        self._lost: list[str] = []
        self._to_do: list[str] = []
        self._backends: dict[str, dict[str, Any]] = {}
        self._by_address: dict[tuple[str, str, str], str] = {}
        self._prices: dict[str, dict[str, str]] = {}
        self._options = self._read_options()

    def done(self) -> Imported:
        deployments = [found for one in self._entries() if (found := self._deployment(*one)) is not None]
        groups: dict[str, list[_Deployment]] = {}
        for one in deployments:
            groups.setdefault(one.name, []).append(one)
        routes = list(self._routes(groups))
        seconds = self._options.get("timeout", self._options.get("request_timeout"))
        for backend in self._backends.values():
            if isinstance(seconds, int | float) and seconds > 0:
                backend["total_s"] = float(seconds)
        settings: dict[str, Any] = {
            "policy": "policy.yaml",
            "zones": {HOME: {"local": True, "ceiling": "restricted"}, RENTED: {"ceiling": "internal"}},
            "backends": self._backends,
            "keys": [self._master_key()],
        }
        if self._prices:
            settings["prices"] = self._prices
        if rates := list(self._rates(groups)):
            settings["limits"] = {"rates": rates}
        return Imported(
            settings=settings,
            policy={"name": "from-litellm", "version": 1, "routes": routes},
            without_counterpart=tuple(dict.fromkeys(self._lost)),
            to_do=tuple(self._to_do),
        )

    # What stands beside model_list.

    def _read_options(self) -> dict[str, Any]:
        """router_settings over litellm_settings, which share their keys; the rest is lost."""
        options: dict[str, Any] = {}
        for section in ("litellm_settings", "router_settings"):
            for key, value in _mapping(self._config.get(section)).items():
                if key in _HANDLED_SETTINGS:
                    options[key] = value
                else:
                    self._lost.append(f"{section}.{key}")
        self._lost += [
            f"general_settings.{key}"
            for key in _mapping(self._config.get("general_settings"))
            if key != "master_key"
        ]
        known = {"model_list", "litellm_settings", "router_settings", "general_settings"}
        self._lost += [str(key) for key in self._config if key not in known]
        return options

    def _master_key(self) -> dict[str, Any]:
        given = str(_mapping(self._config.get("general_settings")).get("master_key") or "")
        if given.startswith(IN_ENVIRONMENT):
            given = self._environment.get(given.removeprefix(IN_ENVIRONMENT), "")
        known = bool(given)
        if not known:
            given = new_key()  # nobody's: there has to be one
            self._to_do.append(
                "keys: the master key is not known here; make one with `headgate key new` and put its hash in"
            )
        self._to_do.append("keys: virtual keys are in litellm's database; make new ones below /admin/keys")
        return {"id": "litellm-master", "sha256": hash_key(given), "team": "litellm", "admin": known}

    def _rates(self, groups: Mapping[str, Sequence[_Deployment]]) -> Iterator[dict[str, Any]]:
        """What all deployments of a model may take together."""
        names = _slugs(groups)
        for name, group in groups.items():
            rates: dict[str, Any] = {}
            for key, numbers in (
                ("requests_per_minute", [one.rpm for one in group]),
                ("tokens_per_minute", [one.tpm for one in group]),
            ):
                if None not in numbers:
                    rates[key] = sum(number or 0 for number in numbers)
            if rates:
                yield {"route": names[name], **rates}

    # model_list

    def _entries(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        entries = self._config.get("model_list")
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, Mapping) and entry.get("model_name"):
                yield f"model_list[{number}]", entry
            else:
                self._lost.append(f"model_list[{number}]: has no model_name")

    def _deployment(self, path: str, entry: Mapping[str, Any]) -> _Deployment | None:
        params = _mapping(entry.get("litellm_params"))
        self._lost += [f"{path}.litellm_params.{key}" for key in params if key not in _HANDLED_PARAMS]
        self._lost += [f"{path}.model_info.{key}" for key in _mapping(entry.get("model_info")) if key != "id"]
        name, provider, model = str(entry["model_name"]), *_provider(str(params.get("model", "")))
        backend = self._backend(path, provider, params)
        if backend is None:
            return None
        if "*" in model or "*" in name:
            if model != name:
                self._lost.append(f"{path}: {name} stands for {provider}/{model}, which renames models")
                return None
            model = ""
        self._serve(backend, model or "*")
        self._price(provider, model, params)
        return _Deployment(
            name=name,
            backend=backend,
            model=model,
            local=self._backends[backend]["zone"] == HOME,
            weight=_whole(params.get("weight")) or _whole(params.get("rpm")) or 1,
            rpm=_whole(params.get("rpm")),
            tpm=_whole(params.get("tpm")),
        )

    def _backend(self, path: str, provider: str, params: Mapping[str, Any]) -> str | None:
        """The backend at that address with that key; a new one where there is none yet."""
        url = str(params.get("api_base") or COMPATIBLE.get(provider, ""))
        if provider not in THROUGH_LITELLM and (not url or provider not in {*COMPATIBLE, *OWN_ADDRESS}):
            why = "has no api_base" if provider in OWN_ADDRESS else "no such provider here"
            self._lost.append(f"{path}: {provider or 'its provider'}: {why}")
            return None
        local = _is_home(url)
        if url.startswith("http://") and not local:
            self._lost.append(f"{path}: {url} would be reached unencrypted")
            return None
        secret = str(params.get("api_key") or "")
        address = (provider, url, secret)
        if address not in self._by_address:
            self._by_address[address] = self._new_backend(provider, url, secret, local)
        return self._by_address[address]

    def _new_backend(self, provider: str, url: str, secret: str, local: bool) -> str:
        name = _free(_slug(provider), self._backends)
        made: dict[str, Any] = {"zone": HOME if local else RENTED}
        if provider in THROUGH_LITELLM:
            made |= {"kind": "litellm", "provider": provider} | ({"url": url} if url else {})
        else:
            made |= {"kind": "openai", "url": url}
            if provider not in OWN_ADDRESS:
                made["price_as"] = provider
        if secret.startswith(IN_ENVIRONMENT):
            made["api_key_env"] = secret.removeprefix(IN_ENVIRONMENT)
        elif secret and not local:
            made["api_key_env"] = f"{re.sub(r'[^A-Z0-9]', '_', name.upper())}_API_KEY"
            self._to_do.append(f"backends.{name}: put its key into the environment as {made['api_key_env']}")
        made["models"] = []
        self._backends[name] = made
        return name

    def _serve(self, backend: str, model: str) -> None:
        models = self._backends[backend]["models"]
        if model not in models:
            models.append(model)

    def _price(self, provider: str, model: str, params: Mapping[str, Any]) -> None:
        given = [params.get(f"{kind}_cost_per_token") for kind in ("input", "output")]
        if not model or None in given:
            return
        try:
            per_million = [format(Decimal(str(price)) * 10**6, "f") for price in given]
        except InvalidOperation:
            self._lost.append(f"the price of {provider}/{model}: it is no number")
            return
        key = model if provider in OWN_ADDRESS else f"{provider}/{model}"
        self._prices[key] = dict(zip(("input", "output"), per_million, strict=True))

    # Routes

    def _routes(self, groups: Mapping[str, Sequence[_Deployment]]) -> Iterator[dict[str, Any]]:
        """Names before wildcards, longer wildcards first: here the first route that matches decides."""
        names = _slugs(groups)
        for name in sorted(groups, key=lambda name: ("*" in name, -len(name), name)):
            chain = [groups[other] for other in (name, *self._fallbacks(name)) if other in groups]
            match: dict[str, Any] = {"model": [name, *self._aliases(name)]}
            home = self._items([[one for one in group if one.local] for group in chain])
            everything = self._items(chain)
            rented = any(not one.local for group in chain for one in group)
            if rented and home:
                private = {**match, "privacy": {"at_least": "confidential"}}
                yield self._route(_free(f"{names[name]}-private", names.values()), private, home)
            if rented:
                match = {**match, "privacy": {"at_most": "internal"}}
            yield self._route(names[name], match, everything)

    def _route(self, name: str, match: dict[str, Any], items: list[dict[str, Any]]) -> dict[str, Any]:
        route: dict[str, Any] = {"name": name, "match": match, "targets": items}
        retries = self._options.get("num_retries")
        if isinstance(retries, int) and retries > 0:
            route["retry"] = {"attempts": min(retries, MOST_RETRIES)}
        return route

    def _items(self, chain: Sequence[Sequence[_Deployment]]) -> list[dict[str, Any]]:
        """A group for each model of the chain, in which no target stands twice."""
        items: list[dict[str, Any]] = []
        seen: dict[tuple[str, str], dict[str, Any]] = {}
        for group in chain:
            members: list[dict[str, Any]] = []
            for one in group:
                place = (one.backend, one.model)
                if place not in seen:
                    seen[place] = {**one.target, "weight": one.weight}
                    members.append(seen[place])
                elif seen[place] in members:
                    seen[place]["weight"] += one.weight
            if members:
                items.append(self._item(members))
        return items

    def _item(self, members: list[dict[str, Any]]) -> dict[str, Any]:
        strategy = self._strategy()
        if len(members) == 1 or strategy != "weighted":
            members = [{key: value for key, value in m.items() if key != "weight"} for m in members]
        return members[0] if len(members) == 1 else {"group": {"strategy": strategy, "targets": members}}

    def _strategy(self) -> str:
        given = str(self._options.get("routing_strategy", "simple-shuffle"))
        if given not in STRATEGIES:
            self._lost.append(f"router_settings.routing_strategy: {given}; least_busy in its place")
        return STRATEGIES.get(given, "least_busy")

    def _fallbacks(self, name: str) -> list[str]:
        for pairs in _list(self._options.get("fallbacks")):
            if name in _mapping(pairs):
                return [str(other) for other in _list(pairs[name])]
        return [str(other) for other in _list(self._options.get("default_fallbacks")) if other != name]

    def _aliases(self, name: str) -> list[str]:
        aliases = _mapping(self._options.get("model_group_alias"))
        return [str(alias) for alias, of in aliases.items() if of == name]


def _provider(model: str) -> tuple[str, str]:
    """litellm's `provider/model`, or a bare name of a model that litellm knows."""
    provider, slash, rest = model.partition("/")
    if slash and (provider in COMPATIBLE or provider in OWN_ADDRESS or provider in THROUGH_LITELLM):
        return provider, rest
    found = next((provider for start, provider in BARE if model.startswith(start)), "")
    return (found, model) if found else (provider if slash else "", rest if slash else model)


def _is_home(url: str) -> bool:
    return is_own_network(urlsplit(url).hostname or "")


def _slug(text: str) -> str:
    return _NOT_SLUG.sub("-", text.lower()).strip("-._")[:56] or "any"


def _slugs(names: Mapping[str, object]) -> dict[str, str]:
    """A route's name for each model."""
    found: dict[str, str] = {}
    for name in names:
        found[name] = _free(_slug(name), found.values())
    return found


def _free(name: str, taken: Any) -> str:
    found, number = name, 2
    while found in set(taken):
        found, number = f"{name}-{number}", number + 1
    return found


def _whole(value: object) -> int | None:
    return value if type(value) is int and value > 0 else None


def _mapping(value: object) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []

"""`headgate.yaml`: read once at start, all that is wrong listed at once; secrets come from the environment.

    listen: {host: 127.0.0.1, port: 4000}
    state: var                         # database, spool and adapters live below it
    policy: policy.yaml
    access_log: var/access.jsonl       # or "-" for standard output; without it there is none
    telemetry: {otlp: "http://127.0.0.1:4318", sample: 0.01}
    zones:
      home: {local: true, ceiling: restricted}
      rented: {ceiling: internal}
    backends:
      vllm:
        {kind: vllm, zone: home, url: "http://127.0.0.1:8000/v1", model: sluice-4m, usd_per_hour: "0.40"}
      openai:
        {kind: openai, zone: rented, url: "https://api.openai.com/v1", api_key_env: OPENAI_API_KEY,
         models: [gpt-4o-mini]}
      claude:
        {kind: litellm, zone: rented, provider: anthropic, api_key_env: ANTHROPIC_API_KEY,
         models: [claude-sonnet-4-5]}
    keys:
      - {id: support-app, sha256: …, team: support}
    teams:
      support: {privacy_floor: internal}
    budgets:
      - {id: support-month, team: support, usd: "250", per: month, time_zone: Europe/Berlin}

Paths are relative to the file.
"""

import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    StrictBool,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from gateway.errors import ConfigError
from gateway.fleet_settings import CanarySettings, FleetSettings, QuotaSettings
from gateway.networks import is_loopback, is_own_network
from gateway.rates import RateRule, RedisSettings
from gateway.setting_parts import (
    BudgetSettings,
    CurrencySettings,
    PowerSettings,
    PriceSettings,
    PriceVersions,
    Slug,
)
from router_policies.errors import did_you_mean
from router_policies.privacy import DEFAULT_SCALE, SHIPPED, PrivacyClass, Scale, scale_of
from router_policies.types import Zone

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PRINTABLE = re.compile(r"[!-~]+")


def _class(value: object, info: ValidationInfo) -> PrivacyClass:
    scale: Scale = info.context or DEFAULT_SCALE
    return scale.parse(str(value))


def _http_url(value: str) -> str:
    """Messages repeat nothing of a URL with credentials in it."""
    if not _PRINTABLE.fullmatch(value):
        raise ValueError("a URL is printable ASCII without spaces")
    parts = urlsplit(value)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("a backend's URL holds no credentials, query or fragment; use api_key_env")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{value!r} is not an http(s) URL")
    if parts.port == 0:  # reading it raises ValueError where it is no port at all
        raise ValueError("port 0 cannot be reached")
    return value.rstrip("/")


def _collector(value: str) -> str:
    """A trace exporter must be no way out (invariant 1), so it goes to an address of our own network.

    A name could come to mean another address while the gateway runs, so only `localhost` is taken.
    """
    url = _http_url(value)
    if not is_own_network(urlsplit(url).hostname or ""):
        raise ValueError("spans stay at home: give a loopback or private address, or localhost")
    return url


def _of_every_medium(value: object) -> object:
    """One class stands for all."""
    return dict.fromkeys(get_args(Medium), value) if isinstance(value, str) else value


def _own_hook(value: str) -> str:
    """A webhook outside would be a way out (invariant 1); a relay of ours may pass it on."""
    if value and not is_own_network(urlsplit(_http_url(value)).hostname or ""):
        raise ValueError("webhooks stay at home: give a loopback or private address, or localhost")
    return value


def _filled(value: Any) -> Any:
    # pydantic's own min_length counts items that are right, and calls a list of one wrong item empty
    if not value:
        raise ValueError("should not be empty")
    return value


ClassName = Annotated[PrivacyClass, PlainValidator(_class)]
Medium = Literal["image", "audio", "video", "file", "other"]  # as in gateway.privacy.content
Filled = AfterValidator(_filled)
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class Part(BaseModel):
    """Any mapping in the file: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(Part):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 4000


class ZoneSettings(Part):
    ceiling: ClassName
    local: StrictBool = False


class BackendSettings(Part):
    """What all kinds share."""

    zone: str
    api_key_env: str = ""  # the environment variable that holds the key
    api_key: SecretStr = SecretStr("")  # filled from it; not a key of the file
    connect_s: Annotated[float, Field(gt=0)] = 5.0
    first_byte_s: Annotated[float, Field(gt=0)] = 120.0
    between_bytes_s: Annotated[float, Field(gt=0)] = 60.0
    total_s: Annotated[float, Field(gt=0)] = 600.0  # one attempt, from connect to last byte
    max_concurrent: Annotated[int, Field(ge=1)] = 1024  # requests under way at once
    max_queue: Annotated[int, Field(ge=0)] = 256  # that may wait until one of those is done,
    queue_s: Annotated[float, Field(ge=0)] = 5.0  # each for so long


class VllmSettings(BackendSettings):
    """Self-hosted vLLM with runtime LoRA loading, one replica or several; only the gateway knows its key."""

    kind: Literal["vllm"]
    url: HttpUrl = ""
    urls: tuple[HttpUrl, ...] = ()  # of several replicas, among which requests are balanced
    model: str  # the base, as served
    usd_per_hour: Annotated[Decimal, Field(ge=0)]  # of each replica; with `power` without its electricity
    power: PowerSettings | None = None
    overhead: Annotated[Decimal, Field(ge=0, le=10)] = Decimal(0)  # share on top: people, space, network
    max_lora_rank: Annotated[int, Field(ge=1)] = 16
    slots: Annotated[int, Field(ge=1)] | None = None  # adapters that a replica holds; None: all there are

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if bool(self.url) == bool(self.urls) or len(set(self.urls)) < len(self.urls):
            raise ValueError("give either url, or urls of several replicas, each once")
        return self

    @property
    def loaded_usd_per_hour(self) -> Decimal:
        """Of all replicas together."""
        electricity = self.kilowatts * self.power.usd_per_kwh if self.power else Decimal(0)
        return (self.usd_per_hour * self.count + electricity) * (1 + self.overhead)

    @property
    def kilowatts(self) -> Decimal:
        """Of all replicas together, at the site's meter; 0: not known."""
        return self.power.watts * self.power.pue * self.count / 1000 if self.power else Decimal(0)

    @property
    def count(self) -> int:
        """Of replicas."""
        return max(1, len(self.urls))

    def replicas(self, name: str) -> dict[str, str]:
        """The URL of each replica of the backend `name`, by the replica's name."""
        if self.url:
            return {name: self.url}
        return {f"{name}/{number}": url for number, url in enumerate(self.urls, start=1)}


class OpenAISettings(BackendSettings):
    """Any OpenAI-compatible API."""

    kind: Literal["openai"]
    url: HttpUrl
    models: Annotated[tuple[str, ...], Filled]
    price_as: str = "openai"  # litellm's name of the provider in its price map


class LitellmSettings(BackendSettings):
    """Every other provider, through the litellm SDK."""

    kind: Literal["litellm"]
    provider: Literal["anthropic", "gemini"]  # those proved to go through the one door
    models: Annotated[tuple[str, ...], Filled]
    url: HttpUrl = ""  # empty: the provider's own


AnyBackend = Annotated[VllmSettings | OpenAISettings | LitellmSettings, Field(discriminator="kind")]


class KeySettings(Part):
    id: Slug
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    team: Slug
    tags: tuple[str, ...] = ()
    privacy_floor: ClassName | None = None  # what it asks has at least this class; None: the lowest
    may_lower_privacy: StrictBool = (
        False  # it may ask for a class below the floors, never below what is found
    )
    admin: StrictBool = False


class TeamSettings(Part):
    privacy_floor: ClassName


class RecogniserSettings(Part):
    """What finds names and addresses. All but `bundled` are extras of their own."""

    kind: Literal["off", "bundled", "presidio", "spacy", "gliner"] = "off"
    model: str = ""  # a path, or a name that the library knows; empty: its default
    deadline_s: Annotated[float, Field(gt=0)] = 1.0  # for all of a request; 5 ms per KiB are usual


class PrivacySettings(Part):
    """Where the scale is not the shipped one, `stands_for` says what its missing classes are called here."""

    scale: Annotated[tuple[Slug, ...], Filled] = SHIPPED  # all classes, lowest first
    stands_for: dict[Slug, Slug] = {}  # shipped class -> class
    classes: dict[str, ClassName] = {}  # what a detector finds -> its class, where it is not the default
    # Nothing reads them: one class for all, or by medium; those not named are confidential.
    attachments: Annotated[dict[Medium, ClassName], BeforeValidator(_of_every_medium)] = {}
    deadline_s: Annotated[float, Field(gt=0)] = 0.25
    recogniser: RecogniserSettings = RecogniserSettings()
    permit_s: Annotated[float, Field(gt=0)] = 600.0  # for which a request may leave after it was classified
    session_days: Annotated[float, Field(gt=0)] = 30.0  # after which a session that is not used is refused
    signing_key_env: str = ""  # the environment variable with the audit keys; empty: audit.key below `state`


class LimitSettings(Part):
    max_body_bytes: Annotated[int, Field(gt=0)] = 32 * 1024 * 1024
    body_timeout_s: Annotated[float, Field(gt=0)] = 30.0
    max_in_flight: Annotated[int, Field(ge=1)] = 4096  # in the whole process; more are told to come again
    rates: tuple[RateRule, ...] = ()
    redis: RedisSettings | None = None  # None: each process counts for itself


class TelemetrySettings(Part):
    """Spans go out only if `otlp` is set."""

    otlp: Annotated[str, AfterValidator(_collector)] = ""  # OTLP over HTTP, without /v1/traces
    sample: Annotated[float, Field(ge=0, le=1)] = 0.01  # share of the requests whose client did not decide


class FinetuneSettings(Part):
    """Jobs of `/v1/fine_tuning`: they train the base that the vLLM backends serve."""

    base: str = ""  # what to train on: a bundled base, a folder, a hub's name; empty: the served name
    worker: StrictBool = False  # `serve` trains too; without it `headgate worker` does
    team_gib: Annotated[float, Field(gt=0)] = 20.0  # of files that a team may keep


class Settings(Part):
    listen: Listen = Listen()
    state: Path = Path("var")
    database: Annotated[str, Field(repr=False)] = ""  # SQLAlchemy URL; empty: SQLite below `state`
    policy: Path
    zones: Annotated[dict[Slug, ZoneSettings], Filled]
    backends: Annotated[dict[Slug, AnyBackend], Filled]
    keys: Annotated[tuple[KeySettings, ...], Filled]
    teams: dict[Slug, TeamSettings] = {}  # those with a privacy floor of their own
    prices: dict[str, PriceVersions] = {}  # by model or provider/model; several where they are dated
    currencies: dict[str, CurrencySettings] = {}
    budgets: tuple[BudgetSettings, ...] = ()
    budget_webhook: Annotated[str, AfterValidator(_own_hook)] = ""  # told at 80 and 100 % of a budget
    privacy: PrivacySettings = PrivacySettings()
    limits: LimitSettings = LimitSettings()
    access_log: str = ""  # a path, or "-" for standard output; empty: none
    telemetry: TelemetrySettings = TelemetrySettings()
    fleet: FleetSettings = FleetSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @property
    def scale(self) -> Scale:
        return scale_of(self.privacy.scale, self.privacy.stands_for)

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.state / 'headgate.db'}"

    @property
    def adapters(self) -> Path:
        return self.state / "adapters"

    def zone_of(self, backend: BackendSettings) -> Zone:
        found = self.zones[backend.zone]
        return Zone(name=backend.zone, ceiling=found.ceiling, local=found.local)


def load_settings(path: Path, environment: Mapping[str, str] | None = os.environ) -> Settings:
    """Raises ConfigError with every problem in the file.

    Without an `environment` no secret is looked up: enough for who calls no backend.
    """
    source = str(path)
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ConfigError(source, ["the file must hold a mapping; deploy/example holds one"])
    scale, unfit = _scale(document)
    problems = [*unfit, *_fill_secrets(document, environment), *_contradictions(document)]
    try:
        settings = Settings.model_validate(document, context=scale)
    except ValidationError as error:
        raise ConfigError(source, [_line(e) for e in error.errors(include_url=False)] + problems) from None
    if problems:
        raise ConfigError(source, problems)
    base = path.resolve().parent
    paths: dict[str, Any] = {"state": base / settings.state, "policy": base / settings.policy}
    if settings.access_log not in ("", "-"):
        paths["access_log"] = str(base / settings.access_log)
    return settings.model_copy(update=paths)


def _scale(document: dict[str, Any]) -> tuple[Scale, list[str]]:
    """The scale that all other keys are read by, and what is wrong with it: then it is the shipped one."""
    privacy = document.get("privacy")
    given = privacy if isinstance(privacy, dict) else {}
    labels, stands_for = given.get("scale", SHIPPED), given.get("stands_for", {})
    if not (_are_words(labels) and isinstance(stands_for, dict) and _are_words(list(stands_for.values()))):
        return DEFAULT_SCALE, []  # the keys' own checks say so
    try:
        return scale_of(tuple(labels), stands_for), []
    except ValueError as error:
        return DEFAULT_SCALE, [f"privacy.scale: {error}"]


def _are_words(value: object) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


def read_yaml(path: Path) -> object:
    """Raises ConfigError with the line, never a traceback."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"is not YAML: {' '.join(str(error).split())}"]) from error


class _Loader(yaml.SafeLoader):
    """A key that stands twice in one mapping is an error: YAML's own rule would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _fill_secrets(document: dict[str, Any], environment: Mapping[str, str] | None) -> Iterator[str]:
    """Puts each secret beside the name of its variable; yields what is wrong with one."""
    parts = [(f"backends.{name}", part, "api_key") for name, part in _mappings(document, "backends")]
    parts += [(f"limits.{name}", part, "url") for name, part in _mappings(document, "limits")]
    for path, part, key in parts:
        if part.pop(key, None) is not None:
            yield f"{path}.{key}: secrets do not belong in this file; use {key}_env"
        variable = part.get(f"{key}_env")
        if environment is not None and isinstance(variable, str) and variable:
            part[key] = SecretStr(environment.get(variable, ""))
            problem = _variable_problem(variable, environment)
            if problem:
                yield f"{path}.{key}_env: {problem}"


def _variable_problem(variable: str, environment: Mapping[str, str]) -> str:
    if not _VARIABLE.fullmatch(variable):  # perhaps the secret itself: it is not repeated
        return "is not the name of an environment variable"
    if not environment.get(variable):
        return f"the environment has no {variable}"
    if not _PRINTABLE.fullmatch(environment[variable]):
        return f"the value of {variable} holds a space, a line end or what is not ASCII"
    return ""


def _contradictions(document: dict[str, Any]) -> Iterator[str]:
    """What no key shows by itself. Reads the raw document, so that it can be listed beside all else."""
    zones = dict(_mappings(document, "zones"))
    bases = set()
    for name, backend in _mappings(document, "backends"):
        kind, zone = backend.get("kind"), backend.get("zone")
        if kind == "vllm":
            bases.add(str(backend.get("model", "")))
        if not isinstance(zone, str):
            continue
        if zone not in zones:
            yield f"backends.{name}.zone: unknown zone {zone!r}{did_you_mean(zone, map(str, zones))}"
        elif zones[zone].get("local") is True:
            if kind == "litellm":
                yield f"backends.{name}.zone: a litellm backend is never in a local zone"
        elif kind == "vllm":
            yield f"backends.{name}.zone: a vllm backend is in a local zone: probes of adapters hold content"
        elif _unencrypted(backend.get("url")):
            yield f"backends.{name}.url: traffic to zone {zone!r} would travel unencrypted; use https"
    if len(bases) > 1:
        yield f"backends: all of kind vllm must serve one base, not {', '.join(sorted(bases))}"
    yield from _repeated("keys", document.get("keys"), ("id", "sha256"))
    yield from _repeated("budgets", document.get("budgets"), ("id",))


def _repeated(name: str, items: object, fields: Sequence[str]) -> Iterator[str]:
    for field in fields:
        seen = set()
        for i, item in enumerate(items if isinstance(items, list) else ()):
            value = item.get(field) if isinstance(item, dict) else None
            if isinstance(value, str) and value in seen:
                yield f"{name}[{i}].{field}: is already that of another"
            seen.add(str(value))


def _unencrypted(url: object) -> bool:
    """Whether requests to `url` would cross a network in plain text."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:  # the URL's own check says so
        return False
    return parts is not None and parts.scheme == "http" and not is_loopback(parts.hostname or "")


def _mappings(document: dict[str, Any], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The named mappings below `key`, as far as they are there."""
    found = document.get(key)
    for name, value in found.items() if isinstance(found, dict) else ():
        if isinstance(value, dict):
            yield name, value


_PARTS: Mapping[str, type[BaseModel]] = {
    "": Settings,
    "listen": Listen,
    "zones": ZoneSettings,
    "vllm": VllmSettings,
    "power": PowerSettings,
    "openai": OpenAISettings,
    "litellm": LitellmSettings,
    "keys": KeySettings,
    "prices": PriceSettings,
    "budgets": BudgetSettings,
    "teams": TeamSettings,
    "privacy": PrivacySettings,
    "recogniser": RecogniserSettings,
    "limits": LimitSettings,
    "rates": RateRule,
    "redis": RedisSettings,
    "telemetry": TelemetrySettings,
    "fleet": FleetSettings,
    "canary": CanarySettings,
    "finetune": FinetuneSettings,
    "quotas": QuotaSettings,
}


KIND_STEP = 2  # of a backend's error location: pydantic puts the kind there, which is no key of the file


def _line(problem: Any) -> str:
    steps = [
        s for i, s in enumerate(problem["loc"]) if not (problem["loc"][0] == "backends" and i == KIND_STEP)
    ]
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    if problem["type"] == "extra_forbidden":
        above = [step for step in problem["loc"][:-1] if step in _PARTS]
        known = _PARTS[above[-1] if above else ""].model_fields
        return f"{where.lstrip('.')}: unknown key{did_you_mean(str(problem['loc'][-1]), known)}"
    return f"{where.lstrip('.')}: {problem['msg']}"

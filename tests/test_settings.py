"""`gateway.settings`: a file that is wrong says all that is wrong, where, and what was perhaps meant."""

from copy import deepcopy
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.errors import ConfigError
from gateway.settings import Settings, VllmSettings, load_settings
from router_policies.privacy import DEFAULT_SCALE
from router_policies.types import PrivacyClass

HASH, OTHER = "0" * 64, "1" * 64
SECRET = "sk-upstream-very-secret"
GOOD: dict[str, Any] = {
    "policy": "policy.yaml",
    "zones": {"home": {"local": True, "ceiling": "restricted"}, "cloud": {"ceiling": "internal"}},
    "backends": {
        "own": {
            "kind": "vllm",
            "zone": "home",
            "url": "http://10.0.0.7:8000/v1",
            "model": "base",
            "usd_per_hour": 0.4,
        },
        "rented": {
            "kind": "openai",
            "zone": "cloud",
            "url": "https://api.example.com/v1/",
            "api_key_env": "RENTED_KEY",
            "models": ["*"],
        },
        "claude": {"kind": "litellm", "zone": "cloud", "provider": "anthropic", "models": ["c"]},
    },
    "keys": [{"id": "app", "sha256": HASH, "team": "support"}],
}
ABSENT = object()


def changed(**changes: Any) -> dict[str, Any]:
    """GOOD with values set by path, `backends__own__url`; ABSENT takes one away."""
    document = deepcopy(GOOD)
    for path, value in changes.items():
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("__"))
        place: Any = document
        for step in steps:
            place = place[step]
        if value is ABSENT:
            del place[last]
        else:
            place[last] = value
    return document


def loaded(folder: Path, document: Any, environment: dict[str, str] | None = None) -> Settings:
    path = folder / "headgate.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return load_settings(path, {"RENTED_KEY": SECRET} if environment is None else environment)


def problems(folder: Path, document: Any, environment: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, document, environment)
    return caught.value.problems


def test_a_good_file(tmp_path: Path) -> None:
    """Values come as their types, paths relative to the file, defaults where nothing is said."""
    found = loaded(tmp_path, GOOD)
    assert found.policy == tmp_path / "policy.yaml"
    assert found.state == tmp_path / "var"
    assert found.adapters == tmp_path / "var" / "adapters"
    assert found.database_url == f"sqlite:///{tmp_path}/var/headgate.db"
    assert found.listen.port == 4000
    assert found.zones["cloud"].ceiling == PrivacyClass.INTERNAL
    assert found.scale == DEFAULT_SCALE
    own, rented = found.backends["own"], found.backends["rented"]
    assert own.kind == "vllm"
    assert own.usd_per_hour == Decimal("0.4")
    assert rented.url == "https://api.example.com/v1"
    assert rented.api_key.get_secret_value() == SECRET


def test_a_scale_of_its_own(tmp_path: Path) -> None:
    """Zones, teams, keys and detectors speak of the classes that the file names."""
    scale = {"scale": ["open", "staff", "client"], "stands_for": {"internal": "staff"}}
    scale["stands_for"] |= {"confidential": "client", "restricted": "client"}
    document = changed(privacy=scale, teams={"support": {"privacy_floor": "staff"}})
    document["zones"] = {
        "home": {"local": True, "ceiling": "client"},
        "cloud": {"ceiling": "open"},
    }
    found = loaded(tmp_path, document)
    assert found.zones["home"].ceiling.label == "client"
    assert found.teams["support"].privacy_floor == found.scale.classes[1]
    found_wrong = problems(tmp_path, changed(privacy=scale))
    assert any("unknown privacy class 'internal'" in line for line in found_wrong)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the file, wherever the process stands; absolute ones stay."""
    (tmp_path / "etc").mkdir()
    document = changed(state="../state", policy="/srv/policy.yaml")
    (tmp_path / "etc" / "headgate.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.chdir(tmp_path)
    found = load_settings(Path("etc/headgate.yaml"), {"RENTED_KEY": SECRET})
    assert found.state.resolve() == tmp_path / "state"
    assert found.policy == Path("/srv/policy.yaml")


def test_secrets_do_not_print(tmp_path: Path) -> None:
    """Neither a backend's key nor the database's password is in what the configuration prints of itself."""
    found = loaded(tmp_path, changed(database="postgresql://headgate:hunter2@db/headgate"))
    for text in (repr(found), str(found), repr(found.backends["rented"])):
        assert SECRET not in text
        assert "hunter2" not in text
    assert found.database_url == "postgresql://headgate:hunter2@db/headgate"


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    # what is wrong: the change, the line that says so
    "no policy": ({"policy": ABSENT}, "policy: Field required"),
    "no backends": ({"backends": {}}, "backends: Value error, should not be empty"),
    "no keys": ({"keys": []}, "keys: Value error, should not be empty"),
    "unknown key": ({"stat": 1}, 'stat: unknown key, did you mean "state"?'),
    "unknown key of a backend": (
        {"backends__rented__api_key_evn": "X"},
        'backends.rented.api_key_evn: unknown key, did you mean "api_key_env"?',
    ),
    "unknown key of a zone": (
        {"zones__cloud__ceilling": 1},
        'zones.cloud.ceilling: unknown key, did you mean "ceiling"?',
    ),
    "unknown key of a key": ({"keys__0__teams": "x"}, 'keys[0].teams: unknown key, did you mean "team"?'),
    "unknown kind": ({"backends__own__kind": "vlm"}, "backends.own: Input tag 'vlm'"),
    "no kind": ({"backends__own__kind": ABSENT}, "backends.own: Unable to extract tag"),
    "another kind's key": (
        {"backends__own__models": ["x"]},
        'backends.own.models: unknown key, did you mean "model"?',
    ),
    "unknown zone": (
        {"backends__own__zone": "hom"},
        "backends.own.zone: unknown zone 'hom', did you mean \"home\"?",
    ),
    "unknown class": (
        {"zones__cloud__ceiling": "secret"},
        "zones.cloud.ceiling: Value error, unknown privacy class 'secret'",
    ),
    "a class by number": (
        {"zones__cloud__ceiling": 3},
        "zones.cloud.ceiling: Value error, unknown privacy class '3'",
    ),
    "local, perhaps": ({"zones__cloud__local": "no"}, "zones.cloud.local: Input should be a valid boolean"),
    "litellm at home": (
        {"backends__claude__zone": "home"},
        "backends.claude.zone: a litellm backend is never in a local zone",
    ),
    "vllm outside": (
        {"backends__own__zone": "cloud"},
        "backends.own.zone: a vllm backend is in a local zone",
    ),
    "not a URL": (
        {"backends__own__url": "vllm:8000"},
        "backends.own.url: Value error, 'vllm:8000' is not an http(s) URL",
    ),
    "another protocol": ({"backends__own__url": "ftp://x/v1"}, "is not an http(s) URL"),
    "no host": ({"backends__own__url": "http:///v1"}, "is not an http(s) URL"),
    "a port that is none": (
        {"backends__own__url": "http://x:vllm/v1"},
        "backends.own.url: Value error, Port",
    ),
    "a port beyond": (
        {"backends__own__url": "http://x:99999/v1"},
        "backends.own.url: Value error, Port out of range",
    ),
    "port 0": ({"backends__own__url": "http://x:0/v1"}, "port 0 cannot be reached"),
    "a space in a URL": ({"backends__own__url": "http://x/v 1"}, "a URL is printable ASCII without spaces"),
    "a line end in a URL": ({"backends__own__url": "http://x/v1\nx-evil: 1"}, "a URL is printable ASCII"),
    "a host not in ASCII": ({"backends__own__url": "http://例え.jp/v1"}, "a URL is printable ASCII"),
    "a query": ({"backends__own__url": "http://x/v1?key=1"}, "holds no credentials, query or fragment"),
    "plain http": (
        {"backends__rented__url": "http://api.example.com/v1"},
        "backends.rented.url: traffic to zone 'cloud' would travel unencrypted; use https",
    ),
    "plain http by litellm": (
        {"backends__claude__url": "http://proxy.internal/v1"},
        "backends.claude.url: traffic to zone 'cloud' would travel unencrypted",
    ),
    "plain HTTP in capitals": ({"backends__rented__url": "HTTP://10.1.2.3/v1"}, "would travel unencrypted"),
    "a free hour": (
        {"backends__own__usd_per_hour": -1},
        "backends.own.usd_per_hour: Input should be greater",
    ),
    "no patience": (
        {"backends__own__connect_s": 0},
        "backends.own.connect_s: Input should be greater than 0",
    ),
    "no time at all": (
        {"backends__own__total_s": 0},
        "backends.own.total_s: Input should be greater than 0",
    ),
    "no request at once": (
        {"backends__own__max_concurrent": 0},
        "backends.own.max_concurrent: Input should be greater than or equal to 1",
    ),
    "fewer than nobody in the queue": (
        {"backends__own__max_queue": -1},
        "backends.own.max_queue: Input should be greater than or equal to 0",
    ),
    "a wait that is over before": (
        {"backends__own__queue_s": -1},
        "backends.own.queue_s: Input should be greater than or equal to 0",
    ),
    "nothing in flight": (
        {"limits": {"max_in_flight": 0}},
        "limits.max_in_flight: Input should be greater than or equal to 1",
    ),
    "a limit for nobody": (
        {"limits": {"rates": [{"requests_per_minute": 1}]}},
        "limits.rates[0]: Value error, give exactly one of key, team and route",
    ),
    "a limit of nothing": (
        {"limits": {"rates": [{"key": "*"}]}},
        "limits.rates[0]: Value error, limits nothing",
    ),
    "a misspelt limit": (
        {"limits": {"rates": [{"key": "*", "request_per_minute": 1}]}},
        'limits.rates[0].request_per_minute: unknown key, did you mean "requests_per_minute"?',
    ),
    "no rule for an outage": (
        {"limits": {"redis": {"url_env": "RENTED_KEY"}}},
        "limits.redis.unreachable: Field required",
    ),
    "a password in the file": (
        {"limits": {"redis": {"url_env": "RENTED_KEY", "unreachable": "refuse", "url": "redis://:s@h"}}},
        "limits.redis.url: secrets do not belong in this file; use url_env",
    ),
    "no models": (
        {"backends__rented__models": []},
        "backends.rented.models: Value error, should not be empty",
    ),
    "a hash that is none": ({"keys__0__sha256": "sk-hg-x"}, "keys[0].sha256: String should match pattern"),
    "a port for nobody": (
        {"listen": {"port": 70000}},
        "listen.port: Input should be less than or equal to 65535",
    ),
    "a name for nobody": ({"zones__Cloud 9": {"ceiling": "public"}}, "zones.Cloud 9"),
    "a negative price": (
        {"prices": {"m": {"input": -1, "output": 1}}},
        "prices.m[0].input: Input should be greater",
    ),
    "a second base": (
        {"backends__more": {**GOOD["backends"]["own"], "model": "other"}},
        "backends: all of kind vllm must serve one base, not base, other",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_one_problem_one_line(tmp_path: Path, case: str) -> None:
    """Each mistake gives one line, with the key's path."""
    changes, line = BROKEN[case]
    (problem,) = problems(tmp_path, changed(**changes))
    assert line in problem


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://127.9.9.9/v1", "http://[::1]:8000/v1", "http://localhost/v1"]
)
def test_plain_http_on_this_machine(tmp_path: Path, url: str) -> None:
    """What does not leave the machine needs no TLS, a stand-in provider for example."""
    assert loaded(tmp_path, changed(backends__rented__url=url)).backends["rented"].zone == "cloud"


@pytest.mark.parametrize(
    "host", ["localhost.example.com", "127.0.0.1.nip.io", "0.0.0.0", "[::ffff:8.8.8.8]", "10.0.0.1"]
)
def test_plain_http_to_what_only_looks_like_it(tmp_path: Path, host: str) -> None:
    """Names and addresses that are not this machine's are not taken for it."""
    (problem,) = problems(tmp_path, changed(backends__rented__url=f"http://{host}/v1"))
    assert "unencrypted" in problem


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "[::1]", "10.1.2.3", "192.168.0.9", "100.64.0.1", "[fd00::1]"]
)
def test_spans_stay_at_home(tmp_path: Path, host: str) -> None:
    """A collector on our own network is taken, with or without TLS."""
    telemetry = loaded(tmp_path, changed(telemetry={"otlp": f"http://{host}:4318/"})).telemetry
    assert (telemetry.otlp, telemetry.sample) == (f"http://{host}:4318", 0.01)
    assert loaded(tmp_path, changed(telemetry={"otlp": f"https://{host}:4318"})).telemetry.otlp


@pytest.mark.parametrize(
    "host",
    ["8.8.8.8", "collector.example.com", "collector", "[::ffff:8.8.8.8]", "[2606:4700::1111]", "100.128.0.1"],
)
def test_a_collector_elsewhere(tmp_path: Path, host: str) -> None:
    """A public address is refused, and a name too: it may come to mean one."""
    (problem,) = problems(tmp_path, changed(telemetry={"otlp": f"https://{host}:4318"}))
    assert problem.startswith("telemetry.otlp: ")
    assert "spans stay at home" in problem


def test_telemetry_and_access_log(tmp_path: Path) -> None:
    """Both are off by default; a log's path is relative to the file, `-` is standard output."""
    nothing = loaded(tmp_path, GOOD)
    assert (nothing.telemetry.otlp, nothing.access_log) == ("", "")
    assert loaded(tmp_path, changed(access_log="-")).access_log == "-"
    assert (
        loaded(tmp_path, changed(access_log="var/access.jsonl")).access_log == f"{tmp_path}/var/access.jsonl"
    )
    (problem,) = problems(tmp_path, changed(telemetry={"sampel": 1}))
    assert problem == 'telemetry.sampel: unknown key, did you mean "sample"?'
    (problem,) = problems(tmp_path, changed(telemetry={"sample": 1.5}))
    assert problem.startswith("telemetry.sample: Input should be less than or equal to 1")


def test_everything_at_once(tmp_path: Path) -> None:
    """Mistakes of every kind are listed together, so that one round of mending is enough."""
    found = problems(
        tmp_path,
        changed(
            polices=1,
            listen={"prt": 1},
            zones__cloud__ceiling="secret",
            backends__own__zone="hom",
            backends__own__usd_per_hour="much",
            backends__rented__url="http://api.example.com",
            backends__claude__api_key=SECRET,
            keys=[{"id": "app", "sha256": HASH, "team": "a"}, {"id": "app", "sha256": HASH}],
        ),
        {},
    )
    starts = sorted(line.partition(":")[0] for line in found)
    assert starts == sorted(
        [
            "polices",
            "listen.prt",
            "zones.cloud.ceiling",
            "backends.own.zone",
            "backends.own.usd_per_hour",
            "backends.rented.url",
            "backends.rented.api_key_env",
            "backends.claude.api_key",
            "keys[1].team",
            "keys[1].id",
            "keys[1].sha256",
        ]
    )
    assert not any(SECRET in line for line in found)


@pytest.mark.parametrize(
    ("environment", "line"),
    [
        ({}, "backends.rented.api_key_env: the environment has no RENTED_KEY"),
        ({"RENTED_KEY": ""}, "the environment has no RENTED_KEY"),
        ({"RENTED_KEY": SECRET + "\n"}, "the value of RENTED_KEY holds a space, a line end"),
        ({"RENTED_KEY": f"Bearer {SECRET}"}, "the value of RENTED_KEY holds a space"),
        ({"RENTED_KEY": SECRET + "é"}, "or what is not ASCII"),
    ],
)
def test_keys_from_the_environment(tmp_path: Path, environment: dict[str, str], line: str) -> None:
    """A key that is missing, or that would break a header, is a mistake at start and not at each request."""
    (problem,) = problems(tmp_path, GOOD, environment)
    assert line in problem
    assert SECRET not in problem


@pytest.mark.parametrize(
    "changes",
    [
        {"backends__rented__api_key_env": SECRET},
        {"backends__rented__api_key": SECRET},
        {"backends__rented__url": f"https://user:{SECRET}@api.example.com/v1"},
        {"backends__rented__url": f"ftp://{SECRET}@api.example.com/v1"},
        {"backends__rented__url": f"https://{SECRET}@/v1 x"},
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Who puts a secret into the file is told so, without the secret in the message."""
    found = problems(tmp_path, changed(**changes))
    assert found
    assert not any(SECRET in line for line in found)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "the file must hold a mapping"),
        ("- a\n- b\n", "the file must hold a mapping"),
        ("a: [", "is not YAML"),
        ("a: \x00", "is not YAML"),
        ("? [a, b]\n: c\n", "is not YAML"),
        ("a: !!python/object/apply:os.system [echo]", "is not YAML"),
        ("policy: a\npolicy: b\n", "the key 'policy' stands twice"),
        ("zones:\n  home: {ceiling: public}\n  home: {ceiling: restricted}\n", "the key 'home' stands twice"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, line: str) -> None:
    """A file that cannot be read as one is one line, with the place, and never a traceback."""
    (problem,) = problems(tmp_path, text)
    assert line in problem


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """Its name and what the system says."""
    with pytest.raises(ConfigError) as caught:
        load_settings(tmp_path / "none.yaml", {})
    assert "none.yaml" in str(caught.value)
    assert "No such file" in str(caught.value)


@pytest.mark.parametrize("junk", [1, "x", [], [1], {"a": 1}, None, {"a": None}, {1: 2}])
@pytest.mark.parametrize("key", list(GOOD))
def test_nothing_breaks_the_reader(tmp_path: Path, key: str, junk: Any) -> None:
    """Whatever stands under a key, the answer is a list of problems with paths, or settings."""
    try:
        loaded(tmp_path, changed(**{key: junk}))
    except ConfigError as error:
        assert all(": " in line for line in error.problems)  # noqa: PT017 - it need not be raised


def test_a_recogniser_is_off_unless_named(tmp_path: Path) -> None:
    """Its kind is one that there is, and its keys are checked as all others."""
    assert loaded(tmp_path, GOOD).privacy.recogniser.kind == "off"
    chosen = loaded(tmp_path, {**GOOD, "privacy": {"recogniser": {"kind": "bundled", "deadline_s": 2}}})
    assert (chosen.privacy.recogniser.kind, chosen.privacy.recogniser.deadline_s) == ("bundled", 2.0)
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, {**GOOD, "privacy": {"recogniser": {"kind": "magic", "modell": "x"}}})
    assert any("privacy.recogniser.kind" in problem for problem in caught.value.problems)
    assert any('did you mean "model"' in problem for problem in caught.value.problems)


def test_replicas_of_a_backend(tmp_path: Path) -> None:
    """One replica bears its backend's name, several are numbered; both ways at once, or none, is wrong."""
    own = GOOD["backends"]["own"]
    urls = ["http://127.0.0.1:8001/v1", "http://127.0.0.1:8002/v1"]
    several = {key: value for key, value in own.items() if key != "url"}
    one = loaded(tmp_path, GOOD).backends["own"]
    assert isinstance(one, VllmSettings)
    assert list(one.replicas("own")) == ["own"]
    two = loaded(tmp_path, changed(backends__own={**several, "urls": urls})).backends["own"]
    assert isinstance(two, VllmSettings)
    assert two.replicas("own") == dict(zip(("own/1", "own/2"), urls, strict=True))
    for wrong in ({**own, "urls": urls}, several, {**several, "urls": [urls[0]] * 2}):
        with pytest.raises(ConfigError, match="give either url, or urls"):
            loaded(tmp_path, changed(backends__own=wrong))


def test_the_fleet_is_checked(tmp_path: Path) -> None:
    """Shares are shares, and a key that nobody knows is told with what was meant."""
    with pytest.raises(ConfigError) as caught:
        loaded(
            tmp_path, {**GOOD, "fleet": {"quorum": 1.5, "canary": {"latencies": 1}, "quotas": [{"slots": 0}]}}
        )
    told = "\n".join(caught.value.problems)
    assert "fleet.quorum" in told
    assert 'did you mean "latency"' in told
    assert "fleet.quotas[0].adapters" in told


def test_what_an_hour_costs(tmp_path: Path) -> None:
    """Of two replicas, and a tenth on top: 2 × (0.40 + 0.5 kW × 1.2 × 0.25) × 1.1."""
    urls = ["http://127.0.0.1:8001/v1", "http://127.0.0.1:8002/v1"]
    own = {key: value for key, value in GOOD["backends"]["own"].items() if key != "url"}
    more = {"urls": urls, "power": {"watts": 500, "pue": "1.2", "usd_per_kwh": "0.25"}, "overhead": "0.1"}
    found = loaded(tmp_path, changed(backends__own={**own, **more})).backends["own"]
    assert (found.kilowatts, found.loaded_usd_per_hour) == (Decimal("1.2"), Decimal("1.21"))
    with pytest.raises(ConfigError, match='did you mean "usd_per_kwh"'):
        loaded(tmp_path, changed(backends__own={**own, "urls": urls, "power": {"watts": 1, "usd_per_kw": 1}}))

"""Headgate as shipped: the real command with 1,000 keys, 20 routes, detectors, two budgets, ledger, metrics.

Known of it from outside only: its configuration, its /metrics and its SQLite file.
"""

import hashlib
import json
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import msgspec

from .catalog import UPSTREAM_KEY, Launch, Peer, Site

KEYS, ROUTES = 1000, 20
KEY = "sk-bench"
DRAIN_S = 120.0


class Rows(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger's rows, and those of them whose request went to a backend."""

    all: int
    called: int


def launch(site: Site) -> Launch:
    program = Path(sys.executable).parent / "headgate"
    return Launch(
        command=(str(program), "serve", "--config", str(site.folder / "headgate.yaml")),
        files={"headgate.yaml": json.dumps(settings(site)), "policy.yaml": json.dumps(policy())},
        environment={"OPENAI_API_KEY": UPSTREAM_KEY},
    )


def settings(site: Site) -> dict[str, object]:
    """headgate.yaml: JSON is YAML too."""
    used = {"id": "bench", "sha256": _sha256(KEY), "team": "bench"}
    others = [
        {"id": f"key-{i}", "sha256": _sha256(f"sk-{i}"), "team": f"team-{i % 50}"} for i in range(1, KEYS)
    ]
    return {
        "listen": {"port": site.port},
        "policy": "policy.yaml",
        "zones": {"cloud": {"ceiling": "internal"}},
        "backends": {
            "openai": {
                "kind": "openai",
                "zone": "cloud",
                "url": f"http://127.0.0.1:{site.mock}/v1",
                "api_key_env": "OPENAI_API_KEY",
                "models": ["*"],
            }
        },
        "keys": [*others, used],
        "budgets": [
            {"id": "of-key", "usd": 1_000_000, "key": "bench"},
            {"id": "of-team", "usd": 1_000_000, "team": "bench", "per": "day"},
        ],
    }


def policy() -> dict[str, object]:
    """The last route is the one that matches."""
    others = [_route(f"team-{i}", [f"model-{i}", "gpt-*"], team=f"team-{i}") for i in range(1, ROUTES)]
    return {"name": "bench", "version": 1, "routes": [*others, _route("small", ["gpt-4o-mini"])]}


def metrics(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read(), "utf-8")


def metric(text: str, name: str) -> float:
    """The sum of a metric over its labels in Prometheus' text form. Raises KeyError when it is not there."""
    found = [
        line.rpartition(" ")[2] for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name
    ]
    if not found:
        raise KeyError(name)
    return sum(map(float, found))


def settle(port: int) -> None:
    """Waits until no request is in flight and the ledger's spool is in the database. Raises TimeoutError."""
    deadline = time.monotonic() + DRAIN_S
    while True:
        text = metrics(port)
        left = metric(text, "headgate_in_flight"), metric(text, "headgate_ledger_backlog")
        if left == (0, 0):
            return
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"after {DRAIN_S:g} s in flight: {left[0]:g}, rows not in the database: {left[1]:g}"
            )
        time.sleep(0.25)  # each look costs the gateway some of the CPU time that is measured


def rows(folder: Path) -> Rows:
    """What the ledger of the gateway in `folder` holds."""
    with closing(sqlite3.connect(f"file:{folder}/var/headgate.db?mode=ro", uri=True)) as database:
        found = database.execute("SELECT count(*), coalesce(sum(attempts > 0), 0) FROM entry").fetchone()
    return Rows(all=found[0], called=found[1])


def _route(name: str, models: list[str], **match: str) -> dict[str, object]:
    return {
        "name": name,
        "match": {"model": models, "privacy": {"at_most": "internal"}} | match,
        "targets": [{"backend": "openai", "model": "gpt-4o-mini-2024-07-18"}],
    }


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


HEADGATE = Peer(name="headgate", launch=launch, key=KEY, settle=settle)

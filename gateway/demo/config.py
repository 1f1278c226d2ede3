"""The demo's configuration, written as a user would write it: two files, hashes of keys, no secret."""

from pathlib import Path
from typing import Any

import msgspec
import yaml

from gateway.admission import hash_key, new_key
from gateway.demo.rented import CHAT, EMBEDDING

BASE = "sluice-4m"
TASK = "support-desk"  # the model that clients ask for, and the adapter's name
OWNED, RENTED = "vllm", "rented"  # the two backends
USD_PER_HOUR = "0.08"  # about what a small cloud machine costs
VLLM_KEY, RENTED_KEY = "HEADGATE_DEMO_VLLM_KEY", "HEADGATE_DEMO_RENTED_KEY"  # environment variables


class Keys(msgspec.Struct, frozen=True):
    """Client keys, new for each run."""

    app: str = msgspec.field(default_factory=new_key)
    people: str = msgspec.field(default_factory=new_key)
    admin: str = msgspec.field(default_factory=new_key)


def write(folder: Path, *, port: int, vllm_url: str, rented_url: str, keys: Keys) -> Path:
    """Write headgate.yaml and policy.yaml; returns the path of the former."""
    (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY, sort_keys=False))
    path = folder / "headgate.yaml"
    path.write_text(yaml.safe_dump(_settings(port, vllm_url, rented_url, keys), sort_keys=False))
    return path


def _settings(port: int, vllm_url: str, rented_url: str, keys: Keys) -> dict[str, Any]:
    return {
        "listen": {"host": "127.0.0.1", "port": port},
        "state": "state",
        "policy": "policy.yaml",
        "zones": {"home": {"local": True, "ceiling": "restricted"}, "cloud": {"ceiling": "internal"}},
        "backends": {
            OWNED: {
                "kind": "vllm",
                "zone": "home",
                "url": f"{vllm_url}/v1",
                "model": BASE,
                "usd_per_hour": USD_PER_HOUR,
                "api_key_env": VLLM_KEY,
            },
            RENTED: {
                "kind": "openai",
                "zone": "cloud",
                "url": rented_url,
                "models": [CHAT, EMBEDDING],
                "api_key_env": RENTED_KEY,
            },
        },
        "keys": [
            {"id": "desk-app", "sha256": hash_key(keys.app), "team": "support"},
            {
                "id": "people-app",
                "sha256": hash_key(keys.people),
                "team": "people",
                "privacy_floor": "confidential",
            },
            {"id": "operator", "sha256": hash_key(keys.admin), "team": "platform", "admin": True},
        ],
    }


ADAPTER = {"backend": OWNED, "adapter": f"{TASK}@stable"}
HOME = {"backend": OWNED, "model": BASE}
AWAY = {"backend": RENTED, "model": CHAT}
POLICY: dict[str, Any] = {
    "name": "demo",
    "version": 1,
    "routes": [
        {
            "name": "desk-private",
            "match": {"model": TASK, "privacy": {"at_least": "confidential"}},
            "targets": [ADAPTER, HOME],
        },
        {
            "name": "private-stays-home",
            "match": {
                "endpoint": "chat/completions",
                "model": "gpt-*",
                "privacy": {"at_least": "confidential"},
            },
            "targets": [HOME],
        },
        {
            "name": "tools",
            "match": {"model": [TASK, "gpt-*"], "features": ["tools"], "privacy": {"at_most": "internal"}},
            "targets": [AWAY],
        },
        {
            "name": "desk",
            "match": {"model": TASK, "privacy": {"at_most": "internal"}},
            "targets": [ADAPTER, AWAY],
        },
        {"name": "own-by-name", "match": {"model": [BASE, f"{TASK}@*"]}, "targets": [{"backend": OWNED}]},
        {
            "name": "rented-by-name",
            "match": {"model": ["gpt-*", "text-embedding-*"], "privacy": {"at_most": "internal"}},
            "targets": [{"backend": RENTED}],
        },
    ],
}

"""A gateway as it ships, on real sockets, with the stand-in provider as its rented API."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from gateway.admission import hash_key
from gateway.app import Headgate, build_app
from gateway.backends.fake import FakeProvider
from gateway.backends.fake_text import Answer
from gateway.settings import load_settings
from tests.support.running import LoopThread, Server

KEY, ADMIN_KEY, FLOOR_KEY = "sk-hg-test-client", "sk-hg-test-admin", "sk-hg-test-confidential"
UPSTREAM_KEY = "sk-upstream-secret-value"

POLICY: dict[str, Any] = {
    "name": "tests",
    "version": 1,
    "routes": [
        {
            "name": "private-stays-home",
            "match": {"privacy": {"at_least": "confidential"}},
            "targets": [{"backend": "home", "model": "home-model"}],
        },
        {
            "name": "rented",
            "match": {"privacy": {"at_most": "internal"}},
            "targets": [{"backend": "rented"}],
        },
    ],
}


class Stack:
    """A running gateway, its parts, and the two stand-ins behind it."""

    def __init__(
        self, server: Server, app: Headgate, loop: LoopThread, fakes: Mapping[str, FakeProvider]
    ) -> None:
        self.server, self.app, self.loop, self.fakes = server, app, loop, fakes
        self.url = f"{server.url}/v1"

    @property
    def rented(self) -> FakeProvider:
        return self.fakes["rented"]

    @property
    def home(self) -> FakeProvider:
        """Stands for a self-hosted model where no adapter is needed."""
        return self.fakes["home"]

    def rows(self) -> list[Any]:
        """All ledger rows, oldest first."""
        assert self.app.ledger.flush(10)
        return list(reversed(self.app.ledger.store.last(10_000)))


def configuration(rented: str, home: str) -> dict[str, Any]:
    return {
        "policy": "policy.yaml",
        "zones": {"home": {"local": True, "ceiling": "restricted"}, "cloud": {"ceiling": "internal"}},
        "backends": {
            "rented": {
                "kind": "openai",
                "zone": "cloud",
                "url": f"{rented}/v1",
                "models": ["*"],
                "api_key_env": "UPSTREAM_KEY",
                "first_byte_s": 5,
                "between_bytes_s": 2,
            },
            "home": {"kind": "openai", "zone": "home", "url": f"{home}/v1", "models": ["home-model"]},
        },
        "keys": [
            {"id": "client", "sha256": hash_key(KEY), "team": "support"},
            {"id": "operator", "sha256": hash_key(ADMIN_KEY), "team": "platform", "admin": True},
            {
                "id": "private",
                "sha256": hash_key(FLOOR_KEY),
                "team": "legal",
                "privacy_floor": "restricted",
            },
        ],
    }


def write_config(folder: Path, document: Mapping[str, Any], policy: Mapping[str, Any]) -> Path:
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy))
    path = folder / "headgate.yaml"
    path.write_text(yaml.safe_dump(dict(document)))
    return path


@contextmanager
def running_stack(
    folder: Path,
    *,
    policy: Mapping[str, Any] = POLICY,
    changes: Mapping[str, Any] | None = None,
    answer: Answer | None = None,
    **fakes: Any,
) -> Iterator[Stack]:
    """`changes` go over the configuration's top level; `fakes` are handed to `build_app`.

    `answer` is what both providers say.
    """
    loop = LoopThread()
    providers = {
        "rented": FakeProvider(api_key=UPSTREAM_KEY, answer=answer),
        "home": FakeProvider(answer=answer),
    }
    for provider in providers.values():
        loop.run(provider.start())
    document = configuration(providers["rented"].url, providers["home"].url) | dict(changes or {})
    settings = load_settings(write_config(folder, document, policy), {"UPSTREAM_KEY": UPSTREAM_KEY})
    app = build_app(settings, **fakes)
    server = Server(loop, app)
    try:
        yield Stack(server, app, loop, providers)
    finally:
        server.stop()
        for provider in providers.values():
            loop.run(provider.stop())
        loop.close()

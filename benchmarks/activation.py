"""Policies that come and go under 200 requests a second, on two gateways. Run: `make bench-activation`.

Both gateways share a database; the stand-in provider answers both. Requests are sent by the clock, half to
each gateway, whether or not earlier ones were answered. Meanwhile versions with other routes are activated,
for all requests or for half of them, and rolled back, each change at one gateway.

    sent, per_second     requests
    changes              activations and roll-backs
    failures             answers other than 200, and none at all
    mixed                answers by a route that the policy they name does not have
    by_second            answers that the second policy decided
    followed_ms          the longest until the other gateway was known to decide by a change, too

Ends with status 1 when there is a failure or a mixed decision.
"""

import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
import yaml

from gateway.admission import hash_key
from gateway.app import build_app
from gateway.backends.fake import FakeProvider
from gateway.settings import load_settings

PER_SECOND, SECONDS, ROUTES = 200, int(os.environ.get("SECONDS_OF_LOAD", "20")), 40
PAUSE_S = 0.2  # between two changes
KEY, ADMIN = "sk-bench-client", "sk-bench-admin"
OUT = Path(__file__).parent / "out" / "activation.json"


def policy(version: int) -> dict[str, Any]:
    """Routes whose names tell the version; the last one answers."""
    routes: list[dict[str, Any]] = [
        {"name": f"v{version}-{i}", "match": {"model": f"model-{i}"}, "targets": [{"backend": "home"}]}
        for i in range(ROUTES)
    ]
    group = {"strategy": "weighted", "targets": [{"backend": "home", "model": f"m{n}"} for n in range(3)]}
    return {
        "name": "bench",
        "version": version,
        "routes": [*routes, {"name": f"v{version}-rest", "targets": [{"group": group}]}],
    }


def write(folder: Path, provider: str, database: str) -> Path:
    home = {"kind": "openai", "zone": "home", "url": f"{provider}/v1", "models": ["*"]}
    document = {
        "policy": "policy.yaml",
        "database": database,
        "zones": {"home": {"local": True, "ceiling": "restricted"}},
        "backends": {"home": home},
        "keys": [
            {"id": "client", "sha256": hash_key(KEY), "team": "bench"},
            {"id": "admin", "sha256": hash_key(ADMIN), "team": "bench", "admin": True},
        ],
    }
    folder.mkdir()
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy(1)))
    path = folder / "headgate.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@asynccontextmanager
async def gateway(config: Path) -> AsyncIterator[str]:
    """Its URL."""
    server = uvicorn.Server(build_app(load_settings(config)).server_config(port=0, loop="none"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.01)  # uvicorn gives no event to wait for
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


class Load:
    """Requests by the clock, and what came of them."""

    def __init__(self, urls: list[str], http: httpx.AsyncClient) -> None:
        self._urls, self._http = urls, http
        self.seen: Counter[tuple[str, str]] = Counter()  # policy and route
        self.failures = 0

    async def run(self) -> None:
        asked = []
        start = time.perf_counter()
        for number in range(PER_SECOND * SECONDS):
            await asyncio.sleep(max(0.0, start + number / PER_SECOND - time.perf_counter()))
            asked.append(asyncio.create_task(self._ask(self._urls[number % len(self._urls)])))
        await asyncio.gather(*asked)

    async def _ask(self, url: str) -> None:
        body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
        headers = {"authorization": f"Bearer {KEY}"}
        try:
            answer = await self._http.post(f"{url}/v1/chat/completions", json=body, headers=headers)
        except httpx.HTTPError:
            self.failures += 1
            return
        if answer.status_code != 200:
            self.failures += 1
            return
        self.seen[answer.headers["x-headgate-policy"], answer.headers["x-headgate-route"]] += 1


class Changes:
    """Activations and roll-backs, one after the other, until told to stop."""

    def __init__(self, urls: list[str], http: httpx.AsyncClient) -> None:
        self._urls, self._http = urls, http
        self.made, self.followed_s = 0, 0.0

    async def run(self, stop: asyncio.Event) -> None:
        await self._post("/admin/policies", {"document": policy(2)})
        while not stop.is_set():
            for path, body, active in (
                ("/admin/policies/bench@2/activate", {}, "bench@2"),
                ("/admin/rollout/rollback", None, "bench@1"),
                ("/admin/policies/bench@2/activate", {"percent": 50}, ""),
                ("/admin/rollout/rollback", None, ""),
            ):
                await self._post(path, body)
                self.made += 1
                if active:
                    await self._followed(active)
                await asyncio.sleep(PAUSE_S)

    async def _post(self, path: str, body: Any) -> None:
        answer = await self._http.post(
            f"{self._urls[0]}{path}", json=body, headers={"authorization": f"Bearer {ADMIN}"}
        )
        answer.raise_for_status()

    async def _followed(self, active: str) -> None:
        start = time.perf_counter()
        while await self._in_force() != active:  # noqa: ASYNC110 - it is in another process, as it were
            await asyncio.sleep(0.02)
        self.followed_s = max(self.followed_s, time.perf_counter() - start)

    async def _in_force(self) -> str:
        """By what the other gateway says that it decides."""
        headers = {"authorization": f"Bearer {ADMIN}"}
        answer = await self._http.get(f"{self._urls[1]}/admin/policy", headers=headers)
        return str(answer.json()["policy"])


async def measure(folder: Path) -> dict[str, float]:
    provider = FakeProvider()
    await provider.start()
    database = f"sqlite:///{folder}/shared.db"
    configs = [write(folder / name, provider.url, database) for name in ("one", "two")]
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with (
        gateway(configs[0]) as one,
        gateway(configs[1]) as two,
        httpx.AsyncClient(timeout=60, limits=limits) as http,
    ):
        load, changes, stop = Load([one, two], http), Changes([one, two], http), asyncio.Event()
        start = time.perf_counter()
        changing = asyncio.create_task(changes.run(stop))
        await load.run()
        taken = time.perf_counter() - start
        stop.set()
        await changing
    await provider.stop()
    belongs = {f"bench@{version}": f"v{version}-rest" for version in (1, 2)}
    return {
        "sent": PER_SECOND * SECONDS,
        "per_second": round(PER_SECOND * SECONDS / taken, 1),
        "changes": changes.made,
        "failures": load.failures,
        "mixed": sum(count for (label, route), count in load.seen.items() if belongs.get(label) != route),
        "by_second": load.seen["bench@2", "v2-rest"],
        "followed_ms": round(changes.followed_s * 1e3, 1),
    }


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="headgate-activation-") as name:
        figures = asyncio.run(measure(Path(name)))
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    line = json.dumps({"suite": "activation", "figures": figures, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)
    if figures["failures"] or figures["mixed"]:
        sys.exit("requests failed, or were decided by half a policy")


if __name__ == "__main__":
    main()

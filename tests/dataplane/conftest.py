"""A whole gateway on uvloop, as shipped, with scripted servers behind it, all in the test's own loop."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
import uvloop
import yaml

from gateway.admission import hash_key
from gateway.app import Headgate, build_app
from gateway.backends.openai_wire import OpenAIWire
from gateway.parts import build_backend
from gateway.resilience.breaker import Breakers
from gateway.resilience.retry import RetryBudget
from gateway.settings import load_settings
from gateway.types import Entry
from tests.support.toxic import Toxic
from tests.support.waiting import until

KEY = "sk-hg-test-dataplane"
ASK = {"messages": [{"role": "user", "content": "hello"}]}
MAX_BODY = 64 * 1024


def _to(*targets: str, **more: Any) -> dict[str, Any]:
    return {"targets": [{"backend": b, "model": m} for b, m in (t.split("/") for t in targets)], **more}


# A route for each way to go, chosen by the model that the client names.
ROUTES: dict[str, Any] = {
    "one": _to("first/priced"),
    "unpriced": _to("first/nobody-knows"),
    "hasty": _to("hasty/priced"),
    "nowhere": _to("nowhere/priced"),
    "pair": _to("first/priced", "second/priced"),
    "hasty-pair": _to("hasty/priced", "second/priced"),
    "nowhere-pair": _to("nowhere/priced", "second/priced"),
    "narrow": _to("first/priced", "second/priced", fallback_on=["timeout"]),
    "careful": _to("first/priced", "second/priced", fallback_on=["content_policy"]),
    "retried": _to(
        "first/priced", "second/priced", retry={"attempts": 2, "backoff_ms": 1, "max_backoff_ms": 200}
    ),
    "hedged": _to("first/priced", "second/priced", hedge={"after_ms": 30}),
    "hedged-alone": _to("first/priced", hedge={"after_ms": 30}),
    "hasty-hedged": _to("hasty/priced", "second/priced", hedge={"after_ms": 30}),
    "deadline": _to("first/priced", deadline_s=0.2),
    "deadline-retried": _to(
        "first/priced", deadline_s=0.2, retry={"attempts": 3, "backoff_ms": 1, "max_backoff_ms": 60_000}
    ),
    "deadline-hedged": _to("first/priced", "second/priced", deadline_s=0.2, hedge={"after_ms": 30}),
    "deadline-slot": _to("single/priced", deadline_s=0.2),
    "single": _to("single/priced"),
    "single-pair": _to("single/priced", "second/priced"),
    "brief": _to("brief/priced"),
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


class Gateway:
    """A running gateway. `nowhere` is closed. `first` also stands behind `hasty`, whose patience is short,
    `brief`, whose answers must be over soon, and `single`, which has one slot and a queue of one.
    """

    def __init__(
        self,
        app: Headgate,
        server: uvicorn.Server,
        client: httpx.AsyncClient,
        backends: Mapping[str, OpenAIWire],
        first: Toxic,
        second: Toxic,
    ) -> None:
        self.app, self.server, self.client, self.backends = app, server, client, backends
        self.first, self.second = first, second
        self._seen = 0

    @property
    def port(self) -> int:
        port: int = self.server.servers[0].sockets[0].getsockname()[1]
        return port

    async def ask(self, model: str, **more: Any) -> httpx.Response:
        """A chat request, answered to its end."""
        return await self.post({"model": model, **ASK, **more})

    async def post(self, body: Any, **headers: str) -> httpx.Response:
        return await self.client.post(
            "/v1/chat/completions",
            content=msgspec.json.encode(body),
            headers={name.replace("_", "-"): value for name, value in headers.items()},
        )

    async def connect(
        self, head: str, body: bytes = b""
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection on which a request was sent. `head`: more header lines, with their line ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        line = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n{head}\r\n"
        writer.write(line.encode("latin-1") + body)
        return reader, writer

    async def start(self, model: str, **more: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A raw connection on which a chat request was sent."""
        body = msgspec.json.encode({"model": model, **ASK, **more})
        return await self.connect(f"content-length: {len(body)}\r\n", body)

    async def row(self) -> Entry:
        """The one ledger row that was added since the last look."""
        (row,) = await self.rows()
        return row

    async def rows(self) -> list[Entry]:
        """All rows since the last look, oldest first, once nothing is in flight any more."""
        await self.at_rest()
        assert await asyncio.to_thread(self.app.ledger.flush, 10)
        everything = await asyncio.to_thread(self.app.ledger.store.last, 10_000)
        fresh = list(reversed(everything[: len(everything) - self._seen]))
        self._seen = len(everything)
        stats = self.app.ledger.stats()
        assert (stats.open_calls, stats.duplicates, stats.rejected) == (0, 0, 0)
        return fresh

    async def at_rest(self) -> None:
        """Nothing is in flight, and each connection upstream is either gone or waits in a pool."""
        async with asyncio.timeout(10):
            while not await self._at_rest():
                pass
        await until(lambda: self.first.open + self.second.open == self._idle())
        slots = [upstream.slots for upstream in self.app.caller._upstreams.values()]
        assert [(s.in_use, s.waiting) for s in slots] == [(0, 0)] * len(slots)

    async def _at_rest(self) -> bool:
        return "headgate_in_flight 0.0" in (await self.client.get("/metrics")).text

    def _idle(self) -> int:
        return sum(not c.closed for backend in self.backends.values() for c in backend._pool._idle)

    def drop_idle(self) -> None:
        """Closes kept connections, so that the next test's script begins with a new one."""
        for backend in self.backends.values():
            while backend._pool._idle:
                backend._pool._idle.pop().abort()


def _configuration(first: Toxic, second: Toxic, patience_s: float) -> dict[str, Any]:
    def backend(url: str, **timeouts: float) -> dict[str, Any]:
        patient = dict.fromkeys(("connect_s", "first_byte_s", "between_bytes_s"), patience_s)
        return {"kind": "openai", "zone": "cloud", "url": url, "models": ["*"], **patient, **timeouts}

    return {
        "policy": "policy.yaml",
        "zones": {"cloud": {"ceiling": "internal"}},
        "backends": {
            "first": backend(first.url),
            "second": backend(second.url),
            "hasty": backend(first.url, first_byte_s=0.25, between_bytes_s=0.25),
            "nowhere": backend("http://127.0.0.1:1/v1"),
            "single": backend(first.url, max_concurrent=1, max_queue=1),
            "brief": backend(first.url, total_s=0.5),
        },
        "keys": [{"id": "client", "sha256": hash_key(KEY), "team": "support"}],
        "prices": {"priced": {"input": 1, "output": 2}},
        "limits": {"max_body_bytes": MAX_BODY, "body_timeout_s": 1.0},
    }


def _policy() -> dict[str, Any]:
    low = {"privacy": {"at_most": "internal"}}
    routes = [{"name": name, "match": {"model": name, **low}, **route} for name, route in ROUTES.items()]
    as_asked = {"name": "as-asked", "match": low, "targets": [{"backend": "first"}]}
    return {"name": "toxic", "version": 1, "routes": [*routes, as_asked]}


@asynccontextmanager
async def running_gateway(
    folder: Path,
    *,
    limits: Mapping[str, Any] | None = None,
    patience_s: float = 20,
    **uvicorn_options: Any,
) -> AsyncIterator[Gateway]:
    """`limits` go over those of the configuration; `patience_s` is how long it waits for most backends."""
    async with Toxic() as first, Toxic() as second:
        configuration = _configuration(first, second, patience_s)
        configuration["limits"] |= limits or {}
        (folder / "policy.yaml").write_text(yaml.safe_dump(_policy()))
        (folder / "headgate.yaml").write_text(yaml.safe_dump(configuration))
        settings = load_settings(folder / "headgate.yaml", {})
        built = {name: build_backend(name, b, settings) for name, b in settings.backends.items()}
        backends = {name: backend for name, backend in built.items() if isinstance(backend, OpenAIWire)}
        app = build_app(settings, backends=built)
        server = uvicorn.Server(app.server_config(port=0, log_level="critical", **uvicorn_options))
        server.capture_signals = nullcontext  # type: ignore[method-assign]  # pytest's own stay in place
        serving = asyncio.create_task(server.serve())
        await until(lambda: serving.done() or (server.started and app.ledger.ready))
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}",
            headers={"authorization": f"Bearer {KEY}"},
            timeout=20,
            verify=False,
        ) as client:
            yield Gateway(app, server, client, backends, first, second)
        server.should_exit = True
        await serving


@pytest.fixture(scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    async with running_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
async def gateway(running: Gateway) -> AsyncIterator[Gateway]:
    """The module's gateway as if new: no kept connection, no failure remembered, no row unread."""
    running.drop_idle()
    running.app.caller.breakers = Breakers(running.backends, random=random.random)
    running.app.caller._budget = RetryBudget(monotonic())
    await running.rows()
    yield running
    await running.at_rest()
    for toxic in (running.first, running.second):
        toxic.check()

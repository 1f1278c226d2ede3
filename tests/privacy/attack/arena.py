"""A gateway under attack, with everything in view that leaves it: sockets, files, logs, traces, answers.

It runs as it ships, in this process and on asyncio's own loop, whose sockets Python's audit hooks see: so no
connection goes unseen, whoever opens it. `Arena.outside` and `Arena.written` are what has left so far.
"""

import asyncio
import contextlib
import http.client
import json
import logging
import os
import random
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from gateway.app import Headgate, build_app
from gateway.backends.fake import FakeProvider
from gateway.backends.fake_calls import Behaviour
from gateway.resilience.breaker import Breakers, Limits
from gateway.settings import load_settings
from tests.privacy.attack.canaries import Canary
from tests.privacy.attack.traces import held
from tests.support.running import LoopThread, Server
from tests.support.stack import FLOOR_KEY, KEY, UPSTREAM_KEY, configuration, write_config

OUTSIDE = ("rented", "partner")
ANY_ERROR = ["connection", "timeout", "rate_limit", "server_error", "not_found", "refused", "content_policy"]
HOME, SPARE = {"backend": "home", "model": "home-model"}, {"backend": "spare", "model": "home-model"}
RENTED, PARTNER = {"backend": "rented"}, {"backend": "partner"}
MASKED = RENTED | {"mask": True}  # gets what is left when all that was found is taken out
BUSY = {"group": {"strategy": "least_busy", "targets": [RENTED, PARTNER]}}
PERSISTENT = {"attempts": 2, "on": ["connection", "timeout", "rate_limit", "server_error"], "backoff_ms": 1}


def route(tag: str, *targets: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": tag, "match": {"tags": [tag]}, "targets": [*targets], "fallback_on": ANY_ERROR} | more


LEAKY = {
    "first-choice": route("first-choice", RENTED, HOME),
    "only-choice": {"name": "only-choice", "match": {"tags": ["only-choice"]}, "targets": [RENTED]},
    "fallback": route("fallback", HOME, RENTED, PARTNER),
    "late-fallback": route("late-fallback", HOME, SPARE, RENTED),
    "retry": route("retry", RENTED, PARTNER, HOME, retry=PERSISTENT),
    "retry-at-home": route("retry-at-home", HOME, RENTED, retry=PERSISTENT),
    "hedge": route("hedge", HOME, RENTED, hedge={"after_ms": 1}),
    "hedge-outside": route("hedge-outside", RENTED, PARTNER, HOME, hedge={"after_ms": 1}),
    "deadline": route("deadline", HOME, RENTED, deadline_s=5),
    "canary": route("canary", HOME, canary={"share": 1.0, "targets": [BUSY]}),
    "shadow": route("shadow", HOME, shadow={"share": 1.0, "target": RENTED}),
    "masked": route("masked", MASKED, HOME),
    "masked-fallback": route("masked-fallback", HOME, MASKED, RENTED),
    "masked-hedge": route("masked-hedge", HOME, MASKED, hedge={"after_ms": 1}),
}
"""Tag -> a route that leads outside whatever the class. No policy with one of them loads."""
TRANSLATED = "translated"  # the same through litellm, which takes seconds to load: only where it is asked for
SHIPPED = [
    {
        "name": "private-stays-home",
        "match": {"privacy": {"at_least": "confidential"}},
        "targets": [HOME, SPARE],
        "fallback_on": ANY_ERROR,
        "retry": PERSISTENT,
        "hedge": {"after_ms": 50},
    },
    {
        "name": "rented",
        "match": {"privacy": {"at_most": "internal"}},
        "targets": [RENTED, HOME],
        "fallback_on": ANY_ERROR,
    },
]


def policy(*leaky: str, shipped: Sequence[Mapping[str, Any]] = SHIPPED) -> dict[str, Any]:
    """`shipped` as an operator would write it, below the leaky routes."""
    routes = LEAKY | {TRANSLATED: route(TRANSLATED, {"backend": "claude"}, HOME)}
    return {"name": "attack", "version": 1, "routes": [*(routes[tag] for tag in leaky), *shipped]}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Watch:
    """What this process does outside the test's own thread: connections, look-ups, programs, files."""

    def __init__(self) -> None:
        self.addresses: set[Any] = set()
        self.names: set[Any] = set()
        self.programs: list[Any] = []
        self.files: set[str] = set()
        self._open = 0
        self.known: set[Any] = set()  # addresses of stand-ins, whichever arena they are of
        self._main = threading.main_thread()
        sys.addaudithook(self._audit)  # for good: there is no way to take one off

    @contextmanager
    def running(self) -> Iterator[None]:
        """One within another see the same."""
        if not self._open:
            self.addresses, self.names, self.programs, self.files = set(), set(), [], set()
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._open or threading.current_thread() is self._main:
            return
        if event in ("socket.connect", "socket.sendto"):
            self.addresses.add(args[1][:2] if isinstance(args[1], tuple) else args[1])
        elif event == "socket.getaddrinfo":
            self.names.add(args[0])
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
            self.programs.append(args[0])
        elif (
            event == "open"
            and isinstance(args[0], str | bytes | os.PathLike)
            and args[2] & (os.O_WRONLY | os.O_RDWR)
        ):
            self.files.add(os.fsdecode(args[0]))


WATCH = Watch()


class Log(logging.Handler):
    """All that is logged, with its tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @contextmanager
    def listening(self) -> Iterator[None]:
        root, uvicorns = logging.getLogger(), logging.getLogger("uvicorn")  # which does not propagate
        level = root.level
        root.setLevel(logging.INFO)
        for logger in (root, uvicorns):
            logger.addHandler(self)
        try:
            yield
        finally:
            root.setLevel(level)
            for logger in (root, uvicorns):
                logger.removeHandler(self)


class Collector:
    """Takes spans as an OTLP collector does, and keeps every byte."""

    def __init__(self) -> None:
        self.received = bytearray()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address: tuple[str, int] = self._server.sockets[0].getsockname()

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                self.received += head + await reader.readexactly(size)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()


class Arena:
    def __init__(
        self,
        app: Headgate,
        server: Server,
        loop: LoopThread,
        fakes: Mapping[str, FakeProvider],
        collector: Collector,
        folder: Path,
    ) -> None:
        self.app, self.server, self.loop, self.fakes, self.collector = app, server, loop, fakes, collector
        self.folder, self.log = folder, Log()
        self.canaries: list[str] = []  # that were sent in, and must be nowhere
        self.answers: list[Answer] = []  # that others than the sender of a canary were given
        self.sent = self.at_home = 0
        self._spool = b""
        self._marks = dict.fromkeys(OUTSIDE, 0)
        self._client: http.client.HTTPConnection | None = None

    # Requests.

    def ask(
        self, endpoint: str, body: bytes, *, key: str = KEY, method: str = "POST", **headers: str
    ) -> Answer:
        """One request over the kept connection. `headers` with "_" for "-"."""
        if self._client is None:
            self._client = http.client.HTTPConnection(self.server.url.removeprefix("http://"), timeout=30)
        lines = {"authorization": f"Bearer {key}"} | {k.replace("_", "-"): v for k, v in headers.items()}
        self._client.request(method, f"/v1/{endpoint}" if method == "POST" else endpoint, body, lines)
        answer = self._client.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        if answer.will_close:
            self._client.close()
            self._client = None
        return found

    def attack(self, endpoint: str, body: bytes, canary: Canary, **how: str) -> Answer:
        """Sends in a request that holds `canary`. Everything that `stayed` needs is noted."""
        self.sent += 1
        self.canaries.append(canary.text)
        before = self.home_bytes
        answer = self.ask(endpoint, body, **how)
        self.at_home += self.home_bytes > before
        return answer

    def bystand(self) -> None:
        """Requests of somebody else, good and bad: what they are answered must hold nothing of others."""
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
        for raw in (body, body[:-1], b'{"model": "m"}', b"[]"):
            self.answers.append(self.ask("chat/completions", raw, key=FLOOR_KEY))
        for path in ("/metrics", "/live", "/ready", "/v1/models", "/v1/none", "/admin/policy"):
            self.answers.append(self.ask(path, b"", method="GET"))

    def script(self, *behaviours: Behaviour, at: Sequence[str] = ("home",)) -> None:
        for name in at:
            self.fakes[name].script(*behaviours)

    def forget_script(self) -> None:
        for fake in self.fakes.values():
            fake._script.clear()

    def close(self) -> None:
        """Ends the gateway in good order: what it still has to write it writes."""
        if self._client is not None:
            self._client.close()
        self.server.stop()

    # What left.

    @property
    def home_bytes(self) -> int:
        return sum(self.fakes[name]._recording.size for name in ("home", "spare"))

    def news_outside(self) -> bytes:
        """What came to those outside since this was last asked."""
        news = b""
        for name in OUTSIDE:
            data = b"\n".join(self.fakes[name].received)
            news += data[self._marks[name] :] if len(data) > self._marks[name] else b""
            self._marks[name] = len(data)
        return news

    def outside(self) -> bytes:
        """Every byte that came to those outside."""
        for name in OUTSIDE:
            assert self.fakes[name]._recording.missing == 0
        return b"\n".join(record for name in OUTSIDE for record in self.fakes[name].received)

    def written(self) -> dict[str, bytes]:
        """Every byte that the gateway wrote, by where, and what it answered to others."""
        found = {}
        found["spool"] = self._spool
        for path in {*self.folder.rglob("*"), *map(Path, WATCH.files)}:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # the spool's come and go
                found[str(path)] = path.read_bytes()
        found["log"] = "\n".join(self.log.lines).encode("utf-8", "replace")
        found["traces"] = bytes(self.collector.received)
        found["answers to others"] = b"\n".join(
            b"%d %b\n%b" % (a.status, json.dumps(a.headers).encode(), a.body) for a in self.answers
        )
        return found

    def keep_spool(self) -> None:
        """What the spool holds now: an orderly end leaves none."""
        for path in (self.folder / "var" / "spool").rglob("*.log"):
            with contextlib.suppress(FileNotFoundError):  # the ledger removes them as it goes
                self._spool += path.read_bytes()

    def strangers(self) -> set[Any]:
        """Addresses that the gateway connected to, or names that it looked up, though nothing says so."""
        return (WATCH.addresses - WATCH.known) | (WATCH.names - {"127.0.0.1", "localhost", None})

    # The verdict.

    def assert_stayed(self, canary: Canary, answer: Answer) -> None:
        """Nothing of this request went outside; it arrived at home, or was refused before any backend."""
        news = self.news_outside()
        assert not news, f"{len(news)} bytes of a request with {canary.kind} went outside"
        if answer.status == 200:
            assert answer.headers["x-headgate-privacy-class"] in ("confidential", "restricted"), canary.kind
            assert answer.headers["x-headgate-backend"] in ("home", "spare")
        else:
            assert answer.status >= 400

    def assert_masked(self, canary: Canary) -> None:
        """What of this request went outside, if anything did, does not hold the canary in any form."""
        assert not held(self.news_outside(), [canary.text]), f"a {canary.kind} went outside unmasked"

    def assert_clean(self) -> None:
        """No canary is in anything that left the gateway or that it wrote; no unknown door was opened."""
        assert not self.strangers(), "connections past the door"
        assert not WATCH.programs, "programs were started"
        for where, data in {"outside": self.outside(), **self.written()}.items():
            found = held(data, self.canaries)
            assert not found, f"{len(found)} of {len(self.canaries)} canaries are in: {where}"


@contextmanager
def arena(
    folder: Path,
    *leaky: str,
    first_byte_s: float = 2,
    shipped: Sequence[Mapping[str, Any]] = SHIPPED,
    **fakes: Any,
) -> Iterator[Arena]:
    """A gateway whose policy has these leaky routes (its proof must be lifted first), and the view on it.

    `first_byte_s` is how long any backend may be silent; `fakes` are handed to `build_app`.
    """
    loop = LoopThread(asyncio.new_event_loop())
    providers = {
        name: FakeProvider(api_key=UPSTREAM_KEY if name in OUTSIDE else None)
        for name in ("home", "spare", *OUTSIDE)
    }
    collector = Collector()
    for part in (*providers.values(), collector):
        loop.run(part.start())
    WATCH.known |= {tuple(fake._address) for fake in providers.values()} | {collector.address}
    document = _configuration(providers, collector, first_byte_s)
    if TRANSLATED in leaky:
        document["backends"]["claude"] = _claude(providers["partner"])
    settings = load_settings(
        write_config(folder, document, policy(*leaky, shipped=shipped)), {"UPSTREAM_KEY": UPSTREAM_KEY}
    )
    app = build_app(settings, **fakes)
    patient = Limits(run=1 << 30, volume=1 << 30)  # a backend that was told to fail is asked again
    app.caller.breakers = Breakers(settings.backends, patient, random=random.random)
    server = Server(loop, app)
    found = Arena(app, server, loop, providers, collector, folder)
    try:
        with WATCH.running(), found.log.listening():
            try:
                yield found
                found.keep_spool()
            finally:
                found.close()
            found.assert_clean()  # by now the last span and the last row are out
    finally:
        for part in (*providers.values(), collector):
            loop.run(part.stop())
        loop.close()


def _configuration(
    fakes: Mapping[str, FakeProvider], collector: Collector, first_byte_s: float
) -> dict[str, Any]:
    document = configuration(fakes["rented"].url, fakes["home"].url)
    document["zones"]["partner"] = {"ceiling": "public"}
    backends = document["backends"]
    backends["spare"] = backends["home"] | {"url": f"{fakes['spare'].url}/v1"}
    backends["partner"] = backends["rented"] | {"url": f"{fakes['partner'].url}/v1", "zone": "partner"}
    for backend in backends.values():
        backend["first_byte_s"] = first_byte_s
    host, port = collector.address
    return document | {
        "listen": {"port": 0},  # where a process of its own serves this configuration
        "access_log": "access.jsonl",
        "telemetry": {"otlp": f"http://{host}:{port}", "sample": 1.0},
    }


def _claude(fake: FakeProvider) -> dict[str, Any]:
    """It speaks another protocol than the stand-in, which answers 404 and keeps the bytes."""
    return {
        "kind": "litellm",
        "zone": "cloud",
        "provider": "anthropic",
        "url": fake.url,
        "models": ["*"],
        "api_key_env": "UPSTREAM_KEY",
    }


def encoded(body: object) -> bytes:
    return msgspec.json.encode(body)


def refuses_connections() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
    return port

"""Ways out that only open when something happens: redirects, time limits, leavers, names, proxies, errors."""

import asyncio
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from adapters.replica import Replica
from gateway.backends.fake import FakeProvider
from gateway.backends.fake_calls import Behaviour
from tests.privacy.attack.arena import LEAKY, SHIPPED, TRANSLATED, WATCH, Arena, arena, encoded
from tests.privacy.attack.canaries import Canary, canary
from tests.privacy.attack.fields import chat, said
from tests.privacy.attack.locks import undecided, unproved
from tests.privacy.attack.traces import held
from tests.support.stack import KEY, UPSTREAM_KEY
from tests.support.waiting import until

CARD = "payment_card"


def ask(ring: Arena, hidden: Canary, tag: str, **more: Any) -> None:
    body = encoded(chat(said(hidden.text), **more))
    ring.assert_stayed(hidden, ring.attack("chat/completions", body, hidden, x_headgate_tags=tag))


class Raw:
    """A server that answers each request with the same bytes, and keeps what it was sent."""

    def __init__(self, answer: bytes = b"") -> None:
        self.answer, self.received = answer, bytearray()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.received += data
            writer.write(self.answer)
        writer.close()


@contextmanager
def home_that_answers(ring: Arena, answer: bytes) -> Iterator[Raw]:
    """Home's connections lead to a server that says `answer`."""
    server = Raw(answer)
    ring.loop.run(server.start())
    home = ring.app.caller._upstreams["home"].backend
    host, port = home._host, home._port
    home._door.allowed = home._door.allowed | {(host, server.port)}
    home._port = server.port
    home._pool.close()
    WATCH.known.add(("127.0.0.1", server.port))
    try:
        yield server
    finally:
        home._port = port
        ring.loop.run(server.stop())


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Arena]:
    with unproved(), arena(tmp_path, *LEAKY, first_byte_s=0.3) as found:
        yield found


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308])
def test_a_redirect_is_not_followed(ring: Arena, status: int) -> None:
    """Home sends the caller to a rented API: that is an error, and no route's fallback leads there either."""
    target = ring.fakes["rented"].url
    said_ = f"HTTP/1.1 {status} Go\r\nlocation: {target}/v1/chat/completions\r\ncontent-length: 0\r\n\r\n"
    with home_that_answers(ring, said_.encode()) as home:
        for tag in ("", "fallback", "retry-at-home"):
            ask(ring, canary(CARD, f"{status} {tag}"), tag)
        assert b"POST /v1/chat/completions" in home.received


@pytest.mark.parametrize("tag", ["", "fallback", "late-fallback", "retry-at-home", "hedge", "deadline"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_silent_home(ring: Arena, tag: str, stream: bool) -> None:
    """Home never answers: the time limits pass, and nobody else is asked in its place."""
    ring.script(Behaviour(hang=True, times=3))
    ask(ring, canary(CARD, f"{tag} {stream}"), tag, stream=stream)


@pytest.mark.parametrize("lock", [unproved, undecided])
def test_a_shadow(tmp_path: Path, lock: Callable[[], AbstractContextManager[None]]) -> None:
    """A public request is copied out, of a restricted one nothing: be it `decide` or the door that shuts."""
    with lock(), arena(tmp_path, "shadow") as ring:
        shadows = ring.app._dataplane._pipeline._shadows
        ring.ask("chat/completions", encoded(chat(said("hello"))), x_headgate_tags="shadow")
        ring.loop.run(until(lambda: bool(ring.news_outside()), 30))
        for stream in (False, True):
            hidden = canary(CARD, f"shadow {stream}")
            body = encoded(chat(said(hidden.text), stream=stream))
            answer = ring.attack("chat/completions", body, hidden, x_headgate_tags="shadow")
            ring.loop.run(until(lambda: not shadows._tasks, 30))
            ring.assert_stayed(hidden, answer)


def test_a_canary_of_a_group(ring: Arena) -> None:
    """All requests are drawn for it; a public one goes outside by its strategy, a restricted one stays."""
    ring.ask("chat/completions", encoded(chat(said("hello"))), x_headgate_tags="canary")
    assert ring.news_outside()
    for stream in (False, True):
        ask(ring, canary(CARD, f"canary {stream}"), "canary", stream=stream)


def test_a_client_that_leaves(ring: Arena) -> None:
    """While home is slow, and while it streams: the call ends there, and goes on nowhere else."""
    for number, how in enumerate((Behaviour(hang=True), Behaviour(chunk_delay=0.05))):
        hidden = canary(CARD, number)
        ring.canaries.append(hidden.text)
        ring.script(how)
        arrived = ring.home_bytes
        client = http.client.HTTPConnection(ring.server.url.removeprefix("http://"), timeout=30)
        head = {"authorization": f"Bearer {KEY}", "x-headgate-tags": "fallback"}
        client.request("POST", "/v1/chat/completions", encoded(chat(said(hidden.text), stream=True)), head)
        ring.loop.run(ring.fakes["home"].until(lambda: ring.home_bytes > arrived))  # noqa: B023
        client.close()
        ring.loop.run(ring.fakes["home"].until(lambda: ring.fakes["home"].abandoned > number))  # noqa: B023
    assert not ring.news_outside()


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
def test_an_error_that_quotes_the_request(ring: Arena, status: int) -> None:
    """What home says goes to who asked, and is not written: not in the log, not in the ledger."""
    hidden = canary(CARD, status)
    quoting = {"message": f"cannot answer {hidden.text}", "code": hidden.text, "type": hidden.text}
    ring.script(Behaviour(status=status, error=quoting, times=3))
    ask(ring, hidden, "fallback")
    ring.bystand()


def test_a_stream_that_quotes_the_request(ring: Arena) -> None:
    """The same in mid-stream, in an error and in an answer that breaks off."""
    for number, how in enumerate(({"fail_after": 1}, {"break_after": 1}, {"omit_done": True})):
        hidden = canary(CARD, f"stream {number}")
        ring.script(Behaviour(error={"message": hidden.text}, reply=hidden.text, **how))
        ask(ring, hidden, "fallback", stream=True)


def test_a_local_name_that_turns_public(ring: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    """Home's name comes to mean a public address after the start: no socket is opened there."""
    home = ring.app.caller._upstreams["home"].backend
    home._pool.close()

    async def resolve(*_: object, **__: object) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.9", 443)), *_public]

    _public = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))]
    monkeypatch.setattr(ring.loop._loop, "getaddrinfo", resolve)
    for tag in ("", "fallback"):
        ask(ring, canary(CARD, f"name {tag}"), tag)
    monkeypatch.undo()


@pytest.mark.parametrize("lifted", [unproved, undecided])
def test_through_litellm(lifted: Any, tmp_path: Path) -> None:
    """A backend that is reached through a library is no way out either; a public request does go there."""
    with lifted(), arena(tmp_path, TRANSLATED) as found:
        answer = found.ask("chat/completions", encoded(chat(said("hello"))), x_headgate_tags=TRANSLATED)
        assert answer.headers["x-headgate-backend"] == "home"  # after claude's 404
        assert b"POST /v1/messages" in found.news_outside()
        for number, stream in enumerate((False, True)):
            ask(found, canary(CARD, f"litellm {number}"), TRANSLATED, stream=stream, max_tokens=9)


def test_no_home_means_no_answer(tmp_path: Path) -> None:
    """A policy that is proved, and no place for what is restricted: refused clearly, and nothing is sent."""
    hidden = canary(CARD, "homeless")
    with arena(tmp_path, shipped=SHIPPED[1:]) as found:
        answer = found.attack("chat/completions", encoded(chat(said(hidden.text))), hidden)
        found.assert_stayed(hidden, answer)
        assert (answer.status, found.at_home) == (403, 0)
        assert b"privacy_no_permitted_backend" in answer.body
        assert found.app.ledger.flush(10)
        (row,) = found.app.ledger.store.last(9)
        assert (row.outcome, row.attempts, row.findings) == ("refused", 0, {CARD: 1})


async def test_probes_ask_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway asks its replicas, with their key, goes straight there, whatever proxies there are."""
    fake, proxy = FakeProvider(api_key="replica-key"), Raw()
    await fake.start()
    await proxy.start()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    replica = Replica("vllm", fake.url, api_key="replica-key")
    try:
        assert await replica.models()
    finally:
        await replica.aclose()
        await proxy.stop()
        await fake.stop()
    assert bytes(proxy.received) == b""


def serving(folder: Path, **environment: str) -> subprocess.Popen[str]:
    """`headgate serve` as a process, all that it says in one file."""
    command = [
        str(Path(sys.executable).parent / "headgate"),
        "serve",
        "--config",
        str(folder / "headgate.yaml"),
    ]
    surroundings = os.environ | {"UPSTREAM_KEY": UPSTREAM_KEY} | environment
    with (folder / "output").open("w") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=output, text=True, cwd=folder, env=surroundings
        )


def test_proxies_and_a_crash(tmp_path: Path) -> None:
    """As a process, told of proxies by every variable there is, and aborted in mid-request.

    The proxies hear nothing, not of a public request either; what the crash leaves behind holds no content.
    """
    with arena(tmp_path) as ring:  # for its stand-ins and its configuration alone
        proxy = Raw(b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n")
        ring.loop.run(proxy.start())
        url = f"http://127.0.0.1:{proxy.port}"
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
        process = serving(tmp_path, **dict.fromkeys(names, url), PYTHONFAULTHANDLER="1", NO_PROXY="")
        try:
            port = _port(tmp_path / "output", process)
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            head = {"authorization": f"Bearer {KEY}"}
            hidden, late = canary(CARD, "proxy"), canary(CARD, "crash")
            for text in ("hello", hidden.text):
                client.request("POST", "/v1/chat/completions", encoded(chat(said(text))), head)
                client.getresponse().read()
            ring.script(Behaviour(hang=True))
            before = ring.home_bytes
            client.request("POST", "/v1/chat/completions", encoded(chat(said(late.text))), head)
            ring.loop.run(ring.fakes["home"].until(lambda: ring.home_bytes > before))
            process.send_signal(6)  # SIGABRT: faulthandler prints every stack
            process.wait(30)
        finally:
            process.kill()
            process.wait(30)
            ring.loop.run(proxy.stop())
        assert b"hello" in ring.outside()
        assert ring.fakes["home"].saw(hidden.text.encode())
        assert bytes(proxy.received) == b""
        left = b"\n".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        assert b"Fatal Python error" in left
        assert held(left + ring.outside() + bytes(ring.collector.received), [hidden.text, late.text]) == []


def _port(output: Path, process: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + 60
    while "headgate on" not in (said_ := output.read_text()):
        assert process.poll() is None, said_
        assert time.monotonic() < deadline
        time.sleep(0.05)  # another process's output has no event to wait for
    return int(said_.partition("http://127.0.0.1:")[2].partition("/")[0])

"""The door out: no permit, no socket. Counted at a listening socket, not at a mock."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.errors import ConfigError, EgressRefused
from gateway.privacy import egress
from gateway.privacy.egress import (
    Door,
    GuardedTransport,
    Outgoing,
    Sealed,
    assert_local,
    check,
    digest_of,
)
from router_policies.privacy import DEFAULT_SCALE
from router_policies.types import ErrorClass, Permit, PrivacyClass, Zone

OUTSIDE = Zone(name="rented", ceiling=PrivacyClass.INTERNAL)
LOCAL = Zone(name="ours", ceiling=PrivacyClass.RESTRICTED, local=True)
PERMIT = Permit(
    id="c1.1",
    call_id="c1",
    backend="b",
    zone="rented",
    model="m",
    privacy=PrivacyClass.INTERNAL,
    policy="p@1",
)
CONTENT = b'{"messages":[{"role":"user","content":"hello"}]}'
SEALED = Sealed(permit=PERMIT, digest=digest_of(CONTENT), until=math.inf)


def sealed_with(**changes: Any) -> Sealed:
    return replace(SEALED, permit=replace(PERMIT, **changes))


BAD_PERMITS = {
    "none": None,
    "another call": sealed_with(call_id="c2"),
    "another backend": sealed_with(backend="b2"),
    "another zone": sealed_with(zone="ours"),
    "another model": sealed_with(model="m2"),
    "above the ceiling": sealed_with(privacy=PrivacyClass.CONFIDENTIAL),
    "expired": replace(SEALED, until=0.0),
}


class Server:
    """Answers every request with `answer` and counts the connections that it has accepted."""

    def __init__(self) -> None:
        self.accepted = 0
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def start(self) -> None:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.stop = server.close
        self.port: int = server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/"


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    server.stop()


@pytest.fixture
async def door(server: Server) -> Door:
    return Door(backend="b", zone=OUTSIDE, allowed=[("127.0.0.1", server.port)])


@pytest.fixture
async def client(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=GuardedTransport(door)) as client:
        yield client


# --- the permit -----------------------------------------------------------------------------------


def test_a_good_permit() -> None:
    """A permit for this call, backend, zone and model, at the zone's ceiling, opens the door."""
    check(SEALED, call_id="c1", backend="b", zone=OUTSIDE, model="m", now=1e9)


@pytest.mark.parametrize("permit", BAD_PERMITS)
def test_bad_permits(permit: str) -> None:
    """One mismatch is enough; the refusal is an error that no route falls back on by mistake."""
    with pytest.raises(EgressRefused) as refused:
        check(BAD_PERMITS[permit], call_id="c1", backend="b", zone=OUTSIDE, model="m", now=0.0)
    assert (refused.value.error_class, refused.value.code) == (ErrorClass.REFUSED, "privacy_egress_refused")


def test_a_local_zone_needs_none() -> None:
    """Our own machines are reached without a permit."""
    check(None, call_id="c1", backend="b", zone=LOCAL, model="m", now=0.0)


words = st.sampled_from(["a", "b", ""])
classes = st.sampled_from(DEFAULT_SCALE.classes)


permits = st.builds(
    Permit, id=words, call_id=words, backend=words, zone=words, model=words, privacy=classes, policy=words
)


@given(permits, classes, st.integers(0, 3), st.integers(0, 3))
def test_never_above_the_ceiling(permit: Permit, ceiling: PrivacyClass, until: int, now: int) -> None:
    """Any permit that passes is for this call, backend, zone and model, valid, and not above the ceiling."""
    sealed, zone = Sealed(permit=permit, digest="", until=until), Zone(name="a", ceiling=ceiling)
    try:
        check(sealed, call_id="a", backend="a", zone=zone, model="a", now=now)
    except EgressRefused:
        return
    assert (permit.call_id, permit.backend, permit.zone, permit.model) == ("a", "a", "a", "a")
    assert permit.privacy <= ceiling
    assert now < until


# --- the content ----------------------------------------------------------------------------------


def outgoing(content: bytes, until: float = math.inf) -> Outgoing:
    return Outgoing(
        endpoint="chat/completions",
        stream=False,
        content=content,
        until=until,
        privacy=PrivacyClass.PUBLIC,
    )


def test_what_was_sealed_is_released() -> None:
    """The content as it was classified, with the permit's model in it."""
    door = Door(backend="b", zone=OUTSIDE, allowed=[])
    body = door.release(outgoing(CONTENT).seal(PERMIT), "c1", "m", CONTENT)
    assert body == b'{"model":"m",' + CONTENT[1:]
    assert msgspec.json.decode(body) == {"model": "m", **msgspec.json.decode(CONTENT)}


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
def test_no_other_content_is_released(place: int, flip: int) -> None:
    """One bit anywhere that was not there when it was classified, and nothing leaves."""
    other = bytearray(CONTENT)
    other[place] ^= flip
    door = Door(backend="b", zone=OUTSIDE, allowed=[])
    with pytest.raises(EgressRefused, match="not what was classified"):
        door.release(outgoing(CONTENT).seal(PERMIT), "c1", "m", bytes(other))


def test_a_masked_content_has_a_seal_of_its_own() -> None:
    """What leaves masked is classified as it is; neither content leaves on the permit of the other."""
    masked = CONTENT.replace(b"hello", b"[[X]]")
    door = Door(backend="b", zone=OUTSIDE, allowed=[])
    door.release(outgoing(masked).seal(PERMIT), "c1", "m", masked)
    for sealed, content in ((outgoing(masked), CONTENT), (outgoing(CONTENT), masked)):
        with pytest.raises(EgressRefused):
            door.release(sealed.seal(PERMIT), "c1", "m", content)


def test_only_what_is_masked_down_to_the_permit_is_given_out() -> None:
    """Without a masked content, or with one above the permit's class, nothing leaves masked."""
    permit = replace(PERMIT, privacy=PrivacyClass.INTERNAL)

    def request(masked: Outgoing | None) -> Outgoing:
        return Outgoing(
            endpoint="chat/completions",
            stream=False,
            content=CONTENT,
            until=math.inf,
            privacy=PrivacyClass.RESTRICTED,
            masked=masked,
        )

    masked = outgoing(CONTENT.replace(b"hello", b"[[X]]"))
    assert request(masked).masked_for(permit) is masked
    masked.privacy = PrivacyClass.CONFIDENTIAL
    for wrong in (None, masked):
        with pytest.raises(EgressRefused):
            request(wrong).masked_for(permit)


def test_a_permit_expires() -> None:
    """At each attempt the door looks at its clock: a retry after the deadline stays inside."""
    now = 10.0
    door = Door(backend="b", zone=OUTSIDE, allowed=[], clock=lambda: now)
    sealed = outgoing(CONTENT, until=20.0).seal(PERMIT)
    assert door.release(sealed, "c1", "m", CONTENT)
    now = 20.0
    with pytest.raises(EgressRefused, match="expired"):
        door.release(sealed, "c1", "m", CONTENT)


def test_at_home_nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no permit is needed there is no digest either."""
    monkeypatch.setattr(egress.hashlib, "sha256", None)
    door = Door(backend="b", zone=LOCAL, allowed=[])
    sealed = outgoing(CONTENT).seal(None)
    assert sealed is None
    assert door.release(sealed, "c1", "m", CONTENT).startswith(b'{"model":"m",')


# --- sockets --------------------------------------------------------------------------------------


async def test_connect(door: Door, server: Server) -> None:
    """A configured host gets a socket, with the protocol that was asked for."""
    transport, protocol = await door.connect(asyncio.Protocol, "127.0.0.1", server.port)
    assert type(protocol) is asyncio.Protocol
    assert transport.get_extra_info("peername")[1] == server.port
    transport.close()


@pytest.mark.parametrize("zone", [OUTSIDE, LOCAL], ids=["outside", "local"])
async def test_connect_elsewhere(zone: Zone, server: Server) -> None:
    """Another host or port than the configured one is refused before a socket opens, in any zone."""
    door = Door(
        backend="b", zone=zone, allowed=[("127.0.0.1", server.port + 1), ("api.example", server.port)]
    )
    for host in ("127.0.0.1", "localhost", "127.1", "api.example.evil.example"):
        with pytest.raises(EgressRefused, match="backend b may reach"):
            await door.connect(asyncio.Protocol, host, server.port)
    assert server.accepted == 0


async def test_host_spelling(server: Server) -> None:
    """Case, a final dot and IPv6 brackets make no difference between a URL and the configuration."""
    door = Door(backend="b", zone=LOCAL, allowed=[("LocalHost.", server.port), ("[::1]", 1)])
    (await door.connect(asyncio.Protocol, "localhost", server.port))[0].close()
    door.check_host("::1", 1)


async def test_a_local_name_that_turns_public(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a local backend's name comes to mean a public address, none of them gets a socket."""
    found = [(2, 1, 6, "", (address, server.port)) for address in ("127.0.0.1", "8.8.8.8")]

    async def resolve(*_: object, **__: object) -> list[object]:
        return list(found)

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    door = Door(backend="b", zone=LOCAL, allowed=[("vllm", server.port)])
    with pytest.raises(EgressRefused, match="vllm has a public address"):
        await door.connect(asyncio.Protocol, "vllm", server.port)
    assert server.accepted == 0


async def test_a_refused_connection_is_an_os_error(server: Server) -> None:
    """What the network says stays what it is, also when a name has several addresses."""
    port = server.port
    server.stop()
    door = Door(backend="b", zone=LOCAL, allowed=[("localhost", port)])
    with pytest.raises(OSError, match="onnect"):
        await door.connect(asyncio.Protocol, "localhost", port)


# --- httpx ----------------------------------------------------------------------------------------


async def test_admitted(client: httpx.AsyncClient, door: Door, server: Server) -> None:
    """With a permit, requests pass, also from tasks begun within."""
    with door.admitted(SEALED, "c1", "m"):
        assert (await client.get(server.url)).text == "ok"
        assert (await asyncio.create_task(client.get(server.url))).text == "ok"
    assert server.accepted == 1  # the connection was kept alive


async def test_not_admitted(client: httpx.AsyncClient, server: Server) -> None:
    """Without a permit no socket opens."""
    with pytest.raises(EgressRefused):
        await client.get(server.url)
    assert server.accepted == 0


@pytest.mark.parametrize("permit", BAD_PERMITS)
async def test_not_admitted_with(permit: str, client: httpx.AsyncClient, door: Door, server: Server) -> None:
    """A permit for something else opens no socket and does not even get in."""
    with pytest.raises(EgressRefused), door.admitted(BAD_PERMITS[permit], "c1", "m"):
        await client.get(server.url)
    assert server.accepted == 0


async def test_another_backends_admission(client: httpx.AsyncClient, server: Server) -> None:
    """Being admitted at one door opens no other."""
    other = Door(backend="other", zone=OUTSIDE, allowed=[("127.0.0.1", server.port)])
    with other.admitted(sealed_with(backend="other"), "c1", "m"), pytest.raises(EgressRefused):
        await client.get(server.url)
    assert server.accepted == 0


async def test_a_live_connection_is_no_permit(client: httpx.AsyncClient, door: Door, server: Server) -> None:
    """Over a connection that is open already, the next request needs its permit all the same."""
    with door.admitted(SEALED, "c1", "m"):
        await client.get(server.url)
    with pytest.raises(EgressRefused):
        await client.get(server.url)
    assert server.accepted == 1


async def test_a_task_left_over(client: httpx.AsyncClient, door: Door, server: Server) -> None:
    """A task that outlives its call (a library's retry) has its permit no longer."""
    over = asyncio.Event()

    async def late() -> httpx.Response:
        await over.wait()
        return await client.get(server.url)

    with door.admitted(SEALED, "c1", "m"):
        task = asyncio.create_task(late())
    over.set()
    with pytest.raises(EgressRefused):
        await task
    assert server.accepted == 0


async def test_redirect(client: httpx.AsyncClient, door: Door, server: Server) -> None:
    """A redirect to a host that is not configured is not followed, and its name is not repeated."""
    other = Server()
    await other.start()
    server.answer = f"HTTP/1.1 307 x\r\nlocation: {other.url}\r\ncontent-length: 0\r\n\r\n".encode()
    with door.admitted(SEALED, "c1", "m"), pytest.raises(EgressRefused) as refused:
        await client.get(server.url, follow_redirects=True)
    other.stop()
    assert (server.accepted, other.accepted) == (1, 0)
    assert str(other.port) not in str(refused.value)


# --- local means local ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "10.1.2.3", "192.168.0.1", "::1", "fd00::1", "100.64.0.1", "::ffff:10.0.0.1"],
)
def test_local_hosts(host: str) -> None:
    """Loopback, private and overlay addresses may be called local."""
    assert_local("b", host)


@pytest.mark.parametrize("host", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8"])
def test_public_hosts(host: str) -> None:
    """A public address in a local zone is an error in the configuration."""
    with pytest.raises(ConfigError, match=r"its zone is local, but .* has the public address"):
        assert_local("b", host)


def test_a_name_that_means_nothing_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that is not up yet is no error at the start; it is looked at again with each socket."""

    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(egress.socket, "getaddrinfo", unknown)
    assert_local("b", "vllm")

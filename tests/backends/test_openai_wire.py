"""`gateway.backends.openai_wire` and `answer` against a server that misbehaves on a real socket."""

import asyncio
import datetime
import ipaddress
import math
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.backends.answer import begin
from gateway.backends.base import UpstreamRequest
from gateway.backends.http1 import Timeouts
from gateway.backends.openai_wire import MAX_ERROR_BODY, OpenAIWire
from gateway.errors import BackendError, EgressRefused, StreamBroken
from gateway.privacy.egress import Sealed, digest_of
from router_policies.types import ErrorClass, Permit, PrivacyClass, Zone
from tests.support.toxic import (
    STREAM_END,
    STREAM_HEAD,
    Peer,
    Toxic,
    answer,
    chunk,
    error,
    hangs_up_after,
    in_steps,
    replies,
    stalls_after,
    stream,
)
from tests.support.upstream import body_of
from tests.support.waiting import until

CLOUD = Zone(name="cloud", ceiling=PrivacyClass.INTERNAL)
HOME = Zone(name="home", ceiling=PrivacyClass.RESTRICTED, local=True)
CONTENT = b'{"messages":[]}'
PERMIT = Sealed(
    permit=Permit(
        id="call_1.1",
        call_id="call_1",
        backend="rented",
        zone="cloud",
        model="m",
        privacy=PrivacyClass.INTERNAL,
        policy="tests@1",
    ),
    digest=digest_of(CONTENT),
    until=math.inf,
)
REQUEST = UpstreamRequest(
    call_id="call_1",
    endpoint="chat/completions",
    model="m",
    content=CONTENT,
    stream=False,
    permit=PERMIT,
)
PATIENT = Timeouts(connect=20, first_byte=20, between_bytes=20)
HASTY = Timeouts(connect=20, first_byte=0.2, between_bytes=0.2)
EVENT = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
ERROR_EVENT = b'data: {"error": {"message": "no room", "type": "overloaded", "code": "busy"}}\n\n'

Wire = Callable[..., OpenAIWire]


@pytest.fixture
async def toxic() -> AsyncIterator[Toxic]:
    async with Toxic() as server:
        yield server


@pytest.fixture
async def wire(toxic: Toxic) -> AsyncIterator[Wire]:
    """Makes backends on `toxic`, and closes them."""
    made: list[OpenAIWire] = []

    def make(timeouts: Timeouts = PATIENT, **arguments: Any) -> OpenAIWire:
        url = arguments.pop("url", toxic.url)
        made.append(OpenAIWire("rented", CLOUD, url, timeouts=timeouts, **arguments))
        return made[-1]

    yield make
    for backend in made:
        await backend.aclose()


async def ask(backend: OpenAIWire, **changes: Any) -> bytes:
    """The whole body of an answer; its connection goes back to the pool."""
    response = await backend.send(msgspec.structs.replace(REQUEST, **changes))
    try:
        return await body_of(response)
    finally:
        await response.aclose()


async def failing(backend: OpenAIWire, **changes: Any) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await ask(backend, **changes)
    return caught.value


async def test_the_request_as_sent(wire: Wire, toxic: Toxic) -> None:
    """One request line, the host, our own key, the body and its length: nothing of the client's."""
    seen: list[bytes] = []

    async def play(peer: Peer) -> None:
        seen.append(await peer.request())
        peer.send(answer(b"{}"))
        await peer.gone()

    toxic.script(play)
    content = '{"messages":[{"role":"user","content":"é"}]}'.encode()
    sealed = msgspec.structs.replace(PERMIT, digest=digest_of(content))
    await ask(wire(api_key="sk-ours"), content=content, permit=sealed)
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert body == '{"model":"m","messages":[{"role":"user","content":"é"}]}'.encode()
    assert head.decode().split("\r\n") == [
        "POST /v1/chat/completions HTTP/1.1",
        f"host: 127.0.0.1:{toxic.port}",
        "content-type: application/json",
        "accept-encoding: identity",
        "user-agent: headgate",
        "authorization: Bearer sk-ours",
        "x-client-request-id: call_1",
        f"content-length: {len(body)}",
    ]


async def test_one_connection_serves_many_requests(wire: Wire, toxic: Toxic) -> None:
    """Whole answers and finished streams leave their connection for the next request."""
    toxic.script(replies(answer(b"1"), stream(EVENT, DONE), error(400), answer(b""), answer(b"5")))
    backend = wire()
    assert await ask(backend) == b"1"
    assert await ask(backend, stream=True) == EVENT + DONE
    assert (await failing(backend)).status == 400
    assert await ask(backend) == b""
    assert await ask(backend) == b"5"
    assert toxic.connections == 1


# A kept connection that turns out to be gone.


@pytest.mark.parametrize("reset", [False, True])
async def test_a_stale_connection_costs_one_retry(wire: Wire, toxic: Toxic, reset: bool) -> None:
    """The server closes a kept connection on our next request: it goes out again on a new one, unseen."""
    toxic.script(hangs_up_after(reset=reset, first=answer(b"1")), replies(answer(b"2")))
    backend = wire()
    assert await ask(backend) == b"1"
    assert await ask(backend) == b"2"
    assert toxic.connections == 2


async def test_no_second_retry(wire: Wire, toxic: Toxic) -> None:
    """A new connection that dies too is an error: a request is never sent a third time."""
    toxic.script(hangs_up_after(first=answer(b"1")), hangs_up_after())
    backend = wire()
    await ask(backend)
    assert (await failing(backend)).error_class is ErrorClass.CONNECTION
    assert toxic.connections == 2


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n"])
async def test_no_retry_once_bytes_have_come(wire: Wire, toxic: Toxic, said: bytes) -> None:
    """A server that began to answer has done the work: it is not asked to do it twice."""
    toxic.script(hangs_up_after(said, first=answer(b"1")))
    backend = wire()
    await ask(backend)
    assert (await failing(backend)).error_class is ErrorClass.CONNECTION
    assert toxic.connections == 1


async def test_no_retry_on_a_new_connection(wire: Wire, toxic: Toxic) -> None:
    """A new connection that closes without a word is the server's answer."""
    toxic.script(hangs_up_after())
    failure = await failing(wire())
    assert (failure.error_class, failure.status) == (ErrorClass.CONNECTION, 502)
    assert toxic.connections == 1


# Attempts that fail.


async def test_refused(wire: Wire) -> None:
    """Nobody listens: a connection error, 503."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and never listens
        failure = await failing(wire(url=f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
    assert (failure.error_class, failure.status) == (ErrorClass.CONNECTION, 503)


async def test_connect_timeout(wire: Wire) -> None:
    """A host that takes no connection, as behind a firewall that drops packets, is given up in time."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)  # Linux queues one connection, and answers no further one
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        backend = wire(
            Timeouts(connect=0.2, first_byte=20, between_bytes=20),
            url=f"http://127.0.0.1:{full.getsockname()[1]}/v1",
        )
        failure = await failing(backend)
    assert (failure.error_class, failure.status) == (ErrorClass.TIMEOUT, 504)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
async def test_first_byte_timeout(wire: Wire, toxic: Toxic, said: bytes) -> None:
    """A head that does not come in time is a timeout, and the server is told by a close."""
    toxic.script(stalls_after(said))
    failure = await failing(wire(HASTY))
    assert (failure.error_class, failure.status) == (ErrorClass.TIMEOUT, 504)
    await until(lambda: toxic.open == 0)


async def test_between_bytes_timeout(wire: Wire, toxic: Toxic) -> None:
    """A server that falls silent in mid-answer has broken off."""
    toxic.script(stalls_after(STREAM_HEAD + chunk(EVENT)))
    response = await wire(HASTY).send(REQUEST)
    assert await response.read() == EVENT
    with pytest.raises(StreamBroken, match="silent"):
        await response.read()
    await response.aclose()
    await until(lambda: toxic.open == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_body_may_take_as_long_as_the_head(wire: Wire, toxic: Toxic, stream: bool) -> None:
    """A model server sends the head at once and then thinks: `first_byte` is for that, too."""
    go = asyncio.Semaphore(0)
    toxic.script(in_steps(STREAM_HEAD, chunk(EVENT) + STREAM_END, go=go))
    response = await wire(Timeouts(first_byte=20, between_bytes=0.01)).send(REQUEST)
    beginning = asyncio.ensure_future(begin(response, stream=stream))
    done, _ = await asyncio.wait((beginning,), timeout=0.1)  # ten times as long as between two bytes
    assert not done
    go.release()
    assert (await beginning).first == EVENT
    go.release()
    await response.aclose()


@pytest.mark.parametrize(
    "said",
    [b"\x00\x01\x02\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"],
)
async def test_what_is_not_http(wire: Wire, toxic: Toxic, said: bytes) -> None:
    """Bytes that are no HTTP are the server's fault, and the connection is closed."""
    toxic.script(stalls_after(said))
    failure = await failing(wire())
    assert (failure.error_class, failure.status) == (ErrorClass.SERVER_ERROR, 502)
    await until(lambda: toxic.open == 0)


async def test_a_redirect_is_an_error(wire: Wire, toxic: Toxic) -> None:
    """Requests go to configured hosts only: a redirect is reported, not followed."""
    elsewhere = Toxic()
    await elsewhere.start()
    toxic.script(replies(answer(b"", 307, f"location: {elsewhere.url}/chat/completions")))
    failure = await failing(wire())
    assert failure.status == 502
    assert "307" in failure.message
    assert elsewhere.connections == 0
    await elsewhere.stop()
    elsewhere.check()


@pytest.mark.parametrize(
    ("status", "fields", "expected"),
    [
        (400, {}, ErrorClass.REFUSED),
        (400, {"code": "content_filter"}, ErrorClass.CONTENT_POLICY),
        (404, {"code": "model_not_found"}, ErrorClass.NOT_FOUND),
        (408, {}, ErrorClass.TIMEOUT),
        (429, {}, ErrorClass.RATE_LIMIT),
        (500, {}, ErrorClass.SERVER_ERROR),
        (503, {}, ErrorClass.SERVER_ERROR),
    ],
)
async def test_the_servers_own_errors(
    wire: Wire, toxic: Toxic, status: int, fields: dict[str, Any], expected: ErrorClass
) -> None:
    """Message, type, code, param and retry-after are the server's; the class is ours."""
    toxic.script(
        replies(error(status, "retry-after: Fri, 31 Dec 1999 23:59:59 GMT", param="model", **fields))
    )
    failure = await failing(wire())
    assert failure.error_class is expected
    assert failure.status == status
    assert (failure.message, failure.type, failure.param) == (f"said {status}", "test_error", "model")
    assert failure.code == fields.get("code")
    assert failure.retry_after == "Fri, 31 Dec 1999 23:59:59 GMT"


async def test_a_status_that_http_does_not_have(wire: Wire, toxic: Toxic) -> None:
    """A status of 600 and more, which no server can send on, becomes 502."""
    toxic.script(replies(error(799)))
    failure = await failing(wire())
    assert (failure.error_class, failure.status) == (ErrorClass.SERVER_ERROR, 502)


async def test_an_error_of_any_length(wire: Wire, toxic: Toxic) -> None:
    """Of a huge error page only the beginning is read, and the connection is given up with the rest."""
    toxic.script(
        stalls_after(b"HTTP/1.1 500 Oh\r\ncontent-length: 999999999\r\n\r\n" + b"x" * (MAX_ERROR_BODY + 1))
    )
    assert (await failing(wire())).status == 500
    await until(lambda: toxic.open == 0)


async def test_an_error_that_breaks_off(wire: Wire, toxic: Toxic) -> None:
    """When an error's body does not come, its status still counts."""
    toxic.script(hangs_up_after(error(429, "retry-after: 3")[:-4]))
    failure = await failing(wire())
    assert (failure.error_class, failure.status, failure.retry_after) == (ErrorClass.RATE_LIMIT, 429, "3")
    assert "429" in failure.message


# Permits.


def permit_with(**changes: Any) -> Sealed:
    permit = msgspec.structs.replace(PERMIT.permit, **changes)
    return msgspec.structs.replace(PERMIT, permit=permit)


FOREIGN = {
    "none": None,
    "another call's": permit_with(call_id="call_2"),
    "another backend's": permit_with(backend="other"),
    "another zone's": permit_with(zone="elsewhere"),
    "another model's": permit_with(model="larger"),
    "too high a class": permit_with(privacy=PrivacyClass.CONFIDENTIAL),
    "another content's": msgspec.structs.replace(PERMIT, digest=digest_of(b'{"messages":[1]}')),
    "expired": msgspec.structs.replace(PERMIT, until=0.0),
}


@pytest.mark.parametrize("permit", FOREIGN)
async def test_no_permit_no_socket(wire: Wire, toxic: Toxic, permit: str) -> None:
    """Without the right permit nothing opens; and over a connection that is open already, nothing goes."""
    backend = wire()
    assert isinstance(await failing(backend, permit=FOREIGN[permit]), EgressRefused)
    assert toxic.connections == 0
    toxic.script(replies(answer(b"1"), answer(b"2")))
    assert await ask(backend) == b"1"
    assert isinstance(await failing(backend, permit=FOREIGN[permit]), EgressRefused)
    assert await ask(backend) == b"2"  # the first bytes that the open connection has seen since


async def test_at_home_no_permit_is_needed(toxic: Toxic) -> None:
    """A backend in a local zone is reached without one."""
    toxic.script(replies(answer(b"1")))
    backend = OpenAIWire("own", HOME, toxic.url, timeouts=PATIENT)
    assert await ask(backend, permit=None) == b"1"
    await backend.aclose()


# Giving up.


async def test_a_cancelled_call_closes_its_connection(wire: Wire, toxic: Toxic) -> None:
    """Its answer, that comes too late, reaches nobody; the next request has a connection of its own."""
    asked, go = asyncio.Event(), asyncio.Event()

    async def late(peer: Peer) -> None:
        await peer.request()
        asked.set()
        await go.wait()
        peer.send(answer(b"for the one that left"))
        await peer.gone()

    toxic.script(late, replies(answer(b"mine")))
    backend = wire()
    calling = asyncio.ensure_future(ask(backend))
    await asked.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    go.set()
    assert await ask(backend) == b"mine"
    assert toxic.connections == 2
    await until(lambda: toxic.open == 1)  # the second one, kept


async def test_an_answer_given_up_is_cancelled_upstream(wire: Wire, toxic: Toxic) -> None:
    """Closing a stream before its end closes the connection; closing it twice does no harm."""
    toxic.script(stalls_after(STREAM_HEAD + chunk(EVENT)))
    response = await wire().send(REQUEST)
    assert await response.read() == EVENT
    await response.aclose()
    await response.aclose()
    await until(lambda: toxic.open == 0)
    assert await response.read() == b""


# What counts as the beginning of an answer.


@pytest.mark.parametrize(
    "pieces",
    [
        [ERROR_EVENT],
        [ERROR_EVENT[:9], ERROR_EVENT[9:]],
        [b": working on it\n\n", ERROR_EVENT],
        [b"event: error\n" + ERROR_EVENT],
        [ERROR_EVENT.replace(b"data: ", b"data:").replace(b"\n\n", b"\r\n\r\n")],
    ],
)
async def test_a_stream_that_begins_with_an_error_has_not_begun(
    wire: Wire, toxic: Toxic, pieces: list[bytes]
) -> None:
    """However TCP cuts it and whatever comment comes first: another candidate may still take over."""
    go = asyncio.Semaphore(100)
    toxic.script(in_steps(STREAM_HEAD, *map(chunk, pieces), go=go))
    response = await wire().send(REQUEST)
    with pytest.raises(BackendError) as caught:
        await begin(response, stream=True)
    assert (caught.value.message, caught.value.type, caught.value.code) == ("no room", "overloaded", "busy")
    await until(lambda: toxic.open == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_stalls_before_its_first_event(wire: Wire, toxic: Toxic, stream: bool) -> None:
    """The head alone is no answer: silence after it is a timeout, and another candidate may take over."""
    toxic.script(stalls_after(STREAM_HEAD + chunk(b": wait\n\n")))
    response = await wire(HASTY).send(REQUEST)
    with pytest.raises(BackendError) as caught:
        await begin(response, stream=stream)
    assert (caught.value.error_class, caught.value.status) == (ErrorClass.TIMEOUT, 504)
    await until(lambda: toxic.open == 0)


@pytest.mark.parametrize(
    "said", [stream(), stream(b": only a comment\n\n"), stream(b'{"object": "chat'), answer(b"{}")]
)
async def test_a_stream_without_an_event(wire: Wire, toxic: Toxic, said: bytes) -> None:
    """An answer that ends before its first event is none, whatever its status said."""
    toxic.script(replies(said))
    response = await wire().send(REQUEST)
    with pytest.raises(BackendError) as caught:
        await begin(response, stream=True)
    assert caught.value.error_class is ErrorClass.CONNECTION


async def test_a_whole_answer_has_a_limit(wire: Wire, toxic: Toxic, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer without end is given up; it cannot fill the memory."""
    monkeypatch.setattr("gateway.backends.answer.MAX_WHOLE", 10)
    toxic.script(stalls_after(b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n" + b"x" * 11))
    response = await wire().send(REQUEST)
    with pytest.raises(BackendError, match="over 10 bytes"):
        await begin(response, stream=False)
    await until(lambda: toxic.open == 0)


def _certificate(folder: Path, host: str) -> Path:
    """A certificate that vouches for itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "toxic")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "toxic.pem"
    plain = serialization.NoEncryption()
    path.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path


@pytest.mark.parametrize(
    ("host", "trusted", "reached"),
    [("127.0.0.1", True, True), ("127.0.0.1", False, False), ("127.0.0.2", True, False)],
    ids=["trusted", "unknown issuer", "another host's"],
)
async def test_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, trusted: bool, reached: bool
) -> None:
    """Over https a server is reached whose certificate we trust for its name; no other sees a byte."""
    certificate = _certificate(tmp_path, host)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    async with Toxic(context) as toxic:
        backend = OpenAIWire("rented", CLOUD, toxic.url, timeouts=PATIENT)
        if reached:
            toxic.script(replies(answer(b"1"), answer(b"2")))
            assert [await ask(backend), await ask(backend)] == [b"1", b"2"]
        else:
            failure = await failing(backend)
            assert (failure.error_class, failure.status) == (ErrorClass.CONNECTION, 503)
        await backend.aclose()

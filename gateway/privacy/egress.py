"""The one door out (invariant 1).

A backend outside the local zone is reached through its `Door` and in no other way: by our own HTTP
client, which sends the body that `Door.release` hands out and opens each socket with
`Door.connect`, or by httpx over a `GuardedTransport`. The permit is checked for each request and
not for each socket, because connections are kept alive and serve many requests.

`decide` has checked the class against the zone's ceiling before it minted the permit. The door
checks it again.

A permit opens the door for one content, the one that was classified, and for a while:

    Outgoing   the content, encoded once, right after it was classified; bytes do not change any more
    seal       puts its SHA-256 and the moment of expiry beside a permit that `decide` minted
    release    takes the SHA-256 of what is about to leave, and hands that out if it is the same

A content that differs from the client's (masked) is an Outgoing of its own, classified as it is. Of
what litellm makes of a content only the content itself is checked, before it gets it.
"""

import asyncio
import hashlib
import socket
import ssl as tls
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import msgspec

from gateway.errors import ConfigError, EgressRefused
from gateway.networks import is_local
from router_policies.types import Permit, PrivacyClass, Zone

P = TypeVar("P", bound=asyncio.BaseProtocol)

_DEFAULT_PORTS = {"http": 80, "https": 443}
_encode = msgspec.json.Encoder().encode


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A permit, for one content and for a while."""

    permit: Permit
    digest: str  # of the content, see digest_of
    until: float  # on the clock of time.monotonic
    content: bytes = b""  # that very object, where the sealing knows it: bytes do not change

    def is_for(self, content: bytes) -> bool:
        return content is self.content or digest_of(content) == self.digest


class Outgoing(msgspec.Struct, kw_only=True):
    """A request as it may leave."""

    endpoint: str
    stream: bool
    content: bytes  # a JSON object, not empty: all of the body but the model
    until: float  # when its permits expire, on the clock of time.monotonic
    privacy: PrivacyClass  # of the content
    masked: "Outgoing | None" = None  # the same request with placeholders, where there is such a one
    digest: str = ""  # of the content, once a permit needs it

    def masked_for(self, permit: Permit | None) -> "Outgoing":
        """What a candidate that gets it masked is sent. Raises EgressRefused.

        The permit comes from the policy, the class from the content itself: neither is taken on trust.
        """
        if self.masked is None:
            raise EgressRefused("this request may leave masked only, and it is not masked")
        if permit is not None and self.masked.privacy > permit.privacy:
            raise EgressRefused(f"masked it is still {self.masked.privacy.label}, above the permit's class")
        return self.masked

    def seal(self, permit: Permit | None) -> Sealed | None:
        """`permit` for this content. Where none is needed none is made, and nothing is computed."""
        if permit is None:
            return None
        self.digest = self.digest or digest_of(self.content)
        return Sealed(permit=permit, digest=self.digest, until=self.until, content=self.content)


def digest_of(content: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(content).hexdigest()


def check(sealed: Sealed | None, *, call_id: str, backend: str, zone: Zone, model: str, now: float) -> None:
    """Raises EgressRefused unless `zone` is local or `sealed` lets this call go to this model there now."""
    if zone.local:
        return
    if sealed is None:
        raise EgressRefused(f"backend {backend} in zone {zone.name} needs a permit")
    permit = sealed.permit
    if permit.call_id != call_id or permit.backend != backend or permit.zone != zone.name:
        raise EgressRefused(f"the permit is not for this call to backend {backend} in zone {zone.name}")
    if permit.model != model:
        raise EgressRefused(f"the permit for backend {backend} is for another model")
    if permit.privacy > zone.ceiling:
        raise EgressRefused(f"{permit.privacy.label} is above the ceiling of zone {zone.name}")
    if now >= sealed.until:
        raise EgressRefused(f"the permit for backend {backend} has expired")


class _Admission:
    """A call that may go out as long as `open`. Tasks left over from it hold this too, and find it shut."""

    def __init__(self, sealed: Sealed | None, call_id: str, model: str) -> None:
        self.sealed, self.call_id, self.model, self.open = sealed, call_id, model, True


_NOBODY = _Admission(None, "", "")
_admission: ContextVar[_Admission] = ContextVar("headgate_egress_admission", default=_NOBODY)


class Door:
    """The way to one backend: the hosts and ports that the configuration names, and no others."""

    def __init__(
        self,
        *,
        backend: str,
        zone: Zone,
        allowed: Iterable[tuple[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backend, self.zone, self._clock = backend, zone, clock
        self.allowed = frozenset((_plain(host), port) for host, port in allowed)

    def check(self, sealed: Sealed | None, call_id: str, model: str) -> None:
        """To be called for each request. Raises EgressRefused."""
        if not self.zone.local:
            now = self._clock()
            check(sealed, call_id=call_id, backend=self.backend, zone=self.zone, model=model, now=now)

    def release(self, sealed: Sealed | None, call_id: str, model: str, content: bytes) -> bytes:
        """The body that may leave: `content`, as it was sealed, with `model` in it. Raises EgressRefused."""
        if not self.zone.local:
            self.check(sealed, call_id, model)
            if sealed is None or not sealed.is_for(content):
                raise EgressRefused(f"what would leave to backend {self.backend} is not what was classified")
        return b'{"model":' + _encode(model) + b"," + content[1:]

    def check_host(self, host: str, port: int | None) -> None:
        """Raises EgressRefused unless the configuration names `host` and `port`."""
        if (_plain(host), port) not in self.allowed:
            # The host may come from a redirect, with content in its name: it is not repeated here.
            known = ", ".join(f"{name}:{number}" for name, number in sorted(self.allowed))
            raise EgressRefused(f"backend {self.backend} may reach {known} and nothing else")

    async def connect(
        self, protocol_factory: Callable[[], P], host: str, port: int, ssl: tls.SSLContext | None = None
    ) -> tuple[asyncio.Transport, P]:
        """A socket to a configured host. Raises EgressRefused before any is opened, OSError when none opens.

        In a local zone the names must mean our own network at this moment, whatever they meant at start.
        """
        self.check_host(host, port)
        addresses = await _local_addresses(self.backend, host, port) if self.zone.local else [host]
        loop = asyncio.get_running_loop()
        failures = []
        for address in addresses:
            try:
                return await loop.create_connection(
                    protocol_factory, address, port, ssl=ssl, server_hostname=host if ssl else None
                )
            except OSError as failure:
                failures.append(failure)
        raise failures[0]

    @contextmanager
    def admitted(self, sealed: Sealed | None, call_id: str, model: str) -> Iterator[None]:
        """Within it, and in tasks begun within it, a `GuardedTransport` sends what `sealed` allows."""
        self.check(sealed, call_id, model)
        admission = _Admission(sealed, call_id, model)
        token = _admission.set(admission)
        try:
            yield
        finally:
            admission.open = False
            _admission.reset(token)


class GuardedTransport(httpx.AsyncBaseTransport):
    """httpx through a door. Each request is checked, so that a redirect goes no further than configured."""

    def __init__(self, door: Door, inner: httpx.AsyncBaseTransport | None = None) -> None:
        self._door = door
        self._inner = inner or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        admission = _admission.get()
        self._door.check(admission.sealed if admission.open else None, admission.call_id, admission.model)
        url = request.url
        self._door.check_host(url.host, url.port or _DEFAULT_PORTS.get(url.scheme))
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def local_client(backend: str, zone: Zone, url: str) -> httpx.AsyncClient:
    """For what goes to a backend of ours beside clients' requests: it reaches `url`'s host, by no proxy.

    Where the zone is not local it reaches nothing.
    """
    parts = urlsplit(url)
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    door = Door(backend=backend, zone=zone, allowed=[(parts.hostname or "", port)])
    return httpx.AsyncClient(transport=GuardedTransport(door))


def assert_local(backend: str, host: str) -> None:
    """For the start: a backend in a local zone stands on our own network.

    Raises ConfigError when `host` has a public address. A name that means nothing yet may come up
    later: `Door.connect` looks again.
    """
    try:
        public = _public(_addresses(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)))
    except OSError:
        return
    if public:
        problem = f"its zone is local, but {host} has the public address {public[0]}"
        raise ConfigError(f"backends.{backend}", [problem])


async def _local_addresses(backend: str, host: str, port: int) -> list[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = _addresses(found)
    if _public(addresses):
        raise EgressRefused(f"backend {backend} is local, but {host} has a public address")
    return addresses


def _addresses(found: Iterable[tuple[object, ...]]) -> list[str]:
    """The addresses in what getaddrinfo returns, each once."""
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))  # type: ignore[index]


def _public(addresses: Iterable[str]) -> list[str]:
    return [address for address in addresses if not is_local(address)]


def _plain(host: str) -> str:
    """One spelling of a host name: lower case, no final dot, no brackets."""
    return host.lower().rstrip(".").strip("[]")

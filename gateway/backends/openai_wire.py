"""vLLM and every OpenAI-compatible API: bytes through, over our own connection pool.

The line: what speaks OpenAI's wire over HTTP/1.1 goes here; every other provider goes through `cloud.py`.
"""

import asyncio
import ssl
from collections.abc import Callable
from urllib.parse import urlsplit

from gateway.backends.base import Sink, UpstreamRequest
from gateway.backends.http1 import Connection, HttpError, NotHttp, Pool, Silent, Timeouts
from gateway.backends.wire import read_error
from gateway.errors import BackendError, StreamBroken
from gateway.privacy.egress import Door, assert_local
from router_policies.types import ErrorClass, Zone

Mend = Callable[[bytes], bytes]

MAX_ERROR_BODY = 64 * 1024  # bytes read of an error answer


class OpenAIWire:
    """One OpenAI-compatible origin. `url` includes the version: "https://api.openai.com/v1".

    `mend` makes OpenAI's of a whole answer where the server departs from its schema.
    Raises ConfigError when the zone is local and the host is not.
    """

    def __init__(
        self,
        name: str,
        zone: Zone,
        url: str,
        *,
        api_key: str = "",
        timeouts: Timeouts | None = None,
        mend: Mend | None = None,
    ) -> None:
        self.name, self.zone, self._mend = name, zone, mend
        self._timeouts = timeouts or Timeouts()
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        self._door = Door(backend=name, zone=zone, allowed=[(self._host, self._port)])
        if zone.local:
            assert_local(name, self._host)
        self._prefix = f"POST {parts.path.rstrip('/')}/"
        self._head = (
            f" HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
            "accept-encoding: identity\r\nuser-agent: headgate\r\n"
        )
        if api_key:
            self._head += f"authorization: Bearer {api_key}\r\n"
        self._pool = Pool(self._connect)

    async def send(self, request: UpstreamRequest) -> "WireResponse":
        body = self._door.release(request.permit, request.call_id, request.model, request.content)
        # The provider's own records can then be held against the ledger, call by call.
        marks = f"x-client-request-id: {request.call_id}\r\ncontent-length: {len(body)}\r\n\r\n"
        head = f"{self._prefix}{request.endpoint}{self._head}{marks}"
        try:
            connection = await self._exchange(head.encode("latin-1") + body)
        except (OSError, HttpError) as error:
            raise self._failed(error) from error
        response = WireResponse(connection, self._pool, self._mend)
        if connection.status >= 300:
            raise await _failure(response, connection)
        return response

    async def aclose(self) -> None:
        self._pool.close()

    async def _exchange(self, request: bytes) -> Connection:
        """Once more, on a new connection, when a kept one turns out to have been closed meanwhile."""
        kept = self._pool.idle()
        if kept is not None:
            try:
                return await self._ask(kept, request)
            except HttpError as error:
                if error.answered or isinstance(error, Silent):
                    raise
        return await self._ask(await self._pool.open(), request)

    async def _ask(self, connection: Connection, request: bytes) -> Connection:
        try:
            await connection.exchange(request)
        except BaseException:  # also cancelled: the answer to an abandoned exchange must reach nobody
            connection.abort()
            self._pool.release(connection)
            raise
        return connection

    def _failed(self, error: OSError | HttpError) -> BackendError:
        if isinstance(error, TimeoutError | Silent):
            return BackendError(ErrorClass.TIMEOUT, f"backend {self.name} did not answer in time", status=504)
        if isinstance(error, OSError):
            return BackendError(ErrorClass.CONNECTION, f"backend {self.name} cannot be reached", status=503)
        kind = ErrorClass.SERVER_ERROR if isinstance(error, NotHttp) else ErrorClass.CONNECTION
        return BackendError(kind, f"backend {self.name}: {error}")

    async def _connect(self) -> Connection:
        async with asyncio.timeout(self._timeouts.connect):
            _, connection = await self._door.connect(self._connection, self._host, self._port, self._tls)
            return connection

    def _connection(self) -> Connection:
        return Connection(self._timeouts)


class WireResponse:
    """An answer whose head has come; see `backends.base.UpstreamResponse`."""

    def __init__(self, connection: Connection, pool: Pool, mend: Mend | None) -> None:
        self.status = connection.status
        self.content_type = connection.header(b"content-type").decode("latin-1") or "application/json"
        self._connection: Connection | None = connection
        self._pool, self._mend = pool, mend

    async def read(self) -> bytes:
        if self._connection is None:
            return b""
        try:
            return await self._connection.read()
        except HttpError as error:
            raise _broken(error) from error

    async def read_all(self, limit: int) -> bytes:
        if self._connection is None:
            return b""
        try:
            body = await self._connection.read_all(limit)
        except HttpError as error:
            raise _broken(error) from error
        return body if self._mend is None else self._mend(body)

    async def pump(self, sink: Sink) -> None:
        if self._connection is None:
            return
        try:
            await self._connection.pump(sink)
        except HttpError as error:
            raise _broken(error) from error

    def pause(self) -> None:
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        if self._connection is not None:
            self._connection.resume()

    async def aclose(self) -> None:
        if self._connection is not None:
            self._pool.release(self._connection)  # which aborts it unless the answer is complete
            self._connection = None


def _broken(error: HttpError) -> StreamBroken:
    if isinstance(error, Silent):
        return StreamBroken("the backend fell silent", silent=True)
    return StreamBroken(str(error))


async def _failure(response: WireResponse, connection: Connection) -> BackendError:
    """The backend's own error. A redirect is one too: requests go to configured hosts only."""
    body = b""
    try:
        while chunk := await response.read():
            body += chunk
            if len(body) > MAX_ERROR_BODY:
                break
    except StreamBroken:
        body = b""  # the status line is all that can be trusted
    finally:
        await response.aclose()
    error = read_error(connection.status, body)
    return BackendError(
        error.error_class,
        error.message,
        status=connection.status if 400 <= connection.status < 600 else 502,
        type=error.type,
        code=error.code,
        param=error.param,
        retry_after=connection.header(b"retry-after").decode("latin-1") or None,
    )

"""An answer that has truly begun. Until then another candidate may still take over; from then on none may."""

from collections.abc import AsyncIterator

from gateway.backends.base import UpstreamResponse
from gateway.backends.dialect import as_openai
from gateway.backends.wire import MAX_EVENT, first_data, is_error, read_error
from gateway.errors import BackendError, StreamBroken
from router_policies.types import ErrorClass

MAX_WHOLE = 64 * 1024 * 1024  # bytes of an answer that is not a stream


class Answer:
    """`first` is the whole body, or a stream's first bytes; `rest` is what follows them."""

    def __init__(self, response: UpstreamResponse, first: bytes, rest: AsyncIterator[bytes]) -> None:
        self.status, self.content_type, self.first = response.status, response.content_type, first
        self._response, self._rest = response, rest

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.first
        async for chunk in self._rest:
            yield chunk

    async def aclose(self) -> None:
        await self._response.aclose()


async def begin(response: UpstreamResponse, *, stream: bool) -> Answer:
    """Waits for the first bytes of a stream, or for all of a whole answer. Raises BackendError."""
    chunks = response.chunks()
    try:
        first = await (_first_bytes(chunks) if stream else _whole(chunks))
    except StreamBroken as error:
        await response.aclose()
        if isinstance(error.__cause__, TimeoutError):
            raise BackendError(ErrorClass.TIMEOUT, f"no answer in time: {error}", status=504) from error
        raise BackendError(ErrorClass.CONNECTION, f"the answer broke off: {error}") from error
    except BaseException:  # also when cancelled: the call upstream must end with this one
        await response.aclose()
        raise
    return Answer(response, first, chunks)


async def _whole(chunks: AsyncIterator[bytes]) -> bytes:
    parts, size = [], 0
    async for chunk in chunks:
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_WHOLE:
            raise StreamBroken(f"it is over {MAX_WHOLE} bytes")
    return as_openai(b"".join(parts))


async def _first_bytes(chunks: AsyncIterator[bytes]) -> bytes:
    """Up to the first whole event with data: a stream that begins with an error has not begun."""
    first = b""
    while (data := first_data(first)) is None:
        chunk = await anext(chunks, b"")
        if not chunk:
            raise StreamBroken("it ended before its first event")
        first += chunk
        if len(first) > MAX_EVENT:
            raise StreamBroken(f"its first event is over {MAX_EVENT} bytes")
    if is_error(data):
        error = read_error(500, data)
        raise BackendError(error.error_class, error.message, type=error.type, code=error.code)
    return first

"""An answer that has truly begun. Until then another candidate may still take over; from then on none may."""

from gateway.backends.base import Sink, UpstreamResponse
from gateway.backends.wire import MAX_EVENT, first_data, is_error, read_error
from gateway.errors import BackendError, StreamBroken
from router_policies.types import ErrorClass

MAX_WHOLE = 64 * 1024 * 1024  # bytes of an answer that is not a stream


class Answer:
    """`first` is the whole body, or a stream's first bytes; `source` has what follows them."""

    def __init__(self, source: UpstreamResponse, first: bytes) -> None:
        self.status, self.content_type = source.status, source.content_type
        self.source, self.first = source, first

    async def pump(self, sink: Sink) -> None:
        """All of a stream into `sink` as it comes. Raises StreamBroken, and what `sink` raises."""
        sink(self.first)
        await self.source.pump(sink)

    async def aclose(self) -> None:
        await self.source.aclose()


async def begin(response: UpstreamResponse, *, stream: bool) -> Answer:
    """Waits for the first bytes of a stream, or for all of a whole answer. Raises BackendError."""
    try:
        if stream:
            return Answer(response, await _first_bytes(response))
        return Answer(response, await response.read_all(MAX_WHOLE))
    except StreamBroken as error:
        await response.aclose()
        if error.silent:
            raise BackendError(ErrorClass.TIMEOUT, f"no answer in time: {error}", status=504) from error
        raise BackendError(ErrorClass.CONNECTION, f"the answer broke off: {error}") from error
    except BaseException:  # also when cancelled: the call upstream must end with this one
        await response.aclose()
        raise


async def _first_bytes(response: UpstreamResponse) -> bytes:
    """Up to the first whole event with data: a stream that begins with an error has not begun."""
    first = b""
    while (data := first_data(first)) is None:
        chunk = await response.read()
        if not chunk:
            raise StreamBroken("it ended before its first event")
        first += chunk
        if len(first) > MAX_EVENT:
            raise StreamBroken(f"its first event is over {MAX_EVENT} bytes")
    if is_error(data):
        error = read_error(500, data)
        raise BackendError(error.error_class, error.message, type=error.type, code=error.code)
    return first

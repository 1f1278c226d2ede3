"""A backend's answer on its way to the client, and into the record of its request."""

import logging

from gateway.backends.answer import Answer
from gateway.backends.wire import meter_for
from gateway.calls import Begun
from gateway.errors import BackendError, StreamBroken, UpstreamFailed
from gateway.parsing import Request
from gateway.record import Attempt, Record
from gateway.replies import Reply

log = logging.getLogger("headgate.pipeline")


async def pass_answer(request: Request, begun: Begun, reply: Reply, record: Record) -> None:
    """Passes the answer on to its end. What goes wrong after the first byte is told, and not raised."""
    if request.stream:
        await _pass_stream(request, begun.attempt, begun.answer, reply, record)
    else:
        _pass_whole(begun.attempt, begun.answer, reply, record)


def _pass_whole(attempt: Attempt, answer: Answer, reply: Reply, record: Record) -> None:
    record.answered_whole(attempt, answer.status, answer.first)
    headers = {"content-type": answer.content_type} | record.headers()
    reply.whole(answer.status, headers, answer.first)
    record.completed()


async def _pass_stream(
    request: Request, attempt: Attempt, answer: Answer, reply: Reply, record: Record
) -> None:
    """A broken stream ends with an error event, never with an invented finish (invariant 4)."""
    meter = meter_for(request.endpoint, strip_usage=not request.wants_usage)

    def pass_on(chunk: bytes) -> None:
        events = meter.feed(chunk)
        if events:
            reply.write(events)

    record.answering(attempt, answer.status, meter)
    reply.start(answer.status, {"content-type": answer.content_type} | record.headers())
    reply.drawn_from(answer.source)
    try:
        await answer.pump(pass_on)
        if not (meter.done or meter.failed):
            raise StreamBroken(f"it ended without {meter.end_mark}")
    except StreamBroken as error:
        if not (meter.done or meter.failed):  # else the client has been told how it ended
            record.interrupted()
            reply.write(meter.broken(f"The backend broke off in mid-stream: {error}."))
            return
    finally:
        reply.drawn_from(None)
    if meter.failed:
        record.interrupted()
    else:
        record.completed()


def upstream_failed(error: BackendError, record: Record) -> UpstreamFailed:
    """What the last backend said, in its own words where it had any.

    But a 401 is about our key, not the client's, and may quote from it; and from the request, so it is not
    logged either.
    """
    headers = record.headers()
    if error.status == 401:
        backend = headers.get("x-headgate-backend", "")
        log.error("request %s: backend %s refused our credentials", record.call_id, backend)
        message = "The backend refused the gateway's own credentials; its operator has been told."
        return UpstreamFailed(message, code="backend_credentials_refused", headers=headers)
    if error.retry_after is not None:
        headers["retry-after"] = error.retry_after
    return UpstreamFailed(
        error.message,
        status=error.status,
        type=error.type,
        code=error.code if error.status < 500 else error.code or error.error_class.value,
        param=error.param,
        headers=headers,
    )

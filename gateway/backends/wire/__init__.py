"""What the gateway must know of OpenAI's wire while bytes pass: usage, the end, errors. It reads no more.

    usage     the tokens of a whole answer, and what it says where none are given
    errors    errors out of every envelope, and the one that ends a broken chat stream
    events    server-sent events: where one ends, what its data is
    meters    streams: events go on whole, what matters in them is noted

There are three wire forms. Chats and completions stream chunks and end with `data: [DONE]`; Responses streams
named events and ends with one that holds the whole response; embeddings do not stream.
"""

from gateway.backends.wire.errors import (
    CONTENT_POLICY_CODES,
    WireError,
    classify_status,
    error_event,
    is_error,
    read_error,
)
from gateway.backends.wire.events import DONE, MAX_EVENT, first_data
from gateway.backends.wire.meters import Meter, ResponsesMeter, StreamMeter, meter_for, stream_error
from gateway.backends.wire.usage import answer_id, answer_text, usage_of

__all__ = [
    "CONTENT_POLICY_CODES",
    "DONE",
    "MAX_EVENT",
    "Meter",
    "ResponsesMeter",
    "StreamMeter",
    "WireError",
    "answer_id",
    "answer_text",
    "classify_status",
    "error_event",
    "first_data",
    "is_error",
    "meter_for",
    "read_error",
    "stream_error",
    "usage_of",
]

"""The recogniser's process: `python -m gateway.privacy.recogniser.worker KIND MODEL`, a socket at its input.

First it says that it is ready, or why it never will be; then it answers one text after the other. A text
comes with the time until which it may take and is read in pieces, so that time running out is noticed. It
ends when the gateway does.
"""

import resource
import socket
import sys
import time
from collections.abc import Callable, Iterable

import msgspec

from gateway.privacy.recogniser.engines import PIECES, Unusable, load
from gateway.privacy.recogniser.frames import UNTIL, receive, send
from gateway.privacy.recogniser.spans import Answer, Span, merged, pieces

GROWTH = 1 << 30  # bytes of address space beyond what the model takes; more ends in a MemoryError


def main() -> None:
    kind, model = sys.argv[1:]
    channel = socket.socket(fileno=0)
    try:
        read = load(kind, model)
    except Unusable as problem:
        send(channel, msgspec.msgpack.encode(Answer(failure=str(problem))))
        return
    _limit_memory()
    send(channel, msgspec.msgpack.encode(Answer()))
    try:
        while True:
            send(channel, msgspec.msgpack.encode(answer(receive(channel), read, PIECES[kind])))
    except (EOFError, OSError):
        return  # the gateway is gone


def answer(request: bytes, read: Callable[[str], Iterable[Span]], size: int) -> Answer:
    """Never raises: what goes wrong is named by its type, for its message may hold content."""
    try:
        (until,) = UNTIL.unpack_from(request)
        text = request[UNTIL.size :].decode("utf-8", "surrogatepass")
        found: list[Span] = []
        for start, piece in pieces(text, size):
            if time.monotonic() > until:
                return Answer(failure="no time left")
            found += (
                Span(start + span.start, start + span.end, span.type, span.confidence) for span in read(piece)
            )
        return Answer(merged(found))
    except Exception as error:  # noqa: BLE001  # whatever a library raises, the caller must hear of it
        return Answer(failure=type(error).__name__)


def _limit_memory() -> None:
    """What is beyond ends in a MemoryError here, and not in the gateway's being killed."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + GROWTH
    resource.setrlimit(resource.RLIMIT_AS, (limit if most < 0 else min(limit, most), most))


if __name__ == "__main__":
    main()

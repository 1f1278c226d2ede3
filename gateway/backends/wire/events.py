"""Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html."""

MAX_EVENT = 4 * 1024 * 1024  # bytes of one event
DONE = b"data: [DONE]\n\n"


def split(events: bytes) -> list[bytes]:
    """Whole events, one by one, with the line end that OpenAI writes. What follows the last is left out."""
    return [event + b"\n\n" for event in events.replace(b"\r\n", b"\n").split(b"\n\n")[:-1]]


def data_of(event: bytes) -> bytes:
    """An event's data; empty where it has none. The space after `data:` is optional."""
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


def first_data(events: bytes) -> bytes | None:
    """The data of the first event that has any; None while it is not whole."""
    return next((data for event in split(events) if (data := data_of(event))), None)

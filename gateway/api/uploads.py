"""A form with a file in it (multipart/form-data, RFC 7578), written to disk as it comes in.

The file is never in memory as a whole, and nothing is written before its key was admitted.
"""

import asyncio
import re
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from finetune.dataset import MAXIMUM_FILE_BYTES
from finetune.jobs.files import Incoming
from gateway.errors import BadRequest, TooLarge

if TYPE_CHECKING:  # there alone the library has it
    from python_multipart.multipart import MultipartCallbacks

FILE_FIELD = "file"
MOST_FIELDS = 16
MOST_FIELD_BYTES = 4096
WRITE_BYTES = 256 * 1024  # are handed to the disk's thread at once
LONGEST_NAME = 255  # characters of a file's name that are kept
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Form:
    """What has come of a form so far: short fields as text, the file on disk."""

    def __init__(self, incoming: Incoming, largest: int) -> None:
        self.fields: dict[str, str] = {}
        self.filename: str | None = None  # None: no file has come
        self._incoming, self._largest = incoming, largest
        self._header, self._value = b"", b""
        self._disposition = b""
        self._name = ""
        self._field = bytearray()

    # Called by the parser.

    def on_part_begin(self) -> None:
        self._disposition, self._name, self._field = b"", "", bytearray()
        if len(self.fields) >= MOST_FIELDS:
            raise BadRequest(f"The form has more than {MOST_FIELDS} fields.", code="invalid_multipart")

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header, self._value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name == FILE_FIELD:
            if self.filename is not None:
                raise BadRequest("The form holds more than one file.", param=FILE_FIELD)
            self.filename = _clean(options.get(b"filename", b"").decode("utf-8", "replace"))

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD:
            self._incoming.write(data[start:end])
            if self._incoming.bytes > self._largest:
                most = f"{self._largest:,} bytes, the most that a file, and all of a team's, may have"
                raise TooLarge(f"The file is larger than {most}.", param=FILE_FIELD)
            return
        self._field += data[start:end]
        if len(self._field) > MOST_FIELD_BYTES:
            raise BadRequest(f"The field {self._name[:40]!r} is too long.", code="invalid_multipart")

    def on_part_end(self) -> None:
        if self._name != FILE_FIELD:
            self.fields[self._name] = self._field.decode("utf-8", "replace")


async def receive(
    content_type: str, body: AsyncIterable[bytes], incoming: Incoming, largest: int = MAXIMUM_FILE_BYTES
) -> Form:
    """Read a form to its end, its file into `incoming`. Raises BadRequest, TooLarge."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if kind != b"multipart/form-data" or not boundary:
        raise BadRequest(
            "The body must be multipart/form-data with a boundary, holding 'file' and 'purpose'.",
            code="invalid_multipart",
        )
    form, ended = Form(incoming, largest), asyncio.Event()
    callbacks: MultipartCallbacks = {
        "on_part_begin": form.on_part_begin,
        "on_header_field": form.on_header_field,
        "on_header_value": form.on_header_value,
        "on_header_end": form.on_header_end,
        "on_headers_finished": form.on_headers_finished,
        "on_part_data": form.on_part_data,
        "on_part_end": form.on_part_end,
        "on_end": ended.set,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        waiting = bytearray()
        async for chunk in body:
            waiting += chunk
            if len(waiting) >= WRITE_BYTES:
                await asyncio.to_thread(parser.write, bytes(waiting))
                waiting.clear()
        await asyncio.to_thread(parser.write, bytes(waiting))
    except ClientDisconnect:
        raise BadRequest("The upload broke off.", code="invalid_multipart") from None
    except FormParserError as error:
        raise BadRequest(f"The form cannot be read: {error}", code="invalid_multipart") from error
    if not ended.is_set():
        raise BadRequest("The form breaks off before its end.", code="invalid_multipart")
    return form


def _clean(name: str) -> str:
    """A file's name without folders and control characters."""
    return _CONTROL.sub("", re.split(r"[/\\]", name)[-1])[:LONGEST_NAME] or "upload"

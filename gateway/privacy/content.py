"""Everything in a decoded JSON request that a detector must read, and what no detector can.

All strings count: keys and values, at any depth, and numbers too, for a card number may come as a
JSON integer. In document order, so that a key ("ssn") stands before its value.

An identifier may be cut in two where one content part or message ends and the next begins. `turns`
are those texts in document order: whoever joins them without anything in between sees it whole.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

MAX_DEPTH = 128
MAX_CHARACTERS = 32 * 1024 * 1024

# Keys under which the texts of a conversation stand: chat and completions, Responses, embeddings.
_TURN_KEYS = frozenset({"content", "text", "input", "prompt"})
_MEDIA = ("image", "audio", "video", "file")
_ATTACHMENTS = frozenset(
    [*_MEDIA, *(f"input_{m}" for m in _MEDIA), *(f"{m}_url" for m in _MEDIA), "document"]
)
# Parts of a message that are nothing but strings. Whatever else comes cannot be read.
_READABLE = frozenset(
    {"text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "thinking"}
    | {"tool_use", "tool_result"}
)


class Unreadable(Exception):
    """The request cannot be read in full; the message says why and holds no content."""


class Content(msgspec.Struct, frozen=True):
    """What there is to read in a request."""

    strings: tuple[str, ...]
    turns: tuple[str, ...]
    attachments: bool  # are there parts whose content is no text, or lies elsewhere?


class _Node(msgspec.Struct, frozen=True):
    """A value in the request, and the key that it, or the list that it is an item of, stands under."""

    key: str
    value: Any
    depth: int
    item: bool = False


def read(body: object) -> Content:
    """Raises Unreadable: nested or large beyond the limits, token ids for text, or no JSON at all."""
    if isinstance(body, dict) and any(_has_token_ids(body.get(key)) for key in ("prompt", "input")):
        raise Unreadable("token ids in place of text")
    strings: list[str] = []
    turns: list[str] = []
    attachments, size = False, 0
    for node in _walk(body):
        attachments = attachments or _is_attachment(node)
        text = _text(node.value)
        if text is None:
            continue
        strings.append(text)
        size += len(text)
        if size > MAX_CHARACTERS:
            raise Unreadable(f"more than {MAX_CHARACTERS} characters")
        if node.key in _TURN_KEYS:
            turns.append(text)
    return Content(tuple(strings), tuple(turns), attachments)


def strings_of(body: object) -> Iterator[str]:
    """Every string and number in `body`, keys included. Raises Unreadable."""
    return (text for node in _walk(body) if (text := _text(node.value)) is not None)


def _has_token_ids(value: object) -> bool:
    """Whether `value` is a list of integers, or of such lists."""
    if not isinstance(value, list):
        return False
    return any(type(item) is int or (isinstance(item, list) and int in map(type, item)) for item in value)


def _walk(body: object) -> Iterator[_Node]:
    """All nodes in document order, keys as nodes of their own; never recursive."""
    stack = [_Node("", body, 0)]
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node.value, dict | list | tuple):
            if node.depth >= MAX_DEPTH:
                raise Unreadable(f"nested deeper than {MAX_DEPTH}")
            stack.extend(reversed(list(_children(node))))


def _children(node: _Node) -> Iterator[_Node]:
    depth = node.depth + 1
    if not isinstance(node.value, dict):
        for value in node.value:
            yield _Node(node.key, value, depth, True)
        return
    for key, value in node.value.items():
        if not isinstance(key, str):
            raise Unreadable("a key that is no string")
        yield _Node("", key, depth)
        yield _Node(key, value, depth)


def _text(value: object) -> str | None:
    """What there is to read in a leaf; None: a container, null, true or false."""
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool | dict | list | tuple):
        return None
    if not isinstance(value, int | float):
        raise Unreadable(f"a value of type {type(value).__name__}")
    try:
        return str(value)
    except ValueError:  # more digits than Python prints
        raise Unreadable("a number of thousands of digits") from None


def _is_attachment(node: _Node) -> bool:
    """An image, audio, video or file part, a content part of a kind that we do not know, a data: URL."""
    if isinstance(node.value, str):
        return node.value[:5].lower() == "data:" and node.value[5:10].lower() != "text/"
    kind = node.value.get("type") if isinstance(node.value, dict) else None
    if not isinstance(kind, str) or kind in _READABLE:
        return False
    return kind in _ATTACHMENTS or (node.item and node.key == "content")

"""A request with placeholders in place of what was found in it, and the class of what is left.

The class is what the detectors say of the very body that would be sent: whatever is no finding (floors, what
the client asks for, attachments) and whatever finding could not be masked counts for it as it did before.

A finding is masked where it lies within one JSON string. Where it does not, it stays, and its class with it:

    keys and numbers      a placeholder would be another key, or no number
    over an edge          of two content parts or messages: neither holds the value
    in base64 or %-codes  the value is not there as text
    the protocol's words  "type", "role" and the like, which say what the rest is, and names of functions
    arguments of tools    JSON in a string: where a placeholder would break it, or cut an escape in two
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import msgspec

from gateway.privacy.content import Content, Unreadable, read
from gateway.privacy.encoded import decode
from gateway.privacy.fold import fold
from gateway.privacy.placeholders import NoCodeLeft, Vault
from gateway.types import Classification, Place
from router_policies.types import PrivacyClass

Classify = Callable[[object], Awaitable[Classification]]

# A value gone, what follows may look like an identifier that it did not look like before.
_ROUNDS = 3
_PROTOCOL = frozenset({"model", "type", "role", "$ref"})


class Masked(msgspec.Struct, frozen=True, kw_only=True):
    """`body` is of class `privacy`; `vault` has what was taken out of it, one value at least."""

    body: dict[str, Any]
    privacy: PrivacyClass
    vault: Vault


class _Slot(NamedTuple):
    """A string that can hold placeholders."""

    text: str
    json: bool  # it is JSON itself


class _Span(NamedTuple):
    start: int
    end: int
    kind: str
    privacy: PrivacyClass


async def mask(
    body: dict[str, Any],
    found: Classification,
    classify: Classify,
    past: PrivacyClass = PrivacyClass.PUBLIC,
) -> Masked | None:
    """`body`, of which `classify` found `found`, with all placeholders that are possible; None: none is.

    `past` is the class of what went before, which no placeholder takes away.
    """
    try:
        content = read(body)
        vault = Vault("\n".join(content.strings))
        for _ in range(_ROUNDS):
            texts = dict(_masked_texts(body, content, found.places, vault))
            if not texts:
                break
            body = _with_texts(body, texts)
            content, found = read(body), await classify(body)
    except (Unreadable, NoCodeLeft):
        return None
    if not len(vault):
        return None
    return Masked(body=body, privacy=max(_left(content, found, vault), past), vault=vault)


def _left(content: Content, found: Classification, vault: Vault) -> PrivacyClass:
    """The class of a masked body. What is found inside a placeholder is our own, whatever it looks like."""
    if not found.places:
        return found.privacy
    privacy = found.least
    ours: dict[int, list[tuple[int, int]]] = {}
    for place, home in zip(found.places, content.locate(found.places), strict=True):
        if home is not None:
            number, start, end = home
            if number not in ours:
                ours[number] = list(_placeholders(content.strings[number], vault))
            if any(first <= start and end <= last for first, last in ours[number]):
                continue
        privacy = max(privacy, place.privacy)
    return privacy


def _masked_texts(
    body: dict[str, Any], content: Content, places: Sequence[Place], vault: Vault
) -> Iterator[tuple[int, str]]:
    """The strings that change: their number among all of them, and how they read with placeholders."""
    slots: list[_Slot | None] = []
    _find_slots((body,), "", slots)
    spans: dict[int, list[_Span]] = {}
    for place, home in zip(places, content.locate(places), strict=True):
        if home is not None and slots[home[0]] is not None:
            spans.setdefault(home[0], []).append(_Span(home[1], home[2], place.kind, place.privacy))
    for number, found in spans.items():
        slot = slots[number]
        if slot is not None and (text := _masked(slot, found, vault)) != slot.text:
            yield number, text


def _find_slots(container: Any, key: str, slots: list[_Slot | None]) -> None:
    """One for each string that `content.read` gives, in its order; None where nothing can be masked."""
    keyed = isinstance(container, dict)
    for name, value in container.items() if keyed else zip(repeat(key), container):
        if keyed:
            slots.append(None)
        if isinstance(value, dict | list):
            _find_slots(value, name, slots)
        elif isinstance(value, str):
            function = name == "name" and keyed and "role" not in container
            fixed = name in _PROTOCOL or function
            slots.append(None if fixed else _Slot(value, name == "arguments" and _is_json(value)))
        elif value is not None and value is not True and value is not False:
            slots.append(None)


def _with_texts(body: dict[str, Any], texts: Mapping[int, str]) -> dict[str, Any]:
    """A copy of `body` in which the strings of these numbers are others."""
    number = -1

    def copy(value: Any) -> Any:
        nonlocal number
        if isinstance(value, dict):
            copied = {}
            for key, item in value.items():
                number += 1
                copied[key] = copy(item)
            return copied
        if isinstance(value, list):
            return [copy(item) for item in value]
        if value is None or value is True or value is False:
            return value
        number += 1
        return texts.get(number, value)

    copied: dict[str, Any] = copy(body)
    return copied


def _masked(slot: _Slot, spans: Iterable[_Span], vault: Vault) -> str:
    """The text of `slot` with placeholders for all spans that can be masked."""
    parts: list[str] = []
    text, done = slot.text, 0
    ours = list(_placeholders(text, vault))
    for span in _apart(spans):
        if any(start < span.end and span.start < end for start, end in ours):
            continue
        value = _value(slot, span)
        if value is not None:
            parts += text[done : span.start], vault.placeholder(span.kind, value)
            done = span.end
    return "".join([*parts, text[done:]])


def _value(slot: _Slot, span: _Span) -> str | None:
    """What the placeholder for `span` stands for; None where there can be none."""
    text = slot.text[span.start : span.end]
    if slot.json:
        if not _is_json(f"{slot.text[: span.start]}[[X]]{slot.text[span.end :]}"):
            return None
        try:
            text = msgspec.json.decode(f'"{text}"', type=str)
        except msgspec.MsgspecError:
            return None
    return None if decode(fold(text).encode("ascii", "replace")) else text


def _apart(spans: Iterable[_Span]) -> list[_Span]:
    """`spans` in order, those that overlap made one, of the kind of the most sensitive, then the longest."""
    merged: list[_Span] = []
    for span in sorted(spans):
        if merged and span.start < merged[-1].end:
            last = merged.pop()
            kind = max((last, span), key=lambda s: (s.privacy, s.end - s.start)).kind
            span = _Span(last.start, max(last.end, span.end), kind, max(last.privacy, span.privacy))
        merged.append(span)
    return merged


def _placeholders(text: str, vault: Vault) -> Iterator[tuple[int, int]]:
    """Where placeholders of `vault` stand in `text`."""
    place = text.find("[[")
    while place >= 0:
        end = text.find("]]", place) + 2
        if end >= 2 and text[place:end] in vault:
            yield place, end
        place = text.find("[[", place + 1)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True

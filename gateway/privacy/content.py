"""Everything in a decoded JSON request that a detector must read, and what no detector can.

All strings count: keys and values, at any depth, and numbers too, for a card number may come as a
JSON integer. In document order, so that a key ("ssn") stands before its value.

An identifier may be cut in two where one content part or message ends and the next begins. `turns`
are those texts in document order: whoever joins them without anything in between sees it whole. `edges`
pairs an end with the beginning that follows it, and with the next one of the same role where others speak in
between.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, pairwise, repeat
from typing import Any, NamedTuple

import msgspec

from gateway.types import Place

MAX_DEPTH = 128
MAX_CHARACTERS = 32 * 1024 * 1024

# No pattern reaches across it, save from a word ("ssn") to the number after it, which is wanted:
# keys come before their values.
BETWEEN = "\n\n"

# Keys under which the texts of a conversation stand: chat and completions, Responses, embeddings.
_TURN_KEYS = frozenset({"content", "text", "input", "prompt", "output", "refusal"})
# Characters on either side of an edge, and on to the end of the word there: half of an identifier is not
# longer, and what is encoded is one word.
_EDGE = 128
_LONGEST = 2048
OTHER = "other"  # a part of a kind that we do not know, or that passes content on
_MEDIA = ("image", "audio", "video", "file")
ATTACHMENTS = (*_MEDIA, OTHER)
# A part's "type" -> what it is.
_ATTACHMENTS: Mapping[str, str] = {
    **{form.format(medium): medium for medium in _MEDIA for form in ("{}", "input_{}", "{}_url")},
    "document": "file",
    "computer_screenshot": "image",
    "image_generation_call": "image",
    "mcp": OTHER,  # no content, but worse: the provider passes on what it is told, to whom the request names
}
# Parts of a message that are nothing but strings. Whatever else comes cannot be read.
_READABLE = frozenset(
    {"text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal", "thinking"}
    | {"tool_use", "tool_result"}
)
_CONTAINERS = (dict, list, tuple)


class Unreadable(Exception):
    """The request cannot be read in full; the message says why and holds no content."""


class Content(msgspec.Struct, frozen=True):
    """What there is to read in a request."""

    strings: tuple[str, ...]
    turns: tuple[int, ...]  # which of the strings are texts of the conversation
    attachments: frozenset[str]  # of ATTACHMENTS: parts whose content is no text, or lies elsewhere
    edges: tuple[tuple[int, int], ...] = ()  # strings that an identifier may reach from and to

    def texts(self) -> tuple[str, ...]:
        """All strings; the conversation in one piece, where it comes in several; and the edges, if any."""
        everything = BETWEEN.join(self.strings)
        if len(self.turns) < 2:
            return (everything,)
        if not self.edges:
            return everything, self._conversation()
        return everything, self._conversation(), BETWEEN.join(self._edges())

    def pieces(self) -> str:
        """Each string once. Of substrings of this, joined by BETWEEN, all `texts()` can be made."""
        others = list(self.strings)
        for place in self.turns:
            others[place] = ""
        return BETWEEN.join((self._conversation(), *self._edges(), *others))

    def locate(self, places: Iterable[Place]) -> Iterator[tuple[int, int, int] | None]:
        """For each place in `texts()` the string that holds all of it, and where in that: [start, end).

        None for one that reaches over the end of a string.
        """
        between = len(BETWEEN)
        apart = list(accumulate((len(string) + between for string in self.strings), initial=0))
        joined = list(accumulate((len(self.strings[turn]) for turn in self.turns), initial=0))
        edges = list(accumulate((len(edge) + between for edge in self._edges()), initial=0))
        for place in places:
            starts = (apart, joined, edges)[place.text]
            number = bisect_right(starts, place.start) - 1
            start, end = place.start - starts[number], place.end - starts[number]
            if place.text == 2:
                before, after = self.edges[number]
                shift = _tail(self.strings[before])
                cut = len(self.strings[before]) - shift
                if start < cut < end:
                    yield None
                    continue
                string, shift = (before, shift) if end <= cut else (after, -cut)
                start, end = start + shift, end + shift
            else:
                string = self.turns[number] if place.text else number
            yield (string, start, end) if end <= len(self.strings[string]) else None

    def _conversation(self) -> str:
        return "".join([self.strings[place] for place in self.turns])

    def _edges(self) -> list[str]:
        pairs = ((self.strings[before], self.strings[after]) for before, after in self.edges)
        return [before[_tail(before) :] + after[: _head(after)] for before, after in pairs]


def read(body: object) -> Content:
    """Raises Unreadable: nested or large beyond the limits, token ids for text, or no JSON at all."""
    if isinstance(body, dict) and (_has_token_ids(body.get("prompt")) or _has_token_ids(body.get("input"))):
        raise Unreadable("token ids in place of text")
    found = _Found([], [], [], [])
    _walk((body,), "", -1, found)
    strings, turns = found.strings, found.turns
    if sum(map(len, strings)) > MAX_CHARACTERS:
        raise Unreadable(f"more than {MAX_CHARACTERS} characters")
    attachments = frozenset([*found.attachments, *_data_urls(strings)])
    edges = tuple(_edges(turns, found.speakers)) if len(turns) > 2 else ()  # two are the conversation
    return Content(tuple(strings), tuple(turns), attachments, edges)


def words_of(body: object, most: int = 4096) -> str:
    """The conversation in `body`, up to so many characters; nothing where it cannot be read."""
    try:
        content = read(body)
    except Unreadable:
        return ""
    return "\n".join(content.strings[place] for place in content.turns)[:most]


def strings_of(body: object) -> Iterator[str]:
    """Every string and number in `body`, keys included. Raises Unreadable."""
    found = _Found([], [], [], [])
    _walk((body,), "", -1, found)
    return iter(found.strings)


def _edges(turns: list[int], speakers: list[tuple[int, object]]) -> Iterator[tuple[int, int]]:
    """Turns that follow each other: any two, and those of one role, but for what others say in between.

    `speakers`: which turn is the first one of each message, and the message's role.
    """
    yield from pairwise(turns)
    last: dict[object, int] = {}  # role -> its last turn
    ends = [first for first, _ in speakers[1:]] + [len(turns)]
    for (first, role), end in zip(speakers, ends, strict=False):  # there may be no speakers
        if first == end or not isinstance(role, str):
            continue
        if role in last and last[role] + 1 != first:
            yield turns[last[role]], turns[first]
        last[role] = end - 1


def _tail(text: str) -> int:
    """Where the end of `text` begins that an identifier may reach over."""
    start, least = len(text) - _EDGE, len(text) - _LONGEST
    if start <= 0:
        return 0
    least = max(least, 0)
    return max(text.rfind(" ", least, start), text.rfind("\n", least, start), least - 1) + 1


def _head(text: str) -> int:
    """Where the beginning of `text` ends that an identifier may reach over."""
    blanks = (text.find(" ", _EDGE, _LONGEST), text.find("\n", _EDGE, _LONGEST))
    return min((blank for blank in blanks if blank >= 0), default=min(len(text), _LONGEST))


def _has_token_ids(value: object) -> bool:
    """Whether `value` is a list of integers, or of such lists."""
    if not isinstance(value, list):
        return False
    return any(type(item) is int or (isinstance(item, list) and int in map(type, item)) for item in value)


class _Found(NamedTuple):
    """What the walk has found, in document order."""

    strings: list[str]
    turns: list[int]
    speakers: list[tuple[int, object]]  # of each message the number of its first turn, and its role
    attachments: list[str]


def _walk(container: Any, key: str, depth: int, found: _Found) -> None:
    """Adds what is in `container`. `key` is what that stands under: that of its items, when it is a list.

    The recursion ends at MAX_DEPTH.
    """
    if depth >= MAX_DEPTH:
        raise Unreadable(f"nested deeper than {MAX_DEPTH}")
    strings, turns, _, attachments = found
    keyed = isinstance(container, dict)
    if keyed and "role" in container:
        found.speakers.append((len(turns), container["role"]))
    for name, value in container.items() if keyed else zip(repeat(key), container):
        if keyed:
            if not isinstance(name, str):
                raise Unreadable("a key that is no string")
            strings.append(name)
        if isinstance(value, _CONTAINERS):
            _walk(value, name, depth + 1, found)
            if medium := _attachment(value, not keyed and name == "content"):
                attachments.append(medium)
        elif value is not None and value is not True and value is not False:
            if name in _TURN_KEYS:
                turns.append(len(strings))
            strings.append(value if isinstance(value, str) else _number(value))


def _number(value: object) -> str:
    if not isinstance(value, int | float):
        raise Unreadable(f"a value of type {type(value).__name__}")
    try:
        return str(value)
    except ValueError:  # more digits than Python prints
        raise Unreadable("a number of thousands of digits") from None


def _attachment(value: Any, of_a_message: bool) -> str:
    """What an image, audio, video or file part is, or a content part that we do not know; else nothing."""
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind in _READABLE:
        return ""
    return _ATTACHMENTS.get(kind, OTHER if of_a_message else "")


def _data_urls(strings: list[str]) -> Iterator[str]:
    """What data: URLs hold, but for those of text."""
    for text in [text for text in strings if text[4:5] == ":"]:
        head = text[:11].lower()
        if head.startswith("data:") and not head.startswith("data:text/"):
            medium = head[5:10]
            yield medium if medium in _MEDIA else "file"

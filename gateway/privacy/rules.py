"""Rules that admins give: dictionaries of terms, and patterns of their own.

Both are read by RE2 over folded and decoded text, so no rule can make it backtrack. A rule that is
unsafe or over-broad is turned down with the reason before it reads any request.

The terms of a dictionary are one automaton: with 10,000 it reads 8 KiB in some 20 µs, a tenth of what
pyahocorasick takes, and within a memory limit.
"""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
import re2

from gateway.errors import ConfigError
from gateway.privacy.detect import Finding, layered, outermost
from gateway.privacy.encoded import ENCODED
from gateway.privacy.fold import fold
from gateway.privacy.ordinary import SENTENCES
from router_policies.privacy import DEFAULT_SCALE, PrivacyClass, Scale

MAX_TERMS = 50_000
MAX_TERM_CHARACTERS = 200
MAX_PATTERN_CHARACTERS = 2_000
_MAX_PROGRAM = 20_000  # instructions of one pattern
_PATTERN_MEMORY = 8 << 20  # bytes
_TERMS_MEMORY = 128 << 20  # bytes; only what texts make of it is used
# No match of a pattern is longer, in bytes. That keeps time linear: some patterns read on for as long as
# they may, once for each match.
LONGEST_MATCH = 1024
_BROAD = 0.1  # the share of ordinary sentences from which a pattern is over-broad

_NAME = re2.compile(r"[a-z][a-z0-9_]{0,39}")
_LEADING = re2.compile(
    r"(?:\(\?[a-zA-Z]+\)|\(\?[a-zA-Z]*:|\(|\^|\\b|\\A)*(?:\.|\[\^[^\]]{0,3}\]|\\[WDS])(?:[*+]|\{\d+,\})"
)
_SPACE = r"(?:[ \t]{1,3}|\r?\n[ \t]?)"  # a line break too, but never BETWEEN
_ENCODED = re2.compile(ENCODED)


_KEYS = {"privacy": "class"}


class Dictionary(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_KEYS):
    """Terms that are sensitive as such: names of projects, lists of customers."""

    name: str  # the kind of its findings
    privacy: PrivacyClass
    terms: tuple[str, ...]
    whole_words: bool = True
    fold_case: bool = True


class CustomPattern(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=_KEYS):
    """A pattern in RE2's syntax, with examples that prove what it means."""

    name: str
    privacy: PrivacyClass
    pattern: str
    matches: tuple[str, ...]  # in each of these it must find something
    leaves: tuple[str, ...] = ()  # and in these nothing


class Rules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that admins gave, at one instant."""

    dictionaries: tuple[Dictionary, ...] = ()
    patterns: tuple[CustomPattern, ...] = ()


class RuleDetector:
    """Finds what the rules say. `swap` takes effect for the scans that begin after it."""

    name = "rules"
    linear = True

    def __init__(self, rules: Rules) -> None:
        """Raises ConfigError naming each rule that is turned down, and why."""
        self._compiled = compile_rules(rules)

    def swap(self, rules: Rules) -> None:
        """Replaces all rules at once, or, raising ConfigError, none."""
        self._compiled = compile_rules(rules)

    def clears(self, pieces: str) -> bool:
        """No term anywhere, and nothing encoded. Patterns may match across anything: they promise nothing."""
        terms, patterns = self._compiled
        if patterns:
            return False
        raw = _utf8(fold(pieces))
        return not _ENCODED.search(raw) and not any(found.pattern.search(raw) for found in terms)

    def scan(self, text: str) -> tuple[Finding, ...]:
        """Findings in order. Never raises."""
        compiled = self._compiled

        def search(folded: str) -> tuple[list[Finding], bool]:
            raw = _utf8(folded)
            rules = chain[_Terms | _Pattern](*compiled)
            return [found for rule in rules for found in rule.findings(raw)], bool(_ENCODED.search(raw))

        return tuple(outermost(layered(text, search)))


class _Terms:
    """A dictionary's automaton. It knows no word boundaries: `clears` is asked about texts cut there."""

    def __init__(self, rule: Dictionary) -> None:
        self._rule = rule
        self._terms = frozenset(self._normal(fold(term)) for term in rule.terms)
        longest_first = sorted(self._terms, key=lambda term: (-len(term), term))
        spelled = (_SPACE.join(map(re2.escape, term.split())) for term in longest_first)
        case = "(?i)" if rule.fold_case else ""
        self.pattern = _compile(f"{case}(?:{'|'.join(spelled)})", _TERMS_MEMORY)

    def _normal(self, term: str) -> str:
        term = " ".join(term.split())
        return term.lower() if self._rule.fold_case else term

    def findings(self, raw: bytes) -> Iterator[Finding]:
        places, place = _Characters(raw), 0
        while match := self.pattern.search(raw, place):
            start, end = match.span()
            if self._rule.whole_words:
                end = self._word_end(raw, start, end)
            if end > start:
                yield Finding(places.of(start), places.of(end), self._rule.name, self._rule.privacy, 1.0)
            place = max(end, start + 1)

    def _word_end(self, raw: bytes, start: int, end: int) -> int:
        """Where the longest term at `start` ends that is whole words; `start`: none does."""
        if _in_word(raw, start):
            return start
        while end > start:
            if (
                not _in_word(raw, end)
                and self._normal(raw[start:end].decode("utf-8", "ignore")) in self._terms
            ):
                return end
            end = max(raw.rfind(b" ", start, end), raw.rfind(b"\n", start, end))
        return start


class _Pattern:
    def __init__(self, rule: CustomPattern) -> None:
        self._rule = rule
        self.pattern = _compile(rule.pattern, _PATTERN_MEMORY)

    def findings(self, raw: bytes) -> Iterator[Finding]:
        places, place = _Characters(raw), 0
        while place < len(raw):
            match = self.pattern.search(raw, place, min(len(raw), place + 2 * LONGEST_MATCH))
            if match is None or match.start() >= place + LONGEST_MATCH:
                place += LONGEST_MATCH
                continue
            start, end = match.span()
            if end > start:
                yield Finding(places.of(start), places.of(end), self._rule.name, self._rule.privacy, 0.8)
            place = max(end, start + 1)


class _Characters:
    """Places in UTF-8 as places in the text, asked for in ascending order."""

    def __init__(self, raw: bytes) -> None:
        self._raw, self._byte, self._character = raw, 0, 0
        self._ascii = raw.isascii()

    def of(self, byte: int) -> int:
        if self._ascii:
            return byte
        self._character += len(self._raw[self._byte : byte].decode("utf-8", "ignore"))
        self._byte = byte
        return self._character


_Compiled = tuple[tuple[_Terms, ...], tuple[_Pattern, ...]]


def compile_rules(rules: Rules) -> _Compiled:
    """Raises ConfigError naming each rule that is turned down, and why."""
    names = [d.name for d in rules.dictionaries] + [p.name for p in rules.patterns]
    problems = [
        f"{name}: two rules have this name" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    problems += [f"{rule.name}: {why}" for rule in rules.dictionaries for why in _wrong_dictionary(rule)]
    problems += [f"{rule.name}: {why}" for rule in rules.patterns for why in _wrong_pattern(rule)]
    if problems:
        raise ConfigError("privacy rules", problems)
    return tuple(map(_Terms, rules.dictionaries)), tuple(map(_Pattern, rules.patterns))


def _wrong_name(name: str) -> Iterator[str]:
    if not _NAME.fullmatch(name):
        yield "a name has up to 40 lower-case letters, digits and _, and begins with a letter"


def _wrong_dictionary(rule: Dictionary) -> Iterator[str]:
    yield from _wrong_name(rule.name)
    if not 1 <= len(rule.terms) <= MAX_TERMS:
        yield f"has {len(rule.terms)} terms; it must have 1 to {MAX_TERMS}"
    for number, term in enumerate(rule.terms, 1):
        if len("".join(fold(term).split())) < 2 or len(term) > MAX_TERM_CHARACTERS:
            yield f"term {number} has {len(term)} characters; 2 to {MAX_TERM_CHARACTERS} are possible"
            return


def _wrong_pattern(rule: CustomPattern) -> Iterator[str]:
    """Why the pattern cannot be used; several reasons where there are."""
    yield from _wrong_name(rule.name)
    if len(rule.pattern) > MAX_PATTERN_CHARACTERS:
        yield f"is too large: {len(rule.pattern)} characters, {MAX_PATTERN_CHARACTERS} are possible"
        return
    try:
        pattern = _compile(rule.pattern, _PATTERN_MEMORY)
    except re2.error as error:
        yield f"does not compile: {_message(error)}"
        return
    if pattern.programsize > _MAX_PROGRAM:
        yield f"is too large: {pattern.programsize} instructions, {_MAX_PROGRAM} are possible; count less"
    yield from _over_broad(rule.pattern, pattern)
    finds = _Pattern(rule).findings
    if not rule.matches:
        yield "has no example that must match"
    for number, example in enumerate(rule.matches, 1):
        if not any(finds(_utf8(fold(example)))):
            yield f"finds nothing in example {number} that must match"
    for number, example in enumerate(rule.leaves, 1):
        if any(finds(_utf8(fold(example)))):
            yield f"finds something in example {number} that must not match"


def _over_broad(source: str, pattern: Any) -> Iterator[str]:
    if pattern.search(b"") or any(match.start() == match.end() for match in pattern.finditer(b"a 1")):
        yield "is over-broad: it matches the empty string"
        return
    if _LEADING.match(source):
        yield "is over-broad: it begins with anything, repeated without bound; begin with what is certain"
    share = sum(pattern.search(sentence.encode()) is not None for sentence in SENTENCES) / len(SENTENCES)
    if share > _BROAD:
        yield f"is over-broad: it matches {share:.0%} of ordinary sentences; {_BROAD:.0%} are possible"


def _message(error: re2.error) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)


def _compile(pattern: str, memory: int) -> Any:
    options = re2.Options()
    options.max_mem = memory
    options.log_errors = False
    return re2.compile(pattern.encode(), options)


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _in_word(raw: bytes, place: int) -> bool:
    """Whether a word goes on at `place`; all beyond ASCII counts as letters."""
    return 0 < place < len(raw) and _letter(raw[place - 1]) and _letter(raw[place])


def _letter(byte: int) -> bool:
    return byte >= 128 or byte == 95 or chr(byte).isalnum()


def read_rules(data: object, scale: Scale = DEFAULT_SCALE) -> Rules:
    """Rules from decoded YAML or JSON: lists `dictionaries` and `patterns`, their `class` by its label.

    Raises ConfigError: another shape, an unknown key or class.
    """

    def class_of(_: type, label: object) -> PrivacyClass:
        return scale.parse(str(label))

    try:
        return msgspec.convert(data, Rules, dec_hook=class_of)
    except msgspec.ValidationError as error:
        raise ConfigError("privacy rules", [str(error)]) from None

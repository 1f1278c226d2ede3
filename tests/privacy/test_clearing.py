"""What is skipped for speed changes nothing: the plain search for every pattern is the judge."""

import asyncio
import base64
import csv
import gzip
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import re2
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.privacy.classify import Classifier
from gateway.privacy.content import BETWEEN
from gateway.privacy.detect import Clearing, Finding, StructuredDetector, _matched, _part
from gateway.privacy.fold import _FOLDS, fold
from gateway.privacy.patterns import GROUPS, SCANS, SIGNS, SURVEY
from gateway.privacy.patterns.contact import GROUPED_PHONES, PHONES
from gateway.privacy.patterns.identity import SHAPED
from gateway.privacy.patterns.named import NAMES
from gateway.privacy.patterns.shape import Alternative, Group, Scan
from gateway.privacy.survey import Survey
from gateway.types import Classification
from router_policies.privacy import PrivacyClass
from tests.privacy.test_detect import FOUND, WITH_A_WORD
from tests.privacy.test_detect_kinds import AFTER_A_WORD, NUMBERS, SECRETS

SHARED = Path(__file__).parents[3] / "shared"
DETECTOR = StructuredDetector()


class Plain(StructuredDetector):
    """Skips nothing."""

    def clears(self, pieces: str) -> bool:
        return False

    def _find(self, folded: str) -> tuple[list[Finding], bool]:
        raw = folded.encode("ascii", "replace")
        found: list[Finding] = []
        for scan, parted in SCANS:
            found += self._matches(replace(scan, first=None), _part(raw) if parted else raw)
        return found, True


PLAIN = Plain()


def plainly(text: str) -> tuple[Finding, ...]:
    """What the plain search finds above public."""
    return tuple(finding for finding in PLAIN.scan(text) if finding.privacy > PrivacyClass.PUBLIC)


def classify(body: object, detector: Any) -> Classification:
    return asyncio.run(
        Classifier([detector], inline_characters=1 << 20).classify(body, floor=PrivacyClass.PUBLIC)
    )


def chat(*contents: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content} for content in contents]}


# --- texts ----------------------------------------------------------------------------------------

IDENTIFIERS = [text for table in (FOUND, NUMBERS, SECRETS) for texts in table.values() for text in texts]
IDENTIFIERS += [*WITH_A_WORD.values(), *AFTER_A_WORD.values()]
JOINTS = [
    "",
    " ",
    "-",
    "_",
    "__",
    ".",
    "/",
    "\n",
    "\\n",
    "\\t",
    "\\",
    "\r\n",
    ":",
    ";",
    "=",
    "@",
    "%",
    "+",
    "x",
    "n",
]
JOINTS += ["é", "\u200b", "\u2014", "\uff3c", "\ud800"]
WORDS_BEFORE = [
    "ssn",
    "phone",
    "call me at ",
    "; password = ",
    "pwd=",
    "aws_secret_access_key",
    "NHS",
    "https://a:b",
]

ALTERNATIVES = [
    (g, scan, alternative) for g in GROUPS for scan in g.scans for alternative in scan.alternatives
]
ascii_text = st.characters(max_codepoint=127)


def written_as(alternative: Alternative) -> st.SearchStrategy[str]:
    """Texts in which `alternative` matches; most would not pass its check."""
    # Python takes flags only at the start of a pattern, and they are at the start of each alternative.
    pattern = re.compile(alternative.pattern.removeprefix(r"(?:\b|_|\\[nrt])"), re.ASCII)
    return st.from_regex(pattern, alphabet=ascii_text, fullmatch=True)


def written_otherwise(identifier: bytes, pairs: list[bytes]) -> bytes:
    """`identifier`, its first double blanks replaced by `pairs` and the rest of its blanks by "_"."""
    for pair in pairs:
        identifier = identifier.replace(b"  ", pair, 1)
    return identifier.replace(b" ", b"_") if pairs else identifier


DISGUISES = [
    str,
    quote,
    lambda text: text.replace(" ", "_"),
    lambda text: json.dumps({"text": text}),
    lambda text: "\u200b".join(text),
    lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    lambda text: base64.b64encode(text.encode("utf-8", "replace")).decode(),
    lambda text: base64.encodebytes(f"{'x' * 40} {text}".encode("utf-8", "replace")).decode(),
]


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Identifiers, or most of one, among what may part, join or disguise them."""
    pieces = st.sampled_from(IDENTIFIERS) | st.sampled_from(JOINTS) | st.sampled_from(WORDS_BEFORE)
    pieces |= st.text("0123456789 -._", max_size=6) | st.text(max_size=3)
    text = "".join(draw(st.lists(pieces, max_size=6)))
    first, last = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    if draw(st.booleans()):
        text = text[:first] + text[last:]
    try:
        return draw(st.sampled_from(DISGUISES))(text)
    except UnicodeEncodeError:  # half a surrogate pair cannot be percent-encoded
        return text


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Texts, cut anywhere, in the places where a client may put the parts."""
    parts: list[str] = []
    for text in draw(st.lists(texts(), min_size=1, max_size=3)):
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=2)))
        parts += [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    shape = draw(st.integers(0, 4))
    if shape == 0:
        return chat(*parts)
    if shape == 1:
        return chat([{"type": "text", "text": part} for part in parts])
    if shape == 2:
        return {"input": parts, "metadata": {"key": draw(texts())}}
    if shape == 3:
        return {"prompt": parts[0], "metadata": dict(zip(parts, reversed(parts), strict=True))}
    return {part: {"content": other} for part, other in zip(parts, reversed(parts), strict=True)}


# --- the same findings ----------------------------------------------------------------------------


@given(bodies())
@settings(max_examples=300, deadline=None)
@example(chat("\\", "nl91_ABNA_0417_1643_00"))
@example(chat("4111 1111\\", "n1111 1111"))
@example({"ssn": {"content": "123456780"}})
def test_a_request_has_the_class_of_the_plain_search(body: dict[str, Any]) -> None:
    """Whatever is in a request and wherever it is cut: class, counts and reason are the plain search's."""
    assert classify(body, DETECTOR) == classify(body, PLAIN)


@given(texts())
@settings(max_examples=300, deadline=None)
def test_a_text_has_the_findings_of_the_plain_search(text: str) -> None:
    """Places and confidences too."""
    assert DETECTOR.scan(text) == PLAIN.scan(text)


# Hundreds of words or shapes in one: the examples stand for these.
LARGE = (NAMES, SHAPED)
DRAWN = [row for row in ALTERNATIVES if row[1] not in LARGE]


@pytest.mark.parametrize(("group", "scan", "alternative"), DRAWN, ids=[min(row[2].kinds) for row in DRAWN])
@given(data=st.data())
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_identifier_holds_a_sign(
    group: Group, scan: Scan, alternative: Alternative, data: st.DataObject
) -> None:
    """Of each way to write each kind: identifier or word hold the group's sign, blanks written otherwise too.

    And `first`, where a scan has it, begins where the match does, and `hint` is in it.
    """
    raw = data.draw(written_as(alternative)).encode()
    raw = _part(raw) if group.parted else raw
    match = scan.pattern.search(raw)
    if match is None:  # Python's classes are a little wider than RE2's
        return
    assert scan.first is None or scan.first.match(raw, match.start())
    found, start, end = _matched(scan, match)
    if scan in (PHONES, GROUPED_PHONES) and not list(found.read(raw[start:end].decode())):
        return  # too short, and only the check says so
    assert re2.search(scan.hint, match.group())
    matched = raw[match.start() : end]
    if group.parted:
        pairs = data.draw(st.lists(st.sampled_from([b"  ", b"__", b"\\n", b"\\t", b"\\r"]), max_size=4))
        matched = written_otherwise(matched, pairs)
        assert _part(matched) == raw[match.start() : end]
    assert re2.search(group.sign, matched)
    assert SIGNS.search(matched)


@pytest.mark.parametrize("text", IDENTIFIERS)
def test_every_example_holds_a_sign(text: str) -> None:
    """Nothing of the tables is cleared, save what is public."""
    assert not plainly(text) or not DETECTOR.clears(text)
    assert DETECTOR.scan(text) == PLAIN.scan(text)


LETTERS = "abcdefghijklmnopqrstuvwxyz"
BARELY = [
    "xoxb-" + LETTERS[:10],
    "AKIA" + LETTERS[:16].upper(),
    "sk-" + LETTERS[:20],
    "ya29." + "a-" * 10,
    "AccountKey=" + "a+/b" * 5,
    "; pwd = abc",
    "PWD=abc;",
    "eyJabcdefgh.eyJabcdefgh",
    "-----BEGIN PRIVATE " + "KEY-----",
    "a@b.cc",
    "1.2.3.4",
    "abc::1",
    "QA53 QNBA AAAA AAAA AAAA AAAA AAAA A",
    "RCCMNLUPSMUDVSVO",  # all digits written as letters
    "131052-308T",
    "131052+308T",
    "131052A308T",
    "x1234567l",
    "12345678Z",
    "call me at 467  33  95",
    "call me at 467\\n33\\t95",
    "a%40b.cc",
    base64.b64encode(b"my mail: a@b.example").decode(),
]


@pytest.mark.parametrize("text", BARELY)
def test_what_barely_is_one_is_not_cleared(text: str) -> None:
    """Each kind of sign, where there is no other: removing any from the table lets one of these pass."""
    assert plainly(text) != ()
    assert not DETECTOR.clears(text)
    assert DETECTOR.scan(text) == PLAIN.scan(text)


@given(texts(), st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_cleared_has_no_findings_in_any_arrangement(text: str, data: st.DataObject) -> None:
    """The promise of `clears`, to the letter: substrings of what it clears, joined anyhow, hold nothing."""
    place = st.integers(0, len(text))
    cuts = data.draw(st.lists(st.tuples(place, place), max_size=5))
    arranged = BETWEEN.join(text[min(cut) : max(cut)] for cut in cuts)
    assert not DETECTOR.clears(text) or plainly(arranged) == ()


def public_texts() -> Iterator[str]:
    with gzip.open(SHARED / "data" / "privacy" / "presidio_synth.json.gz") as file:
        yield from (row["full_text"] for row in json.load(file))
    with gzip.open(SHARED / "data" / "finetune" / "banking77.csv.gz", "rt") as file:
        yield from (row["text"] for row in csv.DictReader(file))
    with gzip.open(SHARED / "data" / "finetune" / "clinc150_small.json.gz") as file:
        yield from (text for part in json.load(file).values() for text, _ in part)


@pytest.mark.skipif(not (SHARED / "data" / "privacy").is_dir(), reason=f"no {SHARED}")
def test_public_texts() -> None:
    """All of Presidio's documents, Banking77 and CLINC: the plain search's findings; and few take a scan."""
    doubtful = [text for text in public_texts() if not DETECTOR.clears(text)]
    assert all(DETECTOR.scan(text) == PLAIN.scan(text) for text in doubtful)
    assert not any(plainly(text) for text in public_texts() if DETECTOR.clears(text))
    assert len(doubtful) < 0.04 * 20_000


FOLDABLE = "\u2014\u2212\u200b\u0301\u00b4\u207b\uff0d\u2460\ufb01\u00bd\u0661\uff11\ufdfa\u1e9b\u0323\u212a"


# What some of these become holds others of them.
NESTED = "\u00b4\u0301\u00a8\u0308\u00af\u0304\u00b8\u0327\u02d8\u0306\u02d9\u0307\u207b\u2212"


@given(st.text("ab1 -é卡\ud800" + FOLDABLE) | st.text())
@example(NESTED)
def test_few_characters_fold_as_many_do(text: str) -> None:
    """One after the other or all at once, the text is the same; and parts fold as they do in the whole."""
    assert fold(text) == text.translate(_FOLDS)
    assert fold(text[:3]) + fold(text[3:]) == fold(text)


# --- what it is worth -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "You are a careful assistant. Answer precisely, and say so when you are not sure; it is 3 pm.",
        "Paragraph 271 says that the level in channel 12 follows the gate within 14 seconds (by 0.2 m).",
        "for index, (key, value) in enumerate(rows[1:]):\n    total[key] += value * 100  # in percent",
        "Müller fährt nach Köln – „gleich“, sagt er.",
    ],
)
def test_ordinary_text_is_cleared(text: str) -> None:
    """Prose with numbers, code and other languages: one glance is enough."""
    assert isinstance(DETECTOR, Clearing)
    assert DETECTOR.clears(text)


ALPHABETS = [
    "0123456789abcdef",
    "0123456789 .-()/+x",
    "abcXYZ019-_+/",
    "abcDEF012 -._@:/;=",
    "0af:.",
    "12 .x",
    "lmnpq12",
]
ALPHABETS += [
    "sk-ant proj_x1",
    "; password=pwd",
    "eyJa.",
    "GB82DE ",
    "call me at ",
    "".join(map(chr, range(32, 127))),
]


def broken_up(alphabet: str, pattern: Any, matches: int) -> bytes:
    """A text of that alphabet; where `pattern` matches it is cut, so that a search goes on to the end."""
    text = bytearray("".join(random.Random(7).choices(alphabet, k=8192)).encode())
    place = 0
    while matches and (match := pattern.search(bytes(text), place)):
        text[match.end() - 1] = 0
        place, matches = match.start(), matches - 1
    return bytes(text)


SEARCHED = [SIGNS, *(pattern for scan, _ in SCANS for pattern in (scan.pattern, scan.first) if pattern)]


@pytest.mark.parametrize("alphabet", ALPHABETS)
def test_no_text_drives_the_automata_out_of_their_memory(
    alphabet: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """RE2 says so on stderr when it has to fall back to its slower search, and says nothing here."""
    for pattern in SEARCHED:
        SURVEY.matching(broken_up(alphabet, pattern, 2000 if pattern is SIGNS else 200))
    assert "out of memory" not in capfd.readouterr().err


@pytest.mark.parametrize("memory", [1 << 14, 1 << 25])
def test_a_survey_names_what_matches(memory: int) -> None:
    """With hardly any memory too: its automaton begins anew and misses nothing."""
    chance = random.Random(1)
    text = "".join(chance.choices("ab", k=20_000)).encode()
    survey = Survey(["a[ab]{12}c", "b{3}", "a{3}b", "c"], memory)
    assert list(survey.matching(text)) == [1, 2]
    assert list(survey.matching(text + b"a" + b"b" * 12 + b"c")) == [0, 1, 2, 3]
    assert list(survey.matching(b"")) == []


# --- detectors that clear, but badly --------------------------------------------------------------


class Glancing:
    """Clears with what it is given, or raises it; what its scan is asked, it finds sensitive."""

    name = "glancing"

    def __init__(self, answer: Any, *, linear: bool = True) -> None:
        self.answer, self.linear = answer, linear
        self.scanned = 0

    def clears(self, pieces: str) -> bool:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]

    def scan(self, text: str) -> Sequence[Finding]:
        self.scanned += 1
        return [Finding(0, 1, "email", PrivacyClass.CONFIDENTIAL, 0.5)]


def test_what_is_cleared_is_not_scanned() -> None:
    """A detector's promise is taken, and the reason reads as after a scan that found nothing."""
    detector = Glancing(True)
    result = classify("text", detector)
    assert (result.privacy, result.reason) == (PrivacyClass.PUBLIC, "floor public; nothing found")
    assert detector.scanned == 0


@pytest.mark.parametrize("answer", [False, None, 1, "yes", ValueError("x"), MemoryError()], ids=repr)
def test_only_a_plain_yes_clears(answer: Any) -> None:
    """Anything else, or an error, promises nothing: the scan is asked."""
    assert classify("text", Glancing(answer)).privacy is PrivacyClass.CONFIDENTIAL


def test_who_may_be_slow_is_not_asked_on_the_event_loop() -> None:
    """Without the promise of linear time, and for texts too long for a glance, it is the scan that counts."""
    assert classify("text", Glancing(True, linear=False)).privacy is PrivacyClass.CONFIDENTIAL
    assert classify("x" * (9 << 20), Glancing(True)).privacy is PrivacyClass.CONFIDENTIAL
    assert classify("é" * (3 << 20), Glancing(True)).privacy is PrivacyClass.CONFIDENTIAL
    assert classify("x" * (3 << 20), Glancing(True)).privacy is PrivacyClass.PUBLIC

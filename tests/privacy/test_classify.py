"""The class of a request: never lower than anything said or found, and the highest when in doubt."""

import asyncio
import json
import math
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.privacy import content
from gateway.privacy.classify import Classifier, strings_of
from gateway.privacy.detect import Finding, StructuredDetector
from gateway.privacy.workers import Workers
from gateway.types import Classification
from router_policies.privacy import DEFAULT_SCALE, scale_of
from router_policies.types import PrivacyClass

PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED = DEFAULT_SCALE
SECRET = "sk-ant-" + "api03-" + "a1B2" * 10
CARD = "4111111111111111"


class Stub:
    """A detector that answers with what it was given, or raises it."""

    def __init__(self, answer: Any, *, linear: bool = True, name: str = "stub") -> None:
        self.answer, self.linear, self.name = answer, linear, name

    def scan(self, text: str) -> Sequence[Finding]:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


class Hanging:
    """A detector that hangs until it is let go, and says when it has begun."""

    name, linear = "hanging", False

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def scan(self, text: str) -> Sequence[Finding]:
        self.begun.set()
        self.let_go.wait()
        return ()


def finding(**changes: Any) -> Finding:
    values = {"start": 0, "end": 1, "kind": "email", "privacy": CONFIDENTIAL, "confidence": 0.5}
    return Finding(**{**values, **changes})


async def classify(
    body: object, *detectors: Any, floor: PrivacyClass = PUBLIC, **options: Any
) -> Classification:
    how = {name: options.pop(name) for name in ("asked", "may_lower") if name in options}
    return await Classifier(detectors, **options).classify(body, floor=floor, **how)


def chat(*contents: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": c} for c in contents]}


# --- what is read ---------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@st.composite
def bodies_with_a_canary(draw: st.DrawFn) -> Any:
    """JSON of any form that holds a secret, padded, somewhere: as a value or as a key."""
    body: Any = draw(st.text(max_size=8)) + " " + SECRET + " " + draw(st.text(max_size=8))
    for _ in range(draw(st.integers(0, 6))):
        other = draw(json_values)
        key = draw(st.text(max_size=8))
        body = draw(
            st.sampled_from(
                [
                    [other, body],
                    [body, other],
                    {"x": other, key: body},
                    {"y": other, "content": body},
                    {body if isinstance(body, str) else "z": body},
                ]
            )
        )
    return body


@given(bodies_with_a_canary())
def test_a_canary_is_found_anywhere(body: Any) -> None:
    """Whatever the form of the request and wherever in it a secret stands, the class is the highest."""
    result = asyncio.run(classify(body, StructuredDetector()))
    assert result.privacy is RESTRICTED
    assert SECRET not in repr(result)


@given(json_values)
def test_every_string_and_number_is_read_once(body: Any) -> None:
    """`strings_of` gives exactly the keys, strings and numbers, in document order."""

    def expected(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inner in value.items():
                yield from (key, *expected(inner))
        elif isinstance(value, list):
            for inner in value:
                yield from expected(inner)
        elif value is not None and not isinstance(value, bool):
            yield str(value)

    assert list(strings_of(body)) == list(expected(body))


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "name": CARD, "content": "hi"}]},
        {"tools": [{"function": {"parameters": {"properties": {"x": {"description": CARD}}}}}]},
        {"messages": [{"tool_calls": [{"function": {"arguments": json.dumps({"card": f"\n{CARD}"})}}]}]},
        {"metadata": {CARD: "x"}},
        {"user": CARD},
        {"input": ["a", CARD]},
        {"prompt": CARD},
        {"seed": int(CARD)},
        {"x": float(CARD)},
        {"social_security_number": 123456780},
        CARD,
    ],
)
async def test_every_field_is_read(body: object) -> None:
    """Names, schemas, tool arguments, metadata, users, inputs, numbers: nothing is taken for harmless."""
    assert (await classify(body, StructuredDetector())).privacy is RESTRICTED


@pytest.mark.parametrize("cut", range(1, len(CARD)))
async def test_cut_between_messages(cut: int) -> None:
    """An identifier cut in two between messages or between content parts is found all the same."""
    halves = CARD[:cut], CARD[cut:]
    parts = [{"type": "text", "text": half} for half in halves]
    for body in (chat(*halves), chat(parts), {"input": list(halves)}):
        result = await classify(body, StructuredDetector())
        assert result.privacy is RESTRICTED
        assert result.findings == {"payment_card": 1}


async def test_counts_each_finding_once() -> None:
    """Reading the conversation in one piece as well does not double the counts."""
    result = await classify(chat("a@b.example", "c@d.example and e@f.example"), StructuredDetector())
    assert result.findings == {"email": 3}
    assert (result.privacy, result.reason) == (CONFIDENTIAL, "found email")


async def test_nothing_found() -> None:
    """An ordinary request is public, and the reason says so."""
    result = await classify(chat("Good morning", "and good night"), StructuredDetector())
    assert result == Classification(privacy=PUBLIC, reason="floor public; nothing found")


# --- what cannot be read --------------------------------------------------------------------------

ATTACHMENTS = [
    {"type": "image_url", "image_url": {"url": "https://pictures.example/1.png"}},
    {"type": "text", "text": "data:application/pdf;base64,JVBERi0="},
    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    {"type": "file", "file": {"file_id": "file-1"}},
    {"type": "hologram", "hologram": {}},
]
PART_MEDIA = ["image", "file", "audio", "file", "other"]  # of each


@pytest.mark.parametrize("part", ATTACHMENTS)
async def test_attachments(part: object) -> None:
    """Parts that hold no text have the configured class, kinds that nobody has heard of too."""
    assert (await classify(chat([part]))).privacy is CONFIDENTIAL
    result = await classify(chat([part]), attachment_classes=dict.fromkeys(content.ATTACHMENTS, RESTRICTED))
    assert (result.privacy, result.reason) == (RESTRICTED, "attachments cannot be read")


@pytest.mark.parametrize(("part", "medium"), list(zip(ATTACHMENTS, PART_MEDIA, strict=True)))
async def test_attachments_by_medium(part: object, medium: str) -> None:
    """Each medium has a class of its own; of several the highest counts."""
    lowest = dict.fromkeys(content.ATTACHMENTS, PUBLIC)
    assert (await classify(chat([part]), attachment_classes=lowest)).privacy is PUBLIC
    one = {**lowest, medium: INTERNAL}
    assert (await classify(chat([part]), attachment_classes=one)).privacy is INTERNAL
    both = chat([part, {"type": "input_image"}])
    assert (await classify(both, attachment_classes={**one, "image": RESTRICTED})).privacy is RESTRICTED


@pytest.mark.parametrize(
    "more",
    [
        {"input": [{"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo"}]},
        {
            "input": [
                {"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "f"}}
            ]
        },
        {
            "input": "hello",
            "tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x.example"}],
        },
    ],
    ids=["image", "screenshot", "mcp"],
)
async def test_attachments_of_responses(more: dict[str, object]) -> None:
    """What no detector reads, and what the provider would pass on to others, has the configured class."""
    assert (await classify({"model": "m", **more})).privacy is CONFIDENTIAL


async def test_text_is_no_attachment() -> None:
    """Text parts, data: URLs of text, and tools with parameters called content, are read, not feared."""
    schema = {"type": "object", "properties": {"content": {"type": "string"}, "type": {"type": "string"}}}
    tools = [{"type": "function", "function": {"name": "write", "parameters": schema}}]
    body = chat([{"type": "text", "text": "data:text/plain,hello"}]) | {"tools": tools}
    assert (await classify(body)).privacy is PUBLIC


def nested(depth: int) -> object:
    body: object = "x"
    for _ in range(depth):
        body = [body]
    return body


@pytest.mark.parametrize(
    "body",
    [
        nested(100_000),
        {"messages": b"bytes"},
        {"x": {1, 2}},
        {"x": 10**5000},
        {"prompt": [1, 2, 3]},
        {"input": [[1, 2], [3]]},
        {("tuple",): "key"},
    ],
    ids=["deep", "bytes", "set", "huge number", "token ids", "lists of token ids", "key"],
)
async def test_unreadable(body: object) -> None:
    """What cannot be read in full has the highest class; however deep, it does not overflow the stack."""
    result = await classify(body, StructuredDetector())
    assert result.privacy is RESTRICTED
    assert result.reason.startswith("cannot be read: ")


async def test_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the size limit a request counts as unread."""
    monkeypatch.setattr(content, "MAX_CHARACTERS", 100)
    assert (await classify(chat("x" * 101))).reason == "cannot be read: more than 100 characters"


# --- the floor and the header ---------------------------------------------------------------------


@given(
    st.sampled_from(DEFAULT_SCALE.classes),
    st.none() | st.sampled_from(DEFAULT_SCALE.classes),
    st.sampled_from(DEFAULT_SCALE.classes),
)
def test_the_highest_wins(floor: PrivacyClass, asked: PrivacyClass | None, found: PrivacyClass) -> None:
    """Floor, header and findings raise the class; none of them lowers it. What is public is not counted."""
    labels = () if asked is None else (asked.label.title(),)
    detector = Stub([finding(privacy=found)])
    result = asyncio.run(classify("text", detector, floor=floor, asked=labels))
    assert result.privacy == max(floor, asked or PUBLIC, found)
    assert result.findings == ({"email": 1} if found > PUBLIC else {})


@pytest.mark.parametrize("label", ["", "secret", "3", "public,restricted"])
async def test_unknown_class(label: str) -> None:
    """A header that is no class is the client's mistake; the answer names the classes."""
    with pytest.raises(BadRequest, match="known are public, internal, confidential, restricted"):
        await classify("text", asked=(label,))


async def test_several_words_of_the_client() -> None:
    """The header and the metadata may both say something: the highest counts."""
    found = await classify("text", floor=INTERNAL, asked=("public", "confidential"))
    assert (found.privacy, found.reason) == (CONFIDENTIAL, "asked for confidential")


async def test_who_may_lower() -> None:
    """The client's word takes the floor's place where its key may lower; what is found is never lowered."""
    assert (await classify("text", floor=RESTRICTED, asked=("public",))).privacy == RESTRICTED
    lowered = await classify("text", floor=RESTRICTED, asked=("public",), may_lower=True)
    assert (lowered.privacy, lowered.reason) == (PUBLIC, "asked for public")
    detector = Stub([finding(privacy=CONFIDENTIAL)])
    found = await classify("text", detector, floor=RESTRICTED, asked=("public",), may_lower=True)
    assert found.privacy == CONFIDENTIAL
    assert (await classify("text", floor=RESTRICTED, may_lower=True)).privacy == RESTRICTED


async def test_another_scale() -> None:
    """Six classes: doubt has the highest, attachments what stands for confidential."""
    labels = ("open", "staff", "team", "client", "secret", "sealed")
    meanings = {"internal": "staff", "confidential": "client", "restricted": "secret"}
    scale = scale_of(labels, meanings)
    assert (await classify("text", floor=scale.lowest, scale=scale)).privacy.label == "open"
    failing = await classify("text", Stub(ValueError()), floor=scale.lowest, scale=scale)
    assert failing.privacy.label == "sealed"
    image = chat([{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}])
    assert (await classify(image, floor=scale.lowest, scale=scale)).privacy.label == "client"
    card = chat("4111 1111 1111 1111")
    structured = StructuredDetector(scale=scale)
    assert (await classify(card, structured, floor=scale.lowest, scale=scale)).privacy.label == "secret"


# --- detectors that fail --------------------------------------------------------------------------

SENTINEL = "do-not-repeat-me"
FAILURES = [
    ValueError(SENTINEL),
    MemoryError(SENTINEL),
    RecursionError(SENTINEL),
    OSError(SENTINEL),
    StopIteration(SENTINEL),
]


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("failure", FAILURES)
async def test_raising(failure: Exception, linear: bool) -> None:
    """Whatever a detector raises, inline or in a thread: restricted, with its name, without the message."""
    detector = Stub(failure, linear=linear)
    result = await classify("text", StructuredDetector(), detector)
    assert (result.privacy, result.reason) == (RESTRICTED, f"detector stub: raised {type(failure).__name__}")


async def test_ending_the_thread() -> None:
    """A detector that calls exit in its thread ends neither the thread nor the process."""
    classifier = Classifier([Stub(SystemExit(SENTINEL), linear=False)], workers=Workers(1))
    for _ in range(3):
        result = await classifier.classify("text", floor=PUBLIC)
        assert (result.privacy, result.reason) == (
            RESTRICTED,
            "detector stub: ended its thread with SystemExit",
        )


RUBBISH = {
    "None": None,
    "text": SENTINEL,
    "generator": (f for f in ()),
    "dict": {},
    "strings": [SENTINEL],
    "class out of range": [finding(privacy=PrivacyClass(7, "sealed"))],
    "class of another scale": [finding(privacy=PrivacyClass(2, "sealed"))],
    "class below": [finding(privacy=-1)],
    "class as number": [finding(privacy=0)],
    "no class": [finding(privacy=None)],
    "NaN": [finding(confidence=math.nan)],
    "confidence": [finding(confidence=2)],
    "outside": [finding(end=1000)],
    "empty": [finding(end=0)],
    "negative": [finding(start=-1)],
    "float": [finding(start=0.0)],
    "content for a kind": [finding(kind=f"{SENTINEL} {CARD}")],
    "long kind": [finding(kind="k" * 41)],
    "one of many": [finding(), finding(), finding(kind=None)],
}


@pytest.mark.parametrize("rubbish", RUBBISH)
async def test_rubbish(rubbish: str) -> None:
    """An answer that is no list of valid findings counts as no answer, and none of it is repeated."""
    result = await classify("text", Stub(RUBBISH[rubbish]))
    assert result.privacy is RESTRICTED
    assert result.reason.startswith("detector stub: returned ")
    assert SENTINEL not in repr(result)
    assert result.findings == {}


async def test_hanging() -> None:
    """A detector that hangs: restricted at the deadline, the event loop free in the meantime."""
    detector = Hanging()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    result = await classify("text", detector, StructuredDetector(), deadline_s=0.05)
    ticking.cancel()
    detector.let_go.set()
    assert (result.privacy, result.reason) == (RESTRICTED, "detector hanging: no answer within 0.05 s")
    assert ticks > 10


async def test_all_threads_stuck() -> None:
    """When every thread hangs, the answer is there at once; when one comes back, so does the detector."""
    hanging = Hanging()
    classifier = Classifier([hanging], deadline_s=0.05, workers=Workers(1))
    assert "no answer" in (await classifier.classify("text", floor=PUBLIC)).reason
    classifier._deadline_s = 60.0
    stuck = await classifier.classify("text", floor=PUBLIC)
    assert (stuck.privacy, stuck.reason) == (RESTRICTED, "detector hanging: all threads are stuck")
    hanging.let_go.set()
    while classifier._workers._stuck:  # noqa: ASYNC110  # the thread is about to end, and tells nobody else
        await asyncio.sleep(0)
    assert (await classifier.classify("text", floor=PUBLIC)).privacy is PUBLIC


async def test_a_client_that_goes_away_leaves_no_busy_thread_uncounted() -> None:
    """Cancelling a request while its detector hangs counts that thread as stuck."""
    hanging = Hanging()
    classifier = Classifier([hanging], deadline_s=60, workers=Workers(1))
    task = asyncio.create_task(classifier.classify("text", floor=PUBLIC))
    await asyncio.to_thread(hanging.begun.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "all threads are stuck" in (await classifier.classify("text", floor=PUBLIC)).reason
    hanging.let_go.set()


async def test_where_detectors_run() -> None:
    """On the event loop only with the promise of linear time and a short text; else in a thread."""
    threads: list[str] = []

    class Telling(Stub):
        def scan(self, text: str) -> Sequence[Finding]:
            threads.append(threading.current_thread().name)
            return ()

    here = threading.current_thread().name
    await classify("x" * 10, Telling(None), inline_characters=10)
    await classify("x" * 11, Telling(None), inline_characters=10)
    await classify("x" * 10, Telling(None, linear=False), inline_characters=10)
    assert threads == [here, "detector-1", "detector-1"]


def test_a_hanging_detector_does_not_keep_the_process() -> None:
    """The process ends while a detector still hangs in its thread."""
    program = """
        import asyncio, threading
        from gateway.privacy.classify import Classifier
        from router_policies.types import PrivacyClass

        class Hanging:
            name, linear = "hanging", False
            def scan(self, text):
                threading.Event().wait()

        classify = Classifier([Hanging()], deadline_s=0.05).classify
        print(asyncio.run(classify("text", floor=PrivacyClass.PUBLIC)).privacy.label)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "restricted\n"


async def test_classifying_is_fast() -> None:
    """A prompt of 8 KiB in well under 20 ms: a guard against blunders, not a benchmark."""
    classifier = Classifier([StructuredDetector()])
    body = chat("Please summarise the minutes of our 3 pm meeting. " * 160)
    await classifier.classify(body, floor=PUBLIC)
    started = time.perf_counter()
    for _ in range(5):
        await classifier.classify(body, floor=PUBLIC)
    assert time.perf_counter() - started < 0.1

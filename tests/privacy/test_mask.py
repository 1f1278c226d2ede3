"""Masking: what can be taken out of a request is, what cannot be keeps its class, and nothing is lost."""

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.privacy import placeholders
from gateway.privacy.classify import Classifier
from gateway.privacy.detect import Finding, StructuredDetector
from gateway.privacy.mask import Masked, mask
from gateway.privacy.patterns import CLASSES
from gateway.privacy.placeholders import Restorer, Vault, label_of
from gateway.types import Classification
from router_policies.privacy import DEFAULT_SCALE
from router_policies.types import PrivacyClass

PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED = DEFAULT_SCALE
CARD, EMAIL = "4111 1111 1111 1111", "jo@example.org"
STRUCTURED = StructuredDetector()
Body = dict[str, Any]


async def found_and_masked(
    body: Body, *detectors: Any, floor: PrivacyClass = PUBLIC, asked: Sequence[str] = ()
) -> tuple[Classification, Masked | None]:
    classify = partial(Classifier(detectors or [STRUCTURED]).classify, floor=floor, asked=asked)
    found = await classify(body)
    return found, await mask(body, found, classify)


async def masked(body: Body, *detectors: Any, **options: Any) -> Masked:
    _, made = await found_and_masked(body, *detectors, **options)
    assert made is not None
    return made


def chat(*contents: Any, **more: Any) -> Body:
    return {"model": "m", "messages": [{"role": "user", "content": c} for c in contents], **more}


def call(arguments: str) -> Body:
    function = {"name": "f", "arguments": arguments}
    return {"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": function}]}]}


class Words:
    """Finds every occurrence of its words, each as a kind of its own."""

    name, linear = "words", True

    def __init__(self, **words: str) -> None:
        self._words = words

    def scan(self, text: str) -> Sequence[Finding]:
        return [
            Finding(place, place + len(word), kind, RESTRICTED, 1.0)
            for kind, word in self._words.items()
            for place in range(len(text))
            if text.startswith(word, place)
        ]


# --- what is taken out ----------------------------------------------------------------------------

fillers = st.text(st.characters(codec="utf-8", exclude_characters="%"), max_size=12)
secrets = st.sampled_from([CARD, "4111-1111-1111-1111", EMAIL, "123-45-6789", "+49 151 23456789"])
texts = st.lists(fillers | secrets, max_size=4).map(" ".join)
json_values = st.recursive(
    texts | st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)
bodies = st.fixed_dictionaries({"model": st.just("m"), "messages": st.lists(json_values, max_size=4)})


def restored(value: Any, restorer: Restorer) -> Any:
    if isinstance(value, dict):
        return {key: restored(item, restorer) for key, item in value.items()}
    if isinstance(value, list):
        return [restored(item, restorer) for item in value]
    return restorer.whole(value, escaped=False) if isinstance(value, str) else value


@settings(max_examples=300, deadline=None)
@given(bodies)
def test_what_is_sent_is_of_the_class_that_is_said(body: Body) -> None:
    """Scanned from scratch, a masked body is of its class; and with its values it is the request again."""
    found, made = asyncio.run(found_and_masked(body))
    if made is None:
        return
    again = asyncio.run(Classifier([STRUCTURED]).classify(made.body, floor=PUBLIC))
    assert again.privacy == made.privacy <= found.privacy
    assert restored(made.body, Restorer(made.vault)) == body


@given(st.lists(texts, min_size=1, max_size=4))
def test_texts_are_masked_down_to_nothing(contents: list[str]) -> None:
    """In messages of their own all identifiers can be masked: what is left is public and has none."""
    body = chat(*(f"{content}\n\n" for content in contents))
    found, made = asyncio.run(found_and_masked(body))
    assert (made is None) == (not found.places)
    if made is not None:
        assert made.privacy is PUBLIC
        assert sum(made.vault.kinds().values()) == len(made.vault) > 0
        sent = json.dumps(made.body)
        assert not any(secret in sent for secret in (CARD, EMAIL, "123-45-6789"))


roles = st.sampled_from(["system", "user", "assistant"])
paddings = st.sampled_from(["", "and so on " * 15, "long" * 100])


@given(st.lists(st.tuples(roles, paddings, texts, paddings), min_size=3, max_size=7))
def test_a_conversation_is_masked_where_its_values_stand(said: list[tuple[str, str, str, str]]) -> None:
    """A value near the edge of a message is read twice, and masked in the message that holds it."""
    body = {
        "messages": [
            {"role": role, "content": f"{before}\n\n{text}\n\n{after}"} for role, before, text, after in said
        ]
    }
    found, made = asyncio.run(found_and_masked(body))
    assert (made is None) == (not found.places)
    if made is not None:
        assert made.privacy is PUBLIC
        assert restored(made.body, Restorer(made.vault)) == body


async def test_the_same_value_has_the_same_placeholder() -> None:
    """Across messages and fields; and another value has another."""
    made = await masked(chat(f"a {CARD} b", f"{CARD}, {EMAIL}", user=EMAIL))
    first, second = (message["content"] for message in made.body["messages"])
    card, email = first.split(" ")[1], made.body["user"]
    assert second == f"{card}, {email}"
    assert card != email
    assert made.vault.kinds() == {"payment_card": 1, "email": 1}


async def test_every_request_has_codes_of_its_own() -> None:
    """The same text twice: what one request's placeholder stands for another cannot tell."""
    one, two = await masked(chat(CARD)), await masked(chat(CARD))
    assert one.body != two.body
    sent = two.body["messages"][0]["content"]
    assert Restorer(one.vault).whole(sent, escaped=False) == sent


async def test_disguised_values_come_back_as_they_were() -> None:
    """Full-width digits and zero-width characters are masked, and restored to the letter."""
    text = "card 4111\u200b1111 1111 1111 ok"
    made = await masked(chat(text))
    assert made.body["messages"][0]["content"].endswith("]] ok")
    assert restored(made.body, Restorer(made.vault)) == chat(text)


async def test_overlapping_findings_are_one() -> None:
    """Two detectors, one inside or over the edge of the other: one placeholder covers both."""
    made = await masked(
        chat("the Blue Heron Project today"), Words(bird="Blue Heron", project="Heron Project")
    )
    content = made.body["messages"][0]["content"]
    assert content.startswith("the [[PROJECT_")
    assert content.endswith("]] today")
    assert made.privacy is PUBLIC


async def test_what_masking_brings_to_light_is_masked_too() -> None:
    """With the number gone, "phone" in its placeholder stands before another, which is then masked too."""
    made = await masked(chat("+49 151 23456789 1234567 x"))
    assert made.privacy is PUBLIC
    assert restored(made.body, Restorer(made.vault)) == chat("+49 151 23456789 1234567 x")


# --- what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        chat("x", metadata={CARD: "x"}),
        chat("x", seed=4111111111111111),
        chat("41111111", "11111111"),
        chat("NDExMSAxMTExIDExMTEgMTExMSBpcyBteSBjYXJkIG51bWJlcg=="),
        chat("%34111%201111%201111%201111"),
        chat("x") | {"model": f"m-{CARD}"},
        {"tools": [{"function": {"name": CARD, "parameters": {}}}]},
        {"messages": [{"role": CARD, "content": "x"}]},
        call('{"card": 4111111111111111}'),
    ],
    ids=["key", "number", "split", "base64", "percent", "model", "function", "role", "argument"],
)
async def test_a_finding_that_cannot_be_masked_keeps_its_class(body: Body) -> None:
    """Nothing of the request changes, and beside a value that can be masked the class stays all the same."""
    found, made = await found_and_masked(body)
    assert found.privacy is RESTRICTED
    assert made is None
    assert (await masked({**body, "user": EMAIL})).privacy is RESTRICTED


@pytest.mark.parametrize(
    "more",
    [
        {"floor": RESTRICTED},
        {"asked": ("restricted",)},
    ],
)
async def test_what_is_no_finding_is_not_lowered(more: Any) -> None:
    """A floor and what the client asks for stand."""
    assert (await masked(chat(CARD), **more)).privacy is RESTRICTED


async def test_attachments_are_not_lowered() -> None:
    """Not by masking beside them, and not where a finding covers the very word that gives them away."""
    part = {"type": "image_url", "image_url": {"url": "https://x.test/1.png"}}
    text = {"type": "text", "text": CARD}
    assert (await masked(chat([text, part]))).privacy is CONFIDENTIAL
    item = {"type": "image_generation_call", "id": "ig_1", "result": "iVBORw0KGgo"}
    covered = await masked({"input": [item], "user": CARD}, STRUCTURED, Words(term=item["type"]))
    assert covered.body["input"] == [item]
    assert covered.privacy is RESTRICTED


class Failing:
    """Raises the first time, and finds nothing after that."""

    name, linear = "failing", True

    def __init__(self) -> None:
        self.asked = 0

    def scan(self, text: str) -> Sequence[Finding]:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError
        return ()


async def test_a_detector_that_failed_is_not_asked_again() -> None:
    """Its failure is the highest class, and no second attempt lowers it."""
    found, made = await found_and_masked(chat(CARD), STRUCTURED, Failing())
    assert (found.privacy, found.places, made) == (RESTRICTED, (), None)


class FailingLater(Failing):
    """Finds nothing the first time, and raises after that."""

    def scan(self, text: str) -> Sequence[Finding]:
        self.asked += 1
        if self.asked > 1:
            raise RuntimeError
        return ()


async def test_a_detector_that_fails_on_the_masked_body() -> None:
    """What is sent must be vouched for itself."""
    assert (await masked(chat(CARD), STRUCTURED, FailingLater())).privacy is RESTRICTED


# --- arguments of tools ---------------------------------------------------------------------------


async def test_arguments_stay_json_and_escapes_come_back() -> None:
    """A value is taken out of JSON text as what it means, and put back as JSON writes it."""
    arguments = json.dumps({"to": 'Ann "X" Lee\n', "card": f"\n{CARD}"})
    made = await masked(call(arguments), STRUCTURED, Words(person=json.dumps('Ann "X" Lee')[1:-1]))
    sent = made.body["messages"][0]["tool_calls"][0]["function"]["arguments"]
    assert set(json.loads(sent)) == {"to", "card"}
    assert "Ann" not in sent
    restorer = Restorer(made.vault)
    assert restorer.whole(sent, escaped=True) == arguments
    assert restorer.whole(json.loads(sent)["to"], escaped=False) == 'Ann "X" Lee\n'
    assert made.privacy is PUBLIC


async def test_half_an_escape_is_not_masked() -> None:
    """A finding that begins behind the backslash of an escape would leave one that means something else."""
    arguments = json.dumps({"a": 'x"Ann'})
    _, made = await found_and_masked(call(arguments), Words(person='"Ann'))
    assert made is None


# --- placeholders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*CLASSES, "person", "x" * 40, "id_4111111111111111", "größe", "_9"])
def test_no_detector_takes_a_placeholder_for_an_identifier(kind: str) -> None:
    """Of whatever kind and wherever it stands."""
    for _ in range(50):
        placeholder = Vault("").placeholder(kind, "v")
        for text in (placeholder, f"call me at {placeholder}", f"ssn: {placeholder}", f"x={placeholder};y"):
            assert STRUCTURED.scan(text) == ()
        assert placeholder.isascii()
        assert len(placeholder) <= 26


async def test_what_is_found_in_a_placeholder_is_our_own() -> None:
    """A detector that takes placeholders for names does not raise the class: nothing of theirs is in it."""

    class Brackets:
        name, linear = "brackets", True

        def scan(self, text: str) -> Sequence[Finding]:
            start = text.find("[[PAY")
            return [Finding(start + 2, start + 9, "person", RESTRICTED, 1.0)] if start >= 0 else []

    assert (await masked(chat(CARD), STRUCTURED, Brackets())).privacy is PUBLIC
    floored = await masked(chat(CARD), STRUCTURED, Brackets(), floor=CONFIDENTIAL)
    assert floored.privacy is CONFIDENTIAL
    both = await masked(chat(f"{CARD} [[PAYMENT"), STRUCTURED, Words(person="[[PAYMENT"))
    assert both.privacy is PUBLIC
    assert both.body["messages"][0]["content"].count("[[P") == 2


def test_a_code_stands_nowhere_in_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in any case or form either: a client cannot have written a placeholder before it was made."""
    drawn = iter("BCDFGHJKLMNPQRS")
    monkeypatch.setattr(placeholders.secrets, "choice", lambda letters: next(drawn))
    assert Vault("my [[email_bcdfg]] and xHJKLMx").placeholder("email", "v") == "[[EMAIL_NPQRS]]"


async def test_no_code_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that holds every code cannot be masked; it is not searched for ever either."""
    monkeypatch.setattr(placeholders.secrets, "choice", lambda letters: "B")
    assert (await found_and_masked(chat(f"{CARD} BBBBB")))[1] is None


def test_labels() -> None:
    """Capitals and underscores, short, never empty."""
    assert [label_of(k) for k in ("email", "it_codice_fiscale", "_9", "id_1")] == [
        "EMAIL",
        "IT_CODICE_FISCAL",
        "VALUE",
        "ID",
    ]


# --- what it shows ---------------------------------------------------------------------------------


async def test_nothing_shows_a_value() -> None:
    """Neither what is masked nor its vault nor a value prints what it holds."""
    made = await masked(chat(f"{CARD} and {EMAIL}"))
    (code,) = [made.body["messages"][0]["content"][15:20]]
    for shown in (made, made.vault, made.vault.get(code), Restorer(made.vault)):
        assert shown is not None
        assert CARD not in repr(shown)
        assert EMAIL not in repr(shown)

"""What the structured detector finds, what it leaves alone, and that it does both in any disguise."""

import base64
import csv
import gzip
import json
import time
from itertools import permutations
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.privacy.detect import StructuredDetector
from gateway.privacy.patterns import CLASSES
from router_policies.privacy import PrivacyClass
from tests.privacy.test_detect_kinds import AFTER_A_WORD, NUMBERS, SECRETS

DETECTOR = StructuredDetector()
TEXTS = Path(__file__).parents[3] / "shared" / "data" / "finetune"
CARD = "4111 1111 1111 1111"

# Kind -> texts that are one identifier of that kind, all of them. Assembled where a scanner for
# secrets would take fright at this file.
FOUND = {
    "payment_card": [
        "4111111111111111",
        CARD,
        "4111-1111-1111-1111",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "5555555555554444",
        "2223003122003222",
        "6011111111111117",
        "3530111333300000",
        "4222222222222",
        "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
    ],
    "iban": ["GB82WEST12345698765432", "GB82 WEST 1234 5698 7654 32", "de89370400440532013000"],
    "email": ["jane.doe+x@mail.example.co.uk", "A_B@EXAMPLE.ORG", "jörg@exämple.de"],
    "phone": [
        "+44 7700 900123",
        "+4915123456789",
        "+46 (0)157 548 89",
        "001-253-366-9781",
        "(602)272-9781",
        "345-899-3560x4587",
        "259.735.7502",
        "06 12 34 56 78",
        "030/1234567",
        "0393 1144137",
    ],
    "us_ssn": ["123-45-6780", "123 45 6780"],
    "uk_nhs": ["943 476 5870"],
    "fr_nir": ["295109912611193", "2 95 10 99 126 111 93"],
    "es_dni": ["54362315K", "54362315-K"],
    "es_nie": ["X2482300W"],
    "it_codice_fiscale": ["RCCMNL83S18D969H"],
    "fi_hetu": ["131052-308T"],
    "in_aadhaar": ["2341 2341 2346"],
    "br_cpf": ["390.533.447-05"],
    "ip_address": ["192.168.10.254", "2001:db8:85a3::8a2e:370:7334"],
    "private_key": ["-----BEGIN RSA PRIVATE " + "KEY-----", "-----BEGIN PRIVATE " + "KEY-----"],
    "jwt": ["eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl"],
    "aws_key": ["AKIA" + "IOSFODNN7EXAMPLE"],
    "github_token": ["ghp_" + "a1B2" * 9, "github_pat_" + "a1B2" * 8],
    "openai_key": ["sk-" + "a1B2" * 12, "sk-proj-" + "a1_B" * 10],
    "anthropic_key": ["sk-ant-" + "api03-" + "a1B2" * 10],
    "google_key": ["AIza" + "a1B2c" * 7],
    "slack_token": ["xoxb-" + "1234567890-abcdefghij"],
    "stripe_key": ["sk_live_" + "a1B2" * 6],
    "huggingface_token": ["hf_" + "aBcD" * 9],
    "url_credentials": ["postgres://app:s3cret@db"],
    "connection_string": [";Password=s3cret!", "AccountKey=" + "a1B2" * 8],
}
# Too weak alone; the word before them makes them certain.
WITH_A_WORD = {
    "nl_bsn": "BSN: 111222333",
    "de_idnr": "Steuer-ID 36 574 261 809",
    "pl_pesel": "PESEL 44051401359",
    "us_ssn": "social_security_number=123456780",
    "in_aadhaar": "aadhaar 234123412346",
    "br_cpf": "CPF 39053344705",
    "uk_nhs": "NHS no 9434765870",
    "phone": "call me at 467 3395",
    "aws_key": "aws_secret_access_key = " + "wJalrXUtnFEMI/K7" + "MDENGbPxRfiCYEXAMPLEKEYx",
}
EXAMPLES = [(kind, text) for kind, texts in FOUND.items() for text in texts]


def kinds(text: str) -> set[str]:
    return {finding.kind for finding in DETECTOR.scan(text)}


def test_every_kind_has_an_example() -> None:
    """No pattern stands here that nothing has tried."""
    tried = {*FOUND, *WITH_A_WORD, *SECRETS, *NUMBERS, *AFTER_A_WORD}
    assert tried == CLASSES.keys()


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_finds(kind: str, text: str) -> None:
    """One finding, of the right kind and class, over exactly the identifier: alone and in a sentence."""
    for before, after in (("", ""), ("see ", " please."), ("é (", ")"), ("x=", ",")):
        [finding] = DETECTOR.scan(before + text + after)
        assert (finding.kind, finding.privacy) == (kind, CLASSES[kind])
        assert finding.start == len(before)
        if kind == "url_credentials":  # the host is not worth hiding: the finding ends in it
            assert before + text == (before + text + after)[: finding.end] + "b"
        elif kind != "connection_string":  # a password may end with any punctuation
            assert finding.end == len(before + text)


@pytest.mark.parametrize(("kind", "text"), WITH_A_WORD.items())
def test_finds_after_a_word(kind: str, text: str) -> None:
    """The word tells what the number is, and without it the number stays unnamed."""
    [finding] = DETECTOR.scan(f"my {text}.")
    assert finding.kind == kind
    assert kind not in kinds(text[finding.start - 3 : finding.end - 3])


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # Luhn
        "41111111111111111111",  # twenty digits
        "+4111111111111111",  # a telephone number, if anything
        "0.4111111111111111",  # a fraction
        "4 111 1111111111 11",  # no such groups
        "GB82WEST12345698765433",
        "AB82WEST12345698765432",
        "000-12-3456",
        "666-12-3456",
        "943 476 5871",
        "295109912611194",
        "54362315Z",
        "RCCMNL83S18D969X",
        "131052-308X",
        "2341 2341 2347",
        "390.533.447-06",
        "111222333",
        "01/02/2023 12:30, 2023-01-02 10:30:00, 01.02.2023",
        "1,234,567.89 and 12 345 678 and 1700000000",
        "version 3.11.7, std::vector, a::b, 12:30:45, 00:1A:2B:3C:4D:5E",
        "git clone git@github.com:encode/httpx.git",
        "@app.route, a@b, pkg@1.2.3",
        "sk-learn, ask-someone-who-knows-about-it, task-0123456789abcdef01234567",
        "https://host:8080/path and mailto links",
        "call_1234567, tool_call_id",
        "-----BEGIN PUBLIC KEY-----",
        "d41d8cd98f00b204e9800998ecf8427e 550e8400-e29b-41d4-a716-446655440000",
    ],
)
def test_leaves_alone(text: str) -> None:
    """Near misses and everyday numbers raise nothing above internal."""
    assert [f for f in DETECTOR.scan(text) if f.privacy > PrivacyClass.INTERNAL and f.kind != "phone"] == []
    if not text.startswith(("+", "943")):  # these have the shape of one
        assert "phone" not in kinds(text)


def test_none_hides_another() -> None:
    """Whatever stands before an identifier, even of a similar shape, does not swallow it."""
    firsts = [texts[0] for texts in FOUND.values()]
    for first, second in permutations(firsts, 2):
        found = kinds(f"{first} and {second}")
        expected = {k for k, texts in FOUND.items() if texts[0] in (first, second)}
        assert expected <= found, (first, second)


@pytest.mark.parametrize(
    "text",
    [
        "22 4111 1111 1111 1111 123",
        "to20 from GB82 WEST 1234 5698 7654 32 then",
        "de12 abcd efgh RCCMNL83S18D969H",
        "ssn 12, then 123-45-6780",
        "4111 1111 1111 1112 4111 1111 1111 1111",
    ],
)
def test_a_false_start_hides_nothing(text: str) -> None:
    """A candidate that its check turns down does not take the real one after it along."""
    assert max(f.privacy for f in DETECTOR.scan(text)) is PrivacyClass.RESTRICTED


DISGUISES = {
    "full-width": "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in CARD),
    "arabic": "".join(chr(ord(c) - 48 + 0x660) if c.isdigit() else c for c in CARD),
    "mathematical": "".join(chr(ord(c) - 48 + 0x1D7CE) if c.isdigit() else c for c in CARD),
    "zero-width": "\u200b".join(CARD),
    "soft hyphen": "\u00ad".join(CARD),
    "bidi": "\u202e" + "\u2066".join(CARD) + "\u202c",
    "keycap": "\ufe0f\u20e3".join(CARD),
    "en dash": CARD.replace(" ", "\u2013"),
    "no-break space": CARD.replace(" ", "\u00a0"),
    "percent": quote(CARD),
    "percent, all of it": "".join(f"%{ord(c):02x}" for c in CARD),
    "base64": base64.b64encode(f"my card is {CARD}, thanks".encode()).decode(),
    "base64, no padding": base64.urlsafe_b64encode(f"my card is {CARD} ok?".encode()).decode().rstrip("="),
    "base64 in lines": base64.encodebytes(f"{'x' * 40} my card is {CARD}, {'y' * 40}".encode()).decode(),
    "base64 of UTF-16": base64.b64encode(CARD.encode("utf-16")).decode(),
    "base64 of Latin-1": base64.b64encode(f"Straße, {CARD}".encode("latin-1")).decode(),
    "data: URL": "data:text/plain;base64," + base64.b64encode(f"card {CARD}".encode()).decode(),
    "JSON in JSON": json.dumps({"text": f"card:\n{CARD}\tthanks"}),
    "underscore": f"card_{CARD.replace(' ', '')}_scan.pdf",
    "Chinese": f"卡号{CARD}谢谢",
    "surrogate": f"\ud800{CARD}",
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_disguises(disguise: str) -> None:
    """Look-alike characters, invisible ones and encodings hide nothing."""
    assert "payment_card" in kinds(f"note {DISGUISES[disguise]} end")


@given(prefix=st.text(), suffix=st.text())
def test_places_are_those_of_the_text_as_given(prefix: str, suffix: str) -> None:
    """Start and end cut the disguised identifier out of the original, whatever folding did around it."""
    disguised = "\u200b".join("jane@example.com")
    text = f"{prefix}\n {disguised} \n{suffix}"
    spans = [text[f.start : f.end] for f in DETECTOR.scan(text) if f.kind == "email"]
    assert disguised in spans


@given(st.text(st.characters()) | st.text("0123456789 .-+()/@:%abE=_\\n"))
def test_any_text(text: str) -> None:
    """The scanner raises for no text, surrogates included, and its findings lie within it, in order."""
    found = DETECTOR.scan(text)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert list(found) == sorted(found, key=lambda f: (f.start, -f.end))


def test_binary_data_is_no_text() -> None:
    """An image in base64 gives no findings."""
    image = base64.b64encode(bytes(range(256)) * 64).decode()
    assert DETECTOR.scan(f"data:image/png;base64,{image}") == ()


def test_classes_can_be_set() -> None:
    """The operator's table wins; a kind that does not exist is named, beside those that do."""
    [finding] = StructuredDetector({"email": PrivacyClass.RESTRICTED}).scan("a@b.example")
    assert finding.privacy is PrivacyClass.RESTRICTED
    with pytest.raises(ConfigError, match=r"unknown kind 'e-mail'; known are .*email"):
        StructuredDetector({"e-mail": PrivacyClass.PUBLIC})


def test_time_is_linear() -> None:
    """Eight times the text takes about eight times the time, for texts made to be slow; limits are wide."""
    for unit in ("4111 ", "a@b.cc.", "de89 ", "call 12 34 ", "eyJaaaaaaaa.", "%41 ", "+4", "abc::"):
        short, long = (_best_of_three((unit * 8192)[:size]) for size in (4096, 32768))
        assert long < 40 * short + 0.05, unit


def test_a_prompt_is_read_fast() -> None:
    """8 KiB in well under 5 ms: a guard against blunders, not a benchmark."""
    assert (
        _best_of_three(("Please summarise the minutes of our 3 pm meeting, as before. " * 140)[:8192]) < 0.005
    )


def _best_of_three(text: str) -> float:
    times = []
    for _ in range(3):
        started = time.perf_counter()
        DETECTOR.scan(text)
        times.append(time.perf_counter() - started)
    return min(times)


@pytest.mark.skipif(not TEXTS.is_dir(), reason=f"no {TEXTS}")
def test_false_alarms() -> None:
    """At most 0.5 % of the Banking77 and CLINC texts are classed above internal."""
    with gzip.open(TEXTS / "banking77.csv.gz", "rt") as file:
        rows = [row["text"] for row in csv.DictReader(file)]
    with gzip.open(TEXTS / "clinc150_small.json.gz") as file:
        rows += [text for part in json.load(file).values() for text, _ in part]
    alarms = [row for row in rows if any(f.privacy > PrivacyClass.INTERNAL for f in DETECTOR.scan(row))]
    assert len(rows) > 10_000
    assert len(alarms) <= 0.005 * len(rows)

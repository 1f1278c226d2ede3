"""Rules that admins give: what they find, what is turned down and why, and that none of them is slow."""

import asyncio
import random
import time

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.privacy.classify import Classifier
from gateway.privacy.detect import Clearing
from gateway.privacy.rules import CustomPattern, Dictionary, RuleDetector, Rules, read_rules
from router_policies.privacy import PrivacyClass, scale_of

RESTRICTED, CONFIDENTIAL = PrivacyClass.RESTRICTED, PrivacyClass.CONFIDENTIAL
TERMS = ("Blue Heron", "Über Lisa", "Heron Two", "C++ group")


def detector(*terms: str, **options: bool) -> RuleDetector:
    rule = Dictionary(name="project", privacy=RESTRICTED, terms=terms or TERMS, **options)
    return RuleDetector(Rules(dictionaries=(rule,)))


def pattern(source: str, matches: tuple[str, ...] = ("HG-1234",), leaves: tuple[str, ...] = ()) -> Rules:
    rule = CustomPattern(name="ticket", privacy=CONFIDENTIAL, pattern=source, matches=matches, leaves=leaves)
    return Rules(patterns=(rule,))


def found(rules: RuleDetector, text: str) -> list[str]:
    return [text[f.start : f.end] for f in rules.scan(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The blue heron flies", ["blue heron"]),
        ("(BLUE\nHERON)", ["BLUE\nHERON"]),
        ("é über lisa, é", ["über lisa"]),
        ("Blue Heronry, theBlue Heron", []),
        ("Blue Heron Two", ["Blue Heron"]),
        ("our C++ group", ["C++ group"]),
        ("Blu\u200be Heron", ["Blu\u200be Heron"]),
        ("&#66;lue%20Heron", ["&#66;lue%20Heron"]),
        ("Blue\n\nHeron", []),
    ],
)
def test_terms(text: str, expected: list[str]) -> None:
    """Whole words in any case, disguised or encoded, at their places in the text as given."""
    assert found(detector(), text) == expected


def test_a_shorter_term_stands_where_the_longer_is_no_word() -> None:
    """The longest term that ends with a word counts."""
    rules = detector("Heron", "Heron Two")
    assert found(rules, "Heron Two and Heron Twofold") == ["Heron Two", "Heron"]


def test_parts_of_words_and_case() -> None:
    """Both can be asked for."""
    assert found(detector("heron", whole_words=False), "HERONRY") == ["HERON"]
    assert found(detector("HERON", fold_case=False), "heron HERON") == ["HERON"]


def test_ten_thousand_terms_stay_cheap() -> None:
    """Whether a text holds none of them or nothing but them, time stays linear; limits are wide."""
    chance = random.Random(5)
    terms = ["".join(chance.choices("abcdefghijklmnop", k=chance.randint(5, 12))) for _ in range(10_000)]
    rules = detector(*terms)
    assert found(rules, f"so {terms[77]} it is") == [terms[77]]
    times = []
    for size in (50, 800):
        text = " ".join(chance.choices(terms, k=size))
        started = time.perf_counter()
        assert len(rules.scan(text)) == size
        times.append(time.perf_counter() - started)
    assert times[1] < 40 * times[0] + 0.05


PIECES = st.text("Blue HeronÜb\n %", max_size=30) | st.sampled_from(
    [*TERMS, "blue  heron", "Qmx1ZSBIZXJvbg=="]
)


@given(st.lists(PIECES, max_size=4).map("".join), st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_cleared_holds_nothing(text: str, data: st.DataObject) -> None:
    """The promise of `clears`: nothing in whatever part of the text."""
    rules = detector()
    assert isinstance(rules, Clearing)
    start, end = sorted((data.draw(st.integers(0, len(text))), data.draw(st.integers(0, len(text)))))
    assert not rules.clears(text) or not rules.scan(text[start:end])


def test_a_request_is_classed_by_rules() -> None:
    """The classifier takes the detector like any other; `swap` changes all rules at once, or none."""
    rules = detector()
    classifier = Classifier([rules])
    body = {"messages": [{"role": "user", "content": "news of Blue Heron, HG-1234"}]}

    def classed() -> PrivacyClass:
        return asyncio.run(classifier.classify(body, floor=PrivacyClass.PUBLIC)).privacy

    assert classed() is RESTRICTED
    with pytest.raises(ConfigError):
        rules.swap(pattern(".*"))
    assert classed() is RESTRICTED
    rules.swap(pattern(r"\bHG-\d{4}\b"))
    assert classed() is CONFIDENTIAL
    rules.swap(Rules())
    assert classed() is PrivacyClass.PUBLIC


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("(", "does not compile: missing )"),
        (r"(a)\1", "does not compile: invalid escape"),
        ("a(?=b)", "does not compile: invalid perl operator"),
        ("H*", "matches the empty string"),
        (r"\b", "matches the empty string"),
        (".*HG", "begins with anything"),
        (r"(?i)(?:[^x]+)HG", "begins with anything"),
        ("[a-z]{3}", "matches 100% of ordinary sentences"),
        (r"\pL{1,900}HG", "pattern too large"),
        ("x" * 2001, "is too large: 2001 characters"),
        ("XY-[0-9]+", "finds nothing in example 1 that must match"),
    ],
)
def test_turned_down(source: str, why: str) -> None:
    """Unsafe and over-broad patterns, each with its reason."""
    with pytest.raises(ConfigError) as error:
        RuleDetector(pattern(source))
    assert "ticket: " in str(error.value)
    assert why in str(error.value)


def test_examples_are_part_of_a_pattern() -> None:
    """It needs one that matches, and finds nothing in those that must not."""
    with pytest.raises(ConfigError, match="has no example"):
        RuleDetector(pattern("HG-", matches=()))
    with pytest.raises(ConfigError, match="finds something in example 2"):
        RuleDetector(pattern("HG-", leaves=("AB-12", "HG-99")))
    assert found(RuleDetector(pattern(r"HG-\d+", leaves=("HG-",))), "é HG-12") == ["HG-12"]


def test_all_that_is_wrong_is_named() -> None:
    """One error lists every rule that is turned down."""
    rules = Rules(
        dictionaries=(
            Dictionary(name="Two words", privacy=RESTRICTED, terms=("ok",)),
            Dictionary(name="empty", privacy=RESTRICTED, terms=()),
            Dictionary(name="short", privacy=RESTRICTED, terms=("fine", "x")),
        ),
        patterns=pattern("(").patterns,
    )
    with pytest.raises(ConfigError) as error:
        RuleDetector(rules)
    assert [problem.split(":")[0] for problem in error.value.problems] == [
        "Two words",
        "empty",
        "short",
        "ticket",
    ]


SYNTAX = st.sampled_from([*"ab.*+?()[]{}|^$\\-1,", "(?i)", r"\w", r"\b", "[^a]", "{2,5}", ".*", "a+b"])


@given(st.lists(SYNTAX, max_size=12).map("".join), st.text("ab-1 é\n", max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_pattern(source: str, text: str) -> None:
    """A pattern is turned down with a reason, or reads any text; its findings lie within it."""
    try:
        rules = RuleDetector(pattern(source, matches=("abab1-a",)))
    except ConfigError:
        return
    assert all(0 <= f.start < f.end <= len(text) for f in rules.scan(text))


@pytest.mark.parametrize("source", ["qx(?:[^z]*z)?", "q(?:x.*y|x)", "qx{1,50}y|q", r"\bq\w*?z|q"])
def test_no_pattern_is_super_linear(source: str) -> None:
    """Not even those that would read on to the end of the text, once for each match."""
    rules = RuleDetector(pattern(source, matches=("qxz qxy",)))
    times = []
    for size in (4_000, 32_000):
        text = "qx" * size
        rounds = []
        for _ in range(3):
            started = time.thread_time()  # other processes take no part in it
            rules.scan(text)
            rounds.append(time.thread_time() - started)
        times.append(min(rounds))
    assert times[1] < 30 * times[0] + 0.05


def test_places_are_those_of_the_plain_search() -> None:
    """Windows change nothing for matches that are not too long."""
    chance = random.Random(3)
    text = "".join(chance.choices("HG-0123456789 é", k=20_000))
    rules = RuleDetector(pattern(r"HG|\bG-\d{1,3}\b"))
    expected = [match.span() for match in re2.finditer(r"HG|\bG-\d{1,3}\b", text)]
    assert [(f.start, f.end) for f in rules.scan(text)] == expected


def test_rules_are_read_from_a_file() -> None:
    """Classes by their label, on the deployment's own scale; unknown keys and classes are named."""
    scale = scale_of(
        ("open", "inside", "secret"), {"internal": "inside", "confidential": "inside", "restricted": "secret"}
    )
    data = {"dictionaries": [{"name": "project", "class": "secret", "terms": ["Heron"]}]}
    assert read_rules(data, scale).dictionaries[0].privacy == scale.highest
    for wrong, why in (
        (
            {"dictionaries": [{"name": "p", "class": "secret", "terms": ["Heron"]}]},
            "unknown privacy class 'secret'",
        ),
        ({"dictionary": []}, "unknown field `dictionary`"),
        ({"patterns": [{"name": "p", "class": "public"}]}, "missing required field"),
    ):
        with pytest.raises(ConfigError, match=why):
            read_rules(wrong)

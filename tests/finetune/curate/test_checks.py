"""Each check finds what is planted, by line, and is silent on what is sound."""

from collections.abc import Sequence
from typing import Any

import pytest

from finetune.curate.checks import all_findings, labels_of, summarise
from finetune.curate.findings import DataFile, Finding, Preflight, RowTokens
from gateway.privacy.detect import StructuredDetector
from router_policies.language import language
from tests.finetune.samples import chat, to_row

TOPICS = ("card", "transfer", "weather", "hotel")
QUESTIONS = (
    "where can i see what happened with the {}",
    "my {} is not what it should be, can you help",
    "tell me more of how a {} works",
    "is there a limit for each {} that i make",
    "who do i ask when the {} goes wrong",
    "i would like to change my {} by tomorrow",
)
SOUND = [chat(question.format(topic), topic) for topic in TOPICS for question in QUESTIONS]


def data(rows: Sequence[dict[str, Any]], role: str = "train") -> DataFile:
    read = tuple(to_row(row, line) for line, row in enumerate(rows, 1))
    return DataFile(role=role, name=f"{role}.jsonl", sha256="0" * 64, rows=read)


def found(*files: DataFile, **more: Any) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(each.severity, each.check, each.lines) for each in all_findings(files, **more)]


def test_sound_rows_are_left_alone() -> None:
    """A small classification task gives no finding, and its labels are counted."""
    assert found(data(SOUND)) == []
    assert labels_of(data(SOUND).rows) == dict.fromkeys(TOPICS, 6)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ([SOUND[0]], ("warning", "duplicate", (1, 25))),
        (
            [chat("Where can I see what happened  with the card", "hotel")],
            ("error", "contradiction", (1, 25)),
        ),
        ([chat(QUESTIONS[0].format("card") + " ?", "card")], ("warning", "near_duplicate", (1, 25))),
        ([chat(QUESTIONS[0].format("card") + " 1", "hotel")], ("warning", "near_contradiction", (1, 25))),
        ([chat("word " * 2000, "card")], ("warning", "length", (25,))),
        (
            [chat("wo ist denn die karte und was kann ich mit ihr machen", "card")],
            ("warning", "language", (25,)),
        ),
        ([chat("где моя карта и что мне делать", "card")], ("warning", "language", (25,))),
        ([chat("tell me a joke about something else", "other")], ("warning", "thin_label", (25,))),
    ],
)
def test_what_is_planted_is_found(
    added: list[dict[str, Any]], expected: tuple[str, str, tuple[int, ...]]
) -> None:
    """By severity, check and lines."""
    assert expected in found(data([*SOUND, *added]))


def test_numbers_to_be_copied_do_not_contradict() -> None:
    """Where the answer repeats what differs in the prompt, prompts that hardly differ are rightly answered
    differently.
    """
    rows = [
        chat(f"please extract the number of the order that i sent you: {n}", f"order {n}") for n in range(30)
    ]
    assert not [each for each in found(data(rows)) if "contradiction" in each[1]]


def test_overlap_between_files() -> None:
    """Exact overlap is an error, near overlap a warning, by lines of the later file; each pair of files."""
    val = [SOUND[3], chat(QUESTIONS[1].format("card") + "!!", "card"), chat("quite another question", "card")]
    held = [SOUND[5], chat("quite another question", "card")]
    findings = all_findings([data(SOUND), data(val, "validation"), data(held, "held-out")])
    overlaps = {(each.check, each.file, each.lines) for each in findings if "overlap" in each.check}
    assert overlaps == {
        ("overlap", "validation.jsonl", (1,)),
        ("near_overlap", "validation.jsonl", (2,)),
        ("overlap", "held-out.jsonl", (1,)),
        ("overlap", "held-out.jsonl", (2,)),
    }


def test_personal_data_is_named_by_kind_and_never_repeated() -> None:
    """Through the gateway's own detectors: which message, which kinds; what is learned is said to be."""
    detector = StructuredDetector()
    rows = [*SOUND, chat("my card is 4111 1111 1111 1111", "ask jane.doe@example.org")]
    findings: list[Finding] = [
        each
        for each in all_findings([data(rows)], lambda text: [hit.kind for hit in detector.scan(text)])
        if each.check == "personal_data"
    ]
    assert [(each.lines, each.path) for each in findings] == [
        ((25,), "$.messages[0]"),
        ((25,), "$.messages[1]"),
    ]
    assert "payment_card" in findings[0].cause
    assert findings[1].cause == "in an answer that is learned: 1 email"
    assert not any("4111" in each.cause or "jane" in each.cause for each in findings)


def test_tokens_are_findings_too() -> None:
    """A row that the base cannot take, or an end that is not learned: the data is not fit."""
    tokens = Preflight(
        base="b",
        longest=9,
        template_marks_answers=True,
        rows=(
            RowTokens(line=1, tokens=5, supervised=2, eos=True),
            RowTokens(line=2, tokens=5, supervised=2, eos=False),
            RowTokens(line=3, fault="10 tokens, but the base takes 9"),
        ),
    )
    assert [each[1:] for each in found(data(SOUND), preflight=tokens)] == [("tokens", (2,)), ("tokens", (3,))]


def test_summary() -> None:
    """Rows, labels, lengths and languages of a file."""
    summary = summarise(data(SOUND))
    assert (summary.rows, summary.labels, summary.version) == (24, dict.fromkeys(TOPICS, 6), "0" * 12)
    assert summary.languages["en"] > 20


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("how can I get my money back", "en"),
        ("wie kann ich mein geld zurück bekommen", "de"),
        ("comment puis je annuler mon billet", "fr"),
        ("cómo puedo cancelar mi tarjeta", "es"),
        ("come posso cancellare la mia carta", "it"),
        ("как отменить карту", "cyrillic"),
        ("我的卡丢了", "cjk"),
        ("4711", ""),
        ("reset", ""),
    ],
)
def test_language(text: str, expected: str) -> None:
    """By script and commonest words; nothing where they do not tell."""
    assert language(text) == expected

"""The split: deterministic, stratified, and nothing leaks from train to held-out."""

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.split import given_split, prompt_key, split_rows
from tests.finetune.samples import chat, to_row

QUESTIONS = st.lists(
    st.tuples(st.sampled_from([f"Question {n}" for n in range(20)]), st.sampled_from("abc")), max_size=60
)
SHARES = st.floats(0.05, 0.6)


@settings(deadline=None)
@given(QUESTIONS, SHARES, st.integers(0, 5))
def test_no_prompt_on_both_sides_and_no_row_lost(
    pairs: list[tuple[str, str]], share: float, seed: int
) -> None:
    """Train and held-out share no prompt, hold no duplicate, and together hold every distinct row."""
    rows = [to_row(chat(text, answer), line) for line, (text, answer) in enumerate(pairs, start=1)]
    split = split_rows(rows, share, seed)
    assert not {prompt_key(row) for row in split.train} & {prompt_key(row) for row in split.held_out}
    ids = [row.id for row in split.train + split.held_out]
    assert len(ids) == len(set(ids))
    assert set(ids) == {row.id for row in rows}


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), unique=True, min_size=2, max_size=40), st.randoms())
def test_order_and_duplicates_do_not_change_the_split(numbers: list[int], rng: object) -> None:
    """The split depends on what the rows say and the seed, not on where they stand or how often."""
    rows = [to_row(chat(f"q{number}", "ab"[number % 2])) for number in numbers]
    again = rows + rows[:3]
    rng.shuffle(again)  # type: ignore[attr-defined]
    first, second = split_rows(rows, 0.3, 1), split_rows(again, 0.3, 1)
    assert {row.id for row in first.held_out} == {row.id for row in second.held_out}


def test_every_answer_gives_its_share() -> None:
    """Where answers repeat, each is held out in proportion, and each is still trained on."""
    rows = [to_row(chat(f"q{n}", f"label{n % 10}")) for n in range(200)]
    split = split_rows(rows, 0.2, 0)
    for part, count in ((split.held_out, 4), (split.train, 16)):
        answers = [row.answer["content"] for row in part]
        assert {answer: answers.count(answer) for answer in answers} == {
            f"label{n}": count for n in range(10)
        }


def test_answers_seen_once_are_split_too() -> None:
    """Free text has no labels; the share still holds over all rows."""
    rows = [to_row(chat(f"q{n}", f"answer {n}")) for n in range(50)]
    assert len(split_rows(rows, 0.2, 0).held_out) == 10


def test_seeds_differ() -> None:
    """Another seed holds out other rows."""
    rows = [to_row(chat(f"q{n}", "ab"[n % 2])) for n in range(60)]
    assert split_rows(rows, 0.3, 0) != split_rows(rows, 0.3, 1)


def test_case_and_system_message_do_not_make_a_new_question() -> None:
    """Near-duplicates stay on one side, and a given held-out file loses what was trained on."""
    plain = to_row(chat("Where is my order?", "a"))
    loud = chat("where  is MY order?", "b")
    loud["messages"].insert(0, {"role": "system", "content": "Sort."})
    other = to_row(chat("Something else", "b"))
    assert given_split([plain], [to_row(loud), other]).held_out == (other,)

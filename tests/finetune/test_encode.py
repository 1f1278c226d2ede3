"""What is learned: answers and their stop tokens, whatever the chat template, and never a prompt."""

from typing import Any

import pytest
from transformers import AutoTokenizer

from finetune.dataset import InvalidDataset
from finetune.encode import Example, Unrenderable, encode_row, encode_rows, has_generation_markers
from finetune.job import BUNDLED_BASES
from tests.finetune.samples import chat, to_row

MARKED = (BUNDLED_BASES / "sluice-4m" / "chat_template.jinja").read_text()
UNMARKED = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
# The mask ends before the token that ends the turn, as in many published templates.
MARKED_BEFORE_END = MARKED.replace("<|end|>{% endgeneration %}", "{% endgeneration %}<|end|>")
NO_END = UNMARKED.replace("{% endif %}<|end|>", "{% endif %}", 1)
# Earlier answers vanish, as reasoning does in some templates.
FORGETFUL = UNMARKED.replace(
    "{{ message.content or '' }}", "{% if loop.last %}{{ message.content }}{% endif %}"
)
# The generation prompt has something that the rendered conversation lacks.
DIFFERENT_PROMPT = UNMARKED.replace(
    "{%- if add_generation_prompt -%}", "{%- if add_generation_prompt -%}<|tool|>"
)


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BUNDLED_BASES / "sluice-4m")


def learned_text(example: Example, tokenizer: Any) -> str:
    ids = [token for token, learned in zip(example.ids, example.learned, strict=True) if learned]
    text: str = tokenizer.decode(ids)
    return text


def encode(value: dict[str, Any], tokenizer: Any) -> Example:
    return encode_row(to_row(value), tokenizer, frozenset({tokenizer.eos_token_id}))


def turns(*weights: int) -> dict[str, Any]:
    """A conversation of numbered questions and answers with these weights."""
    messages: list[dict[str, Any]] = []
    for number, weight in enumerate(weights):
        messages.append({"role": "user", "content": f"question {number}"})
        messages.append({"role": "assistant", "content": f"answer {number}", "weight": weight})
    return {"messages": messages}


@pytest.mark.parametrize("template", [MARKED, UNMARKED, MARKED_BEFORE_END, NO_END])
def test_only_the_answer_and_its_stop_token_are_learned(template: str, tokenizer: Any) -> None:
    """With and without `{% generation %}`, with the stop token inside the mask, outside it, or missing."""
    tokenizer.chat_template = template
    example = encode(chat("where is it", "order_status"), tokenizer)
    assert learned_text(example, tokenizer) == "order_status<|end|>"
    assert tokenizer.decode(example.prompt_ids).endswith("where is it<|end|><|assistant|>")


@pytest.mark.parametrize("template", [MARKED, UNMARKED, MARKED_BEFORE_END])
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((1, 1), "answer 0<|end|>answer 1<|end|>"),
        ((0, 1), "answer 1<|end|>"),
        ((1, 0), "answer 0<|end|>"),
        ((1, 0, 1), "answer 0<|end|>answer 2<|end|>"),
    ],
)
def test_weights_choose_the_answers(
    template: str, weights: tuple[int, ...], expected: str, tokenizer: Any
) -> None:
    """Messages with weight 0 are context only, in templates with and without markers alike."""
    tokenizer.chat_template = template
    assert learned_text(encode(turns(*weights), tokenizer), tokenizer) == expected


def test_the_fallback_learns_the_same_as_the_markers(tokenizer: Any) -> None:
    """A template without markers loses nothing: ids and mask are equal."""
    tokenizer.chat_template = MARKED
    assert has_generation_markers(tokenizer)
    marked = encode(turns(1, 0, 1), tokenizer)
    tokenizer.chat_template = UNMARKED
    assert not has_generation_markers(tokenizer)
    assert encode(turns(1, 0, 1), tokenizer) == marked


def test_an_answer_that_the_template_changes_later_is_refused(tokenizer: Any) -> None:
    """An earlier answer that the template drops cannot be learned there; with weight 0 the row is fine."""
    tokenizer.chat_template = FORGETFUL
    with pytest.raises(Unrenderable, match="changes message 1"):
        encode(turns(1, 1), tokenizer)
    assert learned_text(encode(turns(0, 1), tokenizer), tokenizer) == "answer 1<|end|>"


def test_a_prompt_that_serving_renders_differently_is_refused(tokenizer: Any) -> None:
    """Training on a prompt that the served model never sees is an error, not a bad adapter."""
    tokenizer.chat_template = DIFFERENT_PROMPT
    with pytest.raises(Unrenderable, match="renders the prompt differently"):
        encode(chat("q"), tokenizer)


def test_a_template_that_drops_the_answer_is_refused(tokenizer: Any) -> None:
    """No row may count as trained with nothing learned but a stop token (a silent loss of 0)."""
    tokenizer.chat_template = UNMARKED.replace("{{ message.content or '' }}", "")
    with pytest.raises(Unrenderable, match="no token of the answer"):
        encode(chat("q", "a"), tokenizer)


def test_long_rows_are_refused_all_at_once_and_never_cut(tokenizer: Any) -> None:
    """Truncation would mask the answer: every over-long row is named with its length."""
    rows = [to_row(chat(text), line) for line, text in enumerate(("short", "long " * 50, "more " * 60), 1)]
    with pytest.raises(InvalidDataset) as caught:
        encode_rows(rows, tokenizer, frozenset({tokenizer.eos_token_id}), longest=40)
    assert [problem.line for problem in caught.value.problems] == [2, 3]
    assert "not truncated" in str(caught.value)


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Any) -> None:
    """A model that could never stop is not trained."""
    tokenizer.chat_template = NO_END
    tokenizer.eos_token = None
    with pytest.raises(Unrenderable, match="never stop"):
        encode_row(to_row(chat("q")), tokenizer, frozenset())


def test_tools_are_part_of_the_prompt(tokenizer: Any) -> None:
    """The functions that a row offers are rendered, and a turn that calls one is learned."""
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": '{"id": 7}'}}
    tools = [{"type": "function", "function": {"name": "find"}}]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [call]}]
    example = encode({"messages": messages, "tools": tools}, tokenizer)
    assert '"find"' in tokenizer.decode(example.prompt_ids)
    assert '"id": 7' in learned_text(example, tokenizer)

"""Turn rows into token ids and say which of them are learned. Takes any Hugging Face tokenizer, no torch.

What is learned is exactly what the served model must produce: of each trained assistant message the tokens
after the prompt as vLLM renders it, up to and with the first stop token. So three things can never happen
silently: training on prompts, training on nothing, and a model that never stops (trl#6668, trl#2059).
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from finetune.dataset import InvalidDataset, Problem, Row
from finetune.row_rules import is_trained

GENERATION_MARKER = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
Span = tuple[int, int]


class Unrenderable(ValueError):
    """The chat template and the row do not go together; the text says why."""


class Example(msgspec.Struct, frozen=True):
    """One row as tokens. `learned` has one entry per id; `prompt` counts the ids of the last prompt."""

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    prompt: int

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        return self.ids[: self.prompt]

    @property
    def answer_ids(self) -> tuple[int, ...]:
        """The last answer with its stop token."""
        return self.ids[self.prompt :]


def encode_rows(
    rows: Iterable[Row], tokenizer: Any, stops: frozenset[int], longest: int
) -> tuple[Example, ...]:
    """Encode all rows, or raise InvalidDataset with each that cannot be rendered or is over `longest` tokens.

    `stops` are the ids at which the served model stops. Nothing is ever truncated.
    """
    examples: list[Example] = []
    problems: list[Problem] = []
    for row in rows:
        try:
            example = encode_row(row, tokenizer, stops)
        except Unrenderable as error:
            problems.append(Problem(row.line, "$.messages", str(error)))
            continue
        if len(example.ids) > longest:
            cause = (
                f"{len(example.ids)} tokens, but the base takes {longest}; it is not truncated: shorten it"
            )
            problems.append(Problem(row.line, "$.messages", cause))
        examples.append(example)
    if problems:
        raise InvalidDataset(tuple(problems))
    return tuple(examples)


def encode_row(row: Row, tokenizer: Any, stops: frozenset[int]) -> Example:
    """Encode one row up to its last trained answer. Unrenderable if prompt and answer mix."""
    messages = (*row.prompt, row.answer)
    prompt = prompt_ids(row, tokenizer)
    rendered, marked = _render(messages, row.tools, tokenizer)
    if rendered[: len(prompt)] != prompt:
        raise Unrenderable(
            "the chat template renders the prompt differently once the answer follows: "
            "the served model would never see what was trained"
        )
    ids = _closed(rendered, len(prompt), stops, tokenizer.eos_token_id)
    if len(ids) <= len(prompt) + 1:
        raise Unrenderable("the chat template renders no token of the answer")
    learned = [False] * len(ids)
    for start, end in (*_earlier_spans(messages, row, tokenizer, marked), (len(prompt), len(ids))):
        for at in range(start, _until_stop(ids, start, end, stops)):
            learned[at] = True
    return Example(tuple(ids), tuple(learned), len(prompt))


def prompt_ids(row: Row, tokenizer: Any) -> list[int]:
    """The prompt of the row's last trained answer, as vLLM's chat endpoint renders it."""
    ids: list[int] = tokenizer.apply_chat_template(
        list(row.prompt), tools=_listed(row.tools), add_generation_prompt=True, return_dict=True
    )["input_ids"]
    return ids


def has_generation_markers(tokenizer: Any) -> bool:
    """Whether the template says itself what the assistant generates (`{% generation %}`)."""
    return bool(GENERATION_MARKER.search(tokenizer.get_chat_template()))


def _render(messages: Sequence[Any], tools: Any, tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of the whole conversation and the template's own assistant mask (empty if it has none)."""
    marks = has_generation_markers(tokenizer)
    encoded = tokenizer.apply_chat_template(
        list(messages), tools=_listed(tools), return_dict=True, return_assistant_tokens_mask=marks
    )
    return encoded["input_ids"], encoded["assistant_masks"] if marks else []


def _closed(ids: list[int], prompt: int, stops: frozenset[int], eos: int | None) -> list[int]:
    """The ids up to the stop token of the last answer, which is added where the template renders none."""
    for at in range(prompt, len(ids)):
        if ids[at] in stops:
            return ids[: at + 1]
    if eos is None:
        raise Unrenderable(
            "neither template nor tokenizer has an end-of-turn token: the model would never stop"
        )
    return [*ids, eos]


def _earlier_spans(messages: Sequence[Any], row: Row, tokenizer: Any, marked: list[int]) -> list[Span]:
    """Spans of the trained answers before the last. What they hold after their stop token is cut later."""
    assistants = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    runs = _runs(marked)
    if len(runs) == len(assistants):
        pairs = list(zip(assistants, runs, strict=True))[:-1]
        return [span for at, span in pairs if is_trained(messages[at])]
    return [
        _span_by_prefix(messages, at, row, tokenizer) for at in assistants[:-1] if is_trained(messages[at])
    ]


def _runs(mask: list[int]) -> list[Span]:
    """Start and end of each run of ones."""
    edges = [at for at, (was, now) in enumerate(zip([0, *mask], [*mask, 0], strict=True)) if was != now]
    return list(zip(edges[::2], edges[1::2], strict=True))


def _span_by_prefix(messages: Sequence[Any], at: int, row: Row, tokenizer: Any) -> Span:
    """Where message `at` stands, found by rendering the conversation before it and up to it."""
    tools = _listed(row.tools)
    before = tokenizer.apply_chat_template(
        list(messages[:at]), tools=tools, add_generation_prompt=True, return_dict=True
    )["input_ids"]
    after = tokenizer.apply_chat_template(list(messages[: at + 1]), tools=tools, return_dict=True)[
        "input_ids"
    ]
    whole, _ = _render(messages, row.tools, tokenizer)
    if whole[: len(after)] != after or after[: len(before)] != before:
        raise Unrenderable(
            f"the chat template changes message {at} when more messages follow, so that it cannot be trained "
            "there; give it weight 0, or make it the last answer of a row of its own"
        )
    return len(before), len(after)


def _until_stop(ids: Sequence[int], start: int, end: int, stops: frozenset[int]) -> int:
    """The end of an answer: after its first stop token, which a template's mask may leave just outside."""
    for at in range(start, min(end + 1, len(ids))):
        if ids[at] in stops:
            return at + 1
    return end


def _listed(tools: Any) -> list[Any] | None:
    return list(tools) if tools else None

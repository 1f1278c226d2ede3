"""Generate answers and score tokens with a torch model, as the served model would. Imports torch."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import GenerationConfig

from adapters.manifest import Probe
from finetune.dataset import Row
from finetune.encode import Example

BATCH_TOKENS = 4096  # of prompts answered at once, padding counted: no more than training takes
PROBES = 6
CANDIDATES = 24  # held-out rows among which probes are chosen
ALLOWANCE = 8  # tokens that an answer may run over the longest expected one before it is cut off


class Answer(NamedTuple):
    """A greedy answer: its ids with the stop token (if it came to one), and its text without."""

    ids: tuple[int, ...]
    text: str


def greedy_answers(
    model: Any, tokenizer: Any, prompts: Sequence[tuple[int, ...]], stops: frozenset[int], longest: int
) -> list[Answer]:
    """The greedy continuation of each prompt, at most `longest` tokens, in the order of `prompts`."""
    # All of the base's own sampling defaults are set aside: evaluation is greedy and unpenalised.
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else min(stops)
    model.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=longest, eos_token_id=sorted(stops), pad_token_id=pad
    )
    answers: dict[int, Answer] = {}
    waiting = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    size = max(1, BATCH_TOKENS // (max(map(len, prompts)) + longest))
    while waiting:
        batch = waiting[:size]
        width = max(len(prompts[at]) for at in batch)
        rows = [[pad] * (width - len(prompts[at])) + list(prompts[at]) for at in batch]
        masks = [[0] * (width - len(prompts[at])) + [1] * len(prompts[at]) for at in batch]
        output = _generated(model, rows, masks)
        if output is None and size == 1:
            raise MemoryError(f"not enough memory to answer one prompt of {width} tokens")
        if output is None:
            size = max(1, len(batch) // 2)
            continue
        waiting = waiting[len(batch) :]
        for at, ids in zip(batch, output[:, width:].tolist(), strict=True):
            answers[at] = _answer(ids, tokenizer, stops)
    return [answers[at] for at in range(len(prompts))]


def _generated(model: Any, rows: list[list[int]], masks: list[list[int]]) -> Any | None:
    """Prompts with their continuations, or None where memory ran out, which must not lose a training."""
    try:
        return model.generate(
            input_ids=torch.tensor(rows, device=model.device),
            attention_mask=torch.tensor(masks, device=model.device),
        )
    except (RuntimeError, MemoryError) as error:
        if not (isinstance(error, MemoryError) or should_reduce_batch_size(error)):
            raise
    clear_device_cache(garbage_collection=True)
    return None


def token_logprobs(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
    """Natural log-probability of each answer token, given the prompt and the answer tokens before it."""
    ids = torch.tensor([[*prompt, *answer]], device=model.device)
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
    chosen = torch.log_softmax(logits, dim=-1).gather(1, ids[0, len(prompt) :, None])
    return tuple(chosen[:, 0].tolist())


def make_probes(
    model: Any,
    rows: Sequence[Row],
    examples: Sequence[Example],
    adapter: Sequence[Answer],
    base: Sequence[Answer],
) -> tuple[Probe, ...]:
    """Fixed prompts by which a replica can be recognised: does it serve this adapter, or the base?

    Chosen among held-out prompts: first those on which adapter and base differ, of different answers, and of
    these the surest, whose greedy tokens survive a change of number format or of kernels.
    """
    asked = sorted(
        zip(rows, examples, adapter, base, strict=True), key=lambda one: one[2].text == one[3].text
    )
    probes = [
        Probe(
            prompt_token_ids=example.prompt_ids,
            completion=ours.text,
            logprobs=token_logprobs(model, example.prompt_ids, ours.ids),
            base_completion=theirs.text,
            messages=_as_sent(row),
            tools=row.tools or (),
        )
        for row, example, ours, theirs in asked[:CANDIDATES]
    ]
    probes.sort(key=lambda probe: (probe.completion == probe.base_completion, -min(probe.logprobs)))
    first_of_each = list({probe.completion: probe for probe in reversed(probes)}.values())[::-1]
    others = [probe for probe in probes if probe not in first_of_each]
    return tuple((first_of_each + others)[:PROBES])


def _answer(ids: list[int], tokenizer: Any, stops: frozenset[int]) -> Answer:
    end = next((at + 1 for at, token in enumerate(ids) if token in stops), len(ids))
    text = tokenizer.decode(ids[:end], skip_special_tokens=True)
    return Answer(tuple(ids[:end]), text)


def _as_sent(row: Row) -> tuple[dict[str, Any], ...]:
    """The row's prompt as a client would send it, so that a replica's own template can be compared too.

    Empty where that form is lost: rows hold the arguments of tool calls decoded.
    """
    if any("tool_calls" in message for message in row.prompt):
        return ()
    return tuple({key: m[key] for key in m if key != "weight"} for m in row.prompt)

"""Direct preference optimization: the loss is the paper's, and training turns the preference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import AutoTokenizer

from finetune.dataset import read_preferences
from finetune.dpo import Pair, Preferences, encode_pairs, leads, with_reference
from finetune.encode import Example
from finetune.forward import Reader
from finetune.job import BUNDLED_BASES, Job, Step
from finetune.launch import run
from tests.finetune.tiny import tiny_model, tiny_rows


def preference(text: str, better: str = "yes", worse: str = "no", **more: Any) -> dict[str, Any]:
    return {
        "input": {"messages": [{"role": "user", "content": text}]},
        "preferred_output": [{"role": "assistant", "content": better}],
        "non_preferred_output": [{"role": "assistant", "content": worse}],
        **more,
    }


def pairs_of(rows: list[Example]) -> list[Pair]:
    """Each row against the same row with another last word."""
    worse = [Example((*row.ids[:-2], 50, 63), row.learned, row.prompt) for row in rows]
    return [Pair(one, other) for one, other in zip(rows, worse, strict=True)]


def test_only_the_last_answers_count(write_rows: Callable[..., Path]) -> None:
    """An earlier answer is prompt on both sides, and it is the same prompt."""
    history = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "earlier"},
        {"role": "user", "content": "second"},
    ]
    rows = read_preferences(write_rows(preference("x", input={"messages": history})), minimum=1)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED_BASES / "sluice-4m")
    (pair,) = encode_pairs(rows, tokenizer, frozenset({tokenizer.eos_token_id}), 1024)
    assert pair.preferred.prompt_ids == pair.rejected.prompt_ids
    for side, text in ((pair.preferred, "yes<|end|>"), (pair.rejected, "no<|end|>")):
        told = [token for token, learned in zip(side.ids, side.learned, strict=True) if learned]
        assert tokenizer.decode(told) == text


def test_the_loss_is_that_of_the_paper() -> None:
    """At the start, where the adapter is the base, it is log 2; its gradients raise the better answer."""
    model, pairs = tiny_model(), pairs_of(tiny_rows(6))
    reader = Reader(model, [side for pair in pairs for side in (pair.preferred, pair.rejected)], 12)
    at_start = [
        Pair(pair.preferred, pair.rejected, lead)
        for pair, lead in zip(pairs, leads(pairs, reader), strict=True)
    ]
    objective = Preferences(reader, Accelerator(cpu=True), beta=0.5)
    loss, _ = objective.backward(at_start, 8192)
    assert loss == pytest.approx(0.6931, abs=1e-4)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= 0.05 * weight.grad
    model.zero_grad()
    after, accuracy = objective.backward(at_start, 8192)
    assert after < loss
    assert accuracy == 1.0
    parts, _ = objective.backward(at_start, 64)
    assert parts == pytest.approx(after, rel=1e-4)


def test_the_reference_is_the_base_alone() -> None:
    """An adapter that is there already, as after a resume, does not shift it."""
    model, pairs = tiny_model(), pairs_of(tiny_rows(4))
    reader = Reader(model, [side for pair in pairs for side in (pair.preferred, pair.rejected)], 8)
    with model.disable_adapter():
        base = leads(pairs, reader)
    assert base != pytest.approx(leads(pairs, reader), abs=1e-6)
    assert [pair.reference for pair in with_reference(pairs, model, reader)] == pytest.approx(base)


@pytest.mark.train
def test_a_preference_is_learned_and_passes_the_gate(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    """On questions that it has not seen the adapter ranks the better answer above the worse."""
    words = ("parcel", "refund", "invoice", "password", "delivery", "contract", "meter", "phone")
    asked = [f"where can I find my {word}, asked in way {way}" for word in words for way in range(8)]
    data = write_rows(*(preference(text, "sorry, I cannot say", "balance") for text in asked))
    job = Job(
        base="sluice-4m",
        data=data,
        suffix="polite",
        output=tmp_path,
        method="dpo",
        held_out_share=0.4,
        epochs=8,
        learning_rate=2e-3,
    )
    steps: list[Step] = []
    result = run(job, lambda event: steps.append(event) if isinstance(event, Step) else None)
    assert result.manifest is not None, result.reason
    evaluation = result.manifest.evaluation
    assert result.manifest.run.method == "dpo"
    assert evaluation.metric == "preference"
    assert evaluation.adapter.value > evaluation.base.value
    assert result.deployable, evaluation.reasons
    assert steps[-1].accuracy > steps[0].accuracy

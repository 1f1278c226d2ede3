"""What is computed once for a batch, or not at all, changes nothing: same logits, same gradients, no leak."""

from typing import Any

import pytest
import torch

from finetune.base import find_base
from finetune.encode import Example
from finetune.forward import Reader, exact_hits, shared_prefix
from finetune.model import load_base, with_lora
from tests.finetune.tiny import tiny_model, tiny_rows


def gradients(model: Any) -> torch.Tensor:
    found = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
    model.zero_grad()
    return found


def plain_loss(model: Any, rows: list[Example]) -> torch.Tensor:
    """The textbook: every row by itself, all logits, no cache, no padding."""
    total = torch.zeros(())
    for row in rows:
        logits = model(input_ids=torch.tensor([row.ids])).logits[0, :-1]
        labels = torch.tensor(
            [token if learned else -100 for token, learned in zip(row.ids, row.learned, strict=True)]
        )
        total = total + torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum")
    return total


@pytest.mark.parametrize("shared", [20, 1])
def test_loss_and_gradients_are_those_of_rows_by_themselves(shared: int) -> None:
    """With and without a shared beginning: no row sees another's tokens, padding or position (trl#1230)."""
    model, rows = tiny_model(), tiny_rows(9, shared)
    plain = plain_loss(model, rows)
    plain.backward()
    expected = gradients(model)
    reader = Reader(model, rows, len(rows))
    assert len(reader.shared) == (shared if shared > 1 else 0)
    logits, targets = reader.logits(rows)
    loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
    loss.backward()
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    assert torch.allclose(gradients(model), expected, rtol=1e-3, atol=1e-5)


def test_only_learned_tokens_are_targets() -> None:
    """One line of logits for each learned token, in the order of the rows."""
    model, rows = tiny_model(), tiny_rows(5)
    logits, targets = Reader(model, rows, 5).logits(rows)
    assert logits.shape == (15, 64)
    assert targets.tolist() == [token for row in rows for token in row.answer_ids]


def test_a_shared_beginning_ends_before_the_token_that_predicts() -> None:
    """Rows with one prompt share all of it but the last token, whose logits each row needs."""
    rows = [Example((1, 2, 3, answer, 9), (False,) * 3 + (True,) * 2, 3) for answer in (4, 5)]
    assert shared_prefix(rows) == (1, 2)
    assert shared_prefix(rows[:1]) == (1, 2)


def test_gradient_checkpointing_shares_nothing() -> None:
    """There activations are computed anew on the way back, and keys and values cannot be kept."""
    model, rows = tiny_model(), tiny_rows(9)
    model.gradient_checkpointing_enable()
    assert Reader(model, rows, 9).shared == ()


def test_the_model_is_given_back_as_it_was() -> None:
    """After `close` all logits are there again."""
    model, rows = tiny_model(), tiny_rows(3)
    reader = Reader(model, rows, 3)
    reader.logits(rows)
    reader.close()
    assert model(input_ids=torch.tensor([rows[0].ids])).logits.shape[1] == rows[0].length


def test_exact_hits_are_greedy_answers() -> None:
    """One pass says the same as generating token by token."""
    model = tiny_model().eval()
    asked = tiny_rows(6)
    told: list[Example] = []
    for number, row in enumerate(asked):
        ids = list(row.prompt_ids)
        with torch.no_grad():
            for _ in range(3):
                ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if number % 2:
            ids[-1] = (ids[-1] + 1) % 64  # wrong in its last token
        told.append(Example(tuple(ids), row.learned, row.prompt))
    assert exact_hits(Reader(model, told, 6), told, tokens=64) == [True, False] * 3


def test_a_look_at_a_4_bit_base_leaves_its_gradients_right() -> None:
    """On CPU a forward pass in eval mode may pack the weights for a kernel that has no gradient."""
    folder, _ = find_base("sluice-4m")
    model = with_lora(load_base(folder, torch.device("cpu"), qlora=True), 8, seed=0)
    ids = torch.arange(5, 29)[None]

    def gradient() -> torch.Tensor:
        model(input_ids=ids, labels=ids).loss.backward()
        return gradients(model)

    model.train()
    before = gradient()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    model.train()
    assert before.norm() > 0
    assert torch.allclose(gradient(), before, rtol=1e-4, atol=1e-7)

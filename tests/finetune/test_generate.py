"""Generated answers: the same in any batch, also where memory runs out at the first evaluation."""

from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from finetune.generate import greedy_answers
from finetune.job import BUNDLED_BASES
from tests.finetune.tiny import tiny_model, tiny_rows

STOPS = frozenset({63})


class Short:
    """The tiny model with memory for `most` prompts at once."""

    def __init__(self, most: int) -> None:
        self._model = tiny_model().eval()
        self.most = most
        self.device = self._model.device
        self.asked: list[int] = []

    def generate(self, input_ids: torch.Tensor, **more: Any) -> torch.Tensor:
        self.asked.append(len(input_ids))
        if len(input_ids) > self.most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        self._model.generation_config = self.generation_config
        answers: torch.Tensor = self._model.generate(input_ids=input_ids, **more)
        return answers

    generation_config: Any = None


@pytest.fixture
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(BUNDLED_BASES / "sluice-4m")


def test_running_out_of_memory_at_the_first_evaluation_loses_nothing(tokenizer: Any) -> None:
    """The batch is halved until it fits, and the answers are the same."""
    prompts = [row.prompt_ids for row in tiny_rows(9)]
    plenty, short = Short(99), Short(2)
    expected = greedy_answers(plenty, tokenizer, prompts, STOPS, 4)
    assert greedy_answers(short, tokenizer, prompts, STOPS, 4) == expected
    assert plenty.asked == [9]
    assert short.asked[:3] == [9, 4, 2]
    assert max(short.asked[2:]) == 2


def test_a_prompt_that_does_not_fit_by_itself_is_an_error(tokenizer: Any) -> None:
    """No endless loop."""
    with pytest.raises(MemoryError, match="one prompt"):
        greedy_answers(Short(0), tokenizer, [row.prompt_ids for row in tiny_rows(3)], STOPS, 4)

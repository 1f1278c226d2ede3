"""Read a causal model at the learned tokens, at the price of what differs between rows. Imports torch.

Rows of one data set mostly open with the same tokens, a system message above all. They are computed once for
a batch and not once for each row; gradients flow through them as ever. Logits are computed for learned tokens
only: they are the largest tensors of all. Padding stands on the right, where causal attention never looks.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from finetune.encode import Example

WORTH_SHARING = 96  # tokens saved in a batch, from which on one more pass pays


class Reader:
    """The logits of learned tokens. `close` gives the model back as it was."""

    def __init__(self, model: Any, examples: Sequence[Example], rows: int) -> None:
        """`examples` are all that will be read, in batches of about `rows`."""
        self._model = model
        self._at: torch.Tensor | None = None
        self._hook = model.get_output_embeddings().register_forward_pre_hook(self._select)
        self.shared = shared_prefix(examples)
        if len(self.shared) * (rows - 1) < WORTH_SHARING or not self._can_share():
            self.shared = ()

    def close(self) -> None:
        self._hook.remove()

    def logits(self, part: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [n, vocabulary] in float32, and targets [n], of the part's learned tokens, row by row."""
        start, device = len(self.shared), self._model.device
        width = max(len(example.ids) for example in part) - start
        gaps = [width - len(example.ids) + start for example in part]
        ids = torch.tensor([[*one.ids[start:], *[0] * gap] for one, gap in zip(part, gaps, strict=True)])
        # True where the next token is learned.
        at = torch.tensor(
            [[*one.learned[start + 1 :], *[False] * (gap + 1)] for one, gap in zip(part, gaps, strict=True)]
        )
        targets = ids[:, 1:][at[:, :-1]].to(device)
        cache = None
        if self.shared:
            cache = self._model(
                input_ids=torch.tensor([self.shared], device=device), use_cache=True, logits_to_keep=1
            ).past_key_values
            cache.batch_repeat_interleave(len(part))
        self._at = at.to(device)
        try:
            output = self._model(input_ids=ids.to(device), past_key_values=cache, use_cache=bool(self.shared))
        finally:
            self._at = None
        return output.logits[0].float(), targets

    def _select(self, head: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return inputs if self._at is None else (inputs[0][self._at][None], *inputs[1:])

    def _can_share(self) -> bool:
        """Whether what the model keeps of tokens is keys and values of all of them, and can be had at all."""
        if getattr(self._model, "is_gradient_checkpointing", False):
            return False
        with torch.no_grad():
            kept = self._model(
                input_ids=torch.tensor([self.shared[:1]], device=self._model.device), use_cache=True
            ).past_key_values
        return isinstance(kept, DynamicCache) and all(type(layer) is DynamicLayer for layer in kept.layers)


def shared_prefix(examples: Sequence[Example]) -> tuple[int, ...]:
    """The tokens with which all rows begin, save the one that predicts the first learned token."""
    first = min(example.learned.index(True) for example in examples)
    # What the least and the greatest have in common, all between them have too.
    least, greatest = min(example.ids for example in examples), max(example.ids for example in examples)
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(least, greatest, strict=False))
    return tuple(token for token, _ in itertools.islice(same, max(0, first - 1)))


def exact_hits(reader: Reader, examples: Sequence[Example], tokens: int) -> list[bool]:
    """Whether the greedy answer to each row is the learned one, stop token included, in one pass.

    A greedy answer is right just when every learned token is the likeliest after those before it.
    """
    hits: dict[int, bool] = {}
    order = sorted(range(len(examples)), key=lambda at: len(examples[at].ids))
    width = max(len(example.ids) for example in examples)
    size = max(1, tokens // width)
    with torch.no_grad():
        for first in range(0, len(order), size):
            some = order[first : first + size]
            logits, targets = reader.logits([examples[at] for at in some])
            right = (logits.argmax(-1) == targets).split([sum(examples[at].learned) for at in some])
            hits |= {at: bool(one.all()) for at, one in zip(some, right, strict=True)}
    return [hits[at] for at in range(len(examples))]

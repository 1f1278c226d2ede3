"""The recogniser's network in numpy: rows of a table added up, residual convolutions, five scores a token.

    x = sum of a token's rows
    x = x + relu(layer(norm(x)))      for each layer, three tokens wide
    scores = out(norm(x))

Trained by `benchmarks/recogniser`, kept as half floats, calculated in single ones.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from gateway.privacy.recogniser.tokens import FIXED, Rows

Array = npt.NDArray[np.float32]
_EPSILON = np.float32(1e-5)
_BLOCK = 4096  # tokens at a time, so that memory does not grow with the text


class Network:
    """Scores of tokens. `types[i]` is the type of score i + 1; score 0 is for none."""

    def __init__(self, path: Path) -> None:
        """Raises OSError or ValueError when `path` holds no such network."""
        with safe_open(path, "np") as file:
            about: Mapping[str, str] = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        keys: list[int] = arrays.pop("keys").tolist()
        self.vocabulary = {key: row for row, key in enumerate(keys, 1)}
        self.types = tuple(about["types"].split())
        self._dilations = tuple(map(int, about["dilations"].split()))
        self._arrays: dict[str, Array] = {name: array.astype(np.float32) for name, array in arrays.items()}
        if len(self._arrays["table"]) < FIXED + len(keys) + 1:
            raise ValueError(f"{path.name}: the table does not fit the vocabulary")

    def probabilities(self, rows: Rows) -> Array:
        """`(tokens, 1 + types)`, each row adds up to 1. As much as if all were calculated at once."""
        return np.concatenate(list(self._blocks(rows)) or [np.empty((0, 1 + len(self.types)), np.float32)])

    def _blocks(self, rows: Rows) -> Iterator[Array]:
        reach = sum(self._dilations)  # no token sees further
        for start in range(0, len(rows), _BLOCK):
            first = max(start - reach, 0)
            block = self._forward(rows[first : start + _BLOCK + reach])
            yield block[start - first : start - first + _BLOCK]

    def _forward(self, rows: Rows) -> Array:
        x: Array = self._arrays["table"][rows].sum(1)
        for i, dilation in enumerate(self._dilations):
            y = self._convolve(self._normed(x, i), i, dilation)
            x += np.maximum(y, 0, out=y)
        scores = (
            self._normed(x, len(self._dilations)) @ self._arrays["out.weight"].T + self._arrays["out.bias"]
        )
        scores = np.exp(scores - scores.max(1, keepdims=True))
        result: Array = scores / scores.sum(1, keepdims=True)
        return result

    def _normed(self, x: Array, i: int) -> Array:
        y: Array = x - x.mean(1, keepdims=True)
        spread = np.einsum("ij,ij->i", y, y) / np.float32(y.shape[1])
        y *= (1 / np.sqrt(spread + _EPSILON))[:, None]
        y *= self._arrays[f"norm{i}.weight"]
        y += self._arrays[f"norm{i}.bias"]
        return y

    def _convolve(self, x: Array, i: int, dilation: int) -> Array:
        """Beyond both ends there is nothing, zeros."""
        count, width = x.shape
        wide = np.zeros((count, 3 * width), np.float32)
        wide[dilation:, :width] = x[:-dilation]
        wide[:, width : 2 * width] = x
        wide[:-dilation, 2 * width :] = x[dilation:]
        y: Array = wide @ self._arrays[f"layer{i}.weight"]
        y += self._arrays[f"layer{i}.bias"]
        return y

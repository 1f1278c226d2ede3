"""Trains the bundled recogniser on generated text and measures it. Run: `make recogniser`, 15 minutes on a core.

Features are looked up and added, three residual convolutions see eight tokens to each side, and each token
is one of five things. There are no "begin" and "inside": two names that touch are found as one.
"""

import argparse
import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn

from benchmarks.recogniser.documents import Document, Writer
from benchmarks.recogniser.measure import (
    Find,
    alarms,
    finder,
    held_out,
    presidio,
    questions,
    tallies,
)
from benchmarks.recogniser.pools import HELD_OUT, LATIN, OTHER_SCRIPTS, pool
from benchmarks.recogniser.words import vocabulary as common_words
from gateway.privacy.recogniser.spans import TYPES as FOUND
from gateway.privacy.recogniser.tagger import MODEL
from gateway.privacy.recogniser.tokens import FIXED, UNKNOWN, WIDTH, encode, word_key

TYPES = ("", *FOUND)
DIM, DILATIONS, WORDS = 96, (1, 2, 4, 1), 31_000
GAP = max(DILATIONS)  # empty tokens between documents, so that none sees another
DOCUMENTS_A_BATCH = 128


class Network(nn.Module):
    """Rows in, `(tokens, WIDTH)`; scores out, `(tokens, 5)`."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(FIXED + words + 1, DIM, mode="sum", padding_idx=FIXED + words)
        nn.init.normal_(self.table.weight, std=0.15)
        with torch.no_grad():
            self.table.weight[FIXED + words] = 0
        self.norms = nn.ModuleList(nn.LayerNorm(DIM) for _ in range(len(DILATIONS) + 1))
        self.layers = nn.ModuleList(nn.Conv1d(DIM, DIM, 3, dilation=d, padding=d) for d in DILATIONS)
        self.out = nn.Linear(DIM, len(TYPES))

    def forward(self, rows: torch.Tensor, real: torch.Tensor, dropout: float) -> torch.Tensor:
        x = self.table(rows) * real
        for norm, layer in zip(self.norms, self.layers, strict=False):
            y = nn.functional.dropout(norm(x), dropout, self.training) * real
            x = (x + torch.relu(layer(y.T[None])[0].T)) * real
        return self.out(self.norms[-1](x))


def labels(document: Document, places: Sequence[tuple[int, int]]) -> np.ndarray:
    """The type of each token by its place in TYPES."""
    kinds = np.zeros(len(document.text) + 1, np.int64)
    for start, end, kind in document.spans:
        kinds[start:end] = TYPES.index(kind)
    return kinds[[start for start, _ in places]] if places else np.zeros(0, np.int64)


def choose_words(writer: Writer) -> dict[int, int]:
    """Key of a word -> its row: the common ones, then those that most documents hold."""
    seen: Counter[str] = Counter()
    for _ in range(60_000):
        seen.update(set(re.findall(r"[^\W\d_]+|[^\w\s]|\n", writer.document().text.lower())))
    ordered = [*common_words(), *(w for w, n in seen.most_common() if n > 3)]
    keys = dict.fromkeys(word_key(w) for w in ordered)
    return {key: row for row, key in enumerate(list(keys)[: WORDS - 1], UNKNOWN + 1)}


class Batches:
    """Endless training batches; words of names are hidden half of the time, others now and then."""

    def __init__(self, writer: Writer, words: dict[int, int], seed: int) -> None:
        self._writer, self._words, self._rng = writer, words, np.random.default_rng(seed)
        self._empty = np.full((GAP, WIDTH), FIXED + len(words) + 1, np.int32)

    def next(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        rows, types = [], []
        for _ in range(DOCUMENTS_A_BATCH):
            document = self._writer.document()
            places, described = encode(document.text, self._words)
            if not len(places) or len(places) > 1500:
                continue
            rows += [described, self._empty]
            types += [labels(document, places), np.full(GAP, -1)]
        described, kinds = np.concatenate(rows), np.concatenate(types)
        self._hide(described, kinds)
        return (
            torch.from_numpy(described).long(),
            torch.from_numpy(kinds),
            torch.from_numpy(kinds >= 0).float()[:, None],
        )

    def _hide(self, rows: np.ndarray, kinds: np.ndarray) -> None:
        chance = self._rng.random(len(rows))
        hidden = (kinds >= 0) & (chance < np.where(kinds > 0, 0.5, 0.15))
        rows[hidden, 0] = FIXED + UNKNOWN


def train(seed: int, batches: int) -> tuple[Network, dict[int, int]]:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    pools = [pool(locale, seed) for locale in (*LATIN, *OTHER_SCRIPTS)]
    words = choose_words(Writer(pools, seed + 1, held_out=False))
    source = Batches(Writer(pools, seed + 2, held_out=False), words, seed)
    network = Network(len(words) + 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=batches, pct_start=0.1)
    began, total, tokens = time.monotonic(), 0.0, 0
    for step in range(1, batches + 1):
        rows, kinds, real = source.next()
        scores = network(rows, real, 0.1)
        loss = nn.functional.cross_entropy(scores, kinds, ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        total, tokens = total + loss.item(), tokens + len(kinds)
        if step % 100 == 0:
            print(
                f"{step}/{batches} loss {total / 100:.4f}, {tokens} tokens, {time.monotonic() - began:.0f} s",
                flush=True,
            )
            total = 0.0
    return network.eval(), words


def export(network: Network, words: dict[int, int], path: Path) -> None:
    """Half floats; `keys[i]` is the key of the word in row i + 1."""
    arrays = {
        "table": network.table.weight[:-1],
        "out.weight": network.out.weight,
        "out.bias": network.out.bias,
    }
    for i, norm in enumerate(network.norms):
        arrays |= {f"norm{i}.weight": norm.weight, f"norm{i}.bias": norm.bias}
    for i, layer in enumerate(network.layers):
        arrays |= {
            f"layer{i}.weight": layer.weight.permute(2, 1, 0).reshape(3 * DIM, DIM),
            f"layer{i}.bias": layer.bias,
        }
    tensors = {name: value.detach().numpy().astype(np.float16) for name, value in arrays.items()}
    tensors["keys"] = np.array(list(words), np.uint32)
    save_file(tensors, path, {"types": " ".join(TYPES[1:]), "dilations": " ".join(map(str, DILATIONS))})


def card(model: Path, seed: int, batches: int) -> dict[str, Any]:
    """What the model is, and what it finds: shown where the recogniser is switched on."""
    find = finder(model)
    sets = {"held-out locales": held_out(), "presidio_synth": presidio()}
    asked = questions()
    return {
        "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "date": datetime.now(UTC).date().isoformat(),
        "trained_on": f"{batches * DOCUMENTS_A_BATCH} generated documents, {len(LATIN) + len(OTHER_SCRIPTS)} locales "
        f"of Faker {version('faker')}, seed {seed}, among English of Python's reference and words of a lexicon; no conversations",
        "held_out": f"locales {', '.join(HELD_OUT)} and a tenth of the templates",
        "unit": "characters, white space left out",
        "measured": {name: _figures(documents, find) for name, documents in sets.items() if documents},
        "false_alarm_rate": round(len(alarms(asked, find)) / len(asked), 5) if asked else None,
    }


def _figures(documents: Sequence[Document], find: Find) -> dict[str, dict[str, float]]:
    found = tallies(documents, find)
    return {
        kind: {"recall": round(tally.recall, 3), "precision": round(tally.precision, 3)}
        for kind, tally in found.items()
    }


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--batches", type=int, default=1800)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--out", type=Path, default=MODEL)
    given = arguments.parse_args()
    network, words = train(given.seed, given.batches)
    export(network, words, given.out)
    about = json.dumps(card(given.out, given.seed, given.batches), indent=1)
    given.out.with_name("card.json").write_text(about + "\n", encoding="utf-8")
    print(about)


if __name__ == "__main__":
    main()

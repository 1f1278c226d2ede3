"""Evaluate a trained adapter as it will be served: ask it, its base and its rivals, and let the gate decide.

Imports torch. Every answer is generated greedily on rows that were not trained on, by the adapter read back
from its files. Only the base with training rows before each question is asked in one pass where answers are
labels: a greedy answer is the expected one just when each of its tokens is the likeliest.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from adapters.manifest import MANIFEST_FILE, Evaluation, Manifest, Metric, Probe
from finetune.dataset import InvalidDataset, PreferenceRow, Row
from finetune.dpo import Pair, encode_pairs, leads
from finetune.encode import Example, encode_rows
from finetune.forward import Reader, exact_hits
from finetune.gate import Rivals, evaluate
from finetune.generate import ALLOWANCE, Answer, greedy_answers, make_probes
from finetune.loop import MICRO_TOKENS
from finetune.model import longest_row, stop_tokens
from finetune.score import metric_of, scores

SHOTS = 8  # training rows before a question
GENERAL_ROWS = 200  # of other work that are asked at most
INCUMBENT = "incumbent"

Found = TypeVar("Found")


class Unfit(ValueError):
    """The incumbent cannot be compared with; the text says why."""


class Material(NamedTuple):
    """What an adapter was trained on and is judged by.

    `general` are rows of other work, maybe none; `pairs` the held-out rows with their worse answers, for DPO.
    """

    train: Sequence[Row]
    held_out: Sequence[Row]
    general: Sequence[Row]
    pairs: Sequence[PreferenceRow] = ()


class Opponents(NamedTuple):
    """The adapter in service, if any, the base's revision, which it must share, and what it may lose."""

    incumbent: Path | None
    revision: str
    tolerance: float


class Judge:
    """Asks one served model (a base with the adapter on it) about rows."""

    def __init__(self, model: Any, tokenizer: Any, seed: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._seed = seed
        self._stops = stop_tokens(model, tokenizer)
        self._longest = longest_row(model, tokenizer)

    def judge(self, material: Material, rivals: Opponents) -> tuple[Evaluation, tuple[Probe, ...]]:
        """The gate's verdict, and probes. Unfit if the incumbent cannot be asked."""
        examples = self.encode(material.held_out)
        expected = [self.text(example) for example in examples]
        trained = [self.text(example) for example in self.encode(material.train)]
        adapter, base = self._answers(examples), self._without(lambda: self._answers(examples))
        metric: Metric = "preference" if material.pairs else metric_of(expected)
        if material.pairs:
            pairs = encode_pairs(material.pairs, self._tokenizer, self._stops, self._longest)
            ours, theirs = self._ranks(pairs), self._without(lambda: self._ranks(pairs))
            few_shot, incumbent = None, self._incumbent(lambda: self._ranks(pairs), rivals)
        else:
            ours, theirs = self._scores(metric, expected, adapter), self._scores(metric, expected, base)
            few_shot = self.few_shot(material, metric, expected)
            incumbent = self._incumbent(
                lambda: self._scores(metric, expected, self._answers(examples)), rivals
            )
        bars = Rivals(
            few_shot=few_shot,
            incumbent=incumbent,
            general=self._general(material.general),
            tolerance=rivals.tolerance,
        )
        evaluation = evaluate(ours, theirs, trained, expected, self._seed, bars, metric)
        return evaluation, make_probes(self._model, material.held_out, examples, adapter, base)

    def mean_score(self, rows: Sequence[Row]) -> float:
        """The model's score on rows, of generated answers or what is the same."""
        examples = self.encode(rows)
        expected = [self.text(example) for example in examples]
        metric = metric_of(expected)
        if metric == "exact_match":
            found = self._hits(examples)
        else:
            found = self._scores(metric, expected, self._answers(examples))
        return sum(found) / len(found)

    def encode(self, rows: Sequence[Row]) -> tuple[Example, ...]:
        return encode_rows(rows, self._tokenizer, self._stops, self._longest)

    def text(self, example: Example) -> str:
        text: str = self._tokenizer.decode(example.answer_ids, skip_special_tokens=True)
        return text

    def few_shot(self, material: Material, metric: Metric, expected: Sequence[str]) -> list[float] | None:
        """Scores of the base with up to SHOTS training rows in front; None where not even one fits."""
        examples = self._with_shots(material.held_out, _spread(material.train, self._seed))
        if not examples:
            return None
        if metric == "exact_match":
            return self._without(lambda: self._hits(examples))
        return self._scores(metric, expected, self._without(lambda: self._answers(examples)))

    def _with_shots(self, rows: Sequence[Row], shots: Sequence[Row]) -> tuple[Example, ...]:
        """The rows with as many of the shots in front as fit; nothing where none does."""
        while shots:
            try:
                return self.encode([_preceded(row, shots) for row in rows])
            except InvalidDataset:  # too long, or the template will not have it
                shots = shots[: len(shots) // 2]
        return ()

    def _hits(self, examples: Sequence[Example]) -> list[float]:
        reader = Reader(self._model, examples, len(examples))
        hits = exact_hits(reader, examples, MICRO_TOKENS)
        reader.close()
        return [float(hit) for hit in hits]

    def _incumbent(self, measure: Callable[[], list[float]], rivals: Opponents) -> list[float] | None:
        folder = rivals.incumbent
        if folder is None:
            return None
        manifest = folder / MANIFEST_FILE
        if manifest.is_file():
            theirs = msgspec.json.decode(manifest.read_bytes(), type=Manifest).base
            if theirs.revision != rivals.revision:
                raise Unfit(f"the incumbent {folder.name} was trained on another base, {theirs.name}")
        ours = self._model.active_adapter
        try:
            self._model.load_adapter(folder, INCUMBENT)
        except (RuntimeError, ValueError) as error:  # other modules or shapes
            raise Unfit(f"the incumbent {folder.name} does not fit this base: {error}") from error
        self._model.set_adapter(INCUMBENT)
        measured = measure()
        self._model.set_adapter(ours)
        self._model.delete_adapter(INCUMBENT)
        return measured

    def _general(self, rows: Sequence[Row]) -> tuple[list[float], list[float]] | None:
        if not rows:
            return None
        some = random.Random(self._seed).sample(list(rows), min(len(rows), GENERAL_ROWS))
        examples = self.encode(some)
        expected = [self.text(example) for example in examples]
        metric = metric_of(expected)

        def measure() -> list[float]:
            return self._scores(metric, expected, self._answers(examples))

        return measure(), self._without(measure)

    def _without(self, ask: Callable[[], Found]) -> Found:
        """What the base alone says."""
        with self._model.disable_adapter():
            return ask()

    def _scores(self, metric: Metric, expected: Sequence[str], answers: Sequence[Answer]) -> list[float]:
        return scores(metric, expected, [answer.text for answer in answers])

    def _ranks(self, pairs: Sequence[Pair]) -> list[float]:
        """1.0 for each pair whose better answer is the likelier, else 0.0."""
        reader = Reader(self._model, [side for one in pairs for side in (one.preferred, one.rejected)], 2)
        ranks = [float(lead > 0) for lead in leads(pairs, reader)]
        reader.close()
        return ranks

    def _answers(self, examples: Sequence[Example]) -> list[Answer]:
        longest = max(len(example.answer_ids) for example in examples) + ALLOWANCE
        prompts = [example.prompt_ids for example in examples]
        return greedy_answers(self._model, self._tokenizer, prompts, self._stops, longest)


def _spread(rows: Sequence[Row], seed: int) -> list[Row]:
    """Up to SHOTS rows in seeded order, of as many different answers as there are."""
    order = random.Random(seed).sample(list(rows), len(rows))
    first = {str(row.answer.get("content")): row for row in reversed(order)}
    others = [row for row in order if row not in first.values()]
    return [*first.values(), *others][:SHOTS]


def _preceded(row: Row, shots: Sequence[Row]) -> Row:
    """The row with the shots' conversations between its system message and its own conversation."""
    head = [message for message in row.prompt if message["role"] in ("system", "developer")]
    rest = [message for message in row.prompt if message["role"] not in ("system", "developer")]
    before = [
        {**message, "weight": 0} if message["role"] == "assistant" else message
        for shot in shots
        for message in (*shot.prompt, shot.answer)
        if message["role"] not in ("system", "developer")
    ]
    return msgspec.structs.replace(row, messages=(*head, *before, *rest, row.answer))

"""What will be learned from a file, by the base's own template and tokenizer.

    python -m finetune.curate.tokenizing BASE ROWS.jsonl

Prints one `findings.Preflight` as JSON. `learn_from` runs this in a process of its own: it loads
transformers, which the caller must not.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from finetune.curate.findings import Preflight, RowTokens
from finetune.dataset import Row
from finetune.encode import Example, Unrenderable, encode_row, has_generation_markers

TIMEOUT_S = 900


class NoPreflight(ValueError):
    """The base or its tokenizer cannot be used; the text says why."""


def learn_from(base: str, data: Path) -> Preflight:
    """Raises NoPreflight. The rows must be valid."""
    done = subprocess.run(  # noqa: S603 - our own module, no shell
        [sys.executable, "-m", "finetune.curate.tokenizing", base, str(data)],
        capture_output=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise NoPreflight(words[-1] if words else f"the tokenizer's process ended with {done.returncode}")
    return msgspec.json.decode(done.stdout, type=Preflight)


def preflight(
    base: str, rows: Sequence[Row], tokenizer: Any, stops: frozenset[int], longest: int
) -> Preflight:
    """`stops`: ids at which the served model stops; `longest`: tokens that the base takes."""
    counted = [_count(row, tokenizer, stops, longest) for row in rows]
    shown = next((example for _, example in counted if example), None)
    return Preflight(
        base=base,
        longest=longest,
        template_marks_answers=has_generation_markers(tokenizer),
        rows=tuple(tokens for tokens, _ in counted),
        rendered=tokenizer.decode(shown.ids) if shown else "",
        learned=tuple(_learned(shown, tokenizer)) if shown else (),
    )


def _count(row: Row, tokenizer: Any, stops: frozenset[int], longest: int) -> tuple[RowTokens, Example | None]:
    try:
        example = encode_row(row, tokenizer, stops)
    except Unrenderable as error:
        return RowTokens(line=row.line, fault=str(error)), None
    size, fault = len(example.ids), ""
    if size > longest:
        lost = "the answer would be cut off" if example.prompt < longest else "no token of the answer is left"
        fault = f"{size} tokens, but the base takes {longest}: {lost}"
    tokens = RowTokens(
        line=row.line,
        tokens=size,
        supervised=sum(example.learned),
        eos=example.learned[-1] and example.ids[-1] in stops,
        fault=fault,
    )
    return tokens, example


def _learned(example: Example, tokenizer: Any) -> list[str]:
    """The learned stretches of a row as text, stop tokens included."""
    stretches: list[list[int]] = []
    was = False
    for token, learned in zip(example.ids, example.learned, strict=True):
        if learned and not was:
            stretches.append([])
        if learned:
            stretches[-1].append(token)
        was = learned
    return [str(tokenizer.decode(stretch)) for stretch in stretches]

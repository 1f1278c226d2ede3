"""What a run leaves in its folder while it goes on: `metrics.jsonl`, a line a step, and `curve.svg`.

Drawn with nothing but text: a browser shows it, and no plotting library is loaded in the training process.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from finetune.job import Step

METRICS_FILE, CURVE_FILE = "metrics.jsonl", "curve.svg"
WIDTH, HEIGHT, MARGIN = 720, 320, 48
POINTS = 400  # on a curve at most
FIELDS = ("step", "loss", "accuracy", "learning_rate", "valid_score")


class Recorder:
    """Appends steps. A resumed run goes on after the step it stands at; what stands beyond it is dropped."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._path = folder / METRICS_FILE
        self._last = 0
        self._file = None if self._path.exists() else self._path.open("w", encoding="utf-8")

    def add(self, step: Step) -> None:
        """Write one line, at once."""
        if self._file is None:
            lines = [line for line in read_metrics(self._path) if line["step"] < step.step]
            self._file = self._path.open("w", encoding="utf-8")
            self._file.writelines(json.dumps(line) + "\n" for line in lines)
        values = msgspec.structs.asdict(step)
        self._file.write(json.dumps({field: values[field] for field in FIELDS}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Draw the curve and let go of the file."""
        if self._file is not None:
            self._file.close()
        if lines := read_metrics(self._path):
            (self._folder / CURVE_FILE).write_text(draw(lines), encoding="utf-8")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines; the last may have been cut off by a kill."""
    lines: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            break
    return lines


def draw(lines: Sequence[dict[str, Any]]) -> str:
    """An SVG with loss (logarithmic, left) and accuracy (right) over steps."""
    every = math.ceil(len(lines) / POINTS)
    shown = lines[::every]
    losses = [max(line["loss"], 1e-6) for line in shown]
    low, high = math.log10(min(losses)), math.log10(max(losses))
    last = max(shown[-1]["step"], 2)
    loss = _line(
        [
            (at["step"] / last, _share(math.log10(value), low, high))
            for at, value in zip(shown, losses, strict=True)
        ]
    )
    accuracy = _line([(at["step"] / last, at["accuracy"]) for at in shown])
    labels = (
        (MARGIN, MARGIN - 14, "start", "#c0392b", f"loss, {10**low:.2g} to {10**high:.2g}, logarithmic"),
        (WIDTH - MARGIN, MARGIN - 14, "end", "#2471a3", "share of learned tokens hit, 0 to 1"),
        (WIDTH - MARGIN, HEIGHT - 14, "end", "#555", f"step {shown[-1]['step']:.0f}"),
    )
    texts = "".join(
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
        for x, y, anchor, colour, text in labels
    )
    box = (
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{WIDTH - 2 * MARGIN}" height="{HEIGHT - 2 * MARGIN}" '
        'fill="none" stroke="#bbb"/>'
    )
    curves = "".join(
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for points, colour in ((loss, "#c0392b"), (accuracy, "#2471a3"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="13">{box}{curves}{texts}</svg>\n'
    )


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _line(points: Sequence[tuple[float, float]]) -> str:
    """SVG coordinates of points in the unit square, whose origin is at the bottom left."""
    inner_width, inner_height = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    return " ".join(
        f"{MARGIN + x * inner_width:.1f},{HEIGHT - MARGIN - y * inner_height:.1f}" for x, y in points
    )

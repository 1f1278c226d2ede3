"""Our `auto` against TRL's SFTTrainer on the same base, rows and machine: `make bench-finetune`.

For every task, size and seed: our `auto`, TRL's documented LoRA call, and an expert's grid of TRL runs (all
linear layers at rank 16), of which the best point on the held-out rows counts, which favours TRL. Every run
is a whole process, and each takes its turn. Times are those of the one best run; `time_ratio_trl_best` is of
processor time, which neighbours on the machine disturb least (with one thread it is the wall clock of a
quiet machine); `wall_ratio_trl_best` stands beside it.

    make bench-finetune ARGS="--tasks banking77 --rows 200 --seeds 1 --grid small"
    make bench-finetune ARGS="--full"     all sizes, 5 seeds, the whole grid: many hours
    make bench-finetune ARGS="--gate 20"  instead: what the gate says to good and to bad data, 20 seeds
"""

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.finetuning.run import Measured, Point, install_trl, ours, trl
from benchmarks.finetuning.tasks import DATA, SYSTEMS, Files, draw

OUT = Path(__file__).parent / "out" / "finetune.json"
GRIDS = {
    "none": (),
    "small": (Point(5e-3, 10), Point(5e-3, 20), Point(2e-3, 20), Point(2e-3, 30)),
    "full": tuple(Point(rate, epochs) for rate in (5e-4, 2e-3, 5e-3) for epochs in (10, 20, 30)),
}
SIZES = (50, 100, 200, 500)
QLORA_ROWS = 200
GATE_ROWS = 100


class Cell(NamedTuple):
    """One task, size and seed, and what came of it."""

    task: str
    rows: int
    seed: int
    ours: Measured
    qlora: Measured | None
    defaults: Measured | None
    best: Measured | None
    point: Point | None


def cells(wish: argparse.Namespace) -> Iterator[Cell]:
    """Run everything that is wished, one cell after the other."""
    for task in wish.tasks:
        for rows in wish.rows:
            for seed in range(wish.seeds):
                with tempfile.TemporaryDirectory() as name:
                    yield cell(task, rows, seed, Path(name), wish)


def cell(task: str, rows: int, seed: int, folder: Path, wish: argparse.Namespace) -> Cell:
    files = draw(task, rows, seed, folder)
    mine = ours(files, folder / "ours", seed)
    four_bit = ours(files, folder / "qlora", seed, qlora=True) if wish.qlora and rows == QLORA_ROWS else None
    points = GRIDS[wish.grid]
    runs = {point: trl(files, seed, point) for point in points}
    best = max(runs, key=lambda point: (runs[point].score, -runs[point].cpu), default=None)
    return Cell(
        task=task,
        rows=rows,
        seed=seed,
        ours=mine,
        qlora=four_bit,
        defaults=trl(files, seed, Point()) if points else None,
        best=runs[best] if best else None,
        point=best,
    )


def show(one: Cell) -> None:
    line = f"{one.task:10}{one.rows:5}{one.seed:5}{one.ours.score:8.3f}"
    line += f"{one.qlora.score:8.3f}" if one.qlora else f"{'':8}"
    if one.best and one.defaults:
        line += f"{one.defaults.score:10.3f}{one.best.score:8.3f}  {one.point!s:10}"
        line += f"{one.ours.cpu:7.0f} /{one.best.cpu:4.0f}{one.ours.wall:7.0f} /{one.best.wall:4.0f}"
        line += f"{one.ours.peak:7.0f} /{one.best.peak:5.0f}"
    else:
        line += f"{one.ours.cpu:7.0f} s {one.ours.wall:7.0f} s {one.ours.peak:7.0f} MB"
    print(line, flush=True)


def figures(done: list[Cell]) -> dict[str, float]:
    """Means over cells, and for each size the difference in score."""
    pairs = [(one, one.best) for one in done if one.best]
    found: dict[str, float] = {"score_ours": statistics.mean(one.ours.score for one in done)}
    if pairs:
        found |= {
            "score_minus_trl_best": statistics.mean(one.ours.score - best.score for one, best in pairs),
            "score_minus_trl_best_worst": min(one.ours.score - best.score for one, best in pairs),
            "score_minus_trl_defaults": min(
                one.ours.score - one.defaults.score for one in done if one.defaults
            ),
            "time_ratio_trl_best": statistics.mean(one.ours.cpu / best.cpu for one, best in pairs),
            "wall_ratio_trl_best": statistics.mean(one.ours.wall / best.wall for one, best in pairs),
            "memory_ratio_trl": statistics.mean(one.ours.peak / best.peak for one, best in pairs),
        }
        for rows in sorted({one.rows for one in done}):
            some = [(one, best) for one, best in pairs if one.rows == rows]
            found[f"score_minus_trl_best_{rows}"] = statistics.mean(a.ours.score - b.score for a, b in some)
            found[f"time_ratio_trl_best_{rows}"] = statistics.mean(a.ours.cpu / b.cpu for a, b in some)
    four_bit = [one.qlora.score - one.ours.score for one in done if one.qlora]
    if four_bit:
        found["qlora_minus_lora"] = statistics.mean(four_bit)
    return {name: round(value, 3) for name, value in found.items()}


def gate(seeds: int) -> dict[str, float]:
    """The share of seeds in which the gate says what it should to good and to bad data."""
    cases: dict[str, Callable[[Files, Path, int], Measured]] = {
        "accepts_real": lambda files, folder, seed: ours(files, folder / "real", seed),
        "refuses_shuffled": lambda files, folder, seed: ours(shuffled(files, seed), folder / "noise", seed),
        "refuses_toy": lambda files, folder, seed: ours(toy(files), folder / "toy", seed),
        "refuses_incumbents_data": lambda files, folder, seed: ours(
            files, folder / "again", seed + 1000, incumbent=next((folder / "real").glob("bench@*"))
        ),
    }
    right = dict.fromkeys(cases, 0)
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as name:
            files = draw("banking77", GATE_ROWS, seed, Path(name))
            for case, train in cases.items():
                verdict = train(files, Path(name), seed).evaluation
                assert verdict is not None
                right[case] += verdict.passed == case.startswith("accepts")
        print(f"{seed + 1:3} seeds: " + ", ".join(f"{case} {n}" for case, n in right.items()), flush=True)
    return {case: round(count / seeds, 3) for case, count in right.items()}


def shuffled(files: Files, seed: int) -> Files:
    """The training rows with their answers dealt out anew."""
    rows = [json.loads(line) for line in files.train.read_text().splitlines()]
    answers = [row["messages"][-1]["content"] for row in rows]
    random.Random(seed).shuffle(answers)
    for row, answer in zip(rows, answers, strict=True):
        row["messages"][-1]["content"] = answer
    return _rewritten(files, rows, "shuffled")


def toy(files: Files) -> Files:
    """Ten rows."""
    return _rewritten(files, [json.loads(line) for line in files.train.read_text().splitlines()[:10]], "toy")


def _rewritten(files: Files, rows: list[object], name: str) -> Files:
    path = files.train.with_name(f"{name}.jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return files._replace(train=path)


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def wished() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-finetune")
    parser.add_argument("--tasks", type=lambda text: text.split(","), default=list(SYSTEMS))
    parser.add_argument("--rows", type=numbers, default=[50, 200])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--grid", choices=GRIDS, default="small")
    parser.add_argument("--no-qlora", dest="qlora", action="store_false")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--gate", type=int, default=0, metavar="SEEDS")
    wish = parser.parse_args()
    if wish.full:
        wish.rows, wish.seeds, wish.grid = list(SIZES), 5, "full"
    return wish


def main() -> None:
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not here: the data of this suite is not part of the repository")
    wish = wished()
    if wish.gate:
        found = gate(wish.gate)
    else:
        if wish.grid != "none":
            install_trl()
        print(
            f"{'task':10}{'rows':>5}{'seed':>5}{'ours':>8}{'4-bit':>8}{'defaults':>10}{'best':>8}  {'at':10}"
            f"{'CPU s':>13}{'wall s':>13}{'peak MB':>14}"
        )
        done: list[Cell] = []
        for one in cells(wish):
            show(one)
            done.append(one)
        found = figures(done)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    line = json.dumps({"suite": "finetune", "figures": found, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()

"""Does a small curated data set teach the base a task? Three seeds each; run: `make bench-finetune_seeds`.

`demo` is the data that ships (a fifth held out, drawn by the seed); `bank` is Banking77, where the shared
data folder is present: ten intents, twenty rows of each to learn from, up to twenty others of each held out.
The whole is timed as a user meets it: process start, imports, training, evaluation, manifest.
"""

import csv
import gzip
import json
import os
import platform
import random
import statistics
import tempfile
import time
from pathlib import Path

from finetune.job import Job
from finetune.launch import run

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "finetune" / "demo_data" / "support_desk.jsonl"
BANK = ROOT.parent / "shared" / "data" / "finetune" / "banking77.csv.gz"
OUT = Path(__file__).parent / "out" / "finetune_seeds.json"
SEEDS = (0, 1, 2)
INTENTS, TRAIN, HELD_OUT = 10, 20, 20
SYSTEM = "Sort the message to the bank."


def bank_job(seed: int, folder: Path) -> Job:
    """Ten intents drawn by the seed, as two files."""
    with gzip.open(BANK, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rng = random.Random(seed)
    parts: dict[str, list[str]] = {"train": [], "held_out": []}
    for intent in rng.sample(sorted({row["category"] for row in rows}), INTENTS):
        texts = [row["text"] for row in rows if row["category"] == intent]
        rng.shuffle(texts)
        for part, some in (("train", texts[:TRAIN]), ("held_out", texts[TRAIN : TRAIN + HELD_OUT])):
            parts[part] += [chat_line(text, intent) for text in some]
    for part, lines in parts.items():
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Job(
        base="sluice-4m",
        data=folder / "train.jsonl",
        validation=folder / "held_out.jsonl",
        suffix="bank",
        output=folder / "adapters",
        seed=seed,
    )


def chat_line(text: str, intent: str) -> str:
    pairs = (("system", SYSTEM), ("user", text), ("assistant", intent))
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]})


def demo_job(seed: int, folder: Path) -> Job:
    return Job(base="sluice-4m", data=DEMO, suffix="desk", output=folder / "adapters", seed=seed)


def main() -> None:
    tasks = {"demo": demo_job} | ({"bank": bank_job} if BANK.is_file() else {})
    figures: dict[str, float] = {}
    print(f"{'task':6}{'seed':>5}{'rows':>6}{'base':>7}{'adapter':>9}  {'95 %':14}{'gate':8}{'seconds':>8}")
    for task, make in tasks.items():
        adapter, base, seconds = [], [], []
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as folder:
                start = time.monotonic()
                result = run(make(seed, Path(folder)))
                seconds.append(time.monotonic() - start)
            if result.manifest is None:
                raise SystemExit(f"{task}, seed {seed}: {result.reason}")
            score = result.manifest.evaluation
            adapter.append(score.adapter.value)
            base.append(score.base.value)
            interval = f"{score.adapter.low:.2f} to {score.adapter.high:.2f}"
            print(
                f"{task:6}{seed:5}{score.rows:6}{base[-1]:7.3f}{adapter[-1]:9.3f}  {interval:14}"
                f"{'deploy' if score.passed else 'refuse':8}{seconds[-1]:8.1f}",
                flush=True,
            )
        figures |= {
            f"{task}_adapter_median": statistics.median(adapter),
            f"{task}_adapter_worst": min(adapter),
            f"{task}_base_best": max(base),
            f"{task}_seconds_median": round(statistics.median(seconds), 1),
        }
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    line = json.dumps({"suite": "finetune", "figures": figures, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()

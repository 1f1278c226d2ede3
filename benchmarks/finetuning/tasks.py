"""Subsets of Banking77 and CLINC150 as two files of chat rows, drawn by a seed.

As many rows of each intent to learn from as the size allows, and up to HELD_OUT others of each to be
judged on.
"""

import csv
import gzip
import json
import random
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).parents[3] / "shared" / "data" / "finetune"
INTENTS, HELD_OUT = 10, 20
SYSTEMS = {"banking77": "Sort the message to the bank.", "clinc150": "Answer with the intent only."}


class Files(NamedTuple):
    """Rows to learn from and rows to be judged on."""

    train: Path
    held_out: Path


def texts_by_intent(task: str) -> dict[str, list[str]]:
    """Every request of a data set under its label, in the order of the file, each once, case aside."""
    rows = requests(task)
    seen = {" ".join(text.lower().split()): (text, label) for text, label in reversed(rows)}
    found: dict[str, list[str]] = {}
    for text, label in reversed(seen.values()):
        found.setdefault(label, []).append(text)
    return found


def requests(task: str) -> list[tuple[str, str]]:
    """Text and label of every row."""
    if task == "banking77":
        with gzip.open(DATA / "banking77.csv.gz", "rt", encoding="utf-8") as file:
            return [(row["text"], row["category"]) for row in csv.DictReader(file)]
    with gzip.open(DATA / "clinc150_small.json.gz", "rt", encoding="utf-8") as file:
        parts = json.load(file)
    return [(text, label) for part in ("train", "val") for text, label in parts[part]]


def draw(task: str, rows: int, seed: int, folder: Path, intents: int = INTENTS) -> Files:
    """`rows` rows of `intents` labels to learn from; the same seed draws the same."""
    rng = random.Random(f"{task} {seed}")
    each = rows // intents
    able = {label: texts for label, texts in texts_by_intent(task).items() if len(texts) >= each + HELD_OUT}
    parts: dict[str, list[str]] = {"train": [], "held_out": []}
    for label in rng.sample(sorted(able), intents):
        texts = rng.sample(able[label], each + HELD_OUT)
        parts["train"] += [chat_line(SYSTEMS[task], text, label) for text in texts[:each]]
        parts["held_out"] += [chat_line(SYSTEMS[task], text, label) for text in texts[each:]]
    for part, lines in parts.items():
        rng.shuffle(lines)
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Files(folder / "train.jsonl", folder / "held_out.jsonl")


def chat_line(system: str, text: str, label: str) -> str:
    pairs = (("system", system), ("user", text), ("assistant", label))
    return json.dumps({"messages": [{"role": role, "content": content} for role, content in pairs]})

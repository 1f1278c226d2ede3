"""The detectors beside Presidio's analyzer, on the same documents in one run. Run: `make bench-privacy`.

Presidio (its pattern recognisers, no NER model, see peers/presidio.py) is installed into
~/.cache/headgate-bench/presidio at the first run; the two take turns, so that they are compared within
the same minutes, in CPU time, since other processes share the cores. A pass of ours is so short that most
of it would be spent in filling the caches that the peer's turn emptied, which no busy gateway does; so a turn
of ours is many passes, and the first of them is shown apart. A type's recall is the share of
its characters that findings of this type cover; precision the share of the found characters that are
part of any labelled identifier; a document leaks when one character of a labelled identifier of the
types compared is not covered.

Data is read from ../shared/data; what is absent is left out, and the run says so.
"""

import csv
import gzip
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from gateway.privacy.detect import StructuredDetector
from gateway.privacy.recogniser.tagger import Tagger
from router_policies.privacy import PrivacyClass

ROUNDS = 5
PASSES = 50  # of ours in a turn, so that it lasts: the peer's one pass takes a second, one of ours 10 ms
SHARED = Path(__file__).parents[1].resolve().parent / "shared" / "data"
DOCUMENTS = SHARED / "privacy" / "presidio_synth.json.gz"
OUT = Path(__file__).parent / "out" / "privacy.json"
PEER = Path.home() / ".cache" / "headgate-bench" / "presidio"
PEER_VERSION = "presidio-analyzer==2.2.366"

# Label in the data -> our kinds, Presidio's entities.
STRUCTURED: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "CREDIT_CARD": (frozenset({"payment_card"}), frozenset({"CREDIT_CARD"})),
    "PHONE_NUMBER": (frozenset({"phone"}), frozenset({"PHONE_NUMBER"})),
    "EMAIL_ADDRESS": (frozenset({"email"}), frozenset({"EMAIL_ADDRESS"})),
    "IBAN_CODE": (frozenset({"iban"}), frozenset({"IBAN_CODE"})),
    "IP_ADDRESS": (frozenset({"ip_address"}), frozenset({"IP_ADDRESS"})),
    "US_SSN": (frozenset({"us_ssn"}), frozenset({"US_SSN"})),
    "DOMAIN_NAME": (frozenset({"url"}), frozenset({"URL"})),
    "US_DRIVER_LICENSE": (frozenset({"driver_licence"}), frozenset({"US_DRIVER_LICENSE"})),
}
# Label in the data -> the recogniser's kind, and what it is called among the figures.
NAMES = {"PERSON": ("person", "person"), "STREET_ADDRESS": ("street_address", "address")}

Found = tuple[str, int, int]  # type, start, end

screen = Console()


class Document(msgspec.Struct, frozen=True):
    text: str
    labels: tuple[Found, ...]


class Score(msgspec.Struct, frozen=True):
    """Characters by type: labelled, covered by findings of the same type; found, and rightly so."""

    labelled: Counter[str]
    covered: Counter[str]
    found: Counter[str]
    right: Counter[str]
    leaking: int  # documents

    def recall(self, types: Sequence[str]) -> float:
        return _ratio(self.covered, self.labelled, types)

    def precision(self, types: Sequence[str]) -> float:
        return _ratio(self.right, self.found, types)


def _ratio(part: Counter[str], whole: Counter[str], types: Sequence[str]) -> float:
    total = sum(whole[kind] for kind in types)
    return sum(part[kind] for kind in types) / total if total else float("nan")


def documents() -> list[Document]:
    with gzip.open(DOCUMENTS) as file:
        rows = json.load(file)
    return [
        Document(
            row["full_text"],
            tuple((s["entity_type"], s["start_position"], s["end_position"]) for s in row["spans"]),
        )
        for row in rows
    ]


def judge(texts: Sequence[Document], answers: Sequence[Sequence[Found]], types: Sequence[str]) -> Score:
    """How well `answers`, findings by type for each of `texts`, cover the labels of `types`."""
    score = Score(Counter(), Counter(), Counter(), Counter(), 0)
    leaking = 0
    for document, findings in zip(texts, answers, strict=True):
        labels = [label for label in document.labels if label[0] in types]
        everywhere = set().union(*(range(start, end) for _, start, end in labels))
        leaks = False
        for kind in types:
            truth = _places(labels, kind)
            said = _places(findings, kind)
            score.labelled[kind] += len(truth)
            score.covered[kind] += len(truth & said)
            score.found[kind] += len(said)
            score.right[kind] += len(said & everywhere)
            leaks = leaks or bool(truth - said)
        leaking += leaks
    return msgspec.structs.replace(score, leaking=leaking)


def _places(findings: Sequence[Found], kind: str) -> set[int]:
    return set().union(*(range(start, end) for name, start, end in findings if name == kind))


class Presidio:
    """The child process; each `round` analyses all documents once."""

    def __init__(self, texts: Sequence[str]) -> None:
        if not (PEER / "bin" / "python").exists():
            screen.print(f"installing {PEER_VERSION} into {PEER}")
            subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
            subprocess.run([PEER / "bin" / "pip", "install", "-q", PEER_VERSION], check=True)
        self._child = subprocess.Popen(
            [PEER / "bin" / "python", Path(__file__).parent / "peers" / "presidio.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": ""},
        )
        self._say(json.dumps(texts))

    def _say(self, line: str) -> None:
        assert self._child.stdin
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def round(self) -> tuple[float, list[list[Found]]]:
        """Seconds, and per document what was found, by the data's types."""
        assert self._child.stdout
        self._say("again")
        answer = json.loads(self._child.stdout.readline())
        types = {entity: label for label, (_, entities) in STRUCTURED.items() for entity in entities}
        return answer["seconds"], [
            [(types[entity], start, end) for entity, start, end, _ in found if entity in types]
            for found in answer["findings"]
        ]

    def close(self) -> None:
        self._child.communicate()


class Turn(msgspec.Struct, frozen=True):
    """Seconds for all documents once: in the first pass, and on the mean of all."""

    first: float
    mean: float
    answers: list[list[Any]]


def our_turn(detector: Any, texts: Sequence[str], passes: int = PASSES) -> Turn:
    started = time.process_time()
    answers = [detector.scan(text) for text in texts]
    first = time.process_time() - started
    for _ in range(passes - 1):
        for text in texts:
            detector.scan(text)
    return Turn(first, (time.process_time() - started) / passes, answers)


def by_label(answers: Sequence[Sequence[Any]], kinds: dict[str, str]) -> list[list[Found]]:
    return [[(kinds[f.kind], f.start, f.end) for f in found if f.kind in kinds] for found in answers]


def compare() -> dict[str, float]:
    """Both on the documents, in turns."""
    texts = documents()
    plain = [document.text for document in texts]
    kib = sum(len(text.encode()) for text in plain) / 1024
    detector, presidio = StructuredDetector(), Presidio(plain)
    our_turn(detector, plain, 1)  # the peer warms up too, see peers/presidio.py
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(our_turn(detector, plain))
        theirs.append(presidio.round())
    presidio.close()
    our_us = statistics.median(turn.mean for turn in ours) / kib * 1e6
    first_us = statistics.median(turn.first for turn in ours) / kib * 1e6
    their_us = statistics.median(seconds for seconds, _ in theirs) / kib * 1e6
    found = ours[0].answers
    kinds = {kind: label for label, (own, _) in STRUCTURED.items() for kind in own}
    types = list(STRUCTURED)
    us = judge(texts, by_label(found, kinds), types)
    them = judge(texts, theirs[0][1], types)
    _print(us, them, len(texts))
    screen.print(f"µs per KiB: {our_us:.1f}, after a pause {first_us:.1f}; Presidio {their_us:.0f}")
    alarms = Counter(f.kind for each in found for f in each if f.kind not in kinds)
    screen.print(f"headgate's findings of other kinds: {dict(alarms) or 'none'}")
    return {
        "recall_structured": us.recall(types),
        "recall_structured_presidio": them.recall(types),
        "precision_structured": us.precision(types),
        "precision_structured_presidio": them.precision(types),
        **{f"recall_{label.lower()}": us.recall([label]) for label in types},
        **{f"recall_{label.lower()}_presidio": them.recall([label]) for label in types},
        "leaking_documents": us.leaking / len(texts),
        "leaking_documents_presidio": them.leaking / len(texts),
        "us_per_kib": our_us,
        "us_per_kib_after_pause": first_us,
        "us_per_kib_presidio": their_us,
        "time_ratio_presidio": our_us / their_us,
    }


def names() -> dict[str, float]:
    """The bundled recogniser: characters by type on each document, CPU time on pieces of 1,024 characters."""
    texts = documents()
    tagger = Tagger()
    spans = [tagger.spans(document.text) for document in texts]
    joined = "\n".join(document.text for document in texts)
    parts = [joined[i : i + 1024] for i in range(0, len(joined) - 1024, 1024)]
    started = time.process_time()
    for part in parts:
        tagger.spans(part)
    figures = {"names_ms_per_kib": 1e3 * (time.process_time() - started) / len(parts)}
    for label, (kind, name) in NAMES.items():
        answers = [[(label, s.start, s.end) for s in found if s.type == kind] for found in spans]
        score = judge(texts, answers, [label])
        figures |= {f"recall_{name}": score.recall([label]), f"precision_{name}": score.precision([label])}
    screen.print({name: round(figure, 3) for name, figure in figures.items()})
    return figures


def _print(us: Score, them: Score, count: int) -> None:
    table = Table("type", "characters", "recall", "precision", "Presidio's recall", "its precision")
    for types in [*([label] for label in STRUCTURED), list(STRUCTURED)]:
        name = types[0] if len(types) == 1 else "all"
        labelled = sum(us.labelled[label] for label in types)
        scores = (us.recall(types), us.precision(types), them.recall(types), them.precision(types))
        table.add_row(name, str(labelled), *(f"{score:.3f}" for score in scores))
    screen.print(table)
    screen.print(f"documents that leak: {us.leaking} of {count}; Presidio {them.leaking}")


PROSE = "You are a careful assistant. Please summarise the minutes of our 3 pm meeting, as before (page 12). "
RECORD = "Card 4111 1111 1111 1111, mail jane@example.com, phone +44 7700 900123, 2 rooms from 2026-03-01. "


def timings() -> dict[str, float]:
    """8 KiB: clean, with three identifiers, and the glance alone; and how time grows to 1 MiB."""
    detector = StructuredDetector()
    clean = (PROSE * 90)[:8192]
    some = clean[:4000] + RECORD + clean[4000 + len(RECORD) :]
    mixed = PROSE * 20 + RECORD
    small, large = ((mixed * 700)[: size << 10] for size in (64, 1024))
    figures = {
        "clears_8k_us": _median_us(lambda: detector.clears(clean)),
        "scan_8k_us": _median_us(lambda: detector.scan(some)),
        "scan_8k_again_us": _median_us(lambda: detector.scan(some)),
        "scan_8k_clean_us": _median_us(lambda: detector.scan(clean)),
    }
    grown = _median_us(lambda: detector.scan(large), 5) / _median_us(lambda: detector.scan(small), 15)
    return {**figures, "growth_64k_to_1m": grown / 16}


def _median_us(work: Callable[[], object], times: int = 301) -> float:
    taken = []
    for _ in range(times):
        started = time.process_time_ns()
        work()
        taken.append((time.process_time_ns() - started) / 1000)
    return statistics.median(taken)


def questions() -> Iterator[str]:
    with gzip.open(SHARED / "finetune" / "banking77.csv.gz", "rt") as file:
        yield from (row["text"] for row in csv.DictReader(file))
    with gzip.open(SHARED / "finetune" / "clinc150_small.json.gz") as file:
        yield from (text for part in json.load(file).values() for text, _ in part)


def false_alarms(detectors: Sequence[Any]) -> float:
    """Share of Banking77's and CLINC's texts that `detectors` class above internal."""
    texts = list(questions())
    alarms = [t for t in texts if any(_alarmed(detector, t) for detector in detectors)]
    screen.print(f"false alarms: {len(alarms)} of {len(texts)} rows above internal")
    return len(alarms) / len(texts)


def _alarmed(detector: Any, text: str) -> bool:
    return any(finding.privacy > PrivacyClass.INTERNAL for finding in detector.scan(text))


def main() -> None:
    figures: dict[str, float] = timings()
    if DOCUMENTS.exists():
        figures |= names() | compare()
    else:
        screen.print(f"no {DOCUMENTS}: nothing to compare on")
    if (SHARED / "finetune").is_dir():
        figures["false_alarm_rate"] = false_alarms([StructuredDetector()])
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    rounded = {name: float(f"{figure:.4g}") for name, figure in figures.items()}
    line = json.dumps({"suite": "privacy", "figures": rounded, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)


if __name__ == "__main__":
    main()

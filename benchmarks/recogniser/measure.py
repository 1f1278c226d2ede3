"""What the recogniser finds of documents whose names and addresses are known, by character.

python -m benchmarks.recogniser.measure [MODEL]
"""

import csv
import gzip
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.recogniser.documents import Document, Writer
from benchmarks.recogniser.pools import HELD_OUT, pool
from gateway.privacy.recogniser.tagger import MODEL, Tagger

DATA = Path(__file__).parents[2].parent / "shared" / "data"
PRESIDIO_TYPES = {
    "PERSON": "person", "STREET_ADDRESS": "street_address", "GPE": "place", "ORGANIZATION": "organisation"
}  # fmt: skip
CONFIDENTIAL = ("person", "street_address")

Find = Callable[[str], Iterable[tuple[int, int, str]]]


@dataclass
class Tally:
    """Characters of one type, white space left out."""

    right: int = 0
    wrong: int = 0
    missed: int = 0

    @property
    def recall(self) -> float:
        return self.right / max(self.right + self.missed, 1)

    @property
    def precision(self) -> float:
        return self.right / max(self.right + self.wrong, 1)


def tallies(documents: Iterable[Document], find: Find) -> dict[str, Tally]:
    result = {kind: Tally() for kind in PRESIDIO_TYPES.values()}
    for document in documents:
        found, meant = list(find(document.text)), document.spans
        for kind, tally in result.items():
            got, want = _characters(document.text, found, kind), _characters(document.text, meant, kind)
            tally.right += len(got & want)
            tally.wrong += len(got - want)
            tally.missed += len(want - got)
    return result


def _characters(text: str, spans: Iterable[tuple[int, int, str]], kind: str) -> set[int]:
    return {i for start, end, k in spans if k == kind for i in range(start, end) if not text[i].isspace()}


def presidio() -> list[Document]:
    """Documents of another generator, never trained on; none where the data is not at hand."""
    if not DATA.exists():
        return []
    rows = json.loads(gzip.decompress((DATA / "privacy" / "presidio_synth.json.gz").read_bytes()))
    return [
        Document(
            row["full_text"],
            tuple(
                (s["start_position"], s["end_position"], PRESIDIO_TYPES[s["entity_type"]])
                for s in row["spans"]
                if s["entity_type"] in PRESIDIO_TYPES
            ),
        )
        for row in rows
    ]


def held_out(count: int = 3000) -> list[Document]:
    """Generated from locales and templates that training never sees."""
    writer = Writer([pool(locale, 11) for locale in HELD_OUT], 11, held_out=True)
    return [writer.document() for _ in range(count)]


def questions() -> list[str]:
    """What people ask a bank and an assistant: hardly a name among them. None where the data is not at hand."""
    if not DATA.exists():
        return []
    rows = csv.DictReader(
        io.StringIO(gzip.decompress((DATA / "finetune" / "banking77.csv.gz").read_bytes()).decode())
    )
    sets = json.loads(gzip.decompress((DATA / "finetune" / "clinc150_small.json.gz").read_bytes()))
    return [row["text"] for row in rows] + [text for rows in sets.values() for text, _ in rows]


def alarms(texts: Sequence[str], find: Find) -> list[str]:
    """Those in which something confidential is found."""
    return [text for text in texts if any(kind in CONFIDENTIAL for _, _, kind in find(text))]


def milliseconds_a_kib(texts: Sequence[str], find: Find) -> float:
    """Texts of about a KiB each."""
    joined = "\n".join(texts)
    parts = [joined[i : i + 1024] for i in range(0, min(len(joined), 200 * 1024), 1024)]
    began = time.process_time()
    for part in parts:
        list(find(part))
    return 1e3 * (time.process_time() - began) / sum(len(part.encode()) for part in parts) * 1024


def finder(model: Path) -> Find:
    tagger = Tagger(model)
    return lambda text: [(s.start, s.end, s.type) for s in tagger.spans(text)]


def main() -> None:
    find = finder(Path(sys.argv[1]) if len(sys.argv) > 1 else MODEL)
    for name, documents in (("held out", held_out()), ("presidio", presidio())):
        for kind, tally in tallies(documents, find).items():
            print(f"{name:10} {kind:15} recall {tally.recall:.3f} precision {tally.precision:.3f}")
    asked = questions()
    loud = alarms(asked, find)
    print(f"alarms {len(loud)}/{len(asked)}", *loud[:30], sep="\n  ")
    print(f"{milliseconds_a_kib([d.text for d in presidio()], find):.2f} ms of CPU/KiB")


if __name__ == "__main__":
    main()

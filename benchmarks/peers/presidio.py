"""Presidio's analyzer as a child process, in a virtual environment of its own: it never enters ours.

Run by `benchmarks/privacy.py`. Reads one line, a JSON list of texts; then, for each further line,
analyses all of them and answers {"seconds": s, "findings": [[[entity, start, end, score], …] per text]}.
All recognisers of its default registry for English are on. The NLP engine is a blank spaCy pipeline: it
parts the text into tokens and finds no names, so that what is measured are the pattern recognisers.
"""

import json
import sys
import time

import spacy
from presidio_analyzer import AnalyzerEngine
from presidio_analyzer.nlp_engine import SpacyNlpEngine


class BlankEngine(SpacyNlpEngine):
    def __init__(self) -> None:
        super().__init__()
        self.nlp = {"en": spacy.blank("en")}

    def load(self) -> None:
        """Nothing to load: the pipeline is there."""


def main() -> None:
    analyzer = AnalyzerEngine(nlp_engine=BlankEngine(), supported_languages=["en"])
    texts = json.loads(sys.stdin.readline())
    for text in texts:
        analyzer.analyze(text, language="en")
    for _ in sys.stdin:
        started = time.process_time()
        answers = [analyzer.analyze(text, language="en") for text in texts]
        seconds = time.process_time() - started
        findings = [[[a.entity_type, a.start, a.end, a.score] for a in answer] for answer in answers]
        print(json.dumps({"seconds": seconds, "findings": findings}), flush=True)


if __name__ == "__main__":
    main()

"""The recognisers that may stand behind the detector: the bundled one, or a library's.

Presidio, spaCy and GLiNER are extras, imported only here, in the worker process, when they are asked for.
Each may load torch there; the gateway itself never does.
"""

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gateway.privacy.recogniser.spans import Span
from gateway.privacy.recogniser.tagger import MODEL, Tagger

Read = Callable[[str], Iterable[Span]]

INSTALL = {"presidio": "presidio-analyzer", "spacy": "spacy", "gliner": "gliner"}
PIECES = {"bundled": 8192, "presidio": 8192, "spacy": 8192, "gliner": 1200}  # characters at a time

_SPACY = {
    "PERSON": "person",
    "PER": "person",
    "GPE": "place",
    "LOC": "place",
    "FAC": "place",
    "ORG": "organisation",
}
_PRESIDIO = {"PERSON": "person", "LOCATION": "place", "ORGANIZATION": "organisation"}
_GLINER = {
    "person": "person",
    "street address": "street_address",
    "city or country": "place",
    "organization": "organisation",
}


class Unusable(Exception):
    """A recogniser that cannot be loaded; the message says why and what to do."""


def load(kind: str, model: str) -> Read:
    """The recogniser of this kind. `model` is a path or a name that the library knows; "": the default."""
    try:
        return _LOADERS[kind](model)
    except ImportError:
        raise Unusable(f"{kind} is not installed: pip install {INSTALL.get(kind, kind)}") from None
    except Exception as error:  # libraries raise what they like
        raise Unusable(f"the model {model or '(default)'} of {kind} cannot be loaded: {error}") from error


def _bundled(model: str) -> Read:
    return Tagger(Path(model) if model else MODEL).spans


def _spacy(model: str) -> Read:
    pipeline: Any = importlib.import_module("spacy").load(model or "en_core_web_sm")

    def read(text: str) -> Iterable[Span]:
        found = ((entity.start_char, entity.end_char, entity.label_, 0.85) for entity in pipeline(text).ents)
        return _named(found, _SPACY)

    return read


def _presidio(model: str) -> Read:
    analyzer = importlib.import_module("presidio_analyzer")
    providers = importlib.import_module("presidio_analyzer.nlp_engine")
    configuration = {
        "nlp_engine_name": "spacy",
        "models": [{"lang_code": "en", "model_name": model or "en_core_web_lg"}],
    }
    nlp = providers.NlpEngineProvider(nlp_configuration=configuration).create_engine()
    engine: Any = analyzer.AnalyzerEngine(nlp_engine=nlp, supported_languages=["en"])

    def read(text: str) -> Iterable[Span]:
        results = engine.analyze(text=text, language="en")
        return _named(((r.start, r.end, r.entity_type, r.score) for r in results), _PRESIDIO)

    return read


def _gliner(model: str) -> Read:
    library: Any = importlib.import_module("gliner")
    network = library.GLiNER.from_pretrained(model or "urchade/gliner_multi_pii-v1")

    def read(text: str) -> Iterable[Span]:
        found = network.predict_entities(text, list(_GLINER), threshold=0.5)
        return _named(((e["start"], e["end"], e["label"], e["score"]) for e in found), _GLINER)

    return read


def _named(found: Iterable[tuple[int, int, str, float]], types: Mapping[str, str]) -> Iterable[Span]:
    """Those of a type that is ours."""
    for start, end, label, score in found:
        if label in types:
            yield Span(start, end, types[label], float(score))


_LOADERS: Mapping[str, Callable[[str], Read]] = {
    "bundled": _bundled,
    "presidio": _presidio,
    "spacy": _spacy,
    "gliner": _gliner,
}
KINDS = tuple(_LOADERS)

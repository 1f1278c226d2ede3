"""The recogniser's process: dead, stuck, slow or raising, it never lets a request pass as clean."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import ConfigError
from gateway.privacy.classify import Classifier
from gateway.privacy.detect import StructuredDetector
from gateway.privacy.recogniser.detector import NameDetector, start
from gateway.privacy.recogniser.frames import UNTIL
from gateway.privacy.recogniser.process import Down, Worker
from gateway.privacy.recogniser.spans import Answer
from gateway.privacy.recogniser.worker import answer
from gateway.types import Classification
from router_policies.privacy import DEFAULT_SCALE, scale_of

PUBLIC, INTERNAL, CONFIDENTIAL, RESTRICTED = DEFAULT_SCALE
NAMED = "My name is Johannes Brandt."
# No spaCy: a module of that name with the few parts that the adapter uses. It "finds" the word Anna, and
# does what goes wrong in libraries when it is told to.
STAND_IN = """
    import os, re, time
    from types import SimpleNamespace

    def load(model):
        if model == "absent":
            raise OSError("no model absent")
        return read

    def read(text):
        if "hang" in text:
            time.sleep(600)
        if "die" in text:
            os._exit(3)
        if "raise" in text:
            raise RuntimeError(text)
        if "memory" in text:
            bytearray(1 << 32)
        found = re.finditer("Anna", text)
        return SimpleNamespace(ents=[
            SimpleNamespace(start_char=m.start(), end_char=m.end(), label_="PERSON") for m in found
        ])
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spacy.py").write_text(textwrap.dedent(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))


@pytest.fixture
def bundled() -> Iterator[NameDetector]:
    detector = start("bundled", "", 5.0, {}, DEFAULT_SCALE)
    yield detector
    detector.close()


@pytest.fixture
def library(stand_in: None) -> Iterator[NameDetector]:
    detector = start("spacy", "", 0.5, {}, DEFAULT_SCALE)
    yield detector
    detector.close()


async def classified(detector: NameDetector, text: str, **options: Any) -> Classification:
    classifier = Classifier([StructuredDetector(), detector], **options)
    return await classifier.classify({"prompt": text}, floor=PUBLIC)


async def recovered(detector: NameDetector, text: str) -> Classification:
    """The class of `text` once the detector answers again; at most 20 s."""
    until = time.monotonic() + 20
    while True:
        result = await classified(detector, text)
        if result.privacy < RESTRICTED or time.monotonic() > until:
            return result
        await asyncio.sleep(0.05)


async def test_names_raise_the_class(bundled: NameDetector) -> None:
    """A name makes a request confidential, a place internal, and neither leaves it as it was."""
    named = await classified(bundled, NAMED)
    assert (named.privacy, named.findings, named.reason) == (CONFIDENTIAL, {"person": 1}, "found person")
    assert (await classified(bundled, "The weather in Copenhagen, Denmark")).privacy == INTERNAL
    assert (await classified(bundled, "How do I reset my password?")).privacy == PUBLIC


async def test_classes_are_configurable(stand_in: None) -> None:
    """`privacy.classes` overrides the class of a type, and another scale says what confidential means."""
    detector = start("spacy", "", 2.0, {"person": INTERNAL}, DEFAULT_SCALE)
    assert (await classified(detector, "Anna")).privacy == INTERNAL
    detector.close()
    scale = scale_of(
        ("open", "closed"), {"internal": "open", "confidential": "closed", "restricted": "closed"}
    )
    detector = start("spacy", "", 2.0, {}, scale)
    assert [finding.privacy.label for finding in detector.scan("Anna")] == ["closed"]
    detector.close()


async def test_a_killed_worker_is_the_highest_class_until_another_one_is_up(bundled: NameDetector) -> None:
    """SIGKILL between requests: the next is restricted, with the reason; then names are found as before."""
    pid = bundled._worker.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    down = await classified(bundled, "hello")
    assert (down.privacy, down.reason) == (RESTRICTED, "detector names: raised Down")
    again = await recovered(bundled, NAMED)
    assert (again.privacy, again.findings) == (CONFIDENTIAL, {"person": 1})
    assert bundled._worker.pid != pid


@pytest.mark.parametrize("word", ["hang", "die", "raise", "memory"])
async def test_whatever_goes_wrong_inside_is_the_highest_class(library: NameDetector, word: str) -> None:
    """It hangs, dies, raises or wants 4 GiB: restricted, no content told, and then it goes on."""
    began = time.monotonic()
    result = await classified(library, f"please {word} the secret")
    assert result.privacy == RESTRICTED
    assert result.reason.startswith("detector names: ")
    assert "secret" not in result.reason
    assert time.monotonic() - began < 3
    assert (await recovered(library, "Anna")).findings == {"person": 1}


async def test_a_text_that_takes_too_long_is_given_up(bundled: NameDetector) -> None:
    """Far more text than the deadline allows: restricted, and the same process goes on with the next."""
    pid = bundled._worker.pid
    bundled.deadline_s = 0.2
    assert (await classified(bundled, "Word after word. " * 100_000)).privacy == RESTRICTED
    bundled.deadline_s = 5.0
    assert (await recovered(bundled, NAMED)).findings == {"person": 1}
    assert bundled._worker.pid == pid


async def test_a_long_text_is_read_to_its_end(bundled: NameDetector) -> None:
    """A name behind 200 KB of prose is found, at its place."""
    text = "How do I reset my password? " * 7_500 + NAMED
    bundled.deadline_s = 60.0
    persons = [f for f in bundled.scan(text) if f.kind == "person"]
    assert [text[f.start : f.end] for f in persons] == ["Johannes Brandt"]


def test_lone_surrogates_reach_the_recogniser(bundled: NameDetector) -> None:
    """JSON may hold them, and they are no way around it."""
    (finding,) = bundled.scan(f"\ud800 {NAMED}")
    assert (finding.start, finding.end) == (13, 28)


def test_what_cannot_be_loaded_is_told_at_start(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is not installed, one without its model, and a file that is no model."""
    with pytest.raises(ConfigError, match="gliner is not installed: pip install gliner"):
        start("gliner", "", 1.0, {}, DEFAULT_SCALE)
    with pytest.raises(ConfigError, match="the model absent of spacy cannot be loaded: no model absent"):
        start("spacy", "absent", 1.0, {}, DEFAULT_SCALE)
    with pytest.raises(ConfigError, match="of bundled cannot be loaded"):
        start("bundled", __file__, 1.0, {}, DEFAULT_SCALE)


def test_the_worker_gets_no_secret(stand_in: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment only what Python needs reaches the process that reads prompts."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    worker = Worker("bundled", "")
    worker.start()
    environment = Path(f"/proc/{worker.pid}/environ").read_bytes()
    assert b"PYTHONPATH" in environment
    assert b"sk-secret" not in environment
    worker.close()


def test_a_closed_worker_is_gone(stand_in: None) -> None:
    """`close` ends the process, and later questions fail."""
    worker = Worker("spacy", "")
    worker.start()
    pid = worker.pid
    worker.close()
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(Down):
        worker.ask("Anna", 1.0)


def test_a_busy_worker_is_waited_for_no_longer_than_the_deadline(stand_in: None) -> None:
    """Who comes while it is at work waits its turn, and then for no more than its own time."""
    worker = Worker("spacy", "")
    worker.start()
    with worker._turn, pytest.raises(Down, match="busy"):
        worker.ask("Anna", 0.05)
    assert [span.type for span in worker.ask("Anna", 5.0)] == ["person"]
    worker.close()


def test_an_answer_never_holds_what_it_was_asked() -> None:
    """Errors are named by type; a request that is cut or is no UTF-8 is an error too."""

    def raises(text: str) -> Any:
        raise ValueError(text)

    assert answer(UNTIL.pack(float("inf")) + b"secret", raises, 4096) == Answer(failure="ValueError")
    assert answer(UNTIL.pack(float("inf")) + b"\xff\xff", raises, 4096) == Answer(
        failure="UnicodeDecodeError"
    )
    assert answer(b"", raises, 4096) == Answer(failure="error")
    assert answer(UNTIL.pack(0.0) + b"x", raises, 4096) == Answer(failure="no time left")


def test_the_gateway_does_not_load_what_only_the_worker_needs() -> None:
    """numpy is 16 MB in every process that serves."""
    code = "import sys, gateway.app; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

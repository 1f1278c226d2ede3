"""The detector "names": what a recogniser finds in its own process, with the classes of this deployment."""

import json
from collections.abc import Mapping
from pathlib import Path

from gateway.errors import ConfigError
from gateway.privacy.detect import Finding
from gateway.privacy.recogniser.process import Down, Worker
from gateway.privacy.recogniser.spans import TYPES
from router_policies.privacy import DEFAULT_SCALE, PrivacyClass, Scale

NAME = "names"
CARD = Path(__file__).with_name("card.json")
CLASSES: Mapping[str, PrivacyClass] = {
    "person": PrivacyClass.CONFIDENTIAL,
    "street_address": PrivacyClass.CONFIDENTIAL,
    "place": PrivacyClass.INTERNAL,
    "organisation": PrivacyClass.INTERNAL,
}
NOT_COVERED = "names and addresses are not covered: privacy.recogniser is off"


class NameDetector:
    """Persons, street addresses, places and organisations. Fails rather than overlooks a text.

    `linear` is False: the answer comes from another process, so it is waited for in a thread.
    """

    name = NAME
    linear = False

    def __init__(
        self,
        worker: Worker,
        *,
        deadline_s: float = 1.0,
        classes: Mapping[str, PrivacyClass] | None = None,
        scale: Scale = DEFAULT_SCALE,
    ) -> None:
        """`deadline_s` is for one request. `classes` overrides the class of single types."""
        self._worker, self.deadline_s, self.kind = worker, deadline_s, worker.kind
        shipped = {kind: scale.meaning(privacy) for kind, privacy in CLASSES.items()}
        self._classes = {**shipped, **(classes or {})}

    def scan(self, text: str) -> list[Finding]:
        """Raises Down when the recogniser cannot say what is in `text`."""
        return [
            Finding(span.start, span.end, span.type, self._classes[span.type], span.confidence)
            for span in self._worker.ask(text, self.deadline_s)
        ]

    def close(self) -> None:
        self._worker.close()


def start(
    kind: str, model: str, deadline_s: float, classes: Mapping[str, PrivacyClass], scale: Scale
) -> NameDetector:
    """With its process running. ConfigError: the recogniser cannot be loaded."""
    worker = Worker(kind, model)
    try:
        worker.start()
    except Down as problem:
        raise ConfigError("privacy.recogniser", [str(problem)]) from problem
    return NameDetector(worker, deadline_s=deadline_s, classes=classes, scale=scale)


def coverage(kind: str) -> str:
    """One line on what a recogniser of this kind is known to find."""
    if kind == "off":
        return NOT_COVERED
    if kind != "bundled":
        return f"names and addresses: {kind}; its recall on your text is not known to us"
    measured = json.loads(CARD.read_text(encoding="utf-8"))["measured"]
    lines = []
    for data, figures in measured.items():
        shown = ", ".join(
            f"{kind} {figures[kind]['recall']:.2f}/{figures[kind]['precision']:.2f}" for kind in TYPES
        )
        lines.append(f"{data}: {shown}")
    return "names and addresses: bundled; recall/precision by character " + "; ".join(lines)

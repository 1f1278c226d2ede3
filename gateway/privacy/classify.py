"""How sensitive a request is: the highest of its floor, what the client asks for, and what is found.

Fails closed. A detector that raises, hangs, is out of memory or answers with rubbish has not
vouched for the request, and neither has one that never saw it: the class is the highest of the scale,
and the reason names the detector. Reasons hold names and counts, never content.

All detectors see all of the request always, also when its class cannot rise any more: the ledger
shows what was in it. A detector that can clear a request at a glance is not asked to scan it.
"""

import asyncio
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.errors import BadRequest
from gateway.privacy.content import ATTACHMENTS, Unreadable, read, strings_of
from gateway.privacy.detect import Clearing, Detector, Finding, Patient
from gateway.privacy.workers import AllStuck, Workers
from gateway.types import Classification, Place
from router_policies.privacy import DEFAULT_SCALE, PrivacyClass, Scale

__all__ = ["Classifier", "strings_of"]

# A glance is so much cheaper than a scan that it may take texts that many times as long inline;
# a quarter of that beyond ASCII, where looking through disguises may cost more than the glance.
_GLANCE = 8
THREADS = 4
_BEYOND_ASCII = 4
# Above all scales; what is so classed has the highest class that there is.
_DOUBT = PrivacyClass(sys.maxsize, "doubt")


class _Report(msgspec.Struct, frozen=True):
    """One voice on the class of a request: a detector's, or the request's own."""

    privacy: PrivacyClass
    reason: str
    counts: dict[str, int] = {}
    places: tuple[Place, ...] = ()
    failed: bool = False


_NOTHING = _Report(PrivacyClass.PUBLIC, "nothing found")  # says least on every scale


class _Rubbish(Exception):
    """What a detector returned is no list of findings."""


class Classifier:
    """Asks all detectors. `deadline_s` is for each that sets none, and they run side by side.

    Those that promise linear time read texts up to `inline_characters` on the event loop: a thread
    costs more than that, and longer ones, when a glance is enough. Everything else goes to `workers`,
    by default four threads of its own.
    """

    def __init__(
        self,
        detectors: Sequence[Detector],
        *,
        deadline_s: float = 0.25,
        scale: Scale = DEFAULT_SCALE,
        attachment_classes: Mapping[str, PrivacyClass] | None = None,
        inline_characters: int = 16 * 1024,
        workers: Workers | None = None,
    ) -> None:
        self._detectors = tuple(detectors)
        self._clearing = tuple(d for d in detectors if isinstance(d, Clearing) and d.linear)
        self._scale = scale
        unread = dict.fromkeys(ATTACHMENTS, scale.meaning(PrivacyClass.CONFIDENTIAL))
        self._attachment_classes = {**unread, **(attachment_classes or {})}
        nothing = [_NOTHING] * len(self._detectors)
        self._floors = {floor: _Report(floor, f"floor {floor.label}") for floor in scale}
        self._clear = {floor: self._highest([self._floors[floor], *nothing]) for floor in scale}
        self._deadline_s = deadline_s
        self._inline_characters = inline_characters
        self._workers = workers or Workers(THREADS)

    async def classify(
        self,
        body: object,
        *,
        floor: PrivacyClass,
        asked: Sequence[str] = (),
        may_lower: bool = False,
    ) -> Classification:
        """The class of `body`, decoded JSON. `asked` are the client's own words for it: they raise.

        Where the client `may_lower`, they take the place of the floor; what is found counts all the same.
        Raises BadRequest when one of `asked` is no class.
        """
        wanted = [self._asked(label) for label in asked]
        reports = wanted if wanted and may_lower else [self._floors[floor], *wanted]
        try:
            content = read(body)
        except Unreadable as problem:
            return self._highest([*reports, _Report(_DOUBT, f"cannot be read: {problem}")])
        if content.attachments:
            unread = max(self._attachment_classes[medium] for medium in content.attachments)
            reports.append(_Report(unread, "attachments cannot be read"))
        doubtful = self._doubtful(content.pieces())
        if not doubtful and len(reports) == 1 and not wanted:  # mostly so
            return self._clear[floor]
        reports += [_NOTHING] * (len(self._detectors) - len(doubtful))
        if doubtful:
            reports += await self._ask_all(doubtful, content.texts())
        return self._highest(reports)

    def _doubtful(self, pieces: str) -> Sequence[Detector]:
        """The detectors that do not clear `pieces` at a glance."""
        weight = len(pieces) if pieces.isascii() else _BEYOND_ASCII * len(pieces)
        if weight > _GLANCE * self._inline_characters:
            return self._detectors
        cleared = [detector for detector in self._clearing if _clears(detector, pieces)]
        return [detector for detector in self._detectors if detector not in cleared]

    async def _ask_all(self, detectors: Sequence[Detector], texts: Sequence[str]) -> list[_Report]:
        inline = sum(map(len, texts)) <= self._inline_characters
        if inline and all(detector.linear for detector in detectors):
            return [self._report(detector, texts) for detector in detectors]
        return await asyncio.gather(*(self._ask(detector, texts, inline) for detector in detectors))

    async def _ask(self, detector: Detector, texts: Sequence[str], inline: bool) -> _Report:
        if inline and detector.linear:
            return self._report(detector, texts)
        deadline_s = detector.deadline_s if isinstance(detector, Patient) else self._deadline_s
        try:
            return await self._workers.run(lambda: self._report(detector, texts), deadline_s)
        except TimeoutError:
            return _failed(detector, f"no answer within {deadline_s} s")
        except AllStuck:
            return _failed(detector, "all threads are stuck")
        except RuntimeError as error:
            return _failed(detector, f"ended its thread with {error}")

    def _asked(self, label: str) -> _Report:
        try:
            privacy = self._scale.parse(label)
        except ValueError as error:
            raise BadRequest(str(error), code="unknown_privacy_class") from None
        return _Report(privacy, f"asked for {privacy.label}")

    def _report(self, detector: Detector, texts: Sequence[str]) -> _Report:
        """What `detector` says of `texts`. Of a kind it counts those in the text that holds most of them."""
        counts: Counter[str] = Counter()
        places: list[Place] = []
        try:
            for number, text in enumerate(texts):
                found = _checked(detector.scan(text), len(text), self._scale)
                findings = [finding for finding in found if finding.privacy > self._scale.lowest]
                if not findings:
                    continue
                counts |= Counter(finding.kind for finding in findings)
                places += (Place(number, f.start, f.end, f.kind, f.privacy) for f in findings)
        except _Rubbish as rubbish:
            return _failed(detector, str(rubbish))
        except Exception as error:  # noqa: BLE001  # fail closed, whatever it is; its message may hold content
            return _failed(detector, f"raised {type(error).__name__}")
        if not places:
            return _NOTHING
        privacy = max(place.privacy for place in places)
        return _Report(privacy, "found " + ", ".join(sorted(counts)), dict(counts), tuple(places))

    def _highest(self, reports: Iterable[_Report]) -> Classification:
        """The highest class, with the reasons of those who gave it."""
        reports, most = list(reports), self._scale.highest
        privacy = min(max(report.privacy for report in reports), most)
        givers = [report for report in reports if min(report.privacy, most) == privacy]
        findings: dict[str, int] = {}
        for report in reports:
            for kind, count in report.counts.items():
                findings[kind] = findings.get(kind, 0) + count
        reason = "; ".join(report.reason for report in givers if report.reason)
        failed = any(report.failed for report in reports)
        least = max((r.privacy for r in reports if not r.places), default=self._scale.lowest)
        return Classification(
            privacy=self._scale.classes[privacy],
            findings=findings,
            reason=reason,
            places=() if failed else tuple(place for report in reports for place in report.places),
            least=min(least, most),
        )


def _clears(detector: Clearing, pieces: str) -> bool:
    """Whether `detector` vouches for `pieces` at a glance. If it fails, its scan shall tell."""
    try:
        return detector.clears(pieces) is True
    except Exception:  # noqa: BLE001  # whatever it is, it is no promise
        return False


def _checked(findings: object, size: int, scale: Scale) -> Sequence[Finding]:
    """`findings`, when they are what a detector has to return."""
    if not isinstance(findings, list | tuple):
        raise _Rubbish(f"returned {type(findings).__name__}, not a list of findings")
    if not all(_valid(finding, size, scale) for finding in findings):
        raise _Rubbish("returned an invalid finding")
    return findings


def _valid(finding: object, size: int, scale: Scale) -> bool:
    """A kind must look like a name: it goes into the ledger, and content must not."""
    return (
        isinstance(finding, Finding)
        and isinstance(finding.privacy, PrivacyClass)
        and finding.privacy in scale
        and isinstance(finding.kind, str)
        and finding.kind.isidentifier()
        and len(finding.kind) <= 40
        and type(finding.start) is type(finding.end) is int
        and 0 <= finding.start < finding.end <= size
        and isinstance(finding.confidence, int | float)
        and 0 <= finding.confidence <= 1  # not NaN either
    )


def _failed(detector: Detector, why: str) -> _Report:
    return _Report(_DOUBT, f"detector {detector.name}: {why}", failed=True)

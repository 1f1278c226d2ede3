"""`headgate privacy scan`: the detectors on one's own text, on this machine."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml
from rich.console import Console
from rich.text import Text

from gateway.errors import HeadgateError
from gateway.parts import build_detectors
from gateway.privacy.detect import Detector, Finding, StructuredDetector, outermost
from gateway.privacy.recogniser.detector import NameDetector, coverage, start
from gateway.privacy.rules import RuleDetector, read_rules
from gateway.settings import load_settings
from router_policies.privacy import DEFAULT_SCALE, PrivacyClass

NONE_FOUND, FOUND, ERROR = 0, 1, 2
_STYLES = ("dim", "cyan", "yellow", "bold red")  # by class, the last one for all above
_NO_NAMES = "Names and street addresses are not covered: no recogniser is switched on."
_ENCODER = msgspec.json.Encoder()


def scan(
    file: Annotated[str, typer.Argument(help="A text file, or - for standard input.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="Use the detectors that this headgate.yaml switches on."),
    ] = None,
    rules: Annotated[
        Path | None, typer.Option(help="Dictionaries and patterns of your own, as YAML or JSON.")
    ] = None,
    names: Annotated[
        bool, typer.Option("--names", help="Look for names and addresses with the bundled recogniser.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object for each line of input.")] = False,
    show: Annotated[bool, typer.Option(help="Print what was found in full, not only its ends.")] = False,
) -> None:
    """Show what the detectors find in a text: type, place, confidence and class. Nothing leaves this machine.

    Exits with 0 when nothing is found, 1 when something is, 2 when the input cannot be read.

    Example: echo 'card 4111 1111 1111 1111' | headgate privacy scan -
    """
    detectors = [*_detectors(config, rules), *_recogniser(names)]
    text = _read(file)
    found = _json(detectors, text) if as_json else _table(detectors, text, show)
    raise typer.Exit(FOUND if found else NONE_FOUND)


class Unreadable(HeadgateError):
    """The input is no text that can be read."""


def _read(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Unreadable(f"{file}: {error.strerror}") from None
    if b"\0" in data[:8192] and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise Unreadable(f"{file}: binary data; extract its text first")
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise Unreadable(
            f"{file}: no {encoding.upper()} text at byte {error.start}; convert it, e.g. with iconv -t UTF-8"
        ) from None


def _detectors(config: Path | None, rules: Path | None) -> Sequence[Detector]:
    settings = load_settings(config, environment=None) if config else None
    detectors = build_detectors(settings) if settings else [StructuredDetector()]
    if rules is None:
        return detectors
    try:
        data = yaml.safe_load(rules.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Unreadable(f"{rules}: {error}") from None
    return [*detectors, RuleDetector(read_rules(data, settings.scale if settings else DEFAULT_SCALE))]


def _recogniser(wanted: bool) -> Iterator[Detector]:
    """A person waits as long as it takes."""
    if wanted:
        yield start("bundled", "", float("inf"), {}, DEFAULT_SCALE)


def _find(detectors: Sequence[Detector], text: str) -> list[Finding]:
    return list(outermost(finding for detector in detectors for finding in detector.scan(text)))


def _json(detectors: Sequence[Detector], text: str) -> bool:
    """Lines are read one by one: places are characters in the line."""
    any_found = False
    for number, line in enumerate(text.splitlines(), 1):
        findings = _find(detectors, line)
        any_found = any_found or bool(findings)
        row = {"line": number, "findings": [_row(finding) for finding in findings]}
        sys.stdout.write(_ENCODER.encode(row).decode() + "\n")
    return any_found


def _row(finding: Finding) -> dict[str, object]:
    return {
        "type": finding.kind,
        "start": finding.start,
        "end": finding.end,
        "confidence": finding.confidence,
        "class": finding.privacy.label,
    }


def _table(detectors: Sequence[Detector], text: str, show: bool) -> bool:
    """For people: the text is read as a whole, so that what goes on in the next line is found too."""
    console = Console(highlight=False, soft_wrap=True)
    findings = _find(detectors, text)
    for finding in findings:
        console.print(_line(finding, text, show))
    counts = Counter(finding.kind for finding in findings)
    if findings:
        highest = max(finding.privacy for finding in findings)
        kinds = ", ".join(f"{count} {kind}" for kind, count in counts.most_common())
        console.print(Text(f"{len(findings)} found: {kinds}. Class: {highest.label}.", _style(highest)))
    else:
        console.print("Nothing found.")
    recognisers = [detector for detector in detectors if isinstance(detector, NameDetector)]
    console.print(Text(coverage(recognisers[0].kind) if recognisers else _NO_NAMES, "dim"))
    return bool(findings)


def _line(finding: Finding, text: str, show: bool) -> Text:
    row = text.count("\n", 0, finding.start) + 1
    column = finding.start - text.rfind("\n", 0, finding.start)
    line = Text(f"{row}:{column}".ljust(9))
    line.append(f"{finding.kind:<20} {finding.privacy.label:<13}", _style(finding.privacy))
    line.append(f"{finding.start}-{finding.end}".ljust(14) + f"{finding.confidence:.2f}  ")
    value = "".join(_visible(text[finding.start : finding.end], show))
    return line.append(value, _style(finding.privacy))


def _visible(value: str, show: bool) -> Iterator[str]:
    """`value` without what would move a terminal's cursor, and only its ends unless it is to be shown."""
    for place, character in enumerate(value[:200]):
        hidden = not show and 0 < place < len(value) - 1 and not character.isspace()
        yield "•" if hidden else character if character.isprintable() else " "


def _style(privacy: PrivacyClass) -> str:
    return _STYLES[min(privacy, len(_STYLES) - 1)]

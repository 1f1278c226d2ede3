"""`headgate data …`: is a data set fit to learn from, what will be learned, and a cleaner one from it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from finetune.curate.build import (
    ABOUT,
    TRAIN,
    NothingLeft,
    Version,
    clean,
    divide,
    raw_lines,
    read_version,
    write_version,
)
from finetune.curate.checks import Scan, all_findings, summarise
from finetune.curate.findings import DataFile, Finding, Preflight, count
from finetune.curate.preflight import NoPreflight, learn_from
from finetune.curate.reading import Unusable, read_file, rows_of_table
from gateway.cli import data_screen as screen
from gateway.errors import ConfigError
from gateway.parts import build_detectors
from gateway.privacy.detect import Detector, StructuredDetector
from gateway.privacy.recogniser.detector import NameDetector
from gateway.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Data sets: check, build, split, show.")

FIT, UNFIT = 0, 1
FileArgument = Annotated[Path, typer.Argument(help="OpenAI fine-tuning JSONL: one conversation a line.")]
BaseOption = Annotated[
    str, typer.Option(help="Base model, for token counts by its own template: a bundled name, folder or hub.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
SeedOption = Annotated[int, typer.Option(min=0, help="The same rows and seed give the same division.")]
ShareOption = Annotated[float, typer.Option(min=0.01, max=0.9, help="Share of the rows for validation.")]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for versions.")]
NameOption = Annotated[str, typer.Option(help="Name of the data set; empty: the file's.")]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Use the detectors that this headgate.yaml switches on.")
]
ROOT = Path("var/datasets")


@app.command()
def check(
    file: FileArgument,
    validation: Annotated[Path | None, typer.Option(help="The validation file.")] = None,
    held_out: Annotated[
        list[Path] | None, typer.Option(help="Rows that nothing may be learned from; may be repeated.")
    ] = None,
    preferences: Annotated[
        bool, typer.Option("--preferences", help="The rows are for DPO; what is preferred is looked at.")
    ] = False,
    base: BaseOption = "",
    config: ConfigOption = None,
    personal: Annotated[bool, typer.Option(help="Look for personal data and secrets.")] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as well.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Everything that is wrong with a data set, at once. Of its text, only labels are printed.

    Schema, order of roles, tool calls and weights; duplicates, exact and near; contradictions; overlap with
    the other files; personal data and secrets; outliers in length and language; labels with too few rows;
    with --base also tokens by its template. Exits with 0 when the data is fit, 1 when it is not, 2 when it
    cannot be read.

    Example: headgate data check rows.jsonl --validation val.jsonl --base sluice-4m
    """
    wanted = [("train", file), *([("validation", validation)] if validation else [])]
    wanted += [("held-out", path) for path in held_out or ()]
    files, findings = _read(wanted, preferences)
    preflight = None
    if files and len(files) == len(wanted):
        preflight = _preflight(base, file) if base and not preferences else None
        with _scan(config, personal) as scan:
            findings += all_findings(files, scan, preflight)
    summaries = [summarise(each) for each in files]
    if as_json:
        _print({"files": summaries, "findings": findings, "tokens": preflight and screen.totals(preflight)})
    else:
        screen.report(Console(), summaries, findings, preflight)
    bad = count("error", findings) + (count("warning", findings) if strict else 0)
    raise typer.Exit(UNFIT if bad else FIT)


@app.command()
def build(
    source: Annotated[Path, typer.Argument(help="JSONL of conversations, or a CSV with a header.")],
    name: NameOption = "",
    output: OutputOption = ROOT,
    base: BaseOption = "",
    question: Annotated[str, typer.Option(help="Column of a CSV: what is asked.")] = "question",
    answer: Annotated[str, typer.Option(help="Column of a CSV: the answer.")] = "answer",
    system: Annotated[str, typer.Option(help="System message for rows of a CSV.")] = "",
    share: ShareOption = 0.2,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """A cleaned version of a data set, divided into train and validation, in a folder named by its content.

    Leaves out contradictions, duplicates, near duplicates and, with --base, rows that it cannot take whole;
    says which lines and why. Rows are copied as they are. Exits with 1 where too little is left.

    Example: headgate data build tickets.csv --question text --answer queue --name desk --base sluice-4m
    """
    path = _from_table(source, output, question, answer, system) if source.suffix == ".csv" else source
    try:
        file = _sound(path)
        kept, dropped = clean(file.rows, _preflight(base, path) if base else None)
        with _usable():
            train, validation = divide(kept, share, seed)
            home, version = write_version(
                output,
                name or source.stem,
                [file],
                train,
                validation,
                lines=raw_lines(path),
                seed=seed,
                dropped=dropped,
            )
    finally:
        if path != source:
            path.unlink()
    _show_version(home, version, as_json)


@app.command()
def split(
    file: FileArgument,
    name: NameOption = "",
    output: OutputOption = ROOT,
    share: ShareOption = 0.2,
    seed: SeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Divide a data set into train and validation, by label and without leaks; only copies are left out.

    Example: headgate data split rows.jsonl --share 0.2 --seed 7 -o var/datasets
    """
    source = _sound(file)
    with _usable():
        train, validation = divide(source.rows, share, seed)
        home, version = write_version(
            output, name or file.stem, [source], train, validation, lines=raw_lines(file), seed=seed
        )
    _show_version(home, version, as_json)


@app.command()
def show(
    source: Annotated[Path, typer.Argument(help="A JSONL file, or the folder of a version.")],
    base: BaseOption = "",
    as_json: JsonOption = False,
) -> None:
    """What will be learned: rows, labels, and by the base's template the tokens that are learned of each row.

    A version is proved first: its files must still be what it was made of. Prints the first row as rendered.

    Example: headgate data show var/datasets/desk-0123456789ab --base sluice-4m
    """
    version = None
    if (source / ABOUT).is_file():
        with _usable():
            version = read_version(source)
    path = source / TRAIN if version else source
    file = _sound(path)
    preflight = _preflight(base, path) if base else None
    if as_json:
        _print({"version": version, "file": summarise(file), "preflight": preflight})
        return
    console = Console()
    if version is not None:
        screen.version(console, source, version)
    screen.report(console, [summarise(file)], [], preflight)
    if preflight is not None:
        screen.learned(console, preflight)


def _read(
    wanted: Sequence[tuple[str, Path]], preferences: bool = False
) -> tuple[list[DataFile], list[Finding]]:
    files, findings = [], []
    for role, path in wanted:
        with _usable():
            file, problems = read_file(path, role, preferences=preferences)
        findings += problems
        if file is not None:
            files.append(file)
    return files, findings


def _sound(path: Path) -> DataFile:
    """Raises ConfigError with every problem of the file."""
    files, findings = _read([("train", path)])
    if not files:
        raise ConfigError(str(path), [screen.spelt(finding) for finding in findings])
    return files[0]


def _preflight(base: str, path: Path) -> Preflight:
    with _usable():
        return learn_from(base, path)


def _from_table(source: Path, output: Path, question: str, answer: str, system: str) -> Path:
    """A JSONL file beside the versions, made of a CSV."""
    with _usable():
        rows = list(rows_of_table(source, question, answer, system))
        output.mkdir(parents=True, exist_ok=True)
        path = output / f".{source.stem}.jsonl"
        path.write_bytes(b"".join(row + b"\n" for row in rows))
    return path


@contextmanager
def _usable() -> Iterator[None]:
    """What cannot be read, made or divided ends the command with its reason."""
    try:
        yield
    except (NoPreflight, Unusable, NothingLeft) as error:
        raise ConfigError("data", [str(error)]) from error
    except (OSError, ValueError) as error:
        raise ConfigError("data", [f"{type(error).__name__}: {error}"]) from error


@contextmanager
def _scan(config: Path | None, wanted: bool) -> Iterator[Scan | None]:
    """The gateway's detectors as the checks ask them; None: not wanted."""
    if not wanted:
        yield None
        return
    detectors: Sequence[Detector] = (
        build_detectors(load_settings(config, environment=None)) if config else [StructuredDetector()]
    )
    try:
        yield _kinds(detectors)
    finally:
        for detector in detectors:
            if isinstance(detector, NameDetector):
                detector.close()


def _kinds(detectors: Sequence[Detector]) -> Callable[[str], list[str]]:
    def kinds(text: str) -> list[str]:
        return [found.kind for detector in detectors for found in detector.scan(text)]

    return kinds


def _show_version(home: Path, version: Version, as_json: bool) -> None:
    if as_json:
        _print({"folder": str(home), "version": version})
    else:
        screen.version(Console(), home, version)


def _print(value: dict[str, Any]) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

"""`headgate runs …`: what was trained on this machine, and how it compares, by the adapters' manifests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from adapters.manifest import MANIFEST_FILE, Manifest
from gateway.cli.finetune import summary
from gateway.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Training runs: list, show, compare.")

RunsOption = Annotated[list[Path] | None, typer.Option("--runs", help="Folders to look in; may be repeated.")]
JsonOption = Annotated[bool, typer.Option("--json", help="For machines.")]
RunArgument = Annotated[str, typer.Argument(help="NAME@DIGEST, the start of one, or its folder.")]
DEFAULT = (Path("var/runs"),)


@app.command("list")
def listing(runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """Every run that left an adapter, newest first, with its score and whether it may be deployed.

    Example: headgate runs list --runs var/runs
    """
    found = sorted(_manifests(runs), key=lambda each: each.created_at, reverse=True)
    if as_json:
        _print([_line(each) for each in found])
        return
    table = Table(box=None)
    for column in ("run", "when", "rows", "metric", "base", "adapter", "difference", "deploy", "seconds"):
        table.add_column(column, overflow="fold")
    for each in found:
        line = _line(each)
        scores = each.evaluation
        table.add_row(
            each.release,
            each.created_at,
            str(line["train_rows"]),
            scores.metric,
            f"{scores.base.value:.3f}",
            f"{scores.adapter.value:.3f}",
            f"{scores.difference.low:+.3f} to {scores.difference.high:+.3f}",
            "yes" if scores.passed else "no",
            f"{each.run.seconds:.0f}",
        )
    Console().print(table)


@app.command()
def show(run: RunArgument, runs: RunsOption = None, as_json: JsonOption = False) -> None:
    """One run: what went in, how it was trained, how it scored and why it may or may not be deployed.

    Example: headgate runs show desk@0123
    """
    found = _find(run, runs)
    if as_json:
        _print(_facts(found))
        return
    console = Console()
    table = Table(box=None, show_header=False)
    for name, value in _facts(found).items():
        table.add_row(name, Text(str(value)))
    console.print(table)
    console.print(summary(found.evaluation))
    for reason in found.evaluation.reasons:
        console.print("do not deploy:", Text(reason), style="yellow")


@app.command()
def compare(
    one: RunArgument, other: RunArgument, runs: RunsOption = None, as_json: JsonOption = False
) -> None:
    """Two runs side by side: only what differs, and whether their scores can be compared at all.

    Example: headgate runs compare desk@0123 desk@4567
    """
    first, second = _find(one, runs), _find(other, runs)
    facts = _facts(first), _facts(second)
    differing = {
        name: [each.get(name) for each in facts]
        for name in facts[0] | facts[1]
        if facts[0].get(name) != facts[1].get(name)
    }
    same_rows = set(first.dataset.held_out_rows) == set(second.dataset.held_out_rows)
    if as_json:
        _print({"same_held_out_rows": same_rows, "differing": differing})
        return
    console = Console()
    table = Table(box=None)
    for column in ("", first.release, second.release):
        table.add_column(column, overflow="fold")
    for name, values in differing.items():
        table.add_row(name, *(Text(str(value)) for value in values))
    console.print(table)
    if not same_rows:
        console.print("The held-out rows differ: the scores cannot be compared.", style="yellow")


def _manifests(runs: list[Path] | None) -> Iterator[Manifest]:
    """All that can be read; unfinished folders have none."""
    for root in runs or DEFAULT:
        for path in sorted(root.rglob(MANIFEST_FILE)):
            yield _read(path)


def _find(run: str, runs: list[Path] | None) -> Manifest:
    """Raises ConfigError: there is none, or more than one."""
    path = Path(run) / MANIFEST_FILE
    if path.is_file():
        return _read(path)
    found = {each.release: each for each in _manifests(runs) if each.release.startswith(run)}
    if len(found) != 1:
        said = f"{len(found)} runs begin so: {', '.join(sorted(found))}" if found else "no run begins so"
        raise ConfigError(run, [said])
    return next(iter(found.values()))


def _read(path: Path) -> Manifest:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(str(path), [str(error)]) from error


def _line(each: Manifest) -> dict[str, Any]:
    return {
        "run": each.release,
        "created_at": each.created_at,
        "train_rows": len(each.dataset.train_rows),
        "held_out_rows": len(each.dataset.held_out_rows),
        "evaluation": msgspec.to_builtins(each.evaluation),
        "seconds": each.run.seconds,
    }


def _facts(each: Manifest) -> dict[str, Any]:
    """One name, one plain value: what runs are compared by."""
    run, scores = msgspec.to_builtins(each.run), each.evaluation
    run.pop("run_id")
    versions = run.pop("versions")
    return {
        "release": each.release,
        "base": each.base.name,
        "base revision": each.base.revision[:12],
        "data": each.dataset.file,
        "data sha256": each.dataset.sha256[:12],
        "train rows": len(each.dataset.train_rows),
        "held-out rows": len(each.dataset.held_out_rows),
        "rank": each.lora.rank,
        "quantization": each.lora.quantization,
        **{name.replace("_", " "): value for name, value in run.items()},
        **{f"version of {name}": value for name, value in versions.items()},
        "metric": scores.metric,
        "score": scores.adapter.value,
        "base's score": scores.base.value,
        "may be deployed": scores.passed,
    }


def _print(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())

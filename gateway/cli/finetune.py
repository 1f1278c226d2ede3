"""`headgate finetune`: curated rows in, a proved adapter out, released into a running gateway."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from adapters.manifest import Evaluation, Interval
from finetune.dataset import MINIMUM_ROWS, InvalidDataset, read_preferences, read_rows
from finetune.job import AnyEvent, Job, Phase, Started, Step
from finetune.launch import run
from gateway.cli.adapters import show
from gateway.cli.client import call
from gateway.errors import ConfigError

DataOption = Annotated[Path, typer.Option(help="OpenAI fine-tuning JSONL: one conversation a line.")]


def finetune(
    base: Annotated[
        str, typer.Option(help="Base model: a bundled name, a folder, or a name on a model hub.")
    ],
    data: DataOption,
    suffix: Annotated[str, typer.Option(help="Name of the adapter; its alias becomes SUFFIX@stable.")],
    validation: Annotated[
        Path | None, typer.Option(help="Held-out rows; without it a fifth of the data is held out.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for runs.")] = Path("var/runs"),
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    qlora: Annotated[
        bool, typer.Option("--qlora", help="Train over a 4-bit base (bitsandbytes nf4).")
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="Default: from the size of the data.")] = None,
    method: Annotated[
        Literal["sft", "dpo"], typer.Option(help="Learn answers (sft) or preferences between answers (dpo).")
    ] = "sft",
    beta: Annotated[float, typer.Option(help="dpo: the pull to the base, above 0 and at most 2.")] = 0.1,
    incumbent: Annotated[
        Path | None, typer.Option(help="Folder of the adapter in service, which must be beaten.")
    ] = None,
    general: Annotated[
        Path | None, typer.Option(help="Rows of other work, on which forgetting shows.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="What may be lost on them, 0 to 1.")] = 0.05,
    licence: Annotated[str, typer.Option(help="Licence of the data, kept in the manifest.")] = "unspecified",
    gateway: Annotated[
        str | None, typer.Option(help="Release into this gateway if the adapter passes its gate.")
    ] = None,
) -> None:
    """Train a LoRA adapter, compare it with its base on held-out rows, release it only if it is better.

    Exit 1 when the gate says "do not deploy"; that is a result, not a failure.

    Example: headgate finetune --base sluice-4m --data rows.jsonl --suffix support --gateway http://127.0.0.1:4000
    """
    console = Console()
    job = Job(
        base=base,
        data=data,
        suffix=suffix,
        output=output,
        validation=validation,
        seed=seed,
        qlora=qlora,
        epochs=epochs,
        licence=licence,
        method=method,
        beta=beta,
        incumbent=incumbent,
        general=general,
        tolerance=tolerance,
    )
    _check(job)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as progress:
        result = run(job, Follower(progress))
    if result.manifest is None or result.folder is None:
        raise ConfigError(str(data), [result.reason or "the training failed"])
    scores = result.manifest.evaluation
    console.print(
        f"{result.manifest.release}: {scores.metric.replace('_', ' ')} on {scores.rows} held-out rows"
    )
    console.print(summary(scores))
    if not result.deployable:
        console.print("[yellow]do not deploy:[/yellow]", "; ".join(scores.reasons))
        raise typer.Exit(1)
    console.print(f"adapter in {result.folder}")
    if gateway is not None:
        show(
            [call(gateway, "POST", "/admin/adapters", {"folder": str(result.folder.resolve())})],
            as_json=False,
        )


def _check(job: Job) -> None:
    """Everything that can be known before a process is started."""
    if faults := job.faults():
        raise ConfigError("finetune", faults)
    read = read_rows if job.method == "sft" else read_preferences
    files = [
        (job.data, MINIMUM_ROWS, read),
        *([(job.validation, 1, read)] if job.validation else []),
        *([(job.general, 1, read_rows)] if job.general else []),
    ]
    for path, minimum, reader in files:
        try:
            reader(path, minimum)
        except InvalidDataset as error:
            raise ConfigError(str(path), [str(problem) for problem in error.problems]) from error


class Follower:
    """Renders a training process's events as one progress bar."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None)

    def __call__(self, event: AnyEvent) -> None:
        match event:
            case Phase(name):
                self._progress.update(self._task, description=name)
            case Started(rows, held_out, steps):
                self._progress.console.print(f"{rows} rows to learn from, {held_out} held out, {steps} steps")
                self._progress.update(self._task, total=steps)
            case Step(step, total, loss):
                self._progress.update(
                    self._task, completed=step, total=total, description=f"training, loss {loss:.3f}"
                )
                if not self._progress.console.is_terminal and step % max(1, total // 4) == 0:
                    self._progress.console.print(
                        f"step {step} of {total}, loss {loss:.3f}, {event.eta:.0f} s left"
                    )


def summary(scores: Evaluation) -> Table:
    """Base against adapter on the held-out rows."""
    table = Table(box=None)
    for column in ("", "value", "95 % interval"):
        table.add_column(column)
    for name, score in (
        ("base", scores.base),
        ("base with examples", scores.few_shot),
        ("incumbent", scores.incumbent),
        ("adapter", scores.adapter),
        ("adapter minus base", scores.difference),
        ("the same on other work", scores.general),
    ):
        if score is not None:
            table.add_row(name, f"{score.value:.3f}", _interval(score))
    return table


def _interval(score: Interval) -> str:
    return f"{score.low:.3f} to {score.high:.3f}"

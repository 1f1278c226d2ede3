"""`headgate adapter …`: releases and aliases of a running gateway."""

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from adapters.errors import AdapterError
from adapters.store import ArtifactStore
from finetune.dataset import InvalidDataset, read_rows
from gateway.backends.vllm_process import LORA_RANKS
from gateway.cli.client import DEFAULT_GATEWAY, GatewayOption, JsonOption, call
from gateway.errors import ConfigError
from gateway.settings import load_settings

app = typer.Typer(
    no_args_is_help=True, help="Adapters: list, release by stages, roll back, lineage, erasure."
)
IN_ONE_URL = 50  # row ids


class Stage(Enum):
    shadow = "shadow"
    canary = "canary"
    stable = "stable"


ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Path of headgate.yaml.")]
StageOption = Annotated[Stage, typer.Option(help="How far it goes.")]
WeightOption = Annotated[float | None, typer.Option(help="A canary's share of the traffic, in (0, 1).")]


@app.command("list")
def listing(gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False) -> None:
    """List every release, how far it is and which alias points to it.

    Example: headgate adapter list
    """
    show(call(gateway, "GET", "/admin/adapters"), as_json)


@app.command("release")
def release(
    folder: Annotated[Path, typer.Argument(help="Folder with the adapter and its manifest.json.")],
    stage: StageOption = Stage.stable,
    weight: WeightOption = None,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Load an adapter into the replicas, prove it and move the alias of its stage. No restart.

    Example: headgate adapter release var/runs/support/support@0123456789ab --stage canary --weight 0.1
    """
    body = {"folder": str(folder.resolve()), **_plan(stage, weight)}
    show([call(gateway, "POST", "/admin/adapters", body)], as_json)


@app.command("promote")
def promote(
    name: str,
    stage: StageOption = Stage.stable,
    weight: WeightOption = None,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Take NAME's canary, or else its shadow, to a further stage.

    Example: headgate adapter promote support
    """
    show([call(gateway, "POST", f"/admin/adapters/{name}/promote", _plan(stage, weight))], as_json)


@app.command("withdraw")
def withdraw(name: str, gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False) -> None:
    """End NAME's canary, or else its shadow.

    Example: headgate adapter withdraw support
    """
    show([call(gateway, "POST", f"/admin/adapters/{name}/withdraw")], as_json)


@app.command("rollback")
def rollback(name: str, gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False) -> None:
    """Move NAME@stable back to where it pointed before.

    Example: headgate adapter rollback support
    """
    show([call(gateway, "POST", f"/admin/adapters/{name}/rollback")], as_json)


@app.command("trials")
def trials(name: str, gateway: GatewayOption = DEFAULT_GATEWAY) -> None:
    """Print every canary of NAME, with the numbers of its test, as JSON.

    Example: headgate adapter trials support
    """
    Console().print_json(data=call(gateway, "GET", f"/admin/adapters/{name}/trials"))


@app.command("lineage")
def lineage(
    release: Annotated[str, typer.Option(help="Which rows this release saw.")] = "",
    row: Annotated[
        list[str] | None, typer.Option(help="Which adapters saw this row; may be repeated.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Which adapters saw the rows of this JSON Lines file.")
    ] = None,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Say which adapters saw a row, or which rows an adapter saw.

    Example: headgate adapter lineage --file rows-of-one-person.jsonl
    """
    rows = [*(row or ()), *_ids(file)]
    if bool(release) == bool(rows):
        raise typer.BadParameter("give either --release, or --row or --file")
    if release:
        found = call(gateway, "GET", "/admin/adapters/lineage", params={"release": release})
    else:
        parts = [rows[at : at + IN_ONE_URL] for at in range(0, len(rows), IN_ONE_URL)]
        path = "/admin/adapters/lineage"
        found = [one for part in parts for one in call(gateway, "GET", path, params={"row": part})]
    _table(found, ("release", "split", "row"), as_json)


@app.command("erase")
def erase(
    row: Annotated[list[str] | None, typer.Option(help="The id of a row; may be repeated.")] = None,
    file: Annotated[Path | None, typer.Option(help="A JSON Lines file with the rows themselves.")] = None,
    block: Annotated[bool, typer.Option(help="Serve adapters that were trained on them no more.")] = True,
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Mark rows as erased, and name the adapters that were trained on them.

    Example: headgate adapter erase --file rows-of-one-person.jsonl
    """
    rows = [*(row or ()), *_ids(file)]
    if not rows:
        raise typer.BadParameter("give --row or --file")
    touched = call(gateway, "POST", "/admin/adapters/erasures", {"rows": rows, "block": block})
    found = [{**one, "rows": str(len(one["rows"])), "blocked": str(one["blocked"])} for one in touched]
    _table(touched if as_json else found, ("release", "rows", "blocked"), as_json)


@app.command("export")
def export(
    release: Annotated[str, typer.Argument(help="NAME@DIGEST.")],
    folder: Annotated[Path, typer.Argument(help="A folder that is made.")],
    config: ConfigOption = Path("headgate.yaml"),
) -> None:
    """Copy a release, verified, out of the store of this host, as PEFT lays adapters out.

    Example: headgate adapter export support@0123456789ab exported/support
    """
    try:
        ArtifactStore(load_settings(config, None).adapters, max_rank=LORA_RANKS[-1]).export(release, folder)
    except (AdapterError, OSError) as error:
        raise ConfigError(release, [str(error)]) from error
    typer.echo(f"{release} in {folder}")


def _plan(stage: Stage, weight: float | None) -> dict[str, Any]:
    return {"stage": stage.value} | ({} if weight is None else {"weight": weight})


def _ids(file: Path | None) -> list[str]:
    """The ids of a file's rows, as training computes them."""
    if file is None:
        return []
    try:
        return [row.id for row in read_rows(file, minimum=1)]
    except (InvalidDataset, OSError) as error:
        raise typer.BadParameter(f"{file}: {error}") from error


def _table(rows: list[dict[str, Any]], columns: Sequence[str], as_json: bool) -> None:
    console = Console()
    if as_json:
        console.print_json(data=rows)
        return
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    console.print(table)


def show(releases: list[dict[str, Any]], as_json: bool) -> None:
    console = Console()
    if as_json:
        console.print_json(data=releases)
        return
    table = Table(box=None)
    for column in ("release", "base", "state", "aliases", "reason"):
        table.add_column(column, overflow="fold")
    for row in releases:
        aliases = ", ".join(row["aliases"]) or "—"
        table.add_row(row["release"], row["base"], row["state"], aliases, _remark(row))
    console.print(table)


def _remark(row: dict[str, Any]) -> str:
    """Why a release is as it is, and what the erasure of rows means for it."""
    if not row.get("erased_rows"):
        return str(row["reason"])
    blocked = "blocked: " if row["blocked"] else ""
    return f"{blocked}trained on {row['erased_rows']} erased rows"

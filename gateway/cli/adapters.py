"""`headgate adapter …`: releases and aliases of a running gateway."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.client import DEFAULT_GATEWAY, GatewayOption, JsonOption, call

app = typer.Typer(no_args_is_help=True, help="Adapters: list, release, roll back.")


@app.command("list")
def listing(gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False) -> None:
    """List every release, how far it is and which alias points to it.

    Example: headgate adapter list
    """
    show(call(gateway, "GET", "/admin/adapters"), as_json)


@app.command("release")
def release(
    folder: Annotated[Path, typer.Argument(help="Folder with the adapter and its manifest.json.")],
    gateway: GatewayOption = DEFAULT_GATEWAY,
    as_json: JsonOption = False,
) -> None:
    """Load an adapter into every replica, prove it and move its @stable alias. No restart.

    Example: headgate adapter release var/runs/support/support@0123456789ab
    """
    show([call(gateway, "POST", "/admin/adapters", {"folder": str(folder.resolve())})], as_json)


@app.command("rollback")
def rollback(name: str, gateway: GatewayOption = DEFAULT_GATEWAY, as_json: JsonOption = False) -> None:
    """Move NAME@stable back to where it pointed before.

    Example: headgate adapter rollback support
    """
    show([call(gateway, "POST", f"/admin/adapters/{name}/rollback")], as_json)


def show(releases: list[dict[str, Any]], as_json: bool) -> None:
    console = Console()
    if as_json:
        console.print_json(data=releases)
        return
    table = Table(box=None)
    for column in ("release", "base", "state", "aliases", "reason"):
        table.add_column(column, overflow="fold")
    for row in releases:
        table.add_row(
            row["release"], row["base"], row["state"], ", ".join(row["aliases"]) or "—", row["reason"]
        )
    console.print(table)

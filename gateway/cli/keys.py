"""`headgate key new`: mints a client key."""

from typing import Annotated

import typer
import yaml

from gateway.admission import hash_key, new_key

app = typer.Typer(no_args_is_help=True, help="Client keys.")


@app.callback()
def _keys() -> None:
    """Client keys."""


@app.command("new")
def new(
    id: Annotated[str, typer.Option(help="Name of the key in logs, policies and reports.")],
    team: Annotated[str, typer.Option(help="Team that its cost is booked to.")],
    admin: Annotated[bool, typer.Option(help="May use /admin.")] = False,
) -> None:
    """Mint a key. It is shown once; the configuration gets its hash.

    Example: headgate key new --id support-app --team support
    """
    key = new_key()
    entry: dict[str, object] = {"id": id, "sha256": hash_key(key), "team": team}
    if admin:
        entry["admin"] = True
    typer.echo(f"key (keep it; it is not stored): {key}\n\nadd this under keys: in headgate.yaml")
    typer.echo(yaml.safe_dump([entry], sort_keys=False), nl=False)

"""`headgate migrate`: the database's schema, apart from serving."""

from pathlib import Path
from typing import Annotated

import typer

from adapters.tables import create_tables
from gateway.cli.serve import ConfigOption
from gateway.control.store import ControlStore
from gateway.ledger.database import open_engine
from gateway.ledger.store import Store
from gateway.settings import load_settings


def migrate(
    config: ConfigOption = Path("headgate.yaml"),
    check: Annotated[bool, typer.Option("--check", help="Only say what is due; then exit with 1.")] = False,
) -> None:
    """Bring the database's schema up to date: numbered changes, each once, under a lock.

    A gateway does the same when it starts; this is for who wants it done before. Any number may run at once.

    Example: headgate migrate --check
    """
    url = load_settings(config, environment=None).database_url
    ledger, control = Store(url), ControlStore(url)
    if check:
        due = {"ledger": ledger.pending(), "control": control.pending()}
    else:
        due = {"ledger": ledger.migrate(), "control": control.migrate()}
        create_tables(open_engine(url))
    for part, versions in due.items():
        said = ", ".join(map(str, versions)) or "none"
        typer.echo(f"{part}: {'pending' if check else 'applied'}: {said}")
    raise typer.Exit(1 if check and any(due.values()) else 0)

"""`headgate ledger …`: how long the ledger keeps its entries."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.serve import ConfigOption
from gateway.cli.since import read_since
from gateway.finance.periods import to_ns
from gateway.ledger.rollups import DAY_NS, GRACE_NS
from gateway.ledger.store import Store
from gateway.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="How long the ledger keeps its entries.")


@app.callback()
def _ledger() -> None:
    """How long the ledger keeps its entries."""


@app.command()
def prune(
    older_than: Annotated[str, typer.Option(help="30d, 52w or a date: 2026-01-01 (UTC).")],
    config: ConfigOption = Path("headgate.yaml"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove the entries of whole days that are older, and keep their roll-ups.

    Reports by day and group stay as they are. What needs single requests is gone with them: decision records,
    their evidence, corrections, and reports on a part of a day. Safe beside running gateways.

    Example: headgate ledger prune --older-than 400d
    """
    until = to_ns(read_since(older_than, datetime.now(UTC)))
    latest = (time.time_ns() - GRACE_NS) // DAY_NS  # a day in progress is never removed
    store = Store(load_settings(config, environment=None).database_url)
    store.migrate()
    days = store.days_to_prune(min(until // DAY_NS, latest))
    removed = 0
    if not dry_run:
        with typer.progressbar(days, label="days") as progress:
            removed = sum(store.prune(day) for day in progress)
    store.close()
    typer.echo(f"{len(days)} days {'would be pruned' if dry_run else f'pruned, {removed} entries removed'}")

"""`headgate privacy audit`: "show that nothing restricted left in October", over the ledger."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from gateway.cli.serve import ConfigOption
from gateway.cli.since import read_since
from gateway.finance.periods import to_ns
from gateway.ledger.store import Store
from gateway.privacy.audit import Audit
from gateway.privacy.audit import audit as audit_rows
from gateway.privacy.evidence import known_keyring
from gateway.settings import load_settings
from router_policies.privacy import Scale

SHOWN = 20  # violations, in the table for people


def audit(
    config: ConfigOption = Path("headgate.yaml"),
    since: Annotated[str, typer.Option(help="30d, 12h, 2w or a date: 2026-10-01 (UTC).")] = "30d",
    until: Annotated[str, typer.Option(help="The same; not included. Empty: now.")] = "",
    privacy: Annotated[
        str | None, typer.Option("--class", help="Only requests of this privacy class.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Verify every decision record of a period, and that nothing above its zone's ceiling left.

    Exits with 0 where all is proved, with 1 where a row refutes it or proves nothing, with 2 where the ledger
    or its keys cannot be read.

    Example: headgate privacy audit --since 2026-10-01 --until 2026-11-01 --class restricted
    """
    now = datetime.now(UTC)
    start, end = read_since(since, now), read_since(until, now) if until else now
    settings = load_settings(config, environment=None)
    label = read_class(privacy, settings.scale) if privacy is not None else None
    keys = known_keyring(settings.state, settings.privacy.signing_key_env, os.environ)
    store = Store(settings.database_url)
    store.migrate()
    found = audit_rows(store.rows(to_ns(start), to_ns(end), label), keys, settings.scale)
    store.close()
    if as_json:
        period = {"since": start.isoformat(), "until": end.isoformat(), "class": label}
        Console().print_json(data=period | found.to_dict())
    else:
        _print(found, start, end)
    raise typer.Exit(0 if found.clean else 1)


def read_class(text: str, scale: Scale) -> str:
    """Its label. Raises typer.BadParameter naming the known ones."""
    try:
        return scale.parse(text).label
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--class") from error


def _print(found: Audit, start: datetime, end: datetime) -> None:
    console = Console()
    table = Table(title=f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC: what was sent where")
    for name in ("class", "zone", "attempts"):
        table.add_column(name, justify="right" if name == "attempts" else "left")
    for (privacy, zone), count in sorted(found.sent.items()):
        table.add_row(privacy, zone, f"{count:,}")
    console.print(table)
    console.print(f"{found.rows:,} requests, of which {found.kept_in:,} reached no backend")
    console.print(f"{found.refused:,} attempts were refused at the door")
    for violation in found.violations[:SHOWN]:
        console.print(f"{violation.call_id}: {violation.why}", style="red", markup=False)
    if found.count > SHOWN:
        console.print(f"and {found.count - SHOWN:,} more; --json lists up to 1,000")
    if found.clean:
        console.print(
            "proved: every record is signed, and nothing above its zone's ceiling left", style="green"
        )
    else:
        console.print(f"not proved: {found.count:,} violations", style="red")

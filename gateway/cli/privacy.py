"""`headgate privacy …`: what the privacy rules do, and what they did."""

import typer

from gateway.cli import audit, scan

app = typer.Typer(no_args_is_help=True, help="Privacy: detectors and evidence.")
app.command("scan")(scan.scan)
app.command("audit")(audit.audit)


@app.callback()
def _privacy() -> None:
    """Privacy: detectors and evidence."""

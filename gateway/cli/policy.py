"""`headgate policy verify`: the static proof, without starting anything."""

from pathlib import Path

import typer

from gateway.cli.serve import ConfigOption
from gateway.policy_file import build_catalog, load_policy
from gateway.privacy.recogniser.detector import coverage
from gateway.settings import load_settings
from router_policies.verify import guards

app = typer.Typer(no_args_is_help=True, help="Routing policies.")


@app.callback()
def _policy() -> None:
    """Routing policies."""


@app.command("verify")
def verify(config: ConfigOption = Path("headgate.yaml")) -> None:
    """Prove that no path of the configured policy exceeds a zone's ceiling; exit 2 naming those that do.

    Example: headgate policy verify --config headgate.yaml
    """
    settings = load_settings(config, environment=None)
    policy = load_policy(settings, build_catalog(settings))
    typer.echo(f"{policy.label}: {len(policy.routes)} routes, every path within its zone's ceiling")
    for guard in guards(policy):
        typer.echo(f"  {guard}")
    typer.echo(coverage(settings.privacy.recogniser.kind))

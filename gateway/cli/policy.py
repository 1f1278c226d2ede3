"""`headgate policy verify` and `schema`: the static proof and the language, without starting anything."""

import json
from pathlib import Path
from typing import Annotated

import typer

from gateway.cli.serve import ConfigOption
from gateway.policy_file import build_catalog, load_policy
from gateway.privacy.recogniser.detector import coverage
from gateway.settings import load_settings
from router_policies.json_schema import policy_schema
from router_policies.privacy import DEFAULT_SCALE
from router_policies.verify import guards, unpriced

SchemaConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="Path of headgate.yaml; without it the shipped classes.")
]

app = typer.Typer(no_args_is_help=True, help="Routing policies.")


@app.callback()
def _policy() -> None:
    """Routing policies."""


@app.command("schema")
def schema(config: SchemaConfigOption = None) -> None:
    """Print the JSON Schema of policies, by which editors complete and check them.

    With a configuration it knows that one's privacy classes. In an editor with the YAML language server:

        # yaml-language-server: $schema=policy.schema.json

    Example: headgate policy schema > policy.schema.json
    """
    scale = load_settings(config, environment=None).scale if config else DEFAULT_SCALE
    typer.echo(json.dumps(policy_schema(scale), indent=2))


@app.command("verify")
def verify(config: ConfigOption = Path("headgate.yaml")) -> None:
    """Prove that no path of the configured policy exceeds a zone's ceiling; exit 2 naming those that do.

    Says also which targets are masked for, and which have no known price.

    Example: headgate policy verify --config headgate.yaml
    """
    settings = load_settings(config, environment=None)
    policy = load_policy(settings, build_catalog(settings))
    typer.echo(f"{policy.label}: {len(policy.routes)} routes, every path within its zone's ceiling")
    for guard in guards(policy):
        typer.echo(f"  {guard}")
    for target in unpriced(policy):
        typer.echo(f"  {target}: no price is known; its cost is recorded as unknown until there is one")
    typer.echo(coverage(settings.privacy.recogniser.kind))

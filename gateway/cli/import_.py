"""`headgate import`: arrivals from other gateways."""

import os
from pathlib import Path
from typing import Annotated

import typer
import yaml

from gateway.cli.from_litellm import convert
from gateway.errors import ConfigError
from gateway.policy_file import build_catalog, load_policy
from gateway.settings import load_settings, read_yaml

app = typer.Typer(no_args_is_help=True, help="Arrivals from other gateways.")


@app.callback()
def _import() -> None:
    """Arrivals from other gateways."""


@app.command("litellm")
def litellm(
    config: Annotated[Path, typer.Argument(help="litellm's config.yaml.")],
    out: Annotated[Path, typer.Option(help="The folder for headgate.yaml and policy.yaml.")] = Path(),
) -> None:
    """Turn a litellm proxy's configuration into ours, and list what has no counterpart.

    Both files are loaded and the policy proved before the command ends. Secrets are not copied.

    Example: headgate import litellm config.yaml --out headgate
    """
    given = read_yaml(config)
    if not isinstance(given, dict):
        raise ConfigError(str(config), ["is no configuration of litellm: it must hold a mapping"])
    found = convert(given, os.environ)
    if not found.policy["routes"]:
        raise ConfigError(str(config), ["nothing of it has a counterpart", *found.without_counterpart])
    out.mkdir(parents=True, exist_ok=True)
    paths = out / "headgate.yaml", out / "policy.yaml"
    if there := [str(path) for path in paths if path.exists()]:
        raise ConfigError(str(out), [f"{path} is there already" for path in there])
    for path, document in zip(paths, (found.settings, found.policy), strict=True):
        path.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    settings = load_settings(paths[0], environment=None)
    policy = load_policy(settings, build_catalog(settings))
    typer.echo(f"{paths[0]}: {len(settings.backends)} backends")
    typer.echo(f"{paths[1]}: {len(policy.routes)} routes, every path within its zone's ceiling")
    for line in found.to_do:
        typer.echo(f"to do: {line}")
    for line in found.without_counterpart:
        typer.echo(f"no counterpart: {line}")

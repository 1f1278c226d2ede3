"""`headgate serve`: the gateway process."""

from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from gateway.app import build_app
from gateway.settings import load_settings

ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Path of headgate.yaml.")]


def serve(config: ConfigOption = Path("headgate.yaml")) -> None:
    """Start the gateway.

    Example: headgate serve --config headgate.yaml
    """
    settings = load_settings(config)
    app = build_app(settings)
    typer.echo(
        f"headgate on http://{settings.listen.host}:{settings.listen.port}/v1, policy {app.policy.label}"
    )
    uvicorn.run(
        app,
        host=settings.listen.host,
        port=settings.listen.port,
        http="httptools",
        loop="uvloop",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_level="warning",
        timeout_graceful_shutdown=30,
    )

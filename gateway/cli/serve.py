"""`headgate serve`: the gateway, as one process or as several workers on one port."""

import gc
import os
import signal
from pathlib import Path
from typing import Annotated

import typer
import uvicorn

from gateway.app import build_app
from gateway.cli.listener import BACKLOG, bind, url
from gateway.cli.workers import WORKER_PORT, Supervisor, WorkerServer
from gateway.privacy.recogniser.detector import coverage
from gateway.settings import Settings, load_settings

GRACE_S = 30  # for requests in flight when the process is told to end
ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="Path of headgate.yaml.")]
WorkersOption = Annotated[int, typer.Option(min=1, max=256, help="Processes that share the port.")]


def serve(config: ConfigOption = Path("headgate.yaml"), workers: WorkersOption = 1) -> None:
    """Start the gateway.

    SIGTERM or Ctrl-C lets requests in flight end; a second one cuts them off. Several workers exit with 0
    after an orderly end, with 1 when one could not start or had to be killed, with 2 for a configuration that
    cannot be used.

    Example: headgate serve --config headgate.yaml --workers 4
    """
    settings = load_settings(config)
    if WORKER_PORT in os.environ:
        _serve_as_worker(settings, str(config))
        return
    typer.echo(coverage(settings.privacy.recogniser.kind), err=True)
    if workers > 1:
        raise typer.Exit(Supervisor(settings.listen, str(config), workers, GRACE_S).run())
    _serve_alone(settings, str(config))


def _settle_in() -> None:
    """What is loaded by now stays: the garbage collector need not look at it again, and not so often at the
    rest. Requests leave next to no cycles; a collection in their midst is what their slowest ones wait for.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 10, 5)


def _serve_alone(settings: Settings, source: str) -> None:
    app = build_app(settings)
    listener = bind(settings.listen, source)
    listener.listen(BACKLOG)
    _settle_in()
    typer.echo(f"headgate on {url(listener)}, policy {app.policy.label}")
    server = uvicorn.Server(app.server_config(backlog=BACKLOG, timeout_graceful_shutdown=GRACE_S))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _heard)  # uvicorn's own stand in its place until the orderly end
    server.run(sockets=[listener])


def _heard(*_: object) -> None:
    """uvicorn raises the signal that ended it once more: by then nothing is left to end."""


def _serve_as_worker(settings: Settings, source: str) -> None:
    """The supervisor started this process. It listens only once the application is up."""
    app = build_app(settings)
    _settle_in()
    address = settings.listen.model_copy(update={"port": int(os.environ[WORKER_PORT])})
    WorkerServer(app.server_config(backlog=BACKLOG, timeout_graceful_shutdown=GRACE_S)).run(
        sockets=[bind(address, source, shared=True)]
    )

"""`headgate worker`: trains fine-tuning jobs, beside the gateway or on another machine with the same disk."""

import os
import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from finetune.jobs.release import NotReleased, Unreachable
from finetune.jobs.worker import LEASE_S
from gateway.cli.client import KEY_VARIABLE, GatewayAway, call
from gateway.cli.serve import ConfigOption
from gateway.control.jobs import Tuning
from gateway.errors import ConfigError
from gateway.settings import load_settings


def worker(
    config: ConfigOption = Path("headgate.yaml"),
    gateway: Annotated[
        str, typer.Option(help="URL of the gateway that releases adapters; empty: where the config listens.")
    ] = "",
    lease: Annotated[
        float, typer.Option(min=1, help="Seconds after which a worker that went silent is replaced.")
    ] = LEASE_S,
) -> None:
    """Take fine-tuning jobs from the queue, one at a time: check the files, train, release what is better.

    Start as many as there are GPUs; a job is trained by one of them, and by another if that one dies. SIGTERM
    or Ctrl-C puts the job that is under way back into the queue. $HEADGATE_ADMIN_KEY holds the admin key.

    Example: headgate worker --config headgate.yaml
    """
    settings = load_settings(config, environment=None)
    url = gateway or f"http://{settings.listen.host}:{settings.listen.port}"
    if not os.environ.get(KEY_VARIABLE):
        raise ConfigError(
            "worker", [f"set {KEY_VARIABLE} to a key with admin: true: adapters are released with it"]
        )

    def release(folder: Path, by: str) -> str:
        headers = {"x-headgate-reason": f"fine-tuning job of key {by}"}
        try:
            released = call(
                url, "POST", "/admin/adapters", {"folder": str(folder.resolve())}, headers=headers
            )
        except GatewayAway as error:
            raise Unreachable(" ".join(error.problems)) from error
        except ConfigError as error:
            raise NotReleased(" ".join(error.problems)) from error
        return str(released["release"])

    settings.state.mkdir(parents=True, exist_ok=True)
    tuning = Tuning(settings)
    working, ended = tuning.worker(release, lease_s=lease), threading.Event()

    def work() -> None:
        try:
            working.run()
        finally:
            ended.set()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda *_: ended.set())
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    typer.echo(f"worker {working.name} takes jobs; adapters are released at {url}")
    ended.wait()
    working.stop()
    thread.join()
    tuning.close()

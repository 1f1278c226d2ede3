"""`headgate up`: the local vLLM replicas of a configuration, and the gateway in front of them."""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from gateway.backends.vllm_process import VllmProcess
from gateway.backends.vllm_supervisor import Supervisor
from gateway.cli.serve import GRACE_S, ConfigOption
from gateway.errors import ConfigError
from gateway.networks import is_loopback
from gateway.settings import Settings, VllmSettings, load_settings

CLOSING_S = 20.0  # beyond the grace for requests


def up(
    model: Annotated[Path, typer.Argument(help="Folder of the base model.")],
    config: ConfigOption = Path("headgate.yaml"),
    max_model_len: Annotated[int | None, typer.Option(help="Longest context; None: the model's own.")] = None,
    dtype: Annotated[str, typer.Option(help="Number format of the weights, as vLLM names it.")] = "auto",
) -> None:
    """Start every vLLM replica that the configuration places on this machine, keep it up, and serve.

    A replica that ends or falls silent is started again; the gateway gives it its adapters back. The gateway
    itself starts at once and calls itself ready when it has looked at all replicas.

    Example: headgate up finetune/bases/sluice-4m --config headgate.yaml
    """
    settings = load_settings(config)
    replicas = local_replicas(settings, model, max_model_len=max_model_len, dtype=dtype)
    if not replicas:
        raise ConfigError(str(config), ["no backend of kind vllm has a URL on this machine"])
    raise typer.Exit(asyncio.run(_run(replicas, config)))


def local_replicas(
    settings: Settings, model: Path, *, max_model_len: int | None = None, dtype: str = "auto"
) -> list[VllmProcess]:
    """A process for each replica whose URL is of the loopback, as its backend describes it."""
    found = []
    for name, backend in settings.backends.items():
        if not isinstance(backend, VllmSettings):
            continue
        for replica, url in backend.replicas(name).items():
            parts = urlsplit(url)
            if parts.hostname and is_loopback(parts.hostname) and parts.port:
                found.append(
                    VllmProcess(
                        model,
                        backend.model,
                        parts.port,
                        log_path=settings.state / "log" / f"{replica.replace('/', '-')}.log",
                        max_loras=backend.slots or 4,
                        max_lora_rank=backend.max_lora_rank,
                        dtype=dtype,
                        max_model_len=max_model_len,
                        api_key=backend.api_key.get_secret_value(),
                    )
                )
    return found


async def _run(replicas: list[VllmProcess], config: Path) -> int:
    """The gateway's exit code. Whichever way this ends, nothing is left running."""
    work = [asyncio.create_task(Supervisor(one, on_ready=partial(_ready, one.url)).run()) for one in replicas]
    gateway = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from gateway.cli.main import main; main()"),
        *("serve", "--config", str(config)),
        env=os.environ,
        start_new_session=True,  # Ctrl-C is ours to pass on
    )

    def end() -> None:
        with suppress(ProcessLookupError):
            gateway.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        return await gateway.wait()
    finally:
        end()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S + CLOSING_S):
                await gateway.wait()
        for one in work:
            one.cancel()
        await asyncio.gather(*work, return_exceptions=True)


def _ready(url: str, seconds: float) -> None:
    typer.echo(f"vLLM on {url}, ready after {seconds:.0f} s")

"""`headgate fake`: the stand-in provider as a process."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from gateway.backends.fake import FakeProvider


def fake(
    port: Annotated[int, typer.Option(help="Port on the loopback; 0 takes a free one.")] = 9000,
    record: Annotated[Path | None, typer.Option(help="Append every byte received to this file.")] = None,
) -> None:
    """Start a stand-in for a rented API: OpenAI's wire, realistic numbers, faults on request.

    Example: headgate fake --port 9000
    """
    try:
        asyncio.run(_run(port, record))
    except KeyboardInterrupt:
        typer.echo("stopped")


async def _run(port: int, record: Path | None) -> None:
    provider = FakeProvider(record_file=record)
    await provider.start(port=port)
    typer.echo(f"a stand-in provider, not a real one, on {provider.url}/v1; Ctrl-C stops it")
    try:
        await asyncio.Event().wait()
    finally:
        await provider.stop()

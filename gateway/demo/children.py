"""Processes that never outlive the demo: each leads its own group, and the whole group goes at the end."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

HEADGATE = Path(sys.executable).with_name("headgate")  # the public command, of this environment
GRACE_S = 10.0


@asynccontextmanager
async def running(
    *arguments: str, log: Path, environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    """`headgate …` in the background, what it prints in `log`."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            HEADGATE,
            *arguments,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        await _stop(process)


async def run(*arguments: str, environment: Mapping[str, str]) -> int:
    """`headgate …` in the foreground, on this terminal; its exit status."""
    process = await asyncio.create_subprocess_exec(
        HEADGATE,
        *arguments,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return await process.wait()
    finally:
        await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """As Ctrl-C would, then by force."""
    _signal(process, signal.SIGINT)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), GRACE_S)
    _signal(process, signal.SIGKILL)
    await process.wait()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def free_port(preferred: int = 0) -> int:
    """The preferred port of the loopback if nobody has it, else any free one."""
    for port in (preferred, 0):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            found: int = listener.getsockname()[1]
            return found
    raise OSError("the loopback has no free port")

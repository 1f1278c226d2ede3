"""Several gateway processes on one port: a supervisor that starts them, replaces the dead and ends them all.

Each worker is this very command, run again with HEADGATE_WORKER_PORT in its environment. It listens with
SO_REUSEPORT on a socket of its own, so the kernel spreads connections over the living, and what dies takes
nobody else's connections along. Its standard input is a socket to the supervisor: the worker says there that
it listens, and reads there that the supervisor is gone, upon which it ends as if told to.

The first worker starts alone: what is wrong is then said once, and it makes the tables for all. One that dies
before all have listened ends the whole; after that it is replaced.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
import uvicorn

from gateway.cli.listener import bind, url
from gateway.monitor.metrics import SHARED_FILE
from gateway.monitor.shared import SUFFIX
from gateway.settings import Listen

log = logging.getLogger("headgate.workers")

WORKER_PORT = "HEADGATE_WORKER_PORT"
LONGEST_PAUSE_S = 10.0
CLOSING_S = 15.0  # beyond the grace for requests: to write the ledger and the logs
ORDERLY = (0, -signal.SIGTERM, -signal.SIGINT)  # uvicorn ends by the signal that it was stopped with
BAD_CONFIGURATION = 2
_SUPERVISOR = 0  # the worker's descriptor for it
_LISTENING = b"listening\n"


class WorkerServer(uvicorn.Server):
    """Tells the supervisor when it listens; ends when the supervisor does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        asyncio.get_running_loop().add_reader(_SUPERVISOR, self._supervisor_gone)
        with suppress(BrokenPipeError):  # gone already: the reader sees it
            os.write(_SUPERVISOR, _LISTENING)

    def _supervisor_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(_SUPERVISOR)
        self.should_exit = True


class Supervisor:
    """Runs `workers` processes on `address` until told to end."""

    def __init__(self, address: Listen, source: str, workers: int, grace_s: float) -> None:
        """`source` names the configuration in errors; `grace_s` is what each worker gives its requests."""
        self._address, self._source, self._workers, self._grace_s = address, source, workers, grace_s
        self._processes: set[Process] = set()
        self._up: set[int] = set()  # slots that have listened once
        self._first_up, self._stopping = asyncio.Event(), asyncio.Event()
        self._exit_code = 0

    def run(self) -> int:
        """The exit code. Raises ConfigError when the port cannot be taken."""
        return asyncio.run(self._run())

    async def _run(self) -> int:
        if self._address.port:  # a shared one could be another gateway's: both would get half of the requests
            bind(self._address, self._source).close()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._told_to_end)
        with (
            bind(self._address, self._source, shared=True) as reserved,  # ours, even while no worker lives
            TemporaryDirectory(prefix="headgate-workers-") as folder,
        ):
            async with asyncio.TaskGroup() as slots:
                for slot in range(self._workers):
                    slots.create_task(self._keep(slot, reserved, Path(folder)))
        return self._exit_code

    async def _keep(self, slot: int, reserved: socket.socket, folder: Path) -> None:
        """A worker in this slot, and another one whenever it dies."""
        environment = {
            **os.environ,
            WORKER_PORT: str(reserved.getsockname()[1]),
            SHARED_FILE: str(folder / f"{slot}{SUFFIX}"),
        }
        failures = 0
        if slot > 0:
            await self._first_up.wait()
        while not self._stopping.is_set():
            was_up, code = await self._run_worker(slot, environment, url(reserved))
            failures = 0 if was_up else failures + 1
            if not self._may_replace(slot, code):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s(failures))

    async def _run_worker(self, slot: int, environment: Mapping[str, str], url: str) -> tuple[bool, int]:
        """One process from start to end: whether it ever listened, and its exit code."""
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            process = await self._spawn(environment, theirs)
        except OSError as error:  # out of processes or memory, perhaps only for a while
            log.error("worker %d cannot be started: %s", slot, error)
            writer.close()
            return False, 1
        try:
            was_up = await reader.readline() == _LISTENING
            if was_up:
                self._is_up(slot, url)
            return was_up, await process.wait()
        finally:
            self._processes.discard(process)
            writer.close()

    async def _spawn(self, environment: Mapping[str, str], channel: socket.socket) -> Process:
        with channel:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                env=environment,
                stdin=channel.fileno(),
                start_new_session=True,  # Ctrl-C is the supervisor's to pass on
            )
        self._processes.add(process)
        if self._stopping.is_set():  # since the process was asked for
            process.terminate()
        return process

    def _is_up(self, slot: int, url: str) -> None:
        self._first_up.set()
        if slot not in self._up:
            self._up.add(slot)
            if len(self._up) == self._workers:
                typer.echo(f"headgate on {url}, {self._workers} workers")

    def _may_replace(self, slot: int, code: int) -> bool:
        """Whether a worker that ended so gets a successor; if not, what it means for our own exit code."""
        if self._stopping.is_set():
            self._exit_code = self._exit_code or int(code not in ORDERLY)
            return False
        if len(self._up) < self._workers:
            log.error("worker %d could not start: it ended with %d", slot, code)
            self._exit_code = BAD_CONFIGURATION if code == BAD_CONFIGURATION else 1
            self._stop()
            return False
        log.warning("worker %d ended with %d; another one takes its place", slot, code)
        return True

    def _told_to_end(self) -> None:
        if self._stopping.is_set():
            self._kill()
        else:
            self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._first_up.set()
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
        asyncio.get_running_loop().call_later(self._grace_s + CLOSING_S, self._kill)

    def _kill(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.kill()


def pause_s(failures: int) -> float:
    """Before the next start: none after a worker that had listened, ever more after those that had not."""
    return min(0.1 * 2 ** min(failures, 10), LONGEST_PAUSE_S) if failures else 0.0

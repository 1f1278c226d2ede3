"""A process under test: on one core, paused while others are measured, and gone at the end.

CPU time comes from the process's own CPU clock (clock_getcpuclockid(3)): in nanoseconds, where the ticks of
/proc/PID/stat are 10 ms, and with the time of threads that have ended. Linux only.
"""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_LIBC = ctypes.CDLL(None)
PAGE = os.sysconf("SC_PAGE_SIZE")
STOP_S = 15.0


class NotRunning(Exception):
    """It could not be started, or ended by itself."""


def cores() -> tuple[int, int]:
    """The gateway's core, and that of mock and load."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("this needs two cores: one for the gateway, one for mock and load")
    return allowed[0], allowed[1]


def run_script(main: Callable[[], None]) -> None:
    """Runs `main` so that Ctrl-C and SIGTERM undo what it has begun, and a broken part is told in a line."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except NotRunning as error:
        sys.exit(str(error))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pinned(core: int, command: Sequence[str]) -> list[str]:
    """`command` on one core; it ends with this script, even when that is killed and `command` is paused."""
    return ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", str(core), *command]


class Process:
    """Started at once, in a session of its own, so that Ctrl-C reaches this script alone."""

    def __init__(
        self,
        command: Sequence[str],
        core: int,
        output: Path,
        *,
        environment: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        """Raises NotRunning where there is no such program."""
        self.output = output
        with output.open("wb") as file:
            try:
                self._popen = subprocess.Popen(
                    pinned(core, command),
                    env=os.environ | dict(environment or {}),
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd=cwd,
                )
            except OSError as error:
                raise NotRunning(f"{command[0]}: {error}") from error

    def check(self) -> None:
        """Raises NotRunning with its last words."""
        if self._popen.poll() is not None:
            raise NotRunning(f"it ended with {self._popen.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        lines = self.output.read_text(errors="replace").strip().splitlines()[-3:]
        return " | ".join(lines) or "not a word"

    def cpu_s(self) -> float:
        """CPU seconds of the whole session so far."""
        return sum(map(_cpu_s, self._pids()))

    def rss_mb(self) -> float:
        return sum(map(_resident_pages, self._pids())) * PAGE / 2**20

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """As a deployment would; then by force."""
        self._signal(signal.SIGTERM)
        self.resume()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_S)
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def _pids(self) -> list[int]:
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._owns(pid)]

    def _owns(self, pid: int) -> bool:
        try:
            return os.getsid(pid) == self._popen.pid
        except ProcessLookupError:
            return False


def _cpu_s(pid: int) -> float:
    clock = ctypes.c_int()
    if _LIBC.clock_getcpuclockid(pid, ctypes.byref(clock)):
        return 0.0
    try:
        return time.clock_gettime(clock.value)
    except OSError:  # it has just ended
        return 0.0


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0

"""The two ends of every measurement: mock.c in place of a provider, load.c in place of the clients.

Both are built with gcc and run on the core that the gateway does not have. The row `direct` of a table shows
what they can do by themselves.
"""

import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from .process import NotRunning, Process, free_port, pinned

HERE = Path(__file__).parent
START_S = 10.0


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """What load.c prints. Times in µs, percentiles over answers that came."""

    fired: int
    sent_whole: int
    finished: int
    given_up: int
    errors: int
    not_ok: int
    broken: int
    unfinished: int
    events: int
    per_second: float
    events_per_second: float
    p50_us: int
    p99_us: int
    first_p50_us: int
    sample: str

    @property
    def failed(self) -> int:
        return self.errors + self.not_ok + self.broken + self.unfinished

    @property
    def trouble(self) -> str:
        """What went wrong, in a few words; empty: nothing."""
        counts = {
            "connections broken": self.errors,
            "not 200": self.not_ok,
            "streams without [DONE]": self.broken,
            "unfinished": self.unfinished,
        }
        words = [f"{count} {what}" for what, count in counts.items() if count]
        return "; ".join([*words, self.sample] if self.sample else words)


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """The mock's own count: POSTs, different requests among them, and faults that it planted."""

    posts: int
    reached: int
    faults: int


class Mock:
    """A running mock.c."""

    def __init__(self, process: Process, port: int) -> None:
        self.process, self.port = process, port

    def set(self, *, events: int, delay_us: int = 0, fault: float = 0.0) -> None:
        self._get(f"__set?events={events}&delay_us={delay_us}&fault={fault}")

    def planted(self) -> list[tuple[int, str]]:
        """Each planted fault: the number of its request (-1: it had none) and the kind."""
        lines = [line.split() for line in self.process.output.read_text().splitlines()]
        return [(int(number), kind) for number, kind in lines]

    def stats(self) -> Reached:
        return msgspec.json.decode(self._get("__stats"), type=Reached)

    def _get(self, path: str) -> bytes:
        self.process.check()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=10) as answer:
            return bytes(answer.read())


class Rig:
    def __init__(self, folder: Path, core: int) -> None:
        """Builds both tools in `folder`. Raises NotRunning."""
        self.folder, self.core = folder, core
        for tool in ("mock", "load"):
            _compile(HERE / f"{tool}.c", self._program(tool))

    @contextmanager
    def mock(self) -> Iterator[Mock]:
        port = free_port()
        process = Process([self._program("mock"), str(port)], self.core, self.folder / "mock.txt")
        try:
            mock = Mock(process, port)
            wait_until(lambda: _answers(mock), START_S, process)
            yield mock
        finally:
            process.stop()

    def load(self, arguments: Sequence[str], progress: Callable[[int], None] | None = None) -> Loaded:
        """Runs load.c to its end; `progress` hears of each count that `-e` makes it tell."""
        command = pinned(self.core, (self._program("load"), *arguments))
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stderr
            words = ""
            try:
                for line in process.stderr:
                    if progress and line.strip().isdigit():
                        progress(int(line))
                    else:
                        words += line
                printed = process.stdout.read()
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            raise NotRunning(f"load ended with {process.returncode}: {words.strip()}")
        return msgspec.json.decode(printed, type=Loaded)

    def body(self, name: str, **fields: object) -> Path:
        """A request body of the rig with some fields set, as a file."""
        changed = json.dumps(json.loads((HERE / name).read_text()) | fields)
        path = self.folder / f"{'-'.join(map(str, fields.values()))}-{name}"
        path.write_text(changed)
        return path

    def _program(self, tool: str) -> str:
        return str(self.folder / f"headgate-{tool}")


def wait_until(condition: Callable[[], bool], deadline_s: float, process: Process) -> None:
    """Asks until `condition` holds. Raises NotRunning when the process ends or the time is over."""
    deadline = time.monotonic() + deadline_s
    while not condition():
        process.check()
        if time.monotonic() > deadline:
            raise NotRunning(f"not ready after {deadline_s:g} s: {process.last_words()}")
        time.sleep(0.1)


def _compile(source: Path, program: str) -> None:
    try:
        subprocess.run(["gcc", "-O2", "-o", program, source], check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise NotRunning("gcc is not here: it builds the mock and the load generator") from error
    except subprocess.CalledProcessError as error:
        raise NotRunning(f"gcc cannot build {source.name}: {error.stderr}") from error


def _answers(mock: Mock) -> bool:
    with suppress(OSError):
        return mock.stats().posts == 0
    return False

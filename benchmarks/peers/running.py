"""A peer that runs: started, asked until it answers, warmed up; then paused until its turn comes.

Pausing (SIGSTOP) keeps the timers of idle peers off the core that they all share.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .catalog import Peer, Site, ask
from .process import Process, free_port
from .rig import Loaded, Mock, Rig, wait_until

START_S = 180.0
WARM = ("-c", "16", "-d", "1")


class Running:
    """`process` is None where the load goes to the mock directly."""

    def __init__(self, peer: Peer, port: int, process: Process | None, rig: Rig, mock: Mock) -> None:
        self.peer, self.port = peer, port
        self._process, self._rig, self._mock = process, rig, mock
        self.warm_rss_mb = 0.0

    def load(self, *options: str, progress: Callable[[int], None] | None = None) -> Loaded:
        """Raises NotRunning when that ended it."""
        headers = (f"Authorization: Bearer {self.peer.key}", *self.peer.headers(self._mock.port))
        named = (word for header in headers for word in ("-H", header))
        target = ("-u", f"127.0.0.1:{self.port}", "-p", self.peer.path, *named)
        loaded = self._rig.load((*target, *options), progress)
        if self._process:
            self._process.check()
        return loaded

    def settle(self) -> None:
        """Waits until all that a load left behind is done. Raises TimeoutError."""
        if self.peer.settle:
            self.peer.settle(self.port)

    def body(self, name: str, **fields: object) -> str:
        """The path of a request body for it."""
        return str(self._rig.body(name, model=self.peer.model, **fields))

    def warm_up(self) -> None:
        """Every path is taken and every pool filled before anything is measured."""
        self._mock.set(events=50)
        self.load("-b", self.body("body.json"), *WARM)
        if self.peer.streams:
            self.load("-s", self.body("body_stream.json"), *WARM)
        self.settle()
        self.warm_rss_mb = self.rss_mb()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """The time in which it may run."""
        if self._process:
            self._process.resume()
        yield
        if self._process:
            self._process.pause()

    def cpu_s(self) -> float:
        return self._process.cpu_s() if self._process else 0.0

    def rss_mb(self) -> float:
        return self._process.rss_mb() if self._process else 0.0


@contextmanager
def running(peer: Peer, rig: Rig, mock: Mock, core: int, folder: Path) -> Iterator[Running]:
    """Starts `peer` in `folder`. Raises NotRunning."""
    if peer.launch is None:
        yield Running(peer, mock.port, None, rig, mock)
        return
    folder.mkdir()
    site = Site(folder=folder, port=free_port(), mock=mock.port)
    launch = peer.launch(site)
    for name, text in launch.files.items():
        (folder / name).write_text(text)
    process = Process(launch.command, core, folder / "output.txt", environment=launch.environment, cwd=folder)
    try:
        wait_until(lambda: _port(peer, site, process) > 0, START_S, process)
        body = rig.body("body.json", model=peer.model).read_bytes()
        port = _port(peer, site, process)
        wait_until(lambda: _answers(peer, port, mock.port, body), START_S, process)
        yield Running(peer, port, process, rig, mock)
    finally:
        process.stop()


def _port(peer: Peer, site: Site, process: Process) -> int:
    """Where it listens; 0: that is not known yet."""
    if not peer.port_in_output:
        return site.port
    found = re.search(peer.port_in_output, process.output.read_text(errors="replace"))
    return int(found[1]) if found else 0


def _answers(peer: Peer, port: int, mock: int, body: bytes) -> bool:
    with suppress(OSError):
        return bool(ask(peer, port, mock, body))
    return False

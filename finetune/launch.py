"""Start a training process, follow it, and never leave it behind. No torch here.

    result = run(Job(base="sluice-4m", data=path, suffix="desk", output=folder), on_event=print)

Training has a process of its own: torch stays out of the caller, a crash (or the kernel's memory killer)
takes nothing else along, and stopping is certain. The child leads its own process group; it is killed when
`run` is left by any exception, and ends by itself when its stdin closes because the caller died.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from adapters.manifest import Manifest
from finetune.job import FOLLOW, AnyEvent, Failed, Finished, Job, event_from_json, to_json

LOG_FILE = "train.log"
GRACE_SECONDS = 5.0
ENVIRONMENT = {
    # glibc gives large blocks back to the kernel at each free, and training asks for them again at each step:
    # a third of the time on CPU went there. Keep them.
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    # Threads that wait sleep instead of spinning, which beside a busy gateway makes all of them slow.
    "OMP_WAIT_POLICY": "PASSIVE",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
}


class Result(msgspec.Struct, frozen=True):
    """What became of a job: a manifest, or the reason why there is none.

    `deployable` is the gate's word. False beside a manifest is a normal result: `manifest.evaluation.reasons`
    says why.
    """

    folder: Path | None = None
    manifest: Manifest | None = None
    reason: str | None = None
    trained_tokens: int = 0

    @property
    def deployable(self) -> bool:
        return self.manifest is not None and self.manifest.evaluation.passed


def run(job: Job, on_event: Callable[[AnyEvent], None] = lambda event: None) -> Result:
    """Train in a process of its own and wait for the end.

    `on_event` is called with each event as it comes; what it raises stops the training and is passed on.
    """
    if faults := job.faults():
        return Result(reason="; ".join(faults))
    with Training(job) as training:
        for event in training.events():
            on_event(event)
        return training.result()


class Training:
    """A training process under way. Leaving the context, or `stop` from any thread, ends it."""

    def __init__(self, job: Job) -> None:
        job.output.mkdir(parents=True, exist_ok=True)
        self.log = job.output / LOG_FILE
        self._last: AnyEvent | None = None
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own module, the job as one argument, no shell
                [sys.executable, "-m", "finetune.train", to_json(job), FOLLOW],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                env=ENVIRONMENT | dict(os.environ),
            )

    @property
    def pid(self) -> int:
        """The process, which is also the leader of its process group."""
        return self._process.pid

    def events(self) -> Iterator[AnyEvent]:
        """Every event until the process closes its output."""
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        for line in self._process.stdout:
            self._last = event_from_json(line)
            yield self._last

    def result(self) -> Result:
        """Wait for the process and say how it ended."""
        status = self._process.wait()
        match self._last:
            case Finished(path, _, tokens):
                manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
                return Result(folder=path.parent, manifest=manifest, trained_tokens=tokens)
            case Failed(reason):
                return Result(reason=reason)
        return Result(reason=f"the training process {_ending(status)}{self._last_words()}")

    def stop(self) -> None:
        """End the process and all that it started: politely, then by force. Safe to call more than once."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is not None:
                return
            os.killpg(self._process.pid, signum)
            try:
                self._process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                continue

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended without a result (status {status})"
    return f"was killed by {signal.Signals(-status).name}" + (
        ", as the kernel does when memory runs out" if status == -signal.SIGKILL else ""
    )

"""Run one training in a process of its own and measure all of it, ours and TRL's in the same way.

Measured from process start to exit: wall clock, processor time, peak of memory. Both start with a base and
two files, and end with an adapter and its score on the held-out rows; ours also asks the base, and the base
with examples, judges, and writes probes and a manifest.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from adapters.manifest import Evaluation, Manifest
from benchmarks.finetuning.tasks import Files
from finetune.job import Failed, Finished, Job, event_from_json, to_json
from finetune.launch import ENVIRONMENT

ROOT = Path(__file__).parents[2]
TRL = ROOT / ".cache" / "trl"
# On top of our own environment, without dependencies that are there already: torch above all.
WANTED = (
    "trl==1.16.0", "datasets==5.2.0", "pandas==3.1.1", "dill==0.4.1", "multiprocess==0.70.19",
    "xxhash==4.1.0", "python-dateutil==2.9.0.post0", "six==1.17.0",
)  # fmt: skip


class Point(NamedTuple):
    """A point of the expert's grid; without a rate, TRL's documented LoRA call."""

    rate: float | None = None
    epochs: int = 0

    def __str__(self) -> str:
        return f"{self.rate:.0e} × {self.epochs}" if self.rate else "defaults"


class Measured(NamedTuple):
    """What a training came to. `wall` and `cpu` in seconds, `peak` in MB."""

    score: float
    wall: float
    cpu: float
    peak: float
    evaluation: Evaluation | None = None


class RunFailed(RuntimeError):
    """A training process ended without a result; the text holds its last words."""


def install_trl() -> None:
    """Put TRL where only its own runs see it. subprocess.CalledProcessError if pip cannot."""
    note = TRL / "installed.txt"
    if note.is_file() and note.read_text() == "\n".join(WANTED):
        return
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "-q",
            "--no-deps",
            "--upgrade",
            "--target",
            str(TRL),
            *WANTED,
        ],
        check=True,
    )
    note.write_text("\n".join(WANTED))


def ours(
    files: Files, output: Path, seed: int, incumbent: Path | None = None, qlora: bool = False
) -> Measured:
    """`auto`: nothing is chosen but the seed."""
    job = Job(
        base="sluice-4m", data=files.train, validation=files.held_out, suffix="bench", output=output,
        seed=seed, qlora=qlora, incumbent=incumbent,
    )  # fmt: skip
    lines, measured = _measured("finetune.train", to_json(job))
    match event_from_json(lines[-1]):
        case Finished(path):
            evaluation = msgspec.json.decode(path.read_bytes(), type=Manifest).evaluation
            return measured._replace(score=evaluation.adapter.value, evaluation=evaluation)
        case Failed(reason):
            raise RunFailed(reason)
    raise RunFailed("no result")


def trl(files: Files, seed: int, point: Point) -> Measured:
    wish = {"train": str(files.train), "held_out": str(files.held_out), "seed": seed, **point._asdict()}
    lines, measured = _measured("benchmarks.finetuning.trainer", json.dumps(wish), str(TRL))
    return measured._replace(score=json.loads(lines[-1])["score"])


def _measured(module: str, argument: str, *paths: str) -> tuple[list[bytes], Measured]:
    """Lines of stdout, and what the process took."""
    environment = ENVIRONMENT | dict(os.environ) | {"PYTHONPATH": os.pathsep.join([str(ROOT), *paths])}
    start = time.monotonic()
    with (
        open(os.devnull, "wb") as nowhere,
        subprocess.Popen(
            [sys.executable, "-m", module, argument], stdout=subprocess.PIPE, stderr=nowhere, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        lines = process.stdout.read().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not lines:
        raise RunFailed(f"{module} ended with status {process.returncode}: {lines[-1:]!r}")
    return lines, Measured(
        score=0.0,
        wall=time.monotonic() - start,
        cpu=usage.ru_utime + usage.ru_stime,
        peak=usage.ru_maxrss / 1024,
    )

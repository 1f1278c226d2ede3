"""The launcher: results and failures come back with their reason, and no process is left behind."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.job import AnyEvent, Job, Phase
from finetune.launch import Training, run
from tests.finetune.samples import chat

PARENT = """
import signal
import sys
from pathlib import Path
from finetune.job import Job
from finetune.launch import Training

signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests may ignore it
job = Job(base="sluice-4m", data=Path(sys.argv[1]), suffix="t", output=Path(sys.argv[2]), epochs=50)
with Training(job) as training:
    for event in training.events():
        print(training.pid, type(event).__name__, flush=True)
"""


@pytest.fixture
def job(tmp_path: Path, write_rows: Callable[..., Path]) -> Job:
    """A job that would take minutes."""
    data = write_rows(*(chat(f"question {n}", f"answer {n % 3}") for n in range(300)))
    return Job(base="sluice-4m", data=data, suffix="t", output=tmp_path / "out", epochs=50)


def is_alive(pid: int) -> bool:
    """Whether any process of the group that `pid` leads is left."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid: int, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while is_alive(pid):
        assert time.monotonic() < deadline, f"process group {pid} is still alive"
        time.sleep(0.1)


def test_importing_the_launcher_imports_no_torch() -> None:
    """A gateway can launch, check and gate without loading torch or transformers."""
    modules = (
        "finetune.launch, finetune.dataset, finetune.split, finetune.gate, finetune.base, finetune.encode"
    )
    code = f"import sys, {modules}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.train
def test_bad_data_comes_back_as_the_reason(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    """The user gets the reader's words, not a traceback."""
    data = write_rows(chat("a"), {"messages": [{"role": "bot", "content": "x"}]})
    result = run(Job(base="sluice-4m", data=data, suffix="t", output=tmp_path / "out"))
    assert result.manifest is None
    assert not result.deployable
    assert result.reason is not None
    assert "line 2: $.messages[0].role" in result.reason
    assert "must have at least 10 examples" in result.reason


@pytest.mark.train
def test_an_unknown_base_comes_back_as_the_reason(job: Job) -> None:
    """A base that is nowhere is named."""
    result = run(Job(base="./no-such-base", data=job.data, suffix="t", output=job.output))
    assert "base model './no-such-base' not found" in str(result.reason)


@pytest.mark.train
def test_an_exception_in_the_caller_ends_the_training(job: Job) -> None:
    """Whatever leaves `run` takes the training process along."""
    with Training(job) as probe:
        pid = probe.pid
    assert not is_alive(pid)

    class Cancelled(Exception):
        pass

    def cancel(event: AnyEvent) -> None:
        assert isinstance(event, Phase)
        raise Cancelled

    with pytest.raises(Cancelled):
        run(job, cancel)
    assert not list(job.output.glob("t@*"))


@pytest.mark.train
def test_a_killed_training_says_so(job: Job) -> None:
    """The kernel's memory killer leaves no event; the reason names the signal."""
    with Training(job) as training:
        next(training.events())
        os.killpg(training.pid, signal.SIGKILL)
        list(training.events())
        assert "killed by SIGKILL" in str(training.result().reason)


@pytest.mark.train
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_the_training_ends_with_its_parent(signum: int, job: Job, tmp_path: Path) -> None:
    """Interrupted or killed outright, the caller leaves no training process and no half-made adapter."""
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    arguments: list[Any] = [sys.executable, script, job.data, job.output]
    environment = dict(os.environ) | {"PYTHONPATH": os.getcwd()}
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline().split()[0])
        assert is_alive(pid)
        parent.send_signal(signum)
        parent.wait(30)
    wait_until_gone(pid)
    assert not list(job.output.glob("t@*"))

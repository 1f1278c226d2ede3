"""A run that is killed and started again ends with the very same bytes; one short of memory goes on."""

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from finetune import loop
from finetune.job import AnyEvent, Job, Step
from finetune.launch import Result, Training, run
from finetune.loop import OutOfMemory
from finetune.record import METRICS_FILE, read_metrics
from tests.finetune.samples import chat
from tests.finetune.tiny import Run


class Killed(Exception):
    """What stands in for a kill inside one process."""


@pytest.mark.parametrize("last", [1, 4, 8])
def test_a_resumed_run_ends_as_the_uninterrupted_one(last: int, tmp_path: Path) -> None:
    """Weights, moments, order of rows, thinning and learning rate go on where they stood (peft#859)."""
    whole = Run(tmp_path / "whole")
    outcome = whole.go()

    class Cut(Run):
        def on_step(self, step: Step) -> None:
            super().on_step(step)
            if step.step > last:
                raise Killed

    with pytest.raises(Killed):
        Cut(tmp_path / "cut").go()
    second = Run(tmp_path / "cut")
    assert second.go() == outcome
    assert [step.step for step in second.steps] == list(range(last + 1, outcome.steps + 1))
    assert [step.loss for step in second.steps] == [step.loss for step in whole.steps[last:]]
    for name, weight in whole.weights().items():
        assert torch.equal(weight, second.weights()[name]), name


def test_a_cleared_run_starts_anew(tmp_path: Path) -> None:
    """What is over leaves nothing to go on from, and a torn write is never looked at."""
    first = Run(tmp_path)
    first.go()
    (tmp_path / "checkpoint.fresh").write_bytes(b"torn")
    first.keeper.clear()
    second = Run(tmp_path)
    second.go()
    assert second.steps[0].step == 1


class Hungry:
    """An objective that runs out of memory when asked for more than `most` tokens at once."""

    def __init__(self, inner: Any, most: int) -> None:
        self.inner, self.most = inner, most
        self.asked: list[int] = []

    def backward(self, batch: Sequence[Any], micro_tokens: int) -> tuple[float, float]:
        self.asked.append(micro_tokens)
        if micro_tokens > self.most:
            self.inner.backward(batch[:1], micro_tokens)  # some gradients are there already
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        found: tuple[float, float] = self.inner.backward(batch, micro_tokens)
        return found


def test_out_of_memory_halves_the_parts_and_keeps_the_batch(tmp_path: Path) -> None:
    """The run goes on with smaller parts, once and for all, and learns what it would have learned."""
    plain, starved = Run(tmp_path / "plain"), Run(tmp_path / "starved")
    hungry = starved.objective = Hungry(starved.objective, most=100)
    assert starved.go().loss == pytest.approx(plain.go().loss, rel=1e-4)
    assert sum(tokens > 100 for tokens in hungry.asked) == hungry.asked.index(hungry.asked[-1])
    assert len(starved.steps) == len(plain.steps)
    for name, weight in plain.weights().items():
        assert torch.allclose(weight, starved.weights()[name], atol=1e-3), name


def test_a_row_that_does_not_fit_is_named(tmp_path: Path) -> None:
    """Where not even one row fits the run ends with a reason, not with an endless loop."""
    starved = Run(tmp_path)
    starved.objective = Hungry(starved.objective, most=0)
    with pytest.raises(OutOfMemory, match="one row of 29 tokens"):
        starved.go()


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    """A bug surfaces as itself."""
    broken = Run(tmp_path)

    class Broken:
        def backward(self, batch: Sequence[Any], micro_tokens: int) -> tuple[float, float]:
            raise RuntimeError("shapes do not match")

    broken.objective = Broken()
    with pytest.raises(RuntimeError, match="shapes"):
        broken.go()


@pytest.mark.train
def test_kill_9_and_resume_give_the_same_digest(tmp_path: Path, write_rows: Callable[..., Path]) -> None:
    """The real process, the real base: killed outright in mid-run, started again, equal to the last bit."""
    data = write_rows(*(chat(f"please do thing number {n}", f"label{n % 4}") for n in range(40)))
    job = Job(
        base="sluice-4m", data=data, suffix="t", output=tmp_path / "whole", epochs=3, checkpoint_seconds=0
    )
    whole = run(job)
    killed = msgspec.structs.replace(job, output=tmp_path / "killed")
    with Training(killed) as training:
        for event in training.events():
            if isinstance(event, Step) and event.step == 5:
                os.killpg(training.pid, signal.SIGKILL)
    events: list[AnyEvent] = []
    resumed: Result = run(killed, events.append)
    steps = [event.step for event in events if isinstance(event, Step)]
    assert whole.manifest is not None, whole.reason
    assert resumed.manifest is not None, resumed.reason
    assert 5 <= steps[0] <= steps[-1] == whole.manifest.run.steps
    assert resumed.manifest.digest == whole.manifest.digest
    (metrics,) = killed.output.glob(f"run-*/{METRICS_FILE}")
    assert [line["step"] for line in read_metrics(metrics)] == list(range(1, steps[-1] + 1))
    assert not list(killed.output.glob("run-*/checkpoint*"))


class Watched(Run):
    """A run whose score after each epoch is given."""

    def __init__(self, folder: Path, given: list[float]) -> None:
        super().__init__(folder)
        self.given = given
        self.seen: list[dict[str, torch.Tensor]] = []

    def watch(self) -> float:
        assert not self.model.training
        self.seen.append({name: weight.detach().clone() for name, weight in self.weights().items()})
        return self.given[len(self.seen) - 1]


@pytest.mark.parametrize(("given", "best", "epochs"), [([0.1, 0.9, 0.3], 1, 3), ([0.5, 0.2, 0.5], 2, 3)])
def test_the_best_epoch_is_kept(given: list[float], best: int, epochs: int, tmp_path: Path) -> None:
    """The weights are those of the best score, of equals the latest."""
    training = Watched(tmp_path, given)
    outcome = training.go()
    assert len(training.seen) == epochs
    assert outcome.steps == epochs * 3
    for name, weight in training.weights().items():
        assert torch.equal(weight, training.seen[best][name]), name
    assert [step.valid_score for step in training.steps if step.valid_score is not None] == given


def test_training_ends_when_the_score_no_longer_rises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After PATIENCE epochs in vain, also when it was killed just then and starts again."""
    monkeypatch.setattr(loop, "PATIENCE", 1)
    first = Watched(tmp_path, [0.9, 0.1])
    assert first.go().steps == 6
    second = Watched(tmp_path, [])
    assert second.go().steps == 6
    assert second.steps == []
    for name, weight in first.weights().items():
        assert torch.equal(weight, second.weights()[name]), name

"""Jobs: what is refused before any work, and what is derived from the size of data and base."""

from pathlib import Path

import msgspec
import pytest

from finetune.job import (
    Finished,
    Hyperparameters,
    Job,
    event_from_json,
    hyperparameters,
    job_from_json,
    to_json,
)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    data = tmp_path / "rows.jsonl"
    data.touch()
    return Job(base="sluice-4m", data=data, suffix="desk", output=tmp_path)


def test_a_job_and_its_events_survive_the_pipe(job: Job) -> None:
    """Launcher and training process see the same values."""
    assert job_from_json(to_json(job)) == job
    event = Finished(manifest=Path("a/manifest.json"), passed=False, trained_tokens=3)
    assert event_from_json(to_json(event).encode()) == event


def test_every_fault_of_a_job_is_named(job: Job) -> None:
    """All bad wishes come back together."""
    bad = msgspec.structs.replace(
        job,
        suffix="My Adapter",
        rank=12,
        held_out_share=1.0,
        seed=-1,
        epochs=51,
        batch_size=0,
        learning_rate=0.0,
        data=Path("nowhere.jsonl"),
        validation=Path("nor-here.jsonl"),
    )
    assert job.faults() == ()
    assert len(bad.faults()) == 9


def test_wishes_win_over_what_is_derived(job: Job) -> None:
    """What the user sets is used as it is."""
    wished = msgspec.structs.replace(job, epochs=2, batch_size=5, learning_rate=1e-4)
    assert hyperparameters(wished, range(100), 10**9) == Hyperparameters(
        epochs=2, batch_size=5, learning_rate=1e-4
    )


def test_more_rows_need_fewer_epochs_and_larger_models_smaller_steps(job: Job) -> None:
    """The derived values stay inside their bounds from 10 rows to a million."""
    few, many = hyperparameters(job, range(10), 4_000_000), hyperparameters(job, range(10**6), 70 * 10**9)
    assert few.epochs == 30
    assert many.epochs == 3
    assert 1e-4 <= many.learning_rate < few.learning_rate <= 5e-3
    assert Hyperparameters(epochs=3, batch_size=8, learning_rate=1e-3).steps(17) == 9


def test_prompts_are_thinned_only_where_answers_repeat(job: Job) -> None:
    """Classification gains by it; extraction and free text need every word."""
    assert hyperparameters(job, ["a", "b"] * 50, 4_000_000).prompt_dropout > 0
    assert hyperparameters(job, [f"answer {n}" for n in range(100)], 4_000_000).prompt_dropout == 0
    wished = msgspec.structs.replace(job, prompt_dropout=0.0)
    assert hyperparameters(wished, ["a", "b"] * 50, 4_000_000).prompt_dropout == 0


def test_few_rows_get_many_steps_and_preferences_few(job: Job) -> None:
    """Steps grow with the square root of the rows; a preference is a nudge at a lower rate."""
    steps = [hyperparameters(job, ["a", "b"] * (rows // 2), 4_000_000).steps(rows) for rows in (50, 200, 500)]
    assert steps == sorted(steps)
    assert steps[2] < 4 * steps[0]
    usual = hyperparameters(job, ["a", "b"] * 50, 4_000_000)
    nudge = hyperparameters(msgspec.structs.replace(job, method="dpo"), ["a", "b"] * 50, 4_000_000)
    assert nudge.learning_rate < usual.learning_rate
    assert nudge.steps(100) < usual.steps(100)


def test_what_the_base_knows_need_not_be_learned(job: Job) -> None:
    """The more rows the base answers by itself the fewer steps, but never none; a wish is a wish."""
    answers = ["a", "b"] * 50
    epochs = [hyperparameters(job, answers, 4_000_000, known).epochs for known in (0.0, 0.5, 0.95, 1.0)]
    assert epochs[0] > epochs[1] > epochs[2] == epochs[3] >= 3
    wished = msgspec.structs.replace(job, epochs=7)
    assert hyperparameters(wished, answers, 4_000_000, 1.0).epochs == 7


def test_what_a_job_may_be_compared_with_must_be_there(job: Job, tmp_path: Path) -> None:
    """Beta, tolerance, rate ratio, incumbent and general rows are checked before a process is started."""
    bad = msgspec.structs.replace(
        job, beta=0.0, tolerance=2.0, rate_ratio=0.5, incumbent=tmp_path, general=tmp_path / "none.jsonl"
    )
    assert len(bad.faults()) == 5
    assert job_from_json(to_json(bad)) == bad

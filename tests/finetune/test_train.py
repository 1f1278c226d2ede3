"""Real training on the real base: an adapter that has learned, a refusal, and a 4-bit run."""

import json
import random
from pathlib import Path
from xml.etree import ElementTree

import pytest

from adapters.manifest import MANIFEST_FILE, WEIGHT_FILES, combined_digest, digest_files
from finetune.base import find_base
from finetune.job import AnyEvent, Finished, Job, Phase, Started, Step
from finetune.launch import Result, run
from finetune.record import CURVE_FILE, METRICS_FILE, read_metrics

DEMO = Path("finetune/demo_data/support_desk.jsonl")
LABELS = {"opening_hours", "lost_card", "print_copy", "book_room"}

pytestmark = pytest.mark.train


def demo_rows(shuffle: bool = False) -> list[dict[str, object]]:
    """The demo rows of four labels, if asked with the labels dealt out anew."""
    rows = [json.loads(line) for line in DEMO.read_text().splitlines()]
    rows = [row for row in rows if row["messages"][-1]["content"] in LABELS]
    if shuffle:
        answers = [row["messages"][-1]["content"] for row in rows]
        random.Random(0).shuffle(answers)
        for row, answer in zip(rows, answers, strict=True):
            row["messages"][-1]["content"] = answer
    return rows


def write(rows: list[dict[str, object]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, list[AnyEvent]]:
    """One training that all tests of its outcome look at."""
    folder = tmp_path_factory.mktemp("trained")
    events: list[AnyEvent] = []
    data = write(demo_rows(), folder / "rows.jsonl")
    job = Job(
        base="sluice-4m", data=data, suffix="desk", output=folder / "out", held_out_share=0.3, epochs=10
    )
    return run(job, events.append), events


def test_the_adapter_has_learned_and_may_be_deployed(trained: tuple[Result, list[AnyEvent]]) -> None:
    """On unseen rows the adapter is far better than the base, and the gate says so."""
    result, _ = trained
    assert result.manifest is not None, result.reason
    assert result.deployable
    assert result.manifest.evaluation.base.value <= 0.2
    assert result.manifest.evaluation.adapter.value >= 0.7


def test_the_folder_is_complete_and_tells_nothing_of_this_machine(
    trained: tuple[Result, list[AnyEvent]],
) -> None:
    """Only weights, configuration and manifest; digests hold; what vLLM refuses or drops is absent."""
    result, _ = trained
    assert result.manifest is not None
    assert result.folder is not None
    assert {path.name for path in result.folder.iterdir()} == {*WEIGHT_FILES, MANIFEST_FILE}
    assert result.manifest.files == digest_files(result.folder, WEIGHT_FILES)
    assert result.manifest.digest == combined_digest(result.manifest.files, result.manifest.base.revision)
    assert result.folder.name == result.manifest.release
    config = json.loads((result.folder / WEIGHT_FILES[0]).read_text())
    assert config["base_model_name_or_path"] == result.manifest.base.name == "sluice-4m"
    refused = ("use_dora", "modules_to_save", "rank_pattern", "alpha_pattern", "lora_bias")
    assert not any(config.get(key) for key in refused)
    assert config["bias"] == "none"
    assert result.manifest.lora.rank == config["r"] <= 16


def test_probes_tell_adapter_from_base(trained: tuple[Result, list[AnyEvent]]) -> None:
    """Every probe has one log-probability per token, and the two models answer differently."""
    result, _ = trained
    assert result.manifest is not None
    assert 4 <= len(result.manifest.probes) <= 8
    for probe in result.manifest.probes:
        assert probe.completion in LABELS
        assert probe.completion != probe.base_completion
        assert len(probe.logprobs) > 0
        assert all(logprob <= 0 for logprob in probe.logprobs)


def test_progress_is_reported(trained: tuple[Result, list[AnyEvent]]) -> None:
    """Every phase and every step is reported, and the loss falls."""
    _, events = trained
    phases = [event.name for event in events if isinstance(event, Phase)]
    assert phases == ["loading", "training", "evaluating", "publishing"]
    started = next(event for event in events if isinstance(event, Started))
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.step for event in steps] == list(range(1, started.steps + 1))
    assert steps[-1].loss < 0.2 * steps[0].loss
    assert isinstance(events[-1], Finished)


def test_no_row_is_in_both_parts(trained: tuple[Result, list[AnyEvent]]) -> None:
    """The lineage names every row once."""
    result, _ = trained
    assert result.manifest is not None
    lineage = result.manifest.dataset
    assert len(set(lineage.train_rows) | set(lineage.held_out_rows)) == len(demo_rows())
    assert not set(lineage.train_rows) & set(lineage.held_out_rows)


def test_shuffled_labels_train_and_are_refused(tmp_path: Path) -> None:
    """Rows that teach nothing give an adapter, and the verdict "do not deploy" with a reason."""
    data = write(demo_rows(shuffle=True), tmp_path / "rows.jsonl")
    job = Job(
        base="sluice-4m", data=data, suffix="noise", output=tmp_path / "out", held_out_share=0.3, epochs=4
    )
    result = run(job)
    assert result.manifest is not None, result.reason
    assert not result.deployable
    assert result.manifest.evaluation.reasons


def test_qlora_trains_on_cpu(tmp_path: Path) -> None:
    """A 4-bit base trains too; the adapter is evaluated on the unquantised base that will serve it."""
    data = write(demo_rows()[:40], tmp_path / "rows.jsonl")
    losses: list[float] = []
    job = Job(base="sluice-4m", data=data, suffix="four-bit", output=tmp_path / "out", qlora=True, epochs=2)
    result = run(job, lambda event: losses.append(event.loss) if isinstance(event, Step) else None)
    assert result.manifest is not None, result.reason
    assert result.manifest.lora.quantization == "nf4"
    assert result.manifest.base.dtype == "float32"
    assert losses[-1] < losses[0]


def test_bundled_bases_are_found_by_name() -> None:
    """The base that ships needs no path and no network."""
    folder, name = find_base("sluice-4m")
    assert name == "sluice-4m"
    assert (folder / "model.safetensors").is_file()


def test_the_same_data_again_do_not_replace_the_incumbent(
    trained: tuple[Result, list[AnyEvent]], tmp_path: Path
) -> None:
    """What the incumbent's own rows teach is not better than it; what is lost elsewhere is counted."""
    before, _ = trained
    data = write(demo_rows(), tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in DEMO.read_text().splitlines()]
    others = [row for row in rows if row["messages"][-1]["content"] not in LABELS]
    general = write(others[:20], tmp_path / "general.jsonl")
    job = Job(
        base="sluice-4m", data=data, suffix="again", output=tmp_path / "out", held_out_share=0.3, epochs=10,
        incumbent=before.folder, general=general,
    )  # fmt: skip
    result = run(job)
    assert result.manifest is not None, result.reason
    evaluation = result.manifest.evaluation
    assert before.manifest is not None
    assert evaluation.incumbent == before.manifest.evaluation.adapter
    assert evaluation.general is not None
    assert evaluation.general_rows == 20
    assert not result.deployable
    assert any("the incumbent" in reason for reason in evaluation.reasons)


def test_the_run_leaves_its_metrics_and_curve(trained: tuple[Result, list[AnyEvent]]) -> None:
    """One line for each step, and a picture that is well-formed XML; the checkpoint is gone."""
    result, events = trained
    assert result.folder is not None
    (run_folder,) = result.folder.parent.glob("run-*")
    steps = [event for event in events if isinstance(event, Step)]
    lines = read_metrics(run_folder / METRICS_FILE)
    assert [line["loss"] for line in lines] == [step.loss for step in steps]
    assert ElementTree.fromstring((run_folder / CURVE_FILE).read_text()).tag.endswith("svg")
    assert {path.name for path in run_folder.iterdir()} == {METRICS_FILE, CURVE_FILE}


def test_early_stopping_watches_rows_that_are_not_trained_on(tmp_path: Path) -> None:
    """A tenth is set aside and asked after each epoch; the held-out rows have no part in it."""
    data = write(demo_rows(), tmp_path / "rows.jsonl")
    events: list[AnyEvent] = []
    job = Job(base="sluice-4m", data=data, suffix="early", output=tmp_path / "out", epochs=3, early_stop=True)
    result = run(job, events.append)
    assert result.manifest is not None, result.reason
    started = next(event for event in events if isinstance(event, Started))
    lineage = result.manifest.dataset
    assert started.held_out_rows == len(lineage.held_out_rows)
    assert started.train_rows < len(lineage.train_rows)
    scores = [
        event.valid_score for event in events if isinstance(event, Step) and event.valid_score is not None
    ]
    assert len(scores) == 3
    assert scores[-1] > scores[0]

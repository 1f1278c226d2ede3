"""A job's files are checked whole, and every bad row is named at once."""

from collections.abc import Callable

import pytest

from finetune.jobs.checking import MOST_IN_MESSAGE, file_faults
from finetune.jobs.files import FileStore
from finetune.jobs.records import StoredJob
from tests.finetune.jobs.conftest import OWNER
from tests.finetune.samples import chat

NewJob = Callable[..., StoredJob]
GOOD = [chat(f"question {n}") for n in range(9)]
PAIR = {
    "input": {"messages": [{"role": "user", "content": "which?"}]},
    "preferred_output": [{"role": "assistant", "content": "this"}],
    "non_preferred_output": [{"role": "assistant", "content": "that"}],
}


def changed(**more: object) -> dict[str, object]:
    return {**PAIR, **more}


def test_all_bad_rows_are_named(files: FileStore, new_job: NewJob) -> None:
    """Line from 1, JSON path and cause, in the error's text and as data of the events."""
    weighted = {"messages": [{"role": "user", "content": "x", "weight": 1}, *chat("y")["messages"][1:]]}
    found = file_faults(new_job(*GOOD, b"{", weighted, chat("ok")), files)
    assert found is not None
    error, events = found
    assert (error.code, error.param) == ("invalid_training_file", "training_file")
    assert error.message.startswith("The job failed due to an invalid training file. Invalid file format. ")
    assert "Example 10, $: not JSON" in error.message
    assert "Example 11, $.messages[0].weight: only assistant messages carry a weight" in error.message
    problems = [problem for event in events for problem in event.data.get("problems", ())]
    assert [(problem["line"], problem["path"]) for problem in problems] == [
        (10, "$"),
        (11, "$.messages[0].weight"),
    ]


def test_too_few_rows_are_openais_own_error(files: FileStore, new_job: NewJob) -> None:
    """Code and text are OpenAI's."""
    found = file_faults(new_job(*GOOD[:7]), files)
    assert found is not None
    assert found[0].code == "invalid_n_examples"
    assert found[0].message == "Training file has 7 example(s), but must have at least 10 examples"


def test_many_problems_fill_the_events_not_the_message(files: FileStore, new_job: NewJob) -> None:
    """The message stays readable; nothing is lost."""
    found = file_faults(new_job(*[b"{"] * 250), files)
    assert found is not None
    error, events = found
    assert error.message.count("not JSON") == MOST_IN_MESSAGE
    assert "and 200 more, which the job's events list" in error.message
    assert sum(len(event.data.get("problems", ())) for event in events) == 250


def test_a_file_that_is_gone_is_named(files: FileStore, new_job: NewJob) -> None:
    """Deleted, or its bytes are missing: the job fails, the worker does not."""
    job = new_job()
    files.path(job.training_file).unlink()
    found = file_faults(job, files)
    assert found is not None
    assert "cannot be read" in found[0].message
    files.delete(job.training_file, OWNER)
    again = file_faults(job, files)
    assert again is not None
    assert "No such File object" in again[0].message


@pytest.mark.parametrize(
    ("row", "path", "cause"),
    [
        (chat("x"), "$.messages", "unknown key"),
        (changed(input={"messages": [], "tools": []}), "$.input.tools", "at least one tool"),
        (changed(input=3), "$.input", "must be an object"),
        (changed(input={"messages": 3}), "$.input.messages", "must be a list"),
        (changed(preferred_output=[]), "$.preferred_output", "exactly one assistant message"),
        (
            changed(preferred_output=PAIR["preferred_output"] * 2),  # type: ignore[operator]
            "$.preferred_output",
            "exactly one",
        ),
        (
            changed(non_preferred_output=[{"role": "user", "content": "x"}]),
            "$.non_preferred_output[0].role",
            'must be "assistant"',
        ),
        (
            changed(non_preferred_output=[{"role": "assistant", "content": " "}]),
            "$.non_preferred_output[0].content",
            "is empty",
        ),
        (
            changed(input={"messages": [{"role": "user", "content": "x", "weight": 1}]}),
            "$.input.messages[0].weight",
            "only assistant messages",
        ),
        (
            changed(non_preferred_output=PAIR["preferred_output"]),
            "$.non_preferred_output",
            "the same as preferred_output",
        ),
    ],
)
def test_rows_of_preferences(row: object, path: str, cause: str, files: FileStore, new_job: NewJob) -> None:
    """Each rule for DPO rows, by its place in the row; one fault of the prompt is told once."""
    found = file_faults(new_job(*[PAIR] * 9, row, method="dpo"), files)
    assert found is not None
    problems = [problem for event in found[1] for problem in event.data.get("problems", ())]
    assert (problems[0]["line"], problems[0]["path"]) == (10, path)
    assert cause in problems[0]["cause"]
    assert len([problem for problem in problems if problem["path"] == path]) == 1


def test_good_rows_pass(files: FileStore, new_job: NewJob) -> None:
    """Ten good rows of either method are fit."""
    assert file_faults(new_job(), files) is None
    assert file_faults(new_job(*[PAIR] * 10, method="dpo"), files) is None

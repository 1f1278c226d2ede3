"""`/v1/fine_tuning/jobs` by the OpenAI SDK: shapes, refusals, cursors and who sees what. No worker runs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.support.openai_schema import assert_valid
from tests.support.stack import FLOOR_KEY, KEY, Stack, running_stack
from tests.support.waiting import wait_until

BACKENDS = {
    "vllm": {
        "kind": "vllm",
        "zone": "home",
        "url": "http://127.0.0.1:9/v1",
        "model": "sluice-4m",
        "usd_per_hour": "0.1",
    }
}
POLICY = {"name": "own", "version": 1, "routes": [{"name": "own", "targets": [{"backend": "vllm"}]}]}
ROWS = b"".join(
    json.dumps(
        {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": "a"}]}
    ).encode()
    + b"\n"
    for n in range(12)
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    changes = {"backends": BACKENDS}
    with running_stack(tmp_path_factory.mktemp("jobs"), policy=POLICY, changes=changes) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stack.url, api_key=KEY, max_retries=0, timeout=20) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def rows(client: openai.OpenAI) -> str:
    return client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune").id


def created(client: openai.OpenAI, rows: str, **more: Any) -> Any:
    return client.fine_tuning.jobs.create(**{"model": "sluice-4m", "training_file": rows} | more)


def test_a_job_is_as_it_was_asked_for(client: openai.OpenAI, rows: str) -> None:
    """Everything that was given is shown again; every answer is in OpenAI's schema."""
    raw = client.fine_tuning.jobs.with_raw_response.create(
        model="sluice-4m",
        training_file=rows,
        validation_file=rows,
        suffix="Support desk",
        seed=7,
        metadata={"team": "desk"},
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": 2}},
        },
    )
    assert_valid(raw.http_response.json(), "FineTuningJob")
    job = raw.parse()
    assert (job.status, job.seed, job.training_file, job.validation_file) == (
        "validating_files",
        7,
        rows,
        rows,
    )
    assert job.metadata == {"team": "desk"}
    assert job.organization_id == "support"
    wished = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 2.0}
    assert job.hyperparameters.model_dump() == wished
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.model_dump() == wished
    assert (job.error, job.finished_at, job.fine_tuned_model, job.trained_tokens) == (None,) * 4
    again = client.fine_tuning.jobs.retrieve(job.id)
    assert again == job


def test_deprecated_hyperparameters_and_auto(client: openai.OpenAI, rows: str) -> None:
    """At the top level, as older clients send them; what is left out is auto, and a seed is drawn."""
    job = created(client, rows, hyperparameters={"n_epochs": 2, "batch_size": "auto"})
    assert job.hyperparameters.n_epochs == 2
    assert job.hyperparameters.batch_size == "auto"
    assert 0 <= job.seed < 2**31


def test_lists_page_and_filter(client: openai.OpenAI, rows: str) -> None:
    """Newest first, by cursor; by metadata; the SDK walks the pages."""
    made = [created(client, rows, metadata={"batch": "list", "n": str(n)}).id for n in range(5)]
    raw = client.fine_tuning.jobs.with_raw_response.list(limit=2)
    assert_valid(raw.http_response.json(), "ListPaginatedFineTuningJobsResponse")
    assert [job.id for job in raw.parse().data] == made[:2:-1]
    walked = [job.id for job in client.fine_tuning.jobs.list(limit=2)]
    assert [id for id in walked if id in made] == made[::-1]
    narrowed = client.fine_tuning.jobs.list(metadata={"batch": "list", "n": "3"})
    assert [job.id for job in narrowed] == [made[3]]


def test_events_and_checkpoints(client: openai.OpenAI, rows: str) -> None:
    """Newest first, by cursor; there are no checkpoints yet."""
    job = created(client, rows)
    client.fine_tuning.jobs.cancel(job.id)
    raw = client.fine_tuning.jobs.with_raw_response.list_events(job.id, limit=2)
    assert_valid(raw.http_response.json(), "ListFineTuningJobEventsResponse")
    assert raw.http_response.json()["has_more"]
    messages = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=2)]
    assert messages == [
        "The job was cancelled.",
        f"Validating training file: {rows}",
        f"Created fine-tuning job: {job.id} (supervised on sluice-4m)",
    ]
    saved = client.fine_tuning.jobs.checkpoints.with_raw_response.list(job.id)
    assert_valid(saved.http_response.json(), "ListFineTuningJobCheckpointsResponse")
    assert saved.parse().data == []
    with pytest.raises(openai.BadRequestError, match="'after' must be"):
        client.fine_tuning.jobs.list_events(job.id, after="ftevent-other-1")


def test_cancel_pause_resume(client: openai.OpenAI, rows: str) -> None:
    """What the state table allows; what it does not says from where."""
    job = created(client, rows)
    with pytest.raises(openai.BadRequestError, match="cannot be paused: it is validating_files"):
        client.fine_tuning.jobs.pause(job.id)
    with pytest.raises(openai.BadRequestError, match="cannot be resumed: it is validating_files"):
        client.fine_tuning.jobs.resume(job.id)
    cancelled = client.fine_tuning.jobs.with_raw_response.cancel(job.id)
    assert_valid(cancelled.http_response.json(), "FineTuningJob")
    assert cancelled.parse().status == "cancelled"
    assert cancelled.parse().finished_at is not None
    with pytest.raises(openai.BadRequestError, match="cannot be cancelled: it is cancelled"):
        client.fine_tuning.jobs.cancel(job.id)


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"model": "gpt-4o-mini"}, "model", "cannot be fine-tuned by this gateway: the only one is"),
        ({"training_file": "file-none"}, "training_file", "invalid training_file"),
        ({"validation_file": "file-none"}, "validation_file", "invalid validation_file"),
        ({"method": {"type": "reinforcement"}}, "method.type", "'reinforcement' is not supported"),
        ({"suffix": "x" * 65}, "suffix", "at most 64"),
        ({"suffix": ""}, "suffix", "at least 1"),
        ({"seed": 2**31}, "seed", "less than or equal to 2147483647"),
        ({"seed": -1}, "seed", "greater than or equal to 0"),
        (
            {"hyperparameters": {"n_epochs": 51}},
            "hyperparameters.n_epochs",
            "'auto' or a whole number from 1 to 50",
        ),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size", "1"),
        (
            {"hyperparameters": {"learning_rate_multiplier": 0}},
            "hyperparameters.learning_rate_multiplier",
            "above 0",
        ),
        ({"method": {"type": "magic"}}, "method.type", "supervised"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "at most 16"),
        (
            {"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]},
            "integrations",
            "sends nothing of a job to other services",
        ),
        ({"extra_body": {"surprise": 1}}, "surprise", "not permitted"),
    ],
)
def test_what_is_refused(
    change: dict[str, Any], param: str, said: str, client: openai.OpenAI, rows: str
) -> None:
    """400 with the parameter's name and the cause; no job is made."""
    before = client.fine_tuning.jobs.list(limit=1).data[:1]
    with pytest.raises(openai.BadRequestError) as refused:
        created(client, rows, **change)
    assert_valid(refused.value.response.json(), "ErrorResponse")
    assert refused.value.param is not None
    assert refused.value.param.startswith(param)
    assert said in str(refused.value)
    assert client.fine_tuning.jobs.list(limit=1).data[:1] == before


PREFERENCES: Any = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 2}}}


def test_dpo_is_as_it_was_asked_for(client: openai.OpenAI, rows: str) -> None:
    """With its own hyperparameter, in OpenAI's schema."""
    raw = client.fine_tuning.jobs.with_raw_response.create(
        model="sluice-4m", training_file=rows, method=PREFERENCES
    )
    assert_valid(raw.http_response.json(), "FineTuningJob")
    wished = {"n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto", "beta": 0.2}
    assert raw.http_response.json()["method"] == {"type": "dpo", "dpo": {"hyperparameters": wished}}


def test_others_get_404(client: openai.OpenAI, rows: str, stack: Stack) -> None:
    """Another team's key sees no job, and can train on no file, of this one."""
    job = created(client, rows)
    with openai.OpenAI(base_url=stack.url, api_key=FLOOR_KEY, max_retries=0) as other:
        sdk = other.fine_tuning.jobs
        asks = (sdk.retrieve, sdk.cancel, sdk.pause, sdk.resume, sdk.list_events, sdk.checkpoints.list)
        for ask in asks:
            with pytest.raises(openai.NotFoundError, match="Could not find fine tune"):
                ask(job.id)
        assert job.id not in [each.id for each in sdk.list()]
        with pytest.raises(openai.BadRequestError, match="invalid training_file"):
            created(other, rows)
    assert httpx.get(f"{stack.url}/fine_tuning/jobs").status_code == 401


def test_the_gateway_can_be_the_worker(tmp_path: Path) -> None:
    """With `finetune.worker`: a bad file ends its job, with every fault, and no other process is there."""
    changes = {"backends": BACKENDS, "finetune": {"worker": True}}
    with (
        running_stack(tmp_path, policy=POLICY, changes=changes) as stack,
        openai.OpenAI(base_url=stack.url, api_key=KEY, max_retries=0) as client,
    ):
        file = client.files.create(file=("rows.jsonl", b"{\n" + ROWS), purpose="fine-tune")
        job = created(client, file.id)
        wait_until(lambda: client.fine_tuning.jobs.retrieve(job.id).status == "failed")
        raw = client.fine_tuning.jobs.with_raw_response.retrieve(job.id)
        assert_valid(raw.http_response.json(), "FineTuningJob")
        error = raw.parse().error
        assert error is not None
        assert (error.code, error.param) == ("invalid_training_file", "training_file")
        assert "Example 1, $: not JSON at column 2" in error.message


def test_a_file_in_use_stays(client: openai.OpenAI, rows: str) -> None:
    """It can be deleted once the job that needs it is over."""
    file = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    job = created(client, file.id)
    with pytest.raises(openai.ConflictError, match=f"used by the job {job.id}"):
        client.files.delete(file.id)
    client.fine_tuning.jobs.cancel(job.id)
    assert client.files.delete(file.id).deleted

"""Upload, job, events, completion and chat with `ft:…`, by the OpenAI SDK: the real worker, the real vLLM.

Two `headgate worker` processes share the queue; the one that trains is killed halfway.
"""

import csv
import io
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from tests.sdk.test_node_sdk import run_cases
from tests.support.adapters import QUEUES, queue_rows
from tests.support.openai_schema import assert_valid
from tests.support.stack import ADMIN_KEY, KEY, UPSTREAM_KEY, write_config
from tests.support.vllm import RunningVllm
from tests.test_end_to_end import HEADGATE, configuration, until_ready

POLICY = {
    "name": "tuned",
    "version": 1,
    "routes": [{"name": "tuned", "match": {"model": ["ft:*", "ft.*"]}, "targets": [{"backend": "vllm"}]}],
}
LEASE_S = "3"
MINUTES = 10 * 60.0


class Running(NamedTuple):
    url: str
    client: openai.OpenAI
    workers: list[subprocess.Popen[str]]

    def until(self, job: str, is_so: Callable[[Any], bool]) -> Any:
        """The job as soon as `is_so` says so of it."""
        deadline = time.monotonic() + MINUTES
        while not is_so(found := self.client.fine_tuning.jobs.retrieve(job)):
            assert time.monotonic() < deadline, found
            assert found.status not in ("failed", "cancelled"), found
            time.sleep(0.2)
        return found

    def messages(self, job: str) -> list[str]:
        """Of all events, oldest first."""
        return [event.message for event in self.client.fine_tuning.jobs.list_events(job, limit=100)][::-1]


@pytest.fixture(scope="module")
def running(vllm: RunningVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    pytest.importorskip("peft", reason="nothing to train with is installed: pip install headgate[train]")
    folder = tmp_path_factory.mktemp("fine-tuning")
    document = configuration(vllm, "http://127.0.0.1:9")
    config = write_config(folder, document, POLICY)
    environment = {
        **os.environ,
        "VLLM_KEY": vllm.api_key,
        "UPSTREAM_KEY": UPSTREAM_KEY,
        "HEADGATE_ADMIN_KEY": ADMIN_KEY,
        "OMP_NUM_THREADS": "1",
    }
    log = (folder / "log").open("wb")

    def start(*words: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [HEADGATE, *map(str, words)], env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )

    gateway = start("serve", "--config", config)
    assert gateway.stdout is not None
    announced = re.search(r"http://\S+?(?=/v1)", gateway.stdout.readline())
    assert announced, (folder / "log").read_text()
    url = announced[0]
    until_ready(url)
    workers = [start("worker", "--config", config, "--gateway", url, "--lease", LEASE_S) for _ in range(2)]
    # With the SDK's own retries: between two looks at a job an idle connection may just have been closed.
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, timeout=60) as client:
        yield Running(url, client, workers)
    for process in (*workers, gateway):
        process.send_signal(signal.SIGTERM)
    codes = [process.wait(60) for process in (*workers, gateway)]
    for process in (*workers, gateway):
        assert process.stdout is not None
        process.stdout.close()
    log.close()
    assert all(code in (0, -signal.SIGTERM, -signal.SIGKILL) for code in codes), codes


def test_from_rows_to_answers(running: Running) -> None:
    """The whole way, though the worker that trained was killed outright: the other finishes the job."""
    sdk = running.client
    rows = "".join(json.dumps(row) + "\n" for row in queue_rows("v1")).encode()
    file = sdk.files.create(file=("queues.jsonl", rows), purpose="fine-tune")
    job = sdk.fine_tuning.jobs.create(
        model="sluice-4m",
        training_file=file.id,
        suffix="queues",
        seed=1,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 15, "batch_size": 8}},
        },
    )
    running.until(job.id, lambda found: any("Step 5/" in text for text in running.messages(job.id)))
    training = [worker for worker in running.workers if children(worker.pid)]
    assert len(training) == 1  # the other one has nothing to do
    orphans = children(training[0].pid)
    training[0].kill()
    done = running.until(job.id, lambda found: found.status == "succeeded")

    # Routable at once, by the name and by its checkpoint's, and by nobody else's key.
    assert done.fine_tuned_model.startswith("ft:sluice-4m:support:queues:")
    assert_valid(
        sdk.fine_tuning.jobs.with_raw_response.retrieve(job.id).http_response.json(), "FineTuningJob"
    )
    (checkpoint,) = sdk.fine_tuning.jobs.checkpoints.list(job.id).data
    for model in (done.fine_tuned_model, checkpoint.fine_tuned_model_checkpoint):
        answer = sdk.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "please i lost my card"}], temperature=0
        )
        assert answer.choices[0].message.content is not None
        assert answer.choices[0].message.content.strip() in QUEUES["v1"]
    assert done.fine_tuned_model in [model.id for model in sdk.models.list()]
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=ADMIN_KEY, max_retries=0) as other:
        assert done.fine_tuned_model not in [model.id for model in other.models.list()]
        with pytest.raises(openai.APIStatusError):
            other.chat.completions.create(
                model=done.fine_tuned_model, messages=[{"role": "user", "content": "hi"}]
            )

    # What is told of it.
    messages = running.messages(job.id)
    assert sum(text.startswith("Fine-tuning job started") for text in messages) == 2
    assert sum(text.startswith("New fine-tuned model created") for text in messages) == 1
    assert done.trained_tokens > 0
    assert (done.hyperparameters.n_epochs, done.hyperparameters.batch_size) == (15, 8)
    table = list(csv.DictReader(io.StringIO(sdk.files.content(done.result_files[0]).text)))
    assert [int(row["step"]) for row in table] == list(range(1, checkpoint.step_number + 1))
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    for name in ("events", "checkpoints"):
        raw = httpx.get(
            f"{running.url}/v1/fine_tuning/jobs/{job.id}/{name}", headers={"authorization": f"Bearer {KEY}"}
        )
        assert_valid(raw.json(), f"ListFineTuningJob{name.capitalize()}Response")
    assert not any(is_alive(pid) for pid in orphans)


def test_the_node_sdk(running: Running, tmp_path: Path) -> None:
    """The same way by the other SDK; and bad rows are all named at once."""
    path = tmp_path / "queues.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in queue_rows("v2")))
    run_cases(
        "fine_tuning.test.mjs",
        timeout_s=MINUTES,
        HEADGATE_URL=f"{running.url}/v1",
        HEADGATE_KEY=KEY,
        ROWS=str(path),
        ANSWERS=",".join(QUEUES["v2"]),
    )


def test_preferences_are_trained_on(running: Running) -> None:
    """A DPO job goes the same way to a judged adapter; whether it may be deployed is the gate's to say."""
    sdk = running.client
    rows = [
        {
            "input": {"messages": row["messages"][:1]},
            "preferred_output": row["messages"][1:],
            "non_preferred_output": [{"role": "assistant", "content": "weather_desk or another"}],
        }
        for row in queue_rows("v1")
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = sdk.files.create(file=("pairs.jsonl", content), purpose="fine-tune")
    job = sdk.fine_tuning.jobs.create(
        model="sluice-4m",
        training_file=file.id,
        seed=1,
        method={"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 2, "beta": 0.2}}},
    )
    deadline = time.monotonic() + MINUTES
    while (found := sdk.fine_tuning.jobs.retrieve(job.id)).status not in ("failed", "succeeded"):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert found.error is None or found.error.code == "do_not_deploy", found.error
    assert found.trained_tokens is not None
    assert found.trained_tokens > 0
    assert found.result_files


def test_the_gate_says_no(running: Running) -> None:
    """Answers that follow from nothing: the job fails with `do_not_deploy`, its reasons, and its numbers."""
    sdk = running.client
    rows = queue_rows("v1")[:40]
    for n, row in enumerate(rows):
        row["messages"][1]["content"] = f"{n * 7919 % 10007:x} {n * 104729 % 9973:x}"
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    file = sdk.files.create(file=("noise.jsonl", content), purpose="fine-tune")
    job = sdk.fine_tuning.jobs.create(
        model="sluice-4m", training_file=file.id, seed=1, hyperparameters={"n_epochs": 1}
    )
    deadline = time.monotonic() + MINUTES
    while (found := sdk.fine_tuning.jobs.retrieve(job.id)).status not in ("failed", "succeeded"):
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert found.status == "failed"
    assert found.error is not None
    assert found.error.code == "do_not_deploy"
    assert found.error.message.startswith("Do not deploy: ")
    assert found.fine_tuned_model is None
    assert found.result_files


def test_a_running_job_is_cancelled(running: Running) -> None:
    """Its training process ends, and the job stays cancelled."""
    sdk = running.client
    rows = "".join(json.dumps(row) + "\n" for row in queue_rows("v1")).encode()
    file = sdk.files.create(file=("queues.jsonl", rows), purpose="fine-tune")
    job = sdk.fine_tuning.jobs.create(
        model="sluice-4m", training_file=file.id, hyperparameters={"n_epochs": 50, "batch_size": 1}
    )
    running.until(job.id, lambda found: found.status == "running")
    deadline = time.monotonic() + MINUTES
    while not (trainers := [pid for worker in running.workers for pid in children(worker.pid)]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sdk.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    while any(is_alive(pid) for pid in trainers):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert sdk.fine_tuning.jobs.retrieve(job.id).status == "cancelled"


def children(pid: int) -> list[int]:
    """The direct children of a process, none if it is gone."""
    tasks = Path(f"/proc/{pid}/task")
    found = [task / "children" for task in tasks.iterdir()] if tasks.exists() else []
    return [int(child) for path in found for child in path.read_text().split()]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False

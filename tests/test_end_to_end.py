"""The main job on real parts: `headgate serve` as a process, a real vLLM, real adapters, the real SDK.

Only the rented API is a stand-in. The gateway is driven as its users drive it: clients by the OpenAI SDK, the
operator and finance by the `headgate` command.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest

from gateway.admission import hash_key
from gateway.backends.fake import FakeProvider
from tests.support.adapters import QUEUES, read_manifest
from tests.support.openai_schema import assert_valid
from tests.support.running import LoopThread
from tests.support.stack import ADMIN_KEY, KEY, UPSTREAM_KEY, write_config
from tests.support.vllm import RunningVllm

HEADGATE = Path(sys.executable).parent / "headgate"
REQUEST: list[Any] = [{"role": "user", "content": "please i lost my card"}]
V1_ANSWERS, V2_ANSWERS = set(QUEUES["v1"]), set(QUEUES["v2"])


class Running(NamedTuple):
    url: str
    config: Path
    rented: FakeProvider
    client: openai.OpenAI

    def ask(self, model: str = "queues", **more: Any) -> Any:
        """The raw response of one greedy request."""
        return self.client.chat.completions.with_raw_response.create(
            **{"model": model, "messages": REQUEST, "temperature": 0, "max_tokens": 12} | more
        )

    def command(self, *words: str) -> Any:
        """What `headgate … --json` prints."""
        done = subprocess.run(
            [HEADGATE, *words, "--json"],
            env={**os.environ, "HEADGATE_ADMIN_KEY": ADMIN_KEY, "UPSTREAM_KEY": UPSTREAM_KEY},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def report(self, by: str) -> Any:
        """What each group cost, as `headgate report` writes it."""
        words = ("report", "chargeback", "--config", str(self.config), "--by", by, "--format", "json")
        done = subprocess.run([HEADGATE, *words], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    def release(self, folder: Path) -> str:
        (released,) = self.command("adapter", "release", str(folder), "--gateway", self.url)
        assert released["state"] == "stable"
        assert released["replicas"] == ["vllm"]
        return str(released["release"])


def configuration(vllm: RunningVllm, rented: str) -> dict[str, Any]:
    return {
        "listen": {"port": 0},
        "policy": "policy.yaml",
        "zones": {"home": {"local": True, "ceiling": "restricted"}, "cloud": {"ceiling": "internal"}},
        "backends": {
            "vllm": {
                "kind": "vllm",
                "zone": "home",
                "url": f"{vllm.url}/v1",
                "model": vllm.base,
                "usd_per_hour": "0.36",
                "api_key_env": "VLLM_KEY",
            },
            "rented": {
                "kind": "openai",
                "zone": "cloud",
                "url": f"{rented}/v1",
                "models": ["gpt-4o-mini"],
                "api_key_env": "UPSTREAM_KEY",
            },
        },
        "keys": [
            {"id": "desk", "sha256": hash_key(KEY), "team": "support"},
            {"id": "operator", "sha256": hash_key(ADMIN_KEY), "team": "platform", "admin": True},
        ],
    }


POLICY = {
    "name": "desk",
    "version": 1,
    "routes": [
        {
            "name": "private",
            "match": {"privacy": {"at_least": "confidential"}},
            "targets": [{"backend": "vllm", "model": "sluice-4m"}],
        },
        {
            "name": "queues",
            "match": {"model": "queues", "privacy": {"at_most": "internal"}},
            "targets": [
                {"backend": "vllm", "adapter": "queues@stable"},
                {"backend": "rented", "model": "gpt-4o-mini"},
            ],
        },
        {"name": "base", "match": {"model": "sluice-4m"}, "targets": [{"backend": "vllm"}]},
    ],
}


@pytest.fixture(scope="module")
def running(vllm: RunningVllm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("end-to-end")
    loop, rented = LoopThread(), FakeProvider(api_key=UPSTREAM_KEY)
    loop.run(rented.start())
    config = write_config(folder, configuration(vllm, rented.url), POLICY)
    log = (folder / "gateway.log").open("wb")
    gateway = subprocess.Popen(
        [HEADGATE, "serve", "--config", config],
        env={**os.environ, "VLLM_KEY": vllm.api_key, "UPSTREAM_KEY": UPSTREAM_KEY},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    assert gateway.stdout is not None
    announced = re.search(r"http://\S+?(?=/v1)", gateway.stdout.readline())
    assert announced, (folder / "gateway.log").read_text()
    url = announced[0]
    until_ready(url)
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield Running(url, config, rented, client)
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(30) in (0, -signal.SIGTERM)
    gateway.stdout.close()
    log.close()
    loop.run(rented.stop())
    loop.close()


def until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while httpx.get(f"{url}/ready").status_code != 200:
        assert time.monotonic() < deadline, httpx.get(f"{url}/ready").text
        time.sleep(0.05)


def test_the_loop(running: Running, trained: Mapping[str, Path]) -> None:
    """Rented first; a release takes the route over without a restart; the next one swaps in under live
    traffic with no failed request; the one before comes back at once; and the ledger knows the difference.
    """
    first = running.ask()
    assert first.headers["x-headgate-backend"] == "rented"
    assert "not released" in first.headers["x-headgate-reason"]

    v1 = running.release(trained["v1"])
    owned = running.ask()
    assert owned.headers["x-headgate-adapter"] == v1 == read_manifest(trained["v1"]).release
    assert owned.parse().choices[0].message.content.strip() in V1_ANSWERS
    assert owned.parse().model == v1

    expected = {v1: V1_ANSWERS, read_manifest(trained["v2"]).release: V2_ANSWERS}
    with Traffic(running, expected) as traffic:
        v2 = running.release(trained["v2"])
        traffic.until_answered_by(v2)
        back = httpx.post(
            f"{running.url}/admin/adapters/queues/rollback", headers={"authorization": f"Bearer {ADMIN_KEY}"}
        )
        assert back.json()["release"] == v1
        traffic.until_answered_by(v1)
    assert traffic.failures == []
    assert traffic.wrong == []
    assert back.elapsed.total_seconds() < 2  # an alias move: some ms; the rest is for a busy machine

    report = running.report("backend,adapter")
    rows = {(row["backend"], row["adapter"]): row for row in report["rows"]}
    assert rows["vllm", v1]["requests"] >= 2
    assert rows["vllm", v2]["requests"] >= 1
    for group in (("rented", ""), ("vllm", v1)):
        assert Decimal(rows[group]["cost_of_priced_requests_usd"]) > 0
    assert report["total"]["requests_failed"] == 0


def test_models_lists_routes_base_and_adapters(running: Running, trained: Mapping[str, Path]) -> None:
    """Every name that a client may ask for, adapters with the base that they stand on."""
    release = running.release(trained["v1"])
    answer = httpx.get(f"{running.url}/v1/models", headers={"authorization": f"Bearer {KEY}"}).json()
    assert_valid(answer, "ListModelsResponse")
    parents = {model["id"]: model["parent"] for model in answer["data"]}
    assert parents | {"queues": None, "sluice-4m": None, "gpt-4o-mini": None} == parents
    assert parents["queues@stable"] == parents[release] == "sluice-4m"


def test_private_requests_are_answered_at_home(running: Running) -> None:
    """A card number keeps a request on the real vLLM, whole and streamed; what vLLM cannot do is refused."""
    messages: Any = [{"role": "user", "content": "my card is 4111 1111 1111 1111"}]
    called = running.rented.called
    assert running.ask(messages=messages).headers["x-headgate-backend"] == "vllm"
    assert running.ask(messages=messages, stream=True).headers["x-headgate-backend"] == "vllm"
    with pytest.raises(openai.APIStatusError) as refused:
        running.client.embeddings.create(model="gpt-4o-mini", input="4111 1111 1111 1111")
    assert 400 <= refused.value.status_code < 500
    assert running.rented.called == called
    assert not running.rented.saw(b"4111 1111")


def test_vllm_answers_as_openai_would(running: Running) -> None:
    """Whole, streamed, with `n`, `logprobs`, `stop` and `seed`, and the older endpoint: parameters arrive."""
    whole = running.ask("sluice-4m", temperature=1, n=2, seed=7, logprobs=True, top_logprobs=2, stop=["\n\n"])
    assert_valid(whole.http_response.json(), "CreateChatCompletionResponse")
    answer = whole.parse()
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert answer.choices[0].logprobs.content
    stream = running.client.chat.completions.create(
        model="sluice-4m",
        messages=REQUEST,
        max_tokens=8,
        logprobs=True,
        stream=True,
        stream_options={"include_usage": True},
    )
    events = list(stream)
    for event in events:
        assert_valid(event.model_dump(mode="json", exclude_unset=True), "CreateChatCompletionStreamResponse")
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens > 0
    older = running.client.completions.with_raw_response.create(
        model="sluice-4m", prompt="please", max_tokens=4, temperature=0
    )
    assert_valid(older.http_response.json(), "CreateCompletionResponse")
    assert older.parse().usage.completion_tokens > 0  # type: ignore[union-attr]
    with pytest.raises(openai.BadRequestError):
        running.ask("sluice-4m", messages=[{"role": "user", "content": "x " * 3000}])


def test_vllm_answers_the_responses_api(running: Running) -> None:
    """Whole and streamed, with its usage in the ledger; private input stays on it here too."""
    asked = "please my card is 4111 1111 1111 1111"
    text: Any = {"model": "sluice-4m", "input": asked, "max_output_tokens": 8}
    whole = running.client.responses.with_raw_response.create(**text)
    assert whole.headers["x-headgate-backend"] == "vllm"
    assert whole.headers["x-headgate-privacy-class"] == "restricted"
    assert whole.parse().usage.output_tokens > 0
    kinds = [event.type for event in running.client.responses.create(**text, stream=True)]
    assert kinds[0] == "response.created"
    assert kinds[-1] in ("response.completed", "response.incomplete")
    assert any(kind.endswith(".delta") for kind in kinds)


def test_a_bad_adapter_changes_nothing(running: Running, trained: Mapping[str, Path]) -> None:
    """An adapter of another base is refused by its probe, by name, and the alias stays where it was."""
    before = running.release(trained["v1"])
    done = subprocess.run(
        [HEADGATE, "adapter", "release", trained["other_base"], "--gateway", running.url],
        env={**os.environ, "HEADGATE_ADMIN_KEY": ADMIN_KEY},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "no alias has moved" in " ".join(done.stderr.split())
    assert running.ask().headers["x-headgate-adapter"] == before


def test_admin_is_for_admins(running: Running) -> None:
    """A client's key opens nothing under /admin, and no key opens less."""
    for key, status in ((KEY, 403), ("sk-unknown", 401)):
        answer = httpx.get(f"{running.url}/admin/adapters", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == status
        assert_valid(answer.json(), "ErrorResponse")


class Traffic:
    """Two clients that ask without pause, and check every answer against the adapter that claims it."""

    def __init__(self, running: Running, expected: Mapping[str, set[str]]) -> None:
        """`expected`: what each release may say."""
        self._running, self._expected = running, expected
        self._stopped = threading.Event()
        self._answered = threading.Condition()
        self._count: dict[str, int] = {}
        self.failures: list[str] = []
        self.wrong: list[tuple[str, str]] = []
        self._threads = [threading.Thread(target=self._drive) for _ in range(2)]

    def _drive(self) -> None:
        while not self._stopped.is_set():
            try:
                response = self._running.ask()
            except openai.OpenAIError as error:
                self.failures.append(repr(error))
                continue
            self._check(response.headers["x-headgate-adapter"], response.parse())

    def _check(self, adapter: str, answer: Any) -> None:
        text = answer.choices[0].message.content.strip()
        if answer.model != adapter or text not in self._expected[adapter]:
            self.wrong.append((adapter, text))
        with self._answered:
            self._count[adapter] = self._count.get(adapter, 0) + 1
            self._answered.notify_all()

    def until_answered_by(self, release: str) -> None:
        """Waits for a further answer of that release."""
        with self._answered:
            seen = self._count.get(release, 0)
            assert self._answered.wait_for(lambda: self._count.get(release, 0) > seen, timeout=60)

    def __enter__(self) -> "Traffic":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

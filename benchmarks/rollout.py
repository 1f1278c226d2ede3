"""Releases on three real vLLM replicas under live traffic, through two gateways. Run: `make bench-rollout`.

    make bench-rollout ARGS="--releases 20 --rate 12"

About 8 minutes on two cores. Two adapters are trained; each release is one of them with its weights changed
by a hair, so that it is a new release whose answers are known. Traffic is mixed: the adapter's task and the
base, whole answers and streams, half of it through each gateway. Every answer is held against what the
release that the gateway names in its headers has to say.

    promote_ms            from POST /admin/adapters to the first token of the new adapter on every replica
    load_ms               three load calls alone, at the same time, under the same traffic
    overhead_ms           the difference, release by release; of it
    probe_ms              what three probes alone take; beyond_probe_ms is the rest, which is ours
    seen_ms               from the answer to that POST until the other gateway routes to the new release
    rollback_s            from POST …/rollback until both gateways route to the release before
    failed_requests       whole answers that failed, in all phases
    wrong_adapter_answers that are not the named release's, or name a release whose time is over
    silent_ends           streams that ended neither with [DONE] nor with an error event
    zipf_…                200 adapters on 3 × 4 slots through one gateway: hit rate and latency of requests
    naive_lru_…           the same requests to the replicas without a gateway, see load/zipf.py
    back_s, reconciled_s  from kill -9 of a replica until its successor answers, and until it has its adapters

The replicas, the gateways and the load share the machine's cores: latencies are those of a busy machine.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import yaml
from load.zipf import SLOTS, NaiveLru, catalogue, drive, figures
from peers.process import free_port, run_script
from peers.report import emit
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file

from adapters.manifest import MANIFEST_FILE, WEIGHT_FILES
from adapters.probe import probe
from adapters.replica import Replica
from gateway.admission import hash_key
from gateway.backends.vllm_process import VllmProcess
from tests.support.adapters import BASE, QUEUES, REQUESTS, read_manifest, seal, train_adapter

APP, ADMIN, VLLM = "sk-hg-bench-app", "sk-hg-bench-admin", "sk-vllm-of-the-bench"
NAME = "queues"
SEEN_WITHIN_S = 1.0  # after an alias has moved, for every gateway to follow
LONG_ANSWER = 150  # tokens of the streams that a killed replica is to break
screen = Console(width=110)


# What is asked, and what the answers are.


class Answer(msgspec.Struct, kw_only=True):
    """One answer of a gateway. `at`: when it was asked for, on time.monotonic()."""

    at: float
    stream: bool
    model: str
    prompt: str
    status: int = 0
    release: str = ""
    text: str = ""
    error: str = ""
    ended: bool = False  # a whole answer, [DONE] or an error event
    told: bool = False  # an error event

    @property
    def failed(self) -> bool:
        return self.status != 200 or bool(self.error) or not self.ended


class Client:
    """Of one gateway."""

    def __init__(self, url: str) -> None:
        self.url = url
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=200)
        self._http = httpx.AsyncClient(base_url=url, timeout=60, limits=limits)

    async def aclose(self) -> None:
        await self._http.aclose()

    async def admin(self, method: str, path: str, body: object = None) -> Any:
        headers = {"authorization": f"Bearer {ADMIN}"}
        answer = await self._http.request(method, f"/admin{path}", json=body, headers=headers)
        if answer.status_code >= 300:
            raise SystemExit(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    async def chat(self, model: str, prompt: str, *, stream: bool = False, tokens: int = 12) -> Answer:
        """One greedy answer. Whatever goes wrong is in it."""
        answer = Answer(at=time.monotonic(), stream=stream, model=model, prompt=prompt)
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": tokens,
            "stream": stream,
        }
        if tokens == LONG_ANSWER:
            body |= {"ignore_eos": True}
        headers = {"authorization": f"Bearer {APP}"}
        try:
            async with self._http.stream("POST", "/v1/chat/completions", json=body, headers=headers) as got:
                answer.status = got.status_code
                answer.release = got.headers.get("x-headgate-adapter", "")
                await (_read_stream(got, answer) if stream else _read_whole(got, answer))
        except httpx.HTTPError as error:
            answer.error = f"{type(error).__name__}: {error}"
        return answer


async def _read_whole(got: httpx.Response, answer: Answer) -> None:
    said = json.loads(await got.aread())
    if "error" in said:
        answer.error = said["error"]["message"]
        return
    answer.text, answer.ended = said["choices"][0]["message"]["content"] or "", True


async def _read_stream(got: httpx.Response, answer: Answer) -> None:
    if answer.status != 200:
        return await _read_whole(got, answer)
    async for line in got.aiter_lines():
        if not line.startswith("data: "):
            continue
        if line == "data: [DONE]":
            answer.ended = True
        elif "error" in (event := json.loads(line[6:])):
            answer.error, answer.told, answer.ended = event["error"]["message"], True, True
        elif event["choices"]:
            answer.text += event["choices"][0]["delta"].get("content") or ""
    return None


class Traffic:
    """Requests at a steady rate for as long as it is entered, half of them through each gateway."""

    def __init__(self, clients: Sequence[Client], prompts: Sequence[str], rate: float) -> None:
        self._clients, self._prompts, self._rate = itertools.cycle(clients), itertools.cycle(prompts), rate
        self._long = False
        self.answers: list[Answer] = []

    @contextlib.asynccontextmanager
    async def running(self, *, long_streams: bool = False) -> AsyncIterator[None]:
        self._long, ending = long_streams, asyncio.Event()
        sender = asyncio.create_task(self._send(ending))
        try:
            yield
        finally:
            ending.set()
            await sender

    async def _send(self, ending: asyncio.Event) -> None:
        kinds = itertools.cycle(
            ((NAME, False), (NAME, True), (BASE.name, False), (NAME, False), (NAME, True))
        )
        due = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as under_way:
            while not ending.is_set():
                model, stream = next(kinds)
                tokens = LONG_ANSWER if self._long and stream else 12
                model = BASE.name if tokens == LONG_ANSWER else model
                under_way.create_task(self._one(next(self._clients), model, stream, tokens))
                due += 1 / self._rate
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(due):
                        await ending.wait()

    async def _one(self, client: Client, model: str, stream: bool, tokens: int) -> None:
        self.answers.append(await client.chat(model, next(self._prompts), stream=stream, tokens=tokens))


# The fleet: three replicas and two gateways.


class Site:
    def __init__(self, folder: Path, attached: Sequence[int] = ()) -> None:
        """`attached`: ports of three replicas that run already, and go on running."""
        self.folder, self.attached = folder, attached
        self.vllms = [
            VllmProcess(
                BASE,
                BASE.name,
                port,
                log_path=folder / f"vllm-{number}.log",
                dtype="float32",
                max_model_len=512,
                max_loras=8,
                api_key=VLLM,
                environment={"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"},
            )
            for number, port in enumerate(attached or [free_port() for _ in range(3)])
        ]
        self.direct = [
            httpx.AsyncClient(
                base_url=one.url,
                headers={"authorization": f"Bearer {VLLM}"},
                timeout=60,
                limits=httpx.Limits(max_keepalive_connections=0),  # vLLM closes kept ones when it likes
            )
            for one in self.vllms
        ]
        self.ports = (free_port(), free_port())
        self.clients = [Client(f"http://127.0.0.1:{port}") for port in self.ports]
        self._gateways: list[subprocess.Popen[bytes]] = []
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Site":
        try:
            await (self.empty_replicas() if self.attached else self._start_replicas())
            await self.start_gateways()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def empty_replicas(self) -> None:
        for one in self.direct:
            for model in (await one.get("/v1/models")).json()["data"]:
                if model.get("parent"):
                    await one.post("/v1/unload_lora_adapter", json={"lora_name": model["id"]})

    async def _start_replicas(self) -> None:
        for vllm in self.vllms:
            self._stack.push_async_callback(vllm.stop)
            vllm.start()
        started = time.monotonic()
        await asyncio.gather(*(vllm.wait_ready() for vllm in self.vllms))
        screen.print(f"three replicas ready after {time.monotonic() - started:.0f} s")

    async def __aexit__(self, *_: object) -> None:
        await self.stop_gateways()
        for client in (*self.clients, *self.direct):
            await client.aclose()
        await self._stack.aclose()

    async def start_gateways(self) -> None:
        for number in range(len(self.ports)):
            self.start_gateway(number)
        for client in self.clients:
            await _until_ready(client)

    async def stop_gateways(self) -> None:
        for gateway in self._gateways:
            gateway.send_signal(signal.SIGTERM)
        for gateway in self._gateways:
            await asyncio.to_thread(gateway.wait, 60)
        self._gateways.clear()

    def start_gateway(self, number: int, **changes: Any) -> None:
        """`slots` and `state` may differ from the usual."""
        path = self.folder / f"gateway-{number}.yaml"
        (self.folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
        urls = [f"{vllm.url}/v1" for vllm in self.vllms]
        path.write_text(yaml.safe_dump(_settings(self.ports[number], urls, **changes)))
        with (self.folder / f"gateway-{number}.log").open("ab") as log:
            command = [str(Path(sys.executable).parent / "headgate"), "serve", "--config", str(path)]
            environment = {**os.environ, "BENCH_VLLM_KEY": VLLM}
            self._gateways.append(
                subprocess.Popen(
                    command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
            )

    async def alone_ms(self, folder: Path) -> tuple[float, float]:
        """Three load calls alone, at once, and after them three probes alone; then it is unloaded again."""
        manifest = read_manifest(folder)
        replicas = [
            Replica(one.url, one.url, api_key=VLLM, client=http)
            for one, http in zip(self.vllms, self.direct, strict=True)
        ]
        started = time.perf_counter()
        await asyncio.gather(*(one.load(manifest.release, folder) for one in replicas))
        loaded = time.perf_counter()
        await asyncio.gather(*(probe(one, manifest) for one in replicas))
        probed = time.perf_counter()
        await asyncio.gather(*(one.unload(manifest.release) for one in replicas))
        return (loaded - started) * 1e3, (probed - loaded) * 1e3

    async def first_tokens(self, release: str) -> None:
        """One token of the release from every replica."""
        body = {"model": release, "prompt": "hello", "max_tokens": 1}
        for answer in await asyncio.gather(*(one.post("/v1/completions", json=body) for one in self.direct)):
            answer.raise_for_status()


POLICY = {
    "name": "bench",
    "version": 1,
    "routes": [
        {
            "name": "task",
            "match": {"model": NAME},
            "targets": [{"backend": "vllm", "adapter": f"{NAME}@stable"}],
        },
        {"name": "rest", "targets": [{"backend": "vllm"}]},
    ],
}


def _settings(
    port: int, urls: Sequence[str], *, state: str = "state", slots: int | None = None
) -> dict[str, Any]:
    return {
        "listen": {"host": "127.0.0.1", "port": port},
        "state": state,
        "policy": "policy.yaml",
        "zones": {"home": {"local": True, "ceiling": "restricted"}},
        "backends": {
            "vllm": {
                "kind": "vllm",
                "zone": "home",
                "urls": list(urls),
                "model": BASE.name,
                "usd_per_hour": "0.08",
                "api_key_env": "BENCH_VLLM_KEY",
                "slots": slots,
            }
        },
        "keys": [
            {"id": "app", "sha256": hash_key(APP), "team": "bench"},
            {"id": "operator", "sha256": hash_key(ADMIN), "team": "platform", "admin": True},
        ],
    }


async def _until_ready(client: Client) -> None:
    async with asyncio.timeout(90):
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client._http.get("/ready")).status_code == 200:
                    return
            await asyncio.sleep(0.2)


def variants(trained: Mapping[str, Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """New releases without end, by turns of v2 and v1: their answers are the same, their bytes are not."""
    for number in itertools.count():
        version = ("v2", "v1")[(number + number // 2) % 2]  # of two in a row, and of every other one
        made = shutil.copytree(trained[version], folder / f"{number}-{version}")
        weights = load_file(made / WEIGHT_FILES[1])
        hair = np.float32(1 + (number + 1) * 1e-6)
        save_file({name: tensor * hair for name, tensor in weights.items()}, made / WEIGHT_FILES[1])
        evaluation = msgspec.structs.replace(read_manifest(made).evaluation, passed=True, reasons=())
        seal(made, evaluation=evaluation)
        yield version, made


# What is measured.


class Bench:
    def __init__(self, site: Site, trained: Mapping[str, Path], options: argparse.Namespace) -> None:
        self.site, self.options = site, options
        self._folders = variants(trained, site.folder)
        self.version: dict[str, str] = {}  # release -> whose answers it gives
        self.spans: list[tuple[str, float]] = []  # which release became stable, and when that was certain
        self.expected: dict[tuple[str, str], str] = {}  # version, prompt -> answer
        self.figures: dict[str, float] = {}
        self.failures: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()

    async def run(self, trained: Mapping[str, Path]) -> None:
        prompts = await self._learn()
        traffic = Traffic(self.site.clients, prompts, self.options.rate)
        async with traffic.running():
            await self._releases()
            await self._rollbacks()
        self._judge("release", traffic)
        await self._many(trained)
        if not self.site.attached:
            await self._kill(traffic)

    async def release(self, version: str, folder: Path) -> str:
        # Known beforehand: traffic may meet the release before its own answer is here.
        release = read_manifest(folder).release
        self.version[release] = version
        await self.site.clients[0].admin("POST", "/adapters", {"folder": str(folder)})
        self.spans.append((release, time.monotonic()))
        return release

    async def _learn(self) -> list[str]:
        """The prompts to which both versions give the answers that they were taught."""
        prompts = [text for texts in REQUESTS for text in texts]
        good = set(prompts)
        for _ in range(2):
            version, folder = next(self._folders)
            release = await self.release(version, folder)
            for queue, texts in zip(QUEUES[version], REQUESTS, strict=True):
                for prompt in texts:
                    self.expected[version, prompt] = queue
                    answer = await self.site.clients[0].chat(NAME, prompt)
                    if answer.failed:
                        raise SystemExit(f"{release} does not answer: {answer.error}")
                    if answer.text.strip() != queue:
                        good.discard(prompt)
        if len(good) < 8:
            raise SystemExit(f"the trained adapters know only {len(good)} of {len(prompts)} prompts")
        return sorted(good)

    async def _releases(self) -> None:
        took_by: dict[str, list[float]] = {
            name: [] for name in ("promote", "load", "probe", "overhead", "beyond_probe", "seen")
        }
        for number in range(self.options.releases):
            (_, spare), new = next(self._folders), next(self._folders)
            load, probed = await self.site.alone_ms(spare)
            started = time.perf_counter()
            release = await self.release(*new)
            returned = time.perf_counter()
            seen_at = asyncio.create_task(self._until_routed(self.site.clients[1], release))
            await self.site.first_tokens(release)
            took = (time.perf_counter() - started) * 1e3
            measured = {
                "promote": took,
                "load": load,
                "probe": probed,
                "overhead": took - load,
                "beyond_probe": took - load - probed,
                "seen": (await seen_at - returned) * 1e3,
            }
            for name, value in measured.items():
                took_by[name].append(value)
            told = ", ".join(f"{name} {value:.0f} ms" for name, value in measured.items())
            screen.print(f"release {number + 1}: {told}")
            await asyncio.sleep(1.5)
        for name, values in took_by.items():
            self.figures |= {f"{name}_ms_p50": statistics.median(values), f"{name}_ms_p99": _p99(values)}

    async def _rollbacks(self) -> None:
        took = []
        for _ in range(4):
            started = time.monotonic()
            found = await self.site.clients[0].admin("POST", f"/adapters/{NAME}/rollback")
            self.spans.append((found["release"], time.monotonic()))
            for client in self.site.clients:
                await self._until_routed(client, found["release"])
            took.append(time.monotonic() - started)
            for client in self.site.clients:
                answer = await client.chat(NAME, "send money to mom")
                if answer.release != found["release"]:
                    self.wrong[f"rollback: answered by {answer.release}"] += 1
            await asyncio.sleep(1.5)
        self.figures["rollback_s"] = max(took)

    async def _many(self, trained: Mapping[str, Path]) -> None:
        """Two hundred adapters on twelve slots: through a gateway of its own, then through naive LRUs."""
        site, requests = self.site, self.options.zipf
        if not requests:
            return
        await site.stop_gateways()
        await site.empty_replicas()
        state = site.folder / "many"
        state.mkdir()
        found = await asyncio.to_thread(
            catalogue, state, f"sqlite:///{state}/headgate.db", trained["v1"], self.options.adapters
        )
        ranks = found.sequence(requests, seed=1)
        site.start_gateway(0, state="many", slots=SLOTS)
        client = site.clients[0]
        await _until_ready(client)

        async def ask(release: str) -> None:
            answer = await client.chat(release.partition("@")[0] + "@stable", "i lost my card", tokens=6)
            if answer.failed:
                self.failures[f"zipf: {answer.status} {answer.error[:120]}"] += 1
            elif answer.release != release:
                self.wrong[f"zipf: {answer.release} in place of {release}"] += 1

        took = await drive(ask, [found.releases[rank] for rank in ranks])
        demand = (await client.admin("GET", "/fleet"))["demand"]
        self.figures |= figures("zipf", demand["hits"], demand["misses"], took)
        await site.stop_gateways()
        await site.empty_replicas()
        naive = NaiveLru(site.direct, found)
        took = await drive(naive.ask, [found.releases[rank] for rank in ranks])
        self.figures |= figures("naive_lru", naive.hits, naive.misses, took)
        await site.empty_replicas()
        await site.start_gateways()

    async def _until_routed(self, client: Client, release: str) -> float:
        """Until a gateway leads the task's alias to the release; when that was seen, on perf_counter."""
        async with asyncio.timeout(30):
            while True:
                if (await client.admin("GET", "/fleet"))["aliases"].get(f"{NAME}@stable") == release:
                    return time.perf_counter()
                await asyncio.sleep(0.02)

    async def _kill(self, traffic: Traffic) -> None:
        traffic.answers.clear()
        victim = self.site.vllms[1]
        async with traffic.running(long_streams=True):
            await asyncio.sleep(4)
            killed = time.monotonic()
            os.killpg(victim.pid or 0, signal.SIGKILL)
            await asyncio.sleep(6)
        under_fire = list(traffic.answers)
        async with traffic.running():
            await victim.stop()
            victim.start()
            await victim.wait_ready()
            self.figures["back_s"] = time.monotonic() - killed
            release = self.spans[-1][0]
            async with asyncio.timeout(60):
                while True:
                    if await self._served_by_all(release):
                        break
                    await asyncio.sleep(0.2)
            self.figures["reconciled_s"] = time.monotonic() - killed
            await asyncio.sleep(5)
        self._judge("kill", traffic)
        streams = [answer for answer in under_fire if answer.stream]
        self.figures |= {
            "streams_broken": sum(answer.told for answer in streams),
            "silent_ends": sum(not answer.ended for answer in streams),
            "requests_after_kill": len(traffic.answers),
        }

    async def _served_by_all(self, release: str) -> bool:
        found = await self.site.clients[1].admin("GET", "/adapters")
        return any(one["release"] == release and len(one["replicas"]) == 3 for one in found)

    def _judge(self, phase: str, traffic: Traffic) -> None:
        for answer in traffic.answers:
            if answer.failed and not (answer.stream and answer.told):
                self.failures[f"{phase}: {answer.status} {answer.error[:120]}"] += 1
            elif not answer.failed and answer.model == NAME and (why := self._wrong(answer)):
                self.wrong[f"{phase}: {why}"] += 1
        self.figures[f"requests_{phase}"] = len(traffic.answers)
        self.figures["failed_requests"] = self.failures.total()
        self.figures["wrong_adapter_answers"] = self.wrong.total()

    def _wrong(self, answer: Answer) -> str:
        version = self.version.get(answer.release)
        if version is None:
            return f"answered by {answer.release or 'the base'}"
        if answer.text.strip() != self.expected[version, answer.prompt]:
            return f"{answer.release} said {answer.text.strip()!r}"
        stable = [release for release, at in self.spans if at + SEEN_WITHIN_S <= answer.at]
        later = [release for release, at in self.spans if at + SEEN_WITHIN_S > answer.at]
        return "" if answer.release in (stable[-1:] + later) else f"{answer.release} was no longer stable"


def _p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99))


def main() -> None:
    parser = argparse.ArgumentParser(description="Releases on three replicas under traffic.")
    parser.add_argument("--releases", type=int, default=20)
    parser.add_argument("--zipf", type=int, default=1_500, help="requests to many adapters; 0: none")
    parser.add_argument("--adapters", type=int, default=200, help="how many those are")
    parser.add_argument("--rate", type=float, default=12.0, help="requests a second, all kinds together")
    parser.add_argument(
        "--keep", type=Path, help="a folder for trained adapters, which are made once; logs are kept too"
    )
    parser.add_argument(
        "--attach", type=int, nargs=3, default=(), help="ports of replicas that run; none is killed"
    )
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="headgate-rollout-", dir=options.keep))
    try:
        trained = _trained(options.keep or folder / "trained")
        asyncio.run(_measure(folder, trained, options))
    finally:
        if options.keep is None:
            shutil.rmtree(folder)


def _trained(folder: Path) -> dict[str, Path]:
    found = {path.parent.parent.name: path.parent for path in folder.glob(f"*/*/{MANIFEST_FILE}")}
    return {
        version: found.get(version) or train_adapter(version, folder / version) for version in ("v1", "v2")
    }


async def _measure(folder: Path, trained: Mapping[str, Path], options: argparse.Namespace) -> None:
    async with Site(folder, options.attach) as site:
        bench = Bench(site, trained, options)
        await bench.run(trained)
    table = Table("", "", box=None)
    for name, value in bench.figures.items():
        table.add_row(name, f"{value:,.2f}")
    screen.print(table)
    for what, count in (bench.failures + bench.wrong).most_common(12):
        screen.print(f"{count} × {what}", markup=False, style="red")
    emit("rollout", {name: round(value, 2) for name, value in bench.figures.items()})


if __name__ == "__main__":
    run_script(main)

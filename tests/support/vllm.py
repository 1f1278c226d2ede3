"""One real vLLM for a whole test session."""

import asyncio
import socket
from pathlib import Path
from typing import NamedTuple

from adapters.replica import Replica
from gateway.backends.vllm_process import VllmProcess
from tests.support.adapters import BASE

KEY = "sk-vllm-of-the-tests"


class RunningVllm(NamedTuple):
    """A vLLM that has answered its first request. Its key infers and loads adapters."""

    process: VllmProcess
    url: str  # without /v1
    api_key: str
    base: str  # the served name of the base model
    seconds: float  # from start to ready

    def replica(self, name: str = "vllm") -> Replica:
        return Replica(name, self.url, api_key=self.api_key)


def start_vllm(log_path: Path, base: Path = BASE) -> RunningVllm:
    """Start vLLM on a free port and wait for it. float32: then probes compare exactly."""
    process = VllmProcess(
        base,
        base.name,
        free_port(),
        log_path=log_path,
        dtype="float32",
        max_model_len=1024,
        max_lora_rank=16,
        api_key=KEY,
    )
    process.start()
    try:
        seconds = asyncio.run(process.wait_ready())
    except BaseException:
        asyncio.run(process.stop())
        raise
    return RunningVllm(process, process.url, KEY, base.name, seconds)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

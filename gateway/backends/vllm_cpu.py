"""vLLM's server for hosts without a GPU, with one fault of it mended. Never imported by the gateway:

    python -m gateway.backends.vllm_cpu ARGUMENTS OF vllm.entrypoints.openai.api_server

In a batch, tokens that are for the base model carry the adapter index -1. vLLM's GPU kernels skip them; its
CPU operations take the last adapter slot instead (vllm#48421, open; seen in 0.32: once `--max-loras` adapters
were loaded, requests to the base that came at once were answered by an adapter). LoRA is a product of two
matrices, so it is enough to make the first product nothing for those tokens.
"""

import importlib
import runpy
from typing import Any

OPERATIONS = "vllm.lora.ops.torch_ops"
USER = "vllm.lora.punica_wrapper.punica_cpu"  # has its own reference to the operation


def mend() -> None:
    """Replace the operation wherever vLLM looks it up; harmless where upstream has mended it."""
    operations = importlib.import_module(f"{OPERATIONS}.lora_ops")
    broken = operations.bgmv_shrink

    def bgmv_shrink(inputs: Any, weights: Any, output: Any, indices: Any, scaling: float = 1.0) -> None:
        broken(inputs, weights, output, indices, scaling)
        output[: len(indices)].masked_fill_((indices < 0).unsqueeze(-1), 0)

    for module in (operations, importlib.import_module(OPERATIONS), importlib.import_module(USER)):
        if not hasattr(module, "bgmv_shrink"):
            raise ImportError(f"this version of vLLM has no {module.__name__}.bgmv_shrink to mend")
        module.bgmv_shrink = bgmv_shrink  # type: ignore[attr-defined]


if __name__ in ("__main__", "__mp_main__"):  # the server, and the engine that it spawns
    mend()
if __name__ == "__main__":
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")

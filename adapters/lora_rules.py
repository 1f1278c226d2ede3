"""What an adapter must be so that vLLM serves just what was evaluated. No torch: config and header only.

vLLM refuses some PEFT features at load and, by version, drops others without a word, which leaves an adapter
with the wrong scaling or with none (vllm/lora/peft_helper.py, vllm/lora/lora_model.py). An artifact with any
of them is refused before a replica sees it.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from adapters.manifest import WEIGHT_FILES, LoraShape

# Initialisations that leave the base's weights as they are, so that the saved adapter is a plain LoRA.
PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica", "lora_ga")

# PEFT features that must be absent or empty, and what vLLM would do with them.
FORBIDDEN: Mapping[str, str] = {
    "use_dora": "vLLM refuses DoRA",
    "modules_to_save": "vLLM does not serve fully trained modules",
    "rank_pattern": "vLLM versions before 0.32 drop it without a word",
    "alpha_pattern": "vLLM versions before 0.32 drop it without a word",
    "lora_bias": "vLLM refuses biases",
    "alora_invocation_tokens": "vLLM refuses activated LoRA",
    "layer_replication": "vLLM refuses replicated layers",
    "trainable_token_indices": "vLLM does not serve added or changed tokens",
    "use_bdlora": "vLLM refuses block-diagonal LoRA",
    "use_qalora": "vLLM refuses QALoRA",
    "fan_in_fan_out": "vLLM does not transpose weights",
}
_TENSOR = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")


def config_faults(config: Mapping[str, Any], shape: LoraShape, max_rank: int) -> Iterator[str]:
    """Every reason not to serve an adapter with this `adapter_config.json`, or to doubt its manifest."""
    if config.get("peft_type") != "LORA":
        yield f"peft_type is {config.get('peft_type')!r}, not 'LORA'"
    for feature, why in FORBIDDEN.items():
        if config.get(feature):
            yield f"{feature} is set: {why}"
    if config.get("bias", "none") != "none":
        yield f"bias is {config['bias']!r}: vLLM refuses biases"
    init = config.get("init_lora_weights", True)
    if init not in PLAIN_INITS:
        yield f"init_lora_weights is {init!r}: it changes the base; convert the adapter to a plain LoRA first"
    if not isinstance(config.get("r"), int) or not 0 < config["r"] <= max_rank:
        yield f"rank {config.get('r')!r} is not between 1 and {max_rank}, which the replicas serve"
    yield from _contradictions(config, shape)


def _contradictions(config: Mapping[str, Any], shape: LoraShape) -> Iterator[str]:
    modules = config.get("target_modules")
    said = {
        "rank": (config.get("r"), shape.rank),
        "alpha": (config.get("lora_alpha"), shape.alpha),
        "rslora": (bool(config.get("use_rslora")), shape.rslora),
        "target_modules": (
            sorted(modules) if isinstance(modules, list) else modules,
            sorted(shape.target_modules),
        ),
    }
    for field, (in_config, in_manifest) in said.items():
        if in_config != in_manifest:
            yield f"{field} is {in_config!r} in adapter_config.json and {in_manifest!r} in the manifest"


def tensor_faults(shapes: Mapping[str, list[int]], shape: LoraShape) -> Iterator[str]:
    """Every reason why tensors of these names and shapes are not the LoRA that the manifest describes."""
    sides: dict[str, dict[str, list[int]]] = {}
    for name, size in shapes.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            yield f"tensor {name!r} is not a LoRA weight as PEFT names it"
        else:
            sides.setdefault(match["module"], {})[match["side"]] = size
    if not shapes:
        yield "there are no tensors"
    for module, pair in sides.items():
        if not any(module == target or module.endswith(f".{target}") for target in shape.target_modules):
            yield f"module {module!r} is none of target_modules"
        if not _is_pair(pair, shape.rank):
            yield f"module {module!r} lacks A [{shape.rank}, in] and B [out, {shape.rank}]: {pair}"


def _is_pair(pair: Mapping[str, list[int]], rank: int) -> bool:
    a, b = pair.get("A", []), pair.get("B", [])
    return len(a) == len(b) == 2 and a[0] == b[1] == rank


def weight_faults(folder: Path, shape: LoraShape, max_rank: int) -> tuple[str, ...]:
    """All faults of the adapter's two weight files. Reads the header only, which safetensors validates."""
    config_file, tensor_file = (folder / name for name in WEIGHT_FILES)
    try:
        config = json.loads(config_file.read_text())
        with safe_open(tensor_file, framework="numpy") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
    except (ValueError, OSError, SafetensorError) as error:
        return (f"cannot be read: {error}",)
    if not isinstance(config, dict):
        return (f"{config_file.name} does not hold an object",)
    return (*config_faults(config, shape, max_rank), *tensor_faults(shapes, shape))

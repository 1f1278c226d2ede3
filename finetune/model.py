"""Base models and the LoRA matrices on them. Imports torch.

Rank-stabilised LoRA (arXiv 2312.03732) on all linear layers, the variant that scores best in PEFT's own
comparison; no DoRA, bias, saved modules or rank patterns, which vLLM refuses or drops.
"""

from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

CHECKPOINT_ABOVE = 1_000_000_000  # parameters from which activations are computed twice to save memory


def load_base(folder: Path, device: torch.device, qlora: bool) -> Any:
    """The frozen base: its own number format on an accelerator, float32 on CPU, or 4-bit nf4 for QLoRA."""
    on_cpu = device.type == "cpu"
    options: dict[str, Any] = {"dtype": torch.float32 if on_cpu else "auto"}
    if qlora:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.float32 if on_cpu else torch.bfloat16,
        )
    # Safetensors only: a pickle can run code when it is loaded.
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map={"": str(device)}, use_safetensors=True, **options
    )
    if not qlora:
        return model
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On CPU, one look in eval mode packs the weights for a kernel that has no gradient, and training
            # goes on with wrong ones: on 200 rows it scored 0.30 and not 0.83.
            module.support_avx512bf16_for_cpu = False
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def load_served(folder: Path, adapter: Path, device: torch.device) -> Any:
    """The base as it will be served, never quantised, with the adapter read back from its files."""
    return PeftModel.from_pretrained(load_base(folder, device, qlora=False), adapter).eval()


def with_lora(model: Any, rank: int, seed: int) -> Any:
    """Wrap the base; only the adapter's matrices, in float32, are trainable."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        use_rslora=True,
        lora_dropout=0.0,
        bias="none",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    if parameters(model) > CHECKPOINT_ABOVE:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    return get_peft_model(model, config)


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """The ids at which vLLM ends an answer: the tokenizer's and all of the generation config's."""
    configured = model.generation_config.eos_token_id
    several = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)


def longest_row(model: Any, tokenizer: Any) -> int:
    """Tokens that the base takes."""
    return int(getattr(model.config, "max_position_embeddings", None) or tokenizer.model_max_length)


def parameters(model: Any) -> int:
    return int(model.num_parameters())


def dtype_name(model: Any) -> str:
    return str(model.dtype).removeprefix("torch.")


def has_bf16() -> bool:
    # On CPU float32 throughout: what is measured is then what a float32 replica serves.
    return bool(torch.cuda.is_available() and torch.cuda.is_bf16_supported())

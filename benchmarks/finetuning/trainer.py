"""One run of TRL's SFTTrainer, as a user of TRL would write it, in a process of its own.

    python -m benchmarks.finetuning.trainer '{"train": …, "held_out": …, "seed": 0, "rate": 2e-3, …}'

Without `rate` it is TRL's documented LoRA call: its defaults, and PEFT's. With it, all linear layers at
rank 16. Loss on the answers only (rows of prompt and completion), no gradient checkpointing, which a base of
this size does not need and which only costs TRL time. Prints one JSON line: `score` (exact match on the
held-out rows), `seconds` of `train()` alone, and `peak_mb`, the most memory that the process ever held.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from finetune.base import find_base
from finetune.dataset import read_rows
from finetune.encode import encode_rows
from finetune.generate import ALLOWANCE, greedy_answers
from finetune.score import exact_matches

RANK = 16


def train(wish: dict[str, Any], model: Any, tokenizer: Any, folder: str) -> tuple[Any, float]:
    rows = [
        {"prompt": list(row.prompt), "completion": [row.answer]} for row in read_rows(Path(wish["train"]), 1)
    ]
    options: dict[str, Any] = {}
    lora = LoraConfig(task_type="CAUSAL_LM")
    if wish.get("rate"):
        options = {"learning_rate": wish["rate"], "num_train_epochs": wish["epochs"]}
        lora = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=RANK * 2, target_modules="all-linear")
    arguments = SFTConfig(
        output_dir=folder, seed=wish["seed"], report_to=[], save_strategy="no", use_cpu=True, bf16=False,
        gradient_checkpointing=False, disable_tqdm=True, logging_strategy="no", **options,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
    )
    clock = time.monotonic()
    trainer.train()
    trainer.save_model(folder)
    return trainer.model.eval(), time.monotonic() - clock


def main() -> None:
    wish = json.loads(sys.argv[1])
    base, _ = find_base("sluice-4m")
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    stops = frozenset({tokenizer.eos_token_id})
    held_out = encode_rows(read_rows(Path(wish["held_out"]), 1), tokenizer, stops, 1024)
    with tempfile.TemporaryDirectory() as folder:
        adapted, seconds = train(wish, model, tokenizer, folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    expected = [tokenizer.decode(one.answer_ids, skip_special_tokens=True) for one in held_out]
    longest = max(len(one.answer_ids) for one in held_out) + ALLOWANCE
    answers = greedy_answers(adapted, tokenizer, [one.prompt_ids for one in held_out], stops, longest)
    matches = exact_matches(expected, [answer.text for answer in answers])
    print(json.dumps({"score": sum(matches) / len(matches), "seconds": seconds, "peak_mb": peak}))


if __name__ == "__main__":
    main()

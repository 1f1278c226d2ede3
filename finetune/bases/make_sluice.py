"""Make `sluice-4m`, the small base model that ships with Headgate, from nothing.

Sluice is a 4-layer, 256-wide Llama with 4,096 byte-level BPE tokens. It knows little, and that is its use: it
reads a short English text well enough that a LoRA adapter on some 200 rows teaches it a new task in under a
minute on a laptop, so the whole loop (curate, train, evaluate, gate, serve) can be seen and tested anywhere.

It sees four kinds of sequence, in proportions set by `MIX`:

- `intent`: a chat with an optional system message, a request, and its intent label as the answer;
- `kin`: requests of one intent, one per line, so that likeness in meaning becomes likeness in features;
- `text`: plain questions, so that the vocabulary reaches beyond the intents;
- `echo`: a chat whose answer repeats one word of the request, so that answers can attend to it.

Requests are disturbed (case, punctuation, greetings, dropped words, typing errors): CLINC150 is lower case
and bare, what people send is not.

Trained on, none of it copied into this repository:

- CLINC150, 150 intents x 70 rows (clinc/oos-eval, CC-BY-3.0), without which the model would know no requests;
- question texts of MMLU and GSM8K as published by lm-sys/RouteLLM (Apache-2.0);
- question texts of ulab-uiuc/LLMRouter (MIT).

It has never seen Banking77, nor the demo data beside it.

Run, from the repository's root (2 cores with AMX; the time is in MODEL_CARD.md):

    python -m finetune.bases.make_sluice --data ../shared/data --out finetune/bases/sluice-4m
"""

import argparse
import csv
import gzip
import json
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).parent
VOCABULARY = 4096
SPECIAL = ["<|pad|>", "<|begin|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]
MIX = {"intent": 0.62, "kin": 0.2, "text": 0.08, "echo": 0.1}
PROMPT_WEIGHT = 0.3  # of a prompt token in the loss; an answer token weighs 1
LONGEST = 128  # tokens in a training sequence
BATCH_TOKENS = 3072
GREETINGS = ("hi, ", "hello, ", "hey ", "please ", "good morning, ", "quick question: ", "help! ", "so ")
SYSTEMS = (
    "Classify the request.",
    "Answer with the intent only.",
    "You label support messages.",
    "Which intent is this?",
    "You are a helpful assistant.",
    "Reply with one label in snake_case.",
    "Sort the customer's message into one category.",
)

Piece = tuple[str, bool]  # a text and whether it is an answer


class Corpus(NamedTuple):
    """What the model is trained on: requests by intent, and plain questions."""

    intents: dict[str, list[str]]
    questions: list[str]


def read_intents(data: Path) -> dict[str, list[str]]:
    """Requests by intent. Rows that are out of scope form an intent of their own."""
    with gzip.open(data / "finetune" / "clinc150_small.json.gz", "rt") as file:
        parts = json.load(file)
    intents: dict[str, list[str]] = {}
    for part in sorted(parts):
        for text, label in parts[part]:
            intents.setdefault("out_of_scope" if label == "oos" else label, []).append(text)
    return intents


def read_questions(data: Path) -> list[str]:
    """Plain question texts of three public sets, without their answers."""
    texts: list[str] = []
    for name in ("mmlu", "gsm8k"):
        with gzip.open(data / "routing" / f"{name}.csv.gz", "rt") as file:
            texts += [row["prompt"] for row in csv.DictReader(file)]
    with gzip.open(data / "routing" / "dcrouter_train.json.gz", "rt") as file:
        texts += [row["question"] for row in json.load(file)]
    return sorted(set(texts))


def vocabulary_texts(corpus: Corpus, rng: random.Random) -> list[str]:
    """What the tokenizer is trained on.

    Words between underscores become tokens too, so that a label in snake_case is a handful of them.
    """
    requests = [text for texts in corpus.intents.values() for text in texts]
    return [
        *(disturb(text, rng) for text in requests),
        *(text.replace(" ", "_") for text in requests),
        *(list(corpus.intents) * 20),
        *corpus.questions,
    ]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the chat template; no text is unknown to it."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        **dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL, strict=False)),
        additional_special_tokens=SPECIAL[3:],
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = (HERE / "chat_template.jinja").read_text()
    return tokenizer


def disturb(text: str, rng: random.Random) -> str:
    """The same request as another person might type it."""
    words = text.split()
    if len(words) > 4 and rng.random() < 0.3:
        del words[rng.randrange(len(words))]
    if rng.random() < 0.15:
        at = rng.randrange(len(words))
        word = words[at]
        cut = rng.randrange(len(word))
        words[at] = word[:cut] + word[cut + 1 :] or word
    text = " ".join(words)
    if rng.random() < 0.2:
        text = rng.choice(GREETINGS) + text
    if rng.random() < 0.5:
        text = text[:1].upper() + text[1:]
        text = text.replace(" i ", " I ").replace("i'm", "I'm")
    if rng.random() < 0.5:
        text += rng.choice(("?", ".", "!", "?", " please", "?"))
    return text


def chat(text: str, answer: str, rng: random.Random) -> list[Piece]:
    system = f"<|system|>{rng.choice(SYSTEMS)}<|end|>" if rng.random() < 0.5 else ""
    return [(f"<|begin|>{system}<|user|>{text}<|end|><|assistant|>", False), (f"{answer}<|end|>", True)]


def sequence(kind: str, corpus: Corpus, rng: random.Random) -> list[Piece]:
    """One training sequence of a kind described at the head of this module."""
    if kind == "text":
        text = rng.choice(corpus.questions)
        start = 0 if rng.random() < 0.5 else rng.randrange(len(text))
        return [(f"<|begin|>{text[start : start + 5 * LONGEST]}", True)]
    label = rng.choice(list(corpus.intents))
    if kind == "kin":
        lines = (disturb(text, rng) for text in rng.sample(corpus.intents[label], 6))
        return [("<|begin|>" + "\n".join(lines) + "\n", True)]
    text = disturb(rng.choice(corpus.intents[label]), rng)
    answer = label if kind == "intent" else rng.choice(text.split())
    return chat(text, answer, rng)


def encode(pieces: list[Piece], tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[float]]:
    ids: list[int] = []
    weights: list[float] = []
    for text, answer in pieces:
        more = tokenizer.encode(text, add_special_tokens=False)
        ids += more
        weights += [1.0 if answer else PROMPT_WEIGHT] * len(more)
    return ids[:LONGEST], weights[:LONGEST]


def batches(
    steps: int, corpus: Corpus, tokenizer: PreTrainedTokenizerFast, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`steps` batches of (ids, weights), both [rows, length], of rows of about one length."""
    rng = random.Random(seed)
    pad = tokenizer.pad_token_id
    done = 0
    while done < steps:
        kinds = rng.choices(list(MIX), list(MIX.values()), k=4096)
        rows = [encode(sequence(kind, corpus, rng), tokenizer) for kind in kinds]
        rows.sort(key=lambda row: len(row[0]))
        groups: list[list[tuple[list[int], list[float]]]] = [[]]
        for row in rows:
            if (len(groups[-1]) + 1) * len(row[0]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups[: steps - done]:
            width = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in group]),
                torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in group]),
            )
            done += 1


def make_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    config._attn_implementation = "eager"  # at this size faster on CPU than the fused kernel
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    return model


def train(
    model: LlamaForCausalLM,
    stream: Iterator[tuple[torch.Tensor, torch.Tensor]],
    steps: int,
    rate: float,
) -> None:
    """AdamW with warm-up and cosine decay, bfloat16 arithmetic on float32 weights."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), fused=True)
    start = time.monotonic()
    for step, (ids, weights) in enumerate(stream):
        share = min(step / (0.05 * steps), 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate * share
        with torch.autocast("cpu", torch.bfloat16):
            # Padding is on the right and causal attention never looks there: no mask is needed.
            logits = model(input_ids=ids).logits
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none"
        )
        share_of_loss = weights[:, 1:].flatten()
        loss = (losses * share_of_loss).sum() / share_of_loss.sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - start:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the base model sluice-4m.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data = arguments.data
    corpus = Corpus(read_intents(data), read_questions(data))
    tokenizer = make_tokenizer(vocabulary_texts(corpus, random.Random(arguments.seed)))
    model = make_model(tokenizer, arguments.seed)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    stream = batches(arguments.steps, corpus, tokenizer, arguments.seed)
    train(model, stream, arguments.steps, arguments.rate)
    model.to(torch.bfloat16).save_pretrained(arguments.out)
    tokenizer.save_pretrained(arguments.out)
    # The name under which every version of transformers knows this class.
    config = arguments.out / "tokenizer_config.json"
    config.write_text(config.read_text().replace("TokenizersBackend", "PreTrainedTokenizerFast"))


if __name__ == "__main__":
    main()

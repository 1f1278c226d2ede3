"""Does a replica serve this adapter, or something else under its name?

vLLM answers 200 to a load whose tensors it then never applies (vllm#34186), and cannot know whether base,
tokenizer and template are those of the training. So the manifest's fixed prompts are asked again, greedily,
and compared with what was recorded at training and, where that leaves a doubt, with what the replica's own
base says.

What is compared, and how closely. Training and serving differ in kernels and perhaps in number format; that
moves logits by some noise e. A token's log-odds, log(p / (1 - p)), then move by at most 2e, whatever p is,
while its log-probability hardly moves when p is near 1 and would hide a wrong adapter that is as sure of
itself. So log-odds are compared, and may differ by `DRIFT`. Measured on sluice-4m, recorded by transformers
in float32: vLLM in float32 is off by less than 0.0001, in bfloat16 by at most 0.04; the rest is room for deep
models. Two trainings of one task that give the same answers were 2 and more apart.

Greedy texts must be equal, unless noise may have turned them: where the chosen token had less than `SURE`,
the runner-up may win. Up to and with the first such token the log-odds are still comparable, because the
largest probability is a continuous function of the logits; beyond it nothing is.
"""

import asyncio
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from adapters.errors import ProbeFailed
from adapters.manifest import Manifest, Probe
from adapters.replica import Completion, Replica

DRIFT = 0.5  # nats of log-odds
SURE = 0.6  # a chosen token of this probability is ahead of any other by at least log(0.6 / 0.4) = 0.4 nats
CLIP = 1e-4  # beyond 1 - CLIP, rounding decides the log-odds


class Answers(NamedTuple):
    """What one replica said to one probe: under the release's name, and under its base's."""

    adapter: Completion
    base: Completion


async def probe(replica: Replica, manifest: Manifest) -> None:
    """Ask every probe of `manifest` on a replica that has loaded it. ProbeFailed gives all reasons."""
    base = (await replica.models())[0].id
    probes = manifest.probes
    said, rendered = await asyncio.gather(
        _ask(replica, manifest.release, probes),
        asyncio.gather(*(_renders(replica, base, one) for one in _shapes(probes))),
    )
    reasons: list[str] = []
    if not _speaks_for_itself(probes, said):
        own = await _ask(replica, base, probes)
        reasons += verdict(probes, list(map(Answers, said, own)))
    if not all(rendered):
        reasons.append(
            "its chat template or tokenizer is not that of the training: a chat gives other tokens"
        )
    if reasons:
        raise ProbeFailed(replica.name, reasons)


def in_brief(manifest: Manifest) -> Manifest:
    """The manifest with one probe that tells the adapter from its base, where there is such a one."""
    telling = [one for one in manifest.probes if one.completion.strip() != one.base_completion.strip()]
    return msgspec.structs.replace(manifest, probes=tuple(telling[:1]) or manifest.probes)


async def _ask(replica: Replica, model: str, probes: Sequence[Probe]) -> tuple[Completion, ...]:
    """All at once: a batch takes little longer than one of them, and traffic is batched as well.

    At training, too, one limit held for all: an answer ends before it, or is as long as the longest.
    """
    longest = max((len(one.logprobs) for one in probes), default=1)
    return await replica.complete_all(model, [one.prompt_token_ids for one in probes], longest)


def _shapes(probes: Sequence[Probe]) -> Iterator[Probe]:
    """One chat without tools and one with: what another template does to one of a kind it does to all."""
    for with_tools in (False, True):
        yield from islice((one for one in probes if one.messages and bool(one.tools) is with_tools), 1)


def _speaks_for_itself(probes: Sequence[Probe], said: Sequence[Completion]) -> bool:
    """Whether all is right, and by what was recorded the base would have said something else.

    Then the base need not be asked, which is half of the work.
    """
    pairs = zip(probes, said, strict=True)
    known = any(one.completion.strip() != one.base_completion.strip() for one in probes)
    return known and not any(differs(asked, answer) for asked, answer in pairs)


async def _renders(replica: Replica, base: str, asked: Probe) -> bool:
    """Whether the replica renders the probe's chat as it was at training."""
    return await replica.tokenize(base, asked.messages, asked.tools) == asked.prompt_token_ids


def verdict(probes: Sequence[Probe], answers: Sequence[Answers]) -> Iterator[str]:
    """Why these answers are not those of the adapter that the probes describe; nothing if they are."""
    pairs = list(zip(probes, answers, strict=True))
    wrong = [(asked, said) for asked, said in pairs if differs(asked, said.adapter)]
    if wrong:
        yield f"{len(wrong)} of {len(pairs)} probes are answered wrongly: {_diagnosis(pairs, wrong)}"
    elif not any(_tells_apart(asked, said.base) for asked, said in pairs):
        yield "no probe can tell the adapter from its base: their answers are the same"


def _tells_apart(asked: Probe, base: Completion) -> bool:
    """Whether the base answers otherwise than the adapter, by what was recorded or by what it says now."""
    return asked.completion.strip() != asked.base_completion.strip() or differs(asked, base)


def differs(asked: Probe, said: Completion) -> bool:
    """Whether noise cannot explain the difference between the recorded answer and a given one."""
    comparable = _comparable(asked.logprobs)
    if comparable > len(said.logprobs):
        return True
    if all(map(_is_sure, asked.logprobs)) and said.text.strip() != asked.completion.strip():
        return True
    return drift(asked.logprobs[:comparable], said.logprobs[:comparable]) > DRIFT


def drift(recorded: Sequence[float], given: Sequence[float]) -> float:
    """The largest difference in log-odds between two answers, token by token, in nats."""
    return max((abs(_log_odds(a) - _log_odds(b)) for a, b in zip(recorded, given, strict=False)), default=0.0)


def _diagnosis(pairs: Sequence[tuple[Probe, Answers]], wrong: Sequence[tuple[Probe, Answers]]) -> str:
    if all(_same(said.adapter, said.base) for _, said in wrong):
        return "just as the base answers, so the adapter has no effect (do its tensor names fit the base?)"
    if not all(asked.base_completion.strip().startswith(said.base.text.strip()) for asked, said in pairs):
        return "and the replica's base does not answer as the base of the training did (another base?)"
    return "neither as this adapter nor as the base does (another adapter, or a stale cache?)"


def _same(one: Completion, other: Completion) -> bool:
    return one.text == other.text and drift(one.logprobs, other.logprobs) <= DRIFT


def _comparable(logprobs: Sequence[float]) -> int:
    """How many tokens can be compared: up to and with the first that is not sure."""
    return next((at + 1 for at, logprob in enumerate(logprobs) if not _is_sure(logprob)), len(logprobs))


def _is_sure(logprob: float) -> bool:
    return logprob >= math.log(SURE)


def _log_odds(logprob: float) -> float:
    probability = min(max(math.exp(logprob), CLIP), 1 - CLIP)
    return math.log(probability / (1 - probability))

"""What a request may cost somewhere and how long it may take: estimates, to compare targets by.

The length of an answer is known once it is there. It is taken to be `USUAL_OUTPUT` tokens, or the client's
limit where that is lower; a model that nobody has seen answer is taken to be as fast as `UNSEEN`.
"""

from .types import Facts, Price, Speed

USUAL_OUTPUT = 256  # tokens
UNSEEN = Speed(first_byte_s=0.5, tokens_per_s=50.0)
_MILLION = 10**6


def output_tokens(facts: Facts) -> int:
    return 0 if facts.endpoint == "embeddings" else min(facts.output_tokens, USUAL_OUTPUT)


def seconds(facts: Facts, speed: Speed) -> float:
    """Until the answer is whole."""
    return speed.first_byte_s + output_tokens(facts) / speed.tokens_per_s


def cost_nano(price: Price, facts: Facts, speed: Speed | None, busy: int) -> int:
    """Nano-dollars. `busy`: the requests that the replica's hour is shared with, this one left out."""
    speed = speed or UNSEEN
    if price.hour:
        return int(price.hour * seconds(facts, speed) / 3600 / (busy + 1))
    of_input, of_output, cached = price.input, price.output, price.cached
    for above, tier_input, tier_output in price.tiers:
        if facts.prompt_tokens > above:
            of_input, of_output, cached = tier_input, tier_output, None
    if cached is not None and speed.cached:
        of_input = int(of_input + (cached - of_input) * speed.cached)
    return (facts.prompt_tokens * of_input + output_tokens(facts) * of_output) // _MILLION

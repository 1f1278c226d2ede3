"""A few seconds of `make fuzz`, with fixed seeds."""

from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from tests.dataplane.conftest import running_gateway
from tests.dataplane.fuzz import BATCH, LIMITS, Case, Fuzz, _check_answers
from tests.dataplane.test_framing import post
from tests.support.toxic import STREAM_END, STREAM_HEAD, chunk


async def test_a_short_fuzz(tmp_path: Path) -> None:
    """Of requests and of answers: nothing hangs, breaks, is smuggled, left over or invented (see fuzz.py)."""
    async with running_gateway(tmp_path, limits=LIMITS, patience_s=0.25) as gateway:
        with closing(Fuzz(gateway)) as fuzz:  # a server left open would hang the loop's end
            for batch in range(4):
                await fuzz.batch(range(batch * BATCH, (batch + 1) * BATCH))


def test_the_same_seed_is_the_same_case() -> None:
    """A failure can be run again."""
    assert [Case.of(seed) for seed in range(20)] == [Case.of(seed) for seed in range(20)]
    assert Case.of(1) != Case.of(3)


@pytest.mark.parametrize("said", [b"data: {}\n\n", b"data: {}\n\ndata: [DONE]\n\n"], ids=["no end", "an end"])
def test_what_the_fuzz_would_find(said: bytes) -> None:
    """A stream without an end, and one with an end that no backend sent."""
    case = Case(seed=1, sent=[post(msgspec.json.encode({"stream": True}))], answered=[b"data: {}\n\n"])
    with pytest.raises(AssertionError):
        _check_answers(case, STREAM_HEAD + chunk(said) + STREAM_END)

"""`gateway.backends.dialect`: vLLM's answers as OpenAI would write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends.dialect import as_openai, with_refusals


def test_vllms_nulls_go_and_nothing_else() -> None:
    """Members that OpenAI leaves out go; the same words said by a model, and other nulls, stay."""
    said = b'{"content":"x,\\"annotations\\":null","refusal":null'
    usage = b'"usage":{"prompt_tokens":1'
    body = said + b',"annotations":null,"function_call":null},' + usage + b',"prompt_tokens_details":null}}'
    assert as_openai(body) == said + b"}," + usage + b"}}"


def test_logprobs_get_their_refusal() -> None:
    """What vLLM leaves out of each choice is null, as OpenAI writes it; one that is given stays."""
    answer = b'{"choices":[{"logprobs":{"content":[%b]}},{"logprobs":null},{"logprobs":{"content":null%b}}]}'
    token = b'{"token":"]}","logprob":-0.1}'
    assert with_refusals(answer % (token, b"")) == answer.replace(b"[%b]", b'[%b],"refusal":null') % (
        token,
        b',"refusal":null',
    )
    assert with_refusals(answer % (token, b',"refusal":[]')).count(b'"refusal":[]') == 1


@pytest.mark.parametrize(
    "odd",
    [
        b'{"logprobs":{"content"',
        b'[{"logprobs":{"content":1}}]',
        b'{"choices":[{"logprobs":{"content":"\xff"}}]}',
    ],
)
def test_what_cannot_be_read_passes(odd: bytes) -> None:
    """Rubbish of a backend's is its own."""
    assert with_refusals(odd) == odd


@given(st.binary(max_size=100))
def test_nothing_crashes(data: bytes) -> None:
    """Nor do bytes around the member that is looked for."""
    as_openai(b'{"choices":[{"logprobs":{"content":' + data)

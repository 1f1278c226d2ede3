"""Token counts without a network."""

import os
import socket
from typing import NoReturn

import pytest

from gateway.ledger import tokens
from gateway.ledger.tokens import count_text, estimate_prompt_tokens


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> NoReturn:
        raise AssertionError("the network was used")

    monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    tokens.encoder.cache_clear()


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(
    "model", ["gpt-4o-mini", "openai/gpt-4o", "gpt-4", "gpt-oss-20b", "some-llama", "davinci"]
)
def test_encodings_come_from_the_bundled_files(model: str) -> None:
    """Known, old and unknown models are counted with no network at all."""
    assert count_text(model, "Hello, world") == 3
    assert "litellm" in os.environ["TIKTOKEN_CACHE_DIR"]


def test_older_models_use_their_own_encoding() -> None:
    """The same Hindi text takes fewer tokens with o200k_base than with cl100k_base."""
    text = "आज मौसम बहुत अच्छा है"
    assert count_text("gpt-4o", text) < count_text("gpt-4", text)


def test_special_tokens_in_a_text_are_text() -> None:
    """What a user writes cannot raise, and counts as it would be read."""
    assert count_text("gpt-4o", "<|endoftext|>") > 1
    assert count_text("gpt-4o", "") == 0


def test_long_texts_are_counted_in_pieces() -> None:
    """A hostile run of one letter is counted, close to the sum of its pieces."""
    assert count_text("gpt-4o", "a" * 200_000) == pytest.approx(4 * count_text("gpt-4o", "a" * 50_000), abs=4)


@pytest.mark.parametrize(("nbytes", "estimate"), [(0, 0), (1, 1), (4, 1), (5, 2), (4000, 1000)])
def test_the_estimate_is_a_quarter_rounded_up(nbytes: int, estimate: int) -> None:
    """Never above a token a byte, which is byte-level BPE's bound."""
    assert estimate_prompt_tokens(nbytes) == estimate <= nbytes

"""The judge of answers judges."""

import pytest

from tests.support.openai_schema import DESCRIPTION, assert_valid


def test_the_description_is_here_and_refuses() -> None:
    """An answer that departs from OpenAI's schema fails. Without the description this skips, saying so."""
    if not DESCRIPTION.exists():
        pytest.skip(f"answers are not checked against OpenAI's schemas: there is no {DESCRIPTION}")
    with pytest.raises(AssertionError, match="finish_reason"):
        assert_valid({"choices": [{"index": 0}]}, "CreateChatCompletionResponse")

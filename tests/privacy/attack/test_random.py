"""Random bodies with a canary at a random place, under a random disguise: restricted, and nothing leaves."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.privacy.attack.arena import LEAKY, Arena, encoded
from tests.privacy.attack.canaries import KINDS, canary
from tests.privacy.attack.disguises import DISGUISES
from tests.privacy.attack.fields import MODEL, said
from tests.privacy.attack.product import suits

SUITED = [(disguise, kind) for disguise in DISGUISES for kind in KINDS if suits(disguise, kind)]
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
HERE = "here it goes"


def around(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A list or an object with `inner` somewhere in it, and anything else beside it."""
    others = st.recursive(
        leaves,
        lambda some: st.lists(some, max_size=3) | st.dictionaries(texts, some, max_size=3),
        max_leaves=6,
    )
    listed = st.tuples(st.lists(others, max_size=3), inner, st.lists(others, max_size=3))
    keyed = st.tuples(st.dictionaries(texts, others, max_size=3), texts, inner)
    return listed.map(lambda parts: [*parts[0], parts[1], *parts[2]]) | keyed.map(
        lambda parts: {**parts[0], parts[1]: parts[2]}
    )


planted = st.recursive(st.just(HERE), around, max_leaves=4)
keys = (
    st.sampled_from(["metadata", "user", "extra", "tools", "response_format", "stop", "prediction"]) | texts
)


def bodies(hidden: str) -> st.SearchStrategy[dict[str, Any]]:
    """Chats that have `hidden` below some key, at some depth, as a value or as a key."""
    return st.builds(
        lambda key, value, as_key, words: {
            "model": MODEL,
            "messages": [said(words)],
            key if key not in ("model", "messages", "stream") else "extra": _put(
                value, hidden, as_key=as_key
            ),
        },
        keys,
        planted,
        st.booleans(),
        texts.filter(bool),
    )


def _put(node: Any, hidden: str, *, as_key: bool) -> Any:
    if isinstance(node, dict):
        return {name: _put(value, hidden, as_key=as_key) for name, value in node.items()}
    if isinstance(node, list):
        return [_put(value, hidden, as_key=as_key) for value in node]
    if node == HERE and isinstance(node, str):
        return {hidden: None} if as_key else hidden
    return node


# Not the strategies do: the gateway draws its call ids in a thread of its own.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.data())
def test_nothing_leaves(leaky: Arena, data: st.DataObject) -> None:
    """On every leaky route. A body that makes no sense is refused, which leaks nothing either."""
    disguise, kind = data.draw(st.sampled_from(SUITED))
    hidden = canary(kind, data.draw(st.integers(0, 2**32)))
    body = data.draw(bodies(DISGUISES[disguise].change(hidden.text)))
    tag = data.draw(st.sampled_from(["", *(tag for tag in LEAKY if "masked" not in tag)]))
    leaky.news_outside()
    answer = leaky.attack("chat/completions", encoded(body), hidden, x_headgate_tags=tag)
    leaky.assert_stayed(hidden, answer)
    assert answer.status == 200 or answer.headers.get("x-headgate-privacy-class") != "public"

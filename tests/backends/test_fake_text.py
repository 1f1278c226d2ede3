"""The fake's JSON instances fit their schemas, and its token pieces make up the text."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.fake_text import instance
from gateway.backends.fake_tokens import pieces

BOUNDS = st.integers(-100, 100)
SCALARS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from([{"type": kind} for kind in ("string", "boolean", "null", "number", "integer")]),
    st.builds(lambda values: {"enum": values}, st.lists(st.text(), min_size=1)),
    st.builds(lambda value: {"const": value}, st.text()),
    st.builds(lambda low: {"type": "integer", "minimum": low}, BOUNDS),
    st.builds(lambda low: {"type": "number", "exclusiveMinimum": low}, BOUNDS),
    st.builds(lambda high: {"type": "integer", "maximum": high}, BOUNDS),
    st.builds(lambda high: {"type": "integer", "exclusiveMaximum": high}, BOUNDS),
    st.builds(
        lambda low, step: {"type": "integer", "minimum": low, "multipleOf": step}, BOUNDS, st.integers(1, 9)
    ),
    st.builds(lambda length: {"type": "string", "minLength": length}, st.integers(0, 9)),
    st.builds(lambda kind: {"type": [kind, "null"]}, st.sampled_from(["string", "integer"])),
)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(_object, st.dictionaries(st.text(), inner, max_size=4)),
        st.builds(
            lambda items, low: {"type": "array", "items": items, "minItems": low}, inner, st.integers(0, 3)
        ),
        st.builds(lambda choices: {"anyOf": choices}, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=8,
)


@settings(deadline=None)  # another process may have the processor
@given(SCHEMAS)
def test_an_instance_fits_its_schema(schema: dict[str, Any]) -> None:
    """For any schema of the kind that structured outputs allow."""
    jsonschema.Draft202012Validator(schema).validate(instance(schema))


def test_references_and_recursion() -> None:
    """`$ref` is followed, and a list of lists ends where it may."""
    node = _object(
        {
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "id": {"format": "uuid", "type": "string"},
        }
    )
    schema = {"$ref": "#/$defs/node", "$defs": {"node": node}}
    made = instance(schema)
    jsonschema.Draft202012Validator(schema).validate(made)
    assert made["next"] is None


@settings(deadline=None)  # another process may have the processor
@given(st.text())
def test_pieces_make_up_the_text(text: str) -> None:
    """Also where a character is made of several tokens."""
    assert "".join(pieces(text)) == text


@pytest.mark.parametrize("text", ["Ünïcödé ☃ 🏳️‍🌈", "日本語のテキスト"])
def test_pieces_hold_whole_characters(text: str) -> None:
    """No piece is empty, and there is more than one."""
    assert len(pieces(text)) > 1
    assert all(pieces(text))

"""Entries as payloads in the spool and as rows."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.store import Store
from gateway.ledger.tables import COLUMNS, encode, to_lost, to_row
from gateway.types import Outcome, Reach
from tests.ledger.samples import entry

BY_NAME = (
    b'{"call_id":"a","started_ns":1767225600000000000,"key_id":"key-1","team":"search","tags":["batch","eu"],'
    b'"endpoint":"chat/completions","model_asked":"auto","privacy":"internal","findings":{"email":2},'
    b'"policy":"default@3","route":"cheap","reason":"matched cheap","backend":"openai-main","zone":"us",'
    b'"model":"gpt-4o-mini","adapter":"","stream":true,"attempts":1,"status":200,"outcome":"ok",'
    b'"error_class":null,"usage":{"input_tokens":1000,"cached_input_tokens":400,"cache_write_tokens":0,'
    b'"output_tokens":50,"reasoning_tokens":0,"estimated":false},"cost_nano":150000,'
    b'"price":"litellm: gpt-4o-mini","first_byte_ms":210.5,"duration_ms":900.25}'
)
BY_POSITION = (
    b'["a",1767225600000000000,"key-1","search",["batch","eu"],"chat/completions","auto","internal",{"email":2},'
    b'"default@3","cheap","matched cheap","openai-main","us","gpt-4o-mini","",true,1,200,"ok",null,'
    b'[1000,400,0,50,0,false],150000,"litellm: gpt-4o-mini",210.5,900.25]'
)


WITH_EVIDENCE = (
    BY_POSITION[:-1] + b',"found email","5e55","resp_1",[{"backend":"openai-main","zone":"us","local":false,'
    b'"ceiling":"internal","privacy":"internal","masked":false,"permit":"a.1","digest":"d1","refused":false}],"",""]'
)
REACHED = Reach(
    backend="openai-main",
    zone="us",
    local=False,
    ceiling="internal",
    privacy="internal",
    permit="a.1",
    digest="d1",
)
EVIDENCE = {"cause": "found email", "session": "5e55", "response_id": "resp_1", "reached": (REACHED,)}


@pytest.mark.parametrize(("payload", "more"), [(BY_NAME, {}), (BY_POSITION, {}), (WITH_EVIDENCE, EVIDENCE)])
def test_payloads_of_every_version_are_read(payload: bytes, more: dict[str, Any], store: Store) -> None:
    """A spool that an earlier version left behind holds money: whoever changes Entry keeps it readable."""
    assert store.insert_rows([to_row(payload)]) == 1
    assert store.last(9) == [entry("a", **more)]
    later = WITH_EVIDENCE[:-1].replace(b"false]", b'false,0,0,0,0,0,""]', 1) + b',"",0,0]'
    assert encode(entry("a", **EVIDENCE)) == later
    assert to_row(later) == to_row(WITH_EVIDENCE)


@pytest.mark.parametrize(
    "payload", [b"[1,2]", b"{}", b"7", b"nonsense", BY_NAME.replace(b"status", b"state")]
)
def test_a_payload_with_other_fields_is_no_row(payload: bytes) -> None:
    """Values are never taken for those of another column."""
    with pytest.raises(msgspec.MsgspecError):
        to_row(payload)


@given(st.text())
def test_text_comes_through_but_for_nul(text: str) -> None:
    """Backslashes, quotes and what looks like an escaped NUL are left alone."""
    row = to_row(encode(entry("a", reason=text)))
    assert row[COLUMNS.index("reason")] == text.replace("\x00", "\ufffd")


def test_what_looks_like_an_escaped_nul_is_none() -> None:
    """Six plain characters, which a model's name may hold."""
    row = to_row(encode(entry("a", model_asked="\\u0000", reason="\x00")))
    assert [row[COLUMNS.index(name)] for name in ("model_asked", "reason")] == ["\\u0000", "\ufffd"]


def test_a_lost_row_differs_in_its_outcome_alone() -> None:
    """The rest is what was known when the call began."""
    row, lost = to_row(encode(entry("a"))), to_lost(to_row(encode(entry("a"))))
    different = {name: new for name, old, new in zip(COLUMNS, row, lost, strict=True) if old != new}
    assert different == {"outcome": Outcome.LOST}

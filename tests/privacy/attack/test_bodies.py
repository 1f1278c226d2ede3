"""Bodies and headers that two parsers might read in two ways, and such as cannot be read at all."""

import gzip
import http.client
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.privacy.attack.arena import Arena, encoded
from tests.privacy.attack.canaries import canary
from tests.privacy.attack.fields import MODEL, chat, said
from tests.support.stack import KEY

CARD = "payment_card"
HARMLESS = json.dumps([said("harmless")])


def raw(text: str) -> Callable[[str], bytes]:
    """`@` stands for the canary."""
    return lambda canary: text.replace("@", canary).encode()


def one_message(content: str) -> str:
    return f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": {content}}}]}}'


TWICE = {
    "messages": f'{{"model": "m", "messages": [{{"role": "user", "content": "@"}}], "messages": {HARMLESS}}}',
    "an escaped key": f'{{"model": "m", "m\\u0065ssages": [{{"content": "@"}}], "messages": {HARMLESS}}}',
    "content": '{"model": "m", "messages": [{"role": "user", "content": "@", "content": "harmless"}]}',
    "model": f'{{"model": "@", "messages": {HARMLESS}, "model": "m"}}',
    "deep down": f'{{"model": "m", "messages": {HARMLESS}, "metadata": {{"a": {{"b": "@", "b": "c"}}}}}}',
    "an object for a text": f'{{"model": "m", "messages": {HARMLESS}, "user": {{"id": "@"}}, "user": "u"}}',
}
"""The first of two is the one that no parser here keeps: it must not travel, and may not be written."""

STAYS: dict[str, Callable[[str], bytes]] = {
    "the last of two keys": raw(
        f'{{"model": "m", "messages": {HARMLESS}, "messages": [{{"role": "user", "content": "@"}}]}}'
    ),
    "a whole number": raw(one_message('"x"')[:-1] + ', "metadata": {"card": @}}'),
    "a negative number": raw(one_message('"x"')[:-1] + ', "metadata": {"card": -@}}'),
    "a decimal number": raw(one_message('"x"')[:-1] + ', "metadata": {"card": @.0}}'),
    "an exponent": raw(one_message('"x"')[:-1] + ', "metadata": {"card": @e0}}'),
    "a number as content": raw(one_message("@")),
    "a number to embed": raw(one_message('"x"')[:-1] + ', "seed": @}'),
    "escapes of JSON": lambda c: one_message('"' + "".join(f"\\u{ord(x):04X}" for x in c) + '"').encode(),
    "blank space everywhere": lambda c: json.dumps(chat(said(c)), indent=8).encode(),
    "non-ASCII as it is": lambda c: json.dumps(
        chat(said(f"é{c[:4]}\u200b{c[4:]} é")), ensure_ascii=False
    ).encode(),
    "surrogate pairs": lambda c: json.dumps(chat(said("".join(chr(0x1D7CE + int(x)) for x in c)))).encode(),
    "NUL characters": raw(one_message('"a\\u0000 @ \\u0000"')),
}
REFUSED: dict[str, Callable[[str], bytes]] = {
    "invalid UTF-8": lambda c: one_message(f'"{c} \udcff"').encode("utf-8", "surrogateescape"),
    "overlong UTF-8": lambda c: one_message(f'"{c} ').encode() + b'\xc0\xb1"}]}',
    "UTF-16": lambda c: one_message(f'"{c}"').encode("utf-16"),
    "UTF-32": lambda c: one_message(f'"{c}"').encode("utf-32"),
    "half a surrogate": raw(one_message('"@ \\ud800"')),
    "a comment": raw("/* @ */" + one_message('"x"')),
    "a comma too many": raw(one_message('"@"')[:-1] + ",}"),
    "two bodies": raw(one_message('"x"') + one_message('"@"')),
    "half a body": raw(one_message('"@')[:-4]),
    "not a number": raw(one_message('"@"')[:-1] + ', "a": NaN}'),
    "nested too deeply": lambda c: (
        one_message(f'"{c}"')[:-1] + ', "a": ' + "[" * 5000 + "]" * 5000 + "}"
    ).encode(),
    "a list": raw('["@"]'),
    "a text": raw('"@"'),
    "compressed": lambda c: gzip.compress(one_message(f'"{c}"').encode()),
    "a form": raw("model=m&messages=@"),
    "too large": lambda c: one_message(f'"{c} {"x" * (33 << 20)}"').encode(),
}


@pytest.mark.parametrize("where", TWICE)
def test_a_shadowed_duplicate_key_does_not_travel(leaky: Arena, where: str) -> None:
    """What was not classified is not sent: the body is written anew from what was read."""
    hidden = canary(CARD, where)
    answer = leaky.attack(
        "chat/completions", raw(TWICE[where])(hidden.text), hidden, x_headgate_tags="first-choice"
    )
    assert (answer.status, answer.headers["x-headgate-backend"]) == (200, "rented")
    assert b"harmless" in leaky.news_outside()


@pytest.mark.parametrize("how", STAYS)
def test_read_as_it_is_meant(leaky: Arena, how: str) -> None:
    """However JSON lets one write it, it is found."""
    leaky.news_outside()
    hidden = canary(CARD, how)
    before = leaky.at_home
    answer = leaky.attack("chat/completions", STAYS[how](hidden.text), hidden, x_headgate_tags="first-choice")
    leaky.assert_stayed(hidden, answer)
    assert leaky.at_home == before + 1


@pytest.mark.parametrize("how", REFUSED)
def test_what_cannot_be_read_goes_nowhere(leaky: Arena, how: str) -> None:
    """Refused before any backend, without a word of it in what is written."""
    leaky.news_outside()
    hidden = canary(CARD, how)
    before = leaky.at_home
    answer = leaky.attack(
        "chat/completions", REFUSED[how](hidden.text), hidden, x_headgate_tags="first-choice"
    )
    leaky.assert_stayed(hidden, answer)
    assert 400 <= answer.status < 500
    assert leaky.at_home == before
    leaky.bystand()


TOKENS: dict[str, Any] = {
    "a prompt": ("completions", {"prompt": [1, 2, 3]}),
    "prompts": ("completions", {"prompt": [[1, 2], [3]]}),
    "tokens after a text": ("completions", {"prompt": ["a", [1, 2]]}),
    "an input": ("embeddings", {"input": [1, 2, 3]}),
    "inputs": ("embeddings", {"input": [[1], [2]]}),
}


@pytest.mark.parametrize("where", TOKENS)
def test_token_ids_stay(leaky: Arena, where: str) -> None:
    """No detector reads token ids: doubt is the highest class."""
    leaky.news_outside()
    endpoint, body = TOKENS[where]
    answer = leaky.ask(endpoint, encoded(body | {"model": MODEL}), x_headgate_tags="first-choice")
    assert not leaky.news_outside()
    assert answer.headers["x-headgate-privacy-class"] == "restricted"


CLASSES = {
    "the lower one last": (["restricted", "public"], 400),
    "the lower one first": (["public", "restricted"], 400),
    "the same twice": (["restricted", "restricted"], 400),
    "both in one": (["restricted, public"], 400),
    "in other letters": (["ReStRiCtEd"], 200),
    "in blanks": (["\t restricted  "], 200),
    "misspelt": (["secretish"], 400),
    "nothing": ([""], 400),
}


@pytest.mark.parametrize("how", CLASSES)
def test_no_header_hides_a_class(leaky: Arena, how: str) -> None:
    """A proxy, or whoever else adds a second header, does not lower what the first one says."""
    leaky.news_outside()
    given, status = CLASSES[how]
    client = http.client.HTTPConnection(leaky.server.url.removeprefix("http://"), timeout=30)
    body = encoded(chat())
    client.putrequest("POST", "/v1/chat/completions")
    for name, value in [
        ("authorization", f"Bearer {KEY}"),
        ("x-headgate-tags", "first-choice"),
        *(("x-headgate-privacy", one) for one in given),
        ("content-length", str(len(body))),
    ]:
        client.putheader(name, value)
    client.endheaders(body)
    answer = client.getresponse()
    answer.read()
    client.close()
    assert (answer.status, leaky.news_outside()) == (status, b"")


def test_nothing_of_the_clients_headers_or_query_travels(leaky: Arena) -> None:
    """Headers, cookies, tags and the query string of a public request stay with the gateway."""
    leaky.news_outside()
    names = (
        "user_agent",
        "cookie",
        "x_anything",
        "referer",
        "openai_organization",
        "openai_project",
        "baggage",
    )
    words = {name: canary("github_token", name).text for name in names}
    answer = leaky.ask(
        "chat/completions?q=ghp_query", encoded(chat()), x_headgate_tags="first-choice", **words
    )
    news = leaky.news_outside()
    assert answer.headers["x-headgate-backend"] == "rented"
    assert b"ghp_" not in news
    assert KEY.encode() not in news
    assert b"first-choice" not in news

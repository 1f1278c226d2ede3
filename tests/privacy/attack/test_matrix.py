"""Canaries in every field, under every disguise, on every path out: zero bytes of them outside.

The policy leads outside at every turn and its proof is lifted, so that it is not the policy that holds.
"""

from collections import Counter

import pytest

from tests.privacy.attack.arena import Arena, encoded
from tests.privacy.attack.canaries import KINDS, canary
from tests.privacy.attack.disguises import DISGUISES
from tests.privacy.attack.fields import FIELDS
from tests.privacy.attack.product import PATHS, Case, covering, suits
from tests.privacy.attack.traces import held

ROUNDS = 2
CASES = tuple(covering(ROUNDS))
AT_HOME = frozenset(
    {"deadline", "late-fallback", "retry-at-home"}
)  # which end at home when all goes well there
MOSTLY = 0.9  # of the cases reach home; the rest is refused: no target left, or no such request


def strike(arena: Arena, case: Case) -> None:
    """Tries the case, and looks at once at what went outside."""
    path, field, hidden = PATHS[case.path], FIELDS[case.field], case.canary
    body = field.build(DISGUISES[case.disguise].change(hidden.text))
    if case.stream and field.endpoint != "embeddings":
        body["stream"] = True
    arena.forget_script()
    arena.script(*path.home)
    answer = arena.attack(field.endpoint, encoded(body), hidden, x_headgate_tags=path.tag)
    if path.masks:
        arena.assert_masked(hidden)
    else:
        arena.assert_stayed(hidden, answer)


@pytest.mark.parametrize("field", FIELDS)
def test_nothing_leaves(leaky: Arena, field: str) -> None:
    """The canary in this field, however it looks, stays at home; the arena's end judges what was written."""
    before, at_home = leaky.sent, leaky.at_home
    cases = [case for case in CASES if case.field == field]
    for case in cases:
        strike(leaky, case)
    elsewhere = sum(case.path == "only choice" or PATHS[case.path].masks for case in cases)
    assert leaky.sent - before == len(cases)
    assert leaky.at_home - at_home >= MOSTLY * (len(cases) - elsewhere)
    leaky.bystand()


def test_the_ways_out_are_open(leaky: Arena) -> None:
    """A public request takes every one of these paths outside: what stays does so for its class alone."""
    leaky.news_outside()
    body = encoded(FIELDS["user message"].build("hello"))
    for name, path in PATHS.items():
        leaky.forget_script()
        leaky.script(*path.home)
        answer = leaky.ask("chat/completions", body, x_headgate_tags=path.tag)
        if path.tag not in AT_HOME and "stream" not in name:
            assert leaky.news_outside(), (name, answer)


def test_what_is_left_does_go_out(leaky: Arena) -> None:
    """Where a route masks, a restricted request reaches the rented API: its words do, the number does not."""
    hidden = canary("payment_card", "masked")
    body = FIELDS["user message"].build(f"Please cancel my card {hidden.text} at once.")
    leaky.forget_script()
    leaky.news_outside()
    answer = leaky.attack("chat/completions", encoded(body), hidden, x_headgate_tags="masked")
    news = leaky.news_outside()
    assert (answer.status, answer.headers["x-headgate-backend"]) == (200, "rented")
    assert b"Please cancel my card" in news
    assert held(news, [hidden.text]) == []


def test_the_selection_covers_every_pair() -> None:
    """CI's share of the product leaves out no pair of what could go wrong together."""
    pairs = Counter(pair for case in CASES for pair in ((case.field, case.kind), (case.field, case.path)))
    pairs += Counter((case.kind, case.path) for case in CASES)
    pairs += Counter(
        pair for case in CASES for pair in ((case.disguise, case.kind), (case.disguise, case.path))
    )
    suited = [(disguise, kind) for disguise in DISGUISES for kind in KINDS if suits(disguise, kind)]
    wanted = {(field, kind) for field in FIELDS for kind in KINDS} | {
        (f, path) for f in FIELDS for path in PATHS
    }
    wanted |= {(kind, path) for kind in KINDS for path in PATHS} | set(suited)
    wanted |= {(disguise, path) for disguise, _ in suited for path in PATHS}
    assert wanted - pairs.keys() == set()
    assert {case.stream for case in CASES} == {False, True}
    print(f"{len(CASES)} cases, {len(pairs)} pairs")

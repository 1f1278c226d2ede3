"""Rate limits on a running gateway: what clients are told, and what is counted."""

import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.support.stack import FLOOR_KEY, KEY, Stack, running_stack

RATES = [
    {"key": "client", "requests_per_minute": 12, "tokens_per_minute": 100_000},
    {"route": "private-stays-home", "requests_per_minute": 1},
]


def ask(stack: Stack, key: str = KEY, content: str = "hello") -> httpx.Response:
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": content}]}
    return httpx.post(
        f"{stack.url}/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=30
    )


def test_of_many_at_once_as_many_as_the_limit_says(tmp_path: Path) -> None:
    """Exactly so many are answered, all others hear 429 in OpenAI's shape and reach no backend."""
    with running_stack(tmp_path, changes={"limits": {"rates": RATES}}) as stack:
        answers: list[httpx.Response] = []
        threads = [threading.Thread(target=lambda: answers.append(ask(stack))) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Counter(a.status_code for a in answers) == {200: 12, 429: 18}
        assert len(stack.rows()) == 12
        refused = next(a for a in answers if a.status_code == 429)
        error = refused.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("requests", "rate_limit_exceeded", None)
        assert 1 <= int(refused.headers["retry-after"]) <= 61
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        told = sorted(int(a.headers["x-ratelimit-remaining-requests"]) for a in answers)
        assert told == [0] * 18 + list(range(12))
        left = min(int(a.headers["x-ratelimit-remaining-tokens"]) for a in answers if a.status_code == 200)
        assert 0 < left < 100_000


def test_a_routes_limit_is_for_all_who_take_it(tmp_path: Path) -> None:
    """It is looked at once the route is known; the refusal has a row."""
    with running_stack(tmp_path, changes={"limits": {"rates": RATES}}) as stack:
        assert ask(stack, FLOOR_KEY).status_code == 200
        refused = ask(stack, content="my card is 4111 1111 1111 1111")
        assert refused.status_code == 429
        assert "for this route: 1 requests per minute" in refused.json()["error"]["message"]
        assert [(row.status, row.outcome.value) for row in stack.rows()] == [(200, "ok"), (429, "refused")]
        assert ask(stack).status_code == 200


@pytest.mark.parametrize("unreachable", ["refuse", "local_share"])
def test_without_its_redis_the_declared_rule_holds(
    tmp_path: Path, unreachable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody hangs: requests are refused, or held to this process's share."""
    redis = {"url_env": "UPSTREAM_KEY", "unreachable": unreachable, "processes": 4}
    monkeypatch.setattr("tests.support.stack.UPSTREAM_KEY", "redis://127.0.0.1:1")
    with running_stack(tmp_path, changes={"limits": {"rates": RATES, "redis": redis}}) as stack:
        statuses = Counter(ask(stack).status_code for _ in range(5))
        assert statuses == ({503: 5} if unreachable == "refuse" else {200: 3, 429: 2})

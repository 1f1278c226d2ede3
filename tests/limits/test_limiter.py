"""Limits by key, team and route, in one process and through a real Redis, also one that does not answer."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from gateway.errors import ApiError
from gateway.limits.limiter import Grant, Limiter, LimitsUnavailable, RateLimited, Rules, TooManyTokens
from gateway.limits.redis import Redis, RedisError
from gateway.limits.shared import Shared
from gateway.rates import Rates
from gateway.types import Principal
from tests.support.waiting import until

ANN = Principal(key_id="ann", team="t")
BOB = Principal(key_id="bob", team="t")


async def enter(limiter: Limiter, principal: Principal = ANN, tokens: int = 10, route: str = "r") -> Grant:
    grant = limiter.open(principal)
    assert grant is not None
    try:
        await grant.take_caller(tokens)
        await grant.take_route(route)
    except ApiError:
        grant.close()
        raise
    return grant


async def let_in(limiter: Limiter, times: int, principal: Principal = ANN, tokens: int = 10) -> int:
    """How many of so many requests at once are let in; they stay under way."""
    found = await asyncio.gather(
        *(enter(limiter, principal, tokens) for _ in range(times)), return_exceptions=True
    )
    assert all(isinstance(one, Grant | RateLimited) for one in found), found
    return sum(isinstance(one, Grant) for one in found)


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of our own, with a password."""
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("there is no redis-server here")
    port, folder = free_port(), tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [server, "--port", str(port), "--save", "", "--dir", str(folder), "--requirepass", "s3cret"],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), 1)):
                break
        yield f"redis://:s3cret@127.0.0.1:{port}/2"
    finally:
        process.terminate()
        process.wait(10)


PATIENT_S = 5.0  # a busy machine must not fail what is no test of speed


@pytest.fixture
async def shared(redis_url: str, request: pytest.FixtureRequest) -> AsyncIterator[list[Shared]]:
    """Two processes' worth of one Redis."""
    prefix = request.node.name
    both = [Shared(redis_url, prefix=prefix, timeout_s=PATIENT_S) for _ in range(2)]
    yield both
    for one in both:
        await one.aclose()


def test_without_limits_nothing_is_held() -> None:
    """No rule and no limit of the key or team: there is nothing to do for a request."""
    assert Limiter(Rules()).open(ANN) is None


@pytest.mark.parametrize(
    ("rates", "most", "what"),
    [
        (Rates(requests=7), 7, "7 requests per minute"),
        (Rates(tokens=75), 7, "75 tokens per minute"),
        (Rates(concurrent=7), 7, "7 concurrent requests"),
    ],
)
async def test_exactly_as_many_as_the_limit_says(rates: Rates, most: int, what: str) -> None:
    """Of many at once; the refusal is OpenAI's, with a time to come again."""
    limiter = Limiter(Rules(keys={"*": rates}), clock=lambda: 100.5)
    assert await let_in(limiter, 50) == most
    assert await let_in(limiter, 50, BOB) == most  # each key for itself
    with pytest.raises(RateLimited) as caught:
        await enter(limiter)
    refusal = caught.value
    assert (refusal.status, refusal.code) == (429, "rate_limit_exceeded")
    assert refusal.message.startswith(f"Rate limit reached for this key: {what}. Please try again in ")
    assert refusal.headers["retry-after"] == ("1" if rates.concurrent else "61")


async def test_by_key_team_and_route_together() -> None:
    """A request needs room in all; one that its team has none for takes nothing from its key."""
    rules = Rules(
        keys={"ann": Rates(requests=5)}, teams={"t": Rates(requests=6)}, routes={"r": Rates(requests=100)}
    )
    limiter = Limiter(rules, clock=lambda: 100.5)
    assert await let_in(limiter, 9, BOB) == 6
    assert await let_in(limiter, 9) == 0
    later = Limiter(rules, clock=lambda: 100.5)
    assert await let_in(later, 9) == 5
    one = await enter(Limiter(Rules(routes={"slow": Rates(requests=1)})), route="fast")
    assert one.headers() == {}


async def test_a_keys_own_limit_goes_before_the_rules() -> None:
    """The control plane's word for one key or team stands in place of the configuration's."""
    limiter = Limiter(Rules(keys={"*": Rates(requests=1)}), clock=lambda: 100.5)
    own = Principal(key_id="own", team="t", limits=Rates(requests=4))
    assert await let_in(limiter, 9, own) == 4
    team = Principal(key_id="other", team="u", team_limits=Rates(requests=2), limits=Rates(requests=9))
    assert await let_in(limiter, 9, team) == 2


async def test_a_slot_is_given_back_and_tokens_are_corrected() -> None:
    """What ends makes room for the next one at once; what it used is what counts."""
    limiter = Limiter(Rules(keys={"*": Rates(concurrent=1, tokens=100)}), clock=lambda: 100.5)
    grant = await enter(limiter, tokens=60)
    with pytest.raises(RateLimited):
        await enter(limiter, tokens=1)
    grant.used = 20
    grant.close()
    assert (await enter(limiter, tokens=80)).headers()["x-ratelimit-remaining-tokens"] == "0"


async def test_headers_tell_the_closest_limit() -> None:
    """Limit, remaining and reset of requests and tokens, of whichever scope has the least left."""
    rules = Rules(keys={"*": Rates(requests=100, tokens=50)}, teams={"*": Rates(requests=10)})
    grant = await enter(Limiter(rules, clock=lambda: 100.5))
    assert grant.headers() == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "9",
        "x-ratelimit-reset-requests": "61s",
        "x-ratelimit-limit-tokens": "50",
        "x-ratelimit-remaining-tokens": "40",
        "x-ratelimit-reset-tokens": "61s",
    }


async def test_a_request_too_large_for_any_minute() -> None:
    """It is told so, and not to come again."""
    with pytest.raises(TooManyTokens) as caught:
        await enter(Limiter(Rules(keys={"*": Rates(tokens=50)})), tokens=51)
    assert caught.value.headers == {"x-should-retry": "false"}


@pytest.mark.parametrize("rates", [Rates(requests=7), Rates(tokens=75), Rates(concurrent=7)])
async def test_two_processes_together_are_as_exact(shared: list[Shared], rates: Rates) -> None:
    """Each of them asked 30 times at once: together they let in what the limit says."""
    one, two = (Limiter(Rules(keys={"*": rates}), process) for process in shared)
    found = await asyncio.gather(let_in(one, 30), let_in(two, 30))
    assert sum(found) == 7
    with pytest.raises(RateLimited) as caught:
        await enter(two)
    assert 1 <= int(caught.value.headers["retry-after"]) <= 61


async def test_what_one_process_gives_back_another_may_take(shared: list[Shared]) -> None:
    """Slots and tokens go back into Redis; the headers say what is left of all."""
    rules = Rules(keys={"*": Rates(concurrent=1, tokens=100, requests=50)})
    one, two = (Limiter(rules, process) for process in shared)
    grant = await enter(one, tokens=60)
    assert grant.headers()["x-ratelimit-remaining-tokens"] == "40"
    with pytest.raises(RateLimited, match="1 concurrent"):
        await enter(two, tokens=1)
    grant.used = 90
    grant.close()
    await until(lambda: not one._ending)
    with pytest.raises(RateLimited, match="100 tokens per minute"):
        await enter(two, tokens=20)
    assert (await enter(two, tokens=10)).headers()["x-ratelimit-remaining-requests"] == "48"


async def test_a_client_that_leaves_while_redis_is_asked_leaves_nothing_taken(shared: list[Shared]) -> None:
    """Whenever it leaves: its slot is free again for others, at once and not when a lease runs out."""
    limiter = Limiter(Rules(keys={"*": Rates(concurrent=1, tokens=100)}), shared[0])
    await _outcome(limiter)  # so that there is a connection
    other = Limiter(Rules(keys={"*": Rates(concurrent=1, tokens=100)}), shared[1])
    for turns in range(8):
        leaving = asyncio.create_task(enter(limiter, BOB))
        for _ in range(turns):
            await asyncio.sleep(0)  # one turn of the loop further each time
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            (await leaving).close()
        await until(lambda: not limiter._ending)
        grant = await enter(other, BOB, tokens=100)
        grant.close()
        await until(lambda: not other._ending)


@pytest.fixture
def blackhole() -> Iterator[str]:
    """A port that takes connections and never says a word."""
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize("refuse", [True, False])
async def test_a_redis_that_says_nothing_holds_nobody_up(blackhole: str, refuse: bool) -> None:
    """By the declared rule requests are refused or held to this process's share, and all of them soon; the
    processor's own time left out, it is the deadline of one command once, and then nothing."""
    shared = Shared(blackhole)
    limiter = Limiter(Rules(keys={"*": Rates(requests=20)}), shared, refuse=refuse, processes=4)
    begun = time.monotonic()
    first = await asyncio.gather(*(enter(limiter) for _ in range(10)), return_exceptions=True)
    waited_s = time.monotonic() - begun
    busy = time.process_time()
    then = time.monotonic()
    rest = [await _outcome(limiter) for _ in range(20)]
    assert time.monotonic() - then < 0.05 + 5 * (time.process_time() - busy)
    assert waited_s < 0.5  # 0.04 on a machine with nothing else to do
    expected = LimitsUnavailable if refuse else (Grant, RateLimited)
    assert all(isinstance(one, expected) for one in (*first, *rest))
    assert sum(isinstance(one, Grant) for one in (*first, *rest)) == (0 if refuse else 5)
    await limiter.aclose()


async def _outcome(limiter: Limiter) -> object:
    try:
        return await enter(limiter)
    except ApiError as error:
        return error


async def test_a_closed_port_is_told_at_once() -> None:
    """Nothing listens: the rule holds without any wait."""
    limiter = Limiter(
        Rules(keys={"*": Rates(requests=2)}), Shared(f"redis://127.0.0.1:{free_port()}"), processes=2
    )
    assert await let_in(limiter, 5) == 1
    await limiter.aclose()


async def test_a_redis_that_comes_back_is_used_again(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while one request asks again, and then all count together as before."""
    monkeypatch.setattr("gateway.limits.shared.AGAIN_S", 0.05)
    shared = Shared(redis_url, prefix="comes-back", timeout_s=PATIENT_S)
    shared._redis._port, port = free_port(), shared._redis._port
    limiter = Limiter(Rules(keys={"*": Rates(requests=1000)}), shared, processes=1000)
    assert await let_in(limiter, 3) == 1
    shared._redis._port = port
    await until(lambda: time.monotonic() > shared._again_at)
    assert await let_in(limiter, 1) == 1
    assert await let_in(limiter, 10) == 10
    await limiter.aclose()


async def test_redis_speaks_its_mind(redis_url: str) -> None:
    """An error of Redis's own is one of ours, and the connection goes on; so is a wrong password."""
    redis = Redis(redis_url, timeout_s=PATIENT_S)
    with pytest.raises(RedisError, match="unknown command"):
        await redis.call("NONSENSE")
    assert await redis.call("ECHO", "a\r\nb") == b"a\r\nb"
    assert await redis.call("GET", "nothing") is None
    await redis.aclose()
    stranger = Redis(redis_url.replace("s3cret", "wrong"), timeout_s=PATIENT_S)
    with pytest.raises(RedisError, match="WRONGPASS"):
        await stranger.call("PING")
    await stranger.aclose()


def test_no_secret_stands_in_the_limiters_own_words(tmp_path: Path) -> None:
    """A connection's error names no password."""
    redis = Redis("redis://:s3cret@127.0.0.1:1", timeout_s=1)
    with pytest.raises(RedisError) as caught:
        asyncio.run(redis.call("PING"))
    assert "s3cret" not in str(caught.value)

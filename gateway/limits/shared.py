"""Counters that several processes share, in Redis.

One script looks at all limits that it is given and takes from all of them or from none, so they are as exact
as in one process. It goes by Redis's own clock. A request that is under way holds a lease, which runs out by
itself should its process die.

While Redis cannot be reached it is asked again once in a while, by one request; all others are told at once.
"""

import time
from collections.abc import Mapping, Sequence
from secrets import token_hex

import msgspec

from gateway.errors import HeadgateError
from gateway.limits.redis import Redis, RedisError
from gateway.rates import Rates

TIMEOUT_S = 0.04  # for one command, so that a request waits less than 50 ms
AGAIN_S = 1.0  # after which a Redis that did not answer is asked again
LEASE_S = 900  # longer than any request lasts

# KEYS: one name for each limit. ARGV: tokens, lease's id, its seconds, then requests, tokens and concurrent
# for each limit, -1 for none. Returns 0, or the place and kind of the first that has no room and the
# milliseconds until it may; the second that was booked in; and for each limit what is used and for how many
# milliseconds, requests first.
_TAKE = """
local time = redis.call('TIME')
local now, exact = tonumber(time[1]), tonumber(time[1]) + tonumber(time[2]) / 1000000
local tokens = tonumber(ARGV[1])
local standings, lacking = {}, nil

local function window(name)
  local seconds, total, held = {}, 0, redis.call('HGETALL', name)
  for i = 1, #held, 2 do
    local second, amount = tonumber(held[i]), tonumber(held[i + 1])
    if second < now - 60 then
      redis.call('HDEL', name, held[i])
    else
      total = total + amount
      seconds[#seconds + 1] = {second, amount}
    end
  end
  table.sort(seconds, function(a, b) return a[1] < b[1] end)
  return seconds, total
end

local function wait(seconds, excess)
  local gone = 0
  for _, s in ipairs(seconds) do
    gone = gone + s[2]
    if gone >= excess then return math.ceil((s[1] + 61 - exact) * 1000) end
  end
  return 61000
end

for i, name in ipairs(KEYS) do
  local base = 3 + (i - 1) * 3
  local limits = {tonumber(ARGV[base + 1]), tonumber(ARGV[base + 2]), tonumber(ARGV[base + 3])}
  redis.call('ZREMRANGEBYSCORE', name .. ':c', '-inf', exact)
  if limits[3] >= 0 and not lacking and redis.call('ZCARD', name .. ':c') >= limits[3] then
    lacking = {i, 'concurrent', 1000}
  end
  for kind, suffix in ipairs({':r', ':t'}) do
    local seconds, total = window(name .. suffix)
    local amount = kind == 1 and 1 or tokens
    local over = total + amount - limits[kind]
    if limits[kind] >= 0 and over > 0 and not lacking then
      lacking = {i, kind == 1 and 'requests' or 'tokens', wait(seconds, over)}
    end
    standings[#standings + 1] = total
    standings[#standings + 1] = #seconds > 0 and math.ceil((seconds[#seconds][1] + 61 - exact) * 1000) or 0
  end
end
if lacking then return {lacking, now, standings} end

for i, name in ipairs(KEYS) do
  redis.call('HINCRBY', name .. ':r', now, 1)
  redis.call('HINCRBY', name .. ':t', now, tokens)
  redis.call('ZADD', name .. ':c', exact + tonumber(ARGV[3]), ARGV[2])
  redis.call('EXPIRE', name .. ':r', 70)
  redis.call('EXPIRE', name .. ':t', 70)
  redis.call('EXPIRE', name .. ':c', ARGV[3])
  standings[(i - 1) * 4 + 1] = standings[(i - 1) * 4 + 1] + 1
  standings[(i - 1) * 4 + 3] = standings[(i - 1) * 4 + 3] + tokens
  standings[(i - 1) * 4 + 2], standings[(i - 1) * 4 + 4] = 61000, 61000
end
return {0, now, standings}
"""
# KEYS as above. ARGV: the lease's id, the second that was booked in, tokens to add or, below zero, take back.
_GIVE_BACK = """
local now, by = tonumber(redis.call('TIME')[1]), tonumber(ARGV[3])
for _, name in ipairs(KEYS) do
  redis.call('ZREM', name .. ':c', ARGV[1])
  if by > 0 then
    redis.call('HINCRBY', name .. ':t', now, by)
    redis.call('EXPIRE', name .. ':t', 70)
  elseif by < 0 and redis.call('HEXISTS', name .. ':t', ARGV[2]) == 1 then
    redis.call('HINCRBY', name .. ':t', ARGV[2], by)
  end
end
return 1
"""


class Unreachable(HeadgateError):
    """Redis does not answer, or did not a moment ago."""


class Found(msgspec.Struct, frozen=True):
    """What a script saw and did."""

    lease: str
    second: int  # in which it was booked, by Redis's clock
    lacking: tuple[int, str, float] | None  # place of the limit, kind, seconds; None: all was taken
    standings: Mapping[str, list[tuple[int, int, float]]]  # kind -> limit, used, seconds until it is empty


class Shared:
    """The counters of all processes that use this Redis and prefix."""

    def __init__(self, url: str, *, prefix: str = "headgate", timeout_s: float = TIMEOUT_S) -> None:
        self._redis, self._prefix = Redis(url, timeout_s=timeout_s), prefix
        self._again_at = 0.0

    async def take(self, names: Sequence[str], rates: Sequence[Rates], tokens: int) -> Found:
        """Raises Unreachable."""
        now = time.monotonic()
        if now < self._again_at:
            raise Unreachable
        asking_again = self._again_at > 0
        if asking_again:
            self._again_at = now + AGAIN_S  # meanwhile nobody else does
        lease = token_hex(8)
        limits = [-1 if n is None else n for r in rates for n in (r.requests, r.tokens, r.concurrent)]
        try:
            reply = await self._call(_TAKE, names, tokens, lease, LEASE_S, *limits)
        except RedisError as error:
            self._again_at = time.monotonic() + AGAIN_S
            raise Unreachable from error
        self._again_at = 0.0
        return _found(lease, reply, rates)

    async def give_back(self, names: Sequence[str], found: Found, tokens: int) -> None:
        """`tokens`: how many more were used than were taken. What gets lost runs out by itself."""
        if time.monotonic() >= self._again_at:
            try:
                await self._call(_GIVE_BACK, names, found.lease, found.second, tokens)
            except RedisError:
                self._again_at = time.monotonic() + AGAIN_S

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def _call(self, script: str, names: Sequence[str], *arguments: str | int) -> list[object]:
        # In one hash slot, so that a cluster takes them too.
        keys = [f"{{{self._prefix}}}:{name}" for name in names]
        found: list[object] = await self._redis.call("EVAL", script, len(keys), *keys, *arguments)
        return found


def _found(lease: str, reply: list[object], rates: Sequence[Rates]) -> Found:
    lack, second, numbers = msgspec.convert(
        reply, tuple[int | tuple[int, bytes, int], int, list[int]], strict=False
    )
    standings: dict[str, list[tuple[int, int, float]]] = {"requests": [], "tokens": []}
    for place, rate in enumerate(rates):
        requests, requests_ms, tokens, tokens_ms = numbers[place * 4 : place * 4 + 4]
        if rate.requests is not None:
            standings["requests"].append((rate.requests, requests, requests_ms / 1e3))
        if rate.tokens is not None:
            standings["tokens"].append((rate.tokens, tokens, tokens_ms / 1e3))
    lacking = None if isinstance(lack, int) else (lack[0] - 1, lack[1].decode(), lack[2] / 1e3)
    return Found(lease, second, lacking, standings)

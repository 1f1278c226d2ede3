"""A bank under siege: gateways are killed, the database restarts, clients hang up; and the count.

Everything is real but the provider, which stands in this process so that its own count of every call survives
whatever is done to the gateways. It bills what it generated, whether anybody was there to hear it or not.

    Provider   OpenAI's wire; a line for each call with its tokens, by `x-client-request-id`
    Cluster    a PostgreSQL of one's own, which may be restarted
    Gateway    `headgate serve` as a process; all share one database and one state
    Clients    as many at once as are asked for, at a steady rate, of which some hang up
    Sampler    reads the budgets' windows twenty times a second and notes each that is over its cap
"""

import asyncio
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import msgspec
import yaml
from sqlalchemy import text

from gateway.admission import hash_key
from gateway.errors import HeadgateError
from gateway.ledger.database import open_engine, reading
from gateway.ledger.store import Store
from gateway.types import Outcome

ROOT = Path(__file__).parents[2]
KEYS = 8
# US dollars per million tokens: none of them makes whole nano-dollars.
PRICES = {"input": "0.1234567", "cached": "0.0308642", "output": "0.4938271", "reasoning": "0.6172839"}
RATES = {name: Fraction(price) * 1000 for name, price in PRICES.items()}  # nano-dollars a token
FLEX = Fraction(1, 2)
BYTES_PER_TOKEN = 2.5  # as the stand-in counts prompts
ABORTS, STREAMS = 0.1, 0.5  # shares of the requests
LONGEST_TEXT, MOST_TOKENS = 1500, 48
TOKEN_S = 0.01  # in which the stand-in makes one
COUNTED = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
# A request's mean cost, for caps that are reached in mid-run: 1,000 bytes and 25 tokens, a third in flex.
MEAN_NANO = 26_000


class Charged(msgspec.Struct, kw_only=True):
    """What the provider bills for one call."""

    key: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    service_tier: str

    @property
    def nano(self) -> int:
        """By arithmetic of its own: rounded half up, once."""
        exact = (
            (self.input_tokens - self.cached_input_tokens) * RATES["input"]
            + self.cached_input_tokens * RATES["cached"]
            + (self.output_tokens - self.reasoning_tokens) * RATES["output"]
            + self.reasoning_tokens * RATES["reasoning"]
        ) * (FLEX if self.service_tier == "flex" else 1)
        return int(exact + Fraction(1, 2))


class Provider:
    """The stand-in, and its books."""

    def __init__(self, chance: random.Random) -> None:
        self.calls: dict[str, Charged] = {}
        self.spent: Counter[str] = Counter()  # by key, and "" for all
        self.twice = 0
        self._chance = chance
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                await self._answer(headers["x-client-request-id"], body, reader, writer)
        writer.close()

    async def _answer(
        self, call_id: str, body: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Bills as it goes: what was generated is owed, also when the other end is gone."""
        said = body["messages"][0]["content"]
        prompt = int(len(said) / BYTES_PER_TOKEN) + 1
        tier = self._chance.choice(["default", "default", "flex"])
        wanted = self._chance.randint(1, body["max_tokens"])
        owed = Charged(
            key=body["user"],
            input_tokens=prompt,
            cached_input_tokens=self._chance.randint(0, prompt),
            output_tokens=0,
            reasoning_tokens=0,
            service_tier=tier,
        )
        try:
            if body.get("stream"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
                writer.write(b"transfer-encoding: chunked\r\n\r\n")
                chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
                while owed.output_tokens < wanted and not reader.at_eof() and not writer.is_closing():
                    await asyncio.sleep(TOKEN_S)  # it takes its time to make one
                    owed.output_tokens += 1
                    delta = {"index": 0, "delta": {"content": "x "}, "finish_reason": None}
                    _send(writer, {**chunk, "choices": [delta]})
                _send(writer, {**chunk, "choices": [], "usage": _wire(owed), "service_tier": tier})
                _send(writer, "[DONE]")
                writer.write(b"0\r\n\r\n")
            else:
                await asyncio.sleep(TOKEN_S * wanted)
                owed.output_tokens = wanted
                owed.reasoning_tokens = self._chance.randint(0, wanted)
                message = {
                    "index": 0,
                    "message": {"role": "assistant", "content": "x"},
                    "finish_reason": "stop",
                }
                answer = {"id": "c", "object": "chat.completion", "created": 1, "model": "m"}
                answer |= {"choices": [message], "usage": _wire(owed), "service_tier": tier}
                data = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(data), data))
        finally:
            self.twice += call_id in self.calls
            self.calls[call_id] = owed
            self.spent[owed.key] += owed.nano
            self.spent[""] += owed.nano
        await writer.drain()

    def write_account(self, path: Path) -> None:
        """The provider's own account, as `headgate prices reconcile` reads it: tokens, no costs."""
        with path.open("w", newline="") as file:
            lines = csv.writer(file)
            lines.writerow(["call_id", *COUNTED, "service_tier"])
            for call_id, owed in self.calls.items():
                tier = "flex" if owed.service_tier == "flex" else ""
                lines.writerow([call_id, *(getattr(owed, name) for name in COUNTED), tier])


def _send(writer: asyncio.StreamWriter, data: Any) -> None:
    if writer.is_closing():
        return
    line = f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(line), line))


def _wire(owed: Charged) -> dict[str, Any]:
    return {
        "prompt_tokens": owed.input_tokens,
        "completion_tokens": owed.output_tokens,
        "total_tokens": owed.input_tokens + owed.output_tokens,
        "prompt_tokens_details": {"cached_tokens": owed.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": owed.reasoning_tokens},
    }


class Cluster:
    """A PostgreSQL server with data of its own."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.port = free_port()
        self.url = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"
        self._data, self._binaries = folder / "pg", binaries
        self._data.mkdir()
        if os.geteuid() == 0:  # the server refuses to be root
            for path in (folder, self._data):
                shutil.chown(path, "postgres")
        self._run("initdb", "-D", str(self._data), "-U", "postgres", "-A", "trust", "--no-sync")
        with (self._data / "postgresql.conf").open("a") as conf:
            conf.write(f"port={self.port}\nlisten_addresses='127.0.0.1'\n")
            conf.write(f"unix_socket_directories='{self._data}'\nmax_connections=200\n")
        self._control("start")

    @staticmethod
    def binaries() -> Path | None:
        """Where the server's programs are; None: they are not installed."""
        places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        found = shutil.which("initdb") or (places[-1] if places else None)
        return None if found is None else Path(found).parent

    def restart(self, mode: str) -> None:
        """`fast` ends connections in order, `immediate` is a crash with recovery."""
        self._control("restart", "-m", mode)

    def stop(self) -> None:
        self._control("stop", "-m", "immediate")

    def _control(self, *words: str) -> None:
        self._run("pg_ctl", "-w", "-t", "60", "-D", str(self._data), "-l", str(self._data / "log"), *words)

    def _run(self, program: str, *words: str) -> None:
        as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_user, str(self._binaries / program), *words]
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd="/")


class Gateway:
    """One `headgate serve`, started anew as often as it is killed."""

    def __init__(self, folder: Path, number: int, config: dict[str, Any]) -> None:
        self.port = free_port()
        self._path, self._log = folder / f"gateway-{number}.yaml", folder / f"gateway-{number}.log"
        self._path.write_text(yaml.safe_dump(config | {"listen": {"port": self.port}}))
        self._spool = folder / "var" / "spool"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        return self._path

    def start(self) -> None:
        code = "from gateway.cli.main import main; main()"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code, "serve", "--config", str(self._path)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            )

    async def ready(self, deadline_s: float = 90.0) -> None:
        """Waits until it may be sent traffic."""
        until = time.monotonic() + deadline_s
        while not await asyncio.to_thread(self._is_ready):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"a gateway does not start: {self._log.read_text()[-2000:]}")
            await asyncio.sleep(0.1)

    def kill(self) -> int:
        """kill -9, and then some of what it had settled is settled once more. Returns how many lines."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        (left,) = self._spool.glob(f"{self._process.pid}-*")
        newest = max(left.glob("*.log"))
        settled = [line for line in newest.read_bytes().split(b"\n")[:-1] if line.startswith(b"S ")][-20:]
        with newest.open("ab") as spool:
            spool.write(b"\n" + b"".join(line + b"\n" for line in settled))
        return len(settled)

    def end(self) -> int:
        """An orderly end; the exit status."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def destroy(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


class Sampler:
    """Looks at the database's own count of the budgets until it is stopped."""

    def __init__(self, url: str, caps: dict[str, int]) -> None:
        self.caps, self.spent = caps, dict.fromkeys(caps, 0)
        self.samples = self.missed = self.overruns = self.expired = 0
        self.worst = ""
        self._engine, self._stopping = open_engine(url), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def close(self) -> None:
        self._engine.dispose()

    def leased(self) -> int:
        """Nano-dollars that some process still has leased."""
        with reading(self._engine) as connection:
            windows = "SELECT COALESCE(SUM(leased_nano), 0) FROM budget_window"
            leases = "SELECT COALESCE(SUM(ABS(left_nano)), 0) FROM budget_lease"
            return sum(int(connection.execute(text(query)).scalar_one()) for query in (windows, leases))

    def charged(self) -> dict[str, int]:
        """What each budget says is spent."""
        with reading(self._engine) as connection:
            found = connection.execute(text("SELECT budget, spent_nano FROM budget_window")).all()
            return {row[0]: row[1] for row in found}

    def _run(self) -> None:
        while not self._stopping.wait(0.05):
            try:
                self._look()
            except HeadgateError:  # it is being restarted
                self.missed += 1

    def _look(self) -> None:
        with reading(self._engine, one_instant=True) as connection:
            found = connection.execute(
                text("SELECT budget, spent_nano, leased_nano FROM budget_window")
            ).all()
            late = "SELECT COUNT(*) FROM budget_lease WHERE expires_ns < :now AND left_nano > 0"
            self.expired += connection.execute(text(late), {"now": time.time_ns()}).scalar_one()
        self.samples += 1
        for budget, spent, leased in found:
            self.spent[budget] = spent
            if spent + leased > self.caps[budget]:
                self.overruns += 1
                self.worst = f"{budget}: {spent} spent + {leased} leased > {self.caps[budget]}"


class Clients:
    """Requests from all keys to all gateways."""

    def __init__(self, bank: "Bank") -> None:
        self._bank, self.said = bank, Counter[str]()
        self.held: Counter[str] = Counter()  # by key: what the requests on their way may cost at most
        self.false_refusals: list[str] = []

    async def run(self, count: int, per_second: float) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(self._client(count / per_second))

    async def _client(self, pause_s: float) -> None:
        chance = self._bank.chance
        while not self._bank.over:
            began = time.monotonic()
            await self._ask()
            think_s = chance.expovariate(1 / pause_s) - (time.monotonic() - began)
            await asyncio.sleep(max(0.0, think_s))

    async def _ask(self) -> None:
        chance, key = self._bank.chance, f"k{self._bank.chance.randrange(KEYS)}"
        body = {
            "model": "m",
            "user": key,
            "messages": [{"role": "user", "content": "word " * chance.randint(1, LONGEST_TEXT // 5)}],
            "max_tokens": chance.randint(1, MOST_TOKENS),
            "stream": chance.random() < STREAMS,
        }
        data = json.dumps(body).encode()
        amount = held_nano(len(data))
        self.held[key] += amount
        patience = chance.expovariate(1 / 0.2) if chance.random() < ABORTS else 30.0
        try:
            async with asyncio.timeout(patience):
                said = await self._exchange(key, data)
        except TimeoutError:
            said = "hung up"
        except (OSError, IndexError, ValueError):  # the gateway was killed, and its answer is not whole
            said = "cut off"
        finally:
            self.held[key] -= amount
        self.said[said] += 1

    async def _exchange(self, key: str, data: bytes) -> str:
        port = self._bank.chance.choice(self._bank.gateways).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: bank\r\nconnection: close\r\n")
            writer.write(f"authorization: Bearer sk-bank-{key}\r\n".encode())
            writer.write(b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data))
            writer.write(data)
            answer = await reader.read(-1)
        finally:
            writer.close()
        status = int(answer.split(b" ", 2)[1])
        if status == 429:
            self._refused(answer)
        return str(status)

    def _refused(self, answer: bytes) -> None:
        """Held against what the database says is spent, and what may be held for requests on their way."""
        message = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["message"]
        budget = message.split("'")[1]
        cap, spent = self._bank.sampler.caps[budget], self._bank.sampler.spent[budget]
        held = sum(self.held[key] for key in keys_of(budget))
        free = (cap - spent - held) / cap
        if free >= 0.1:
            self.false_refusals.append(f"{budget}: {free:.1%} free")


class Bank:
    """All of it, in one folder."""

    def __init__(
        self, folder: Path, url: str, gateways: int, caps: dict[str, int], provider: Provider
    ) -> None:
        self.until, self.calls_at_least = 0.0, 0
        self.folder, self.url, self.provider = folder, url, provider
        self.chance = random.Random(0)
        config = configuration(url, provider.port, caps)
        (folder / "policy.yaml").write_text(yaml.safe_dump(POLICY))
        self.gateways = [Gateway(folder, n, config) for n in range(gateways)]
        self.sampler = Sampler(url, caps)
        self.clients = Clients(self)
        self.kills = self.repeated = self.restarts = 0

    async def open(self) -> None:
        for gateway in self.gateways:
            gateway.start()
        for gateway in self.gateways:
            await gateway.ready()

    @property
    def over(self) -> bool:
        """Whether time is up and enough has happened; a slow machine gets two minutes more for that."""
        late = time.monotonic() - self.until
        return late > 0 and (
            late > 120 or (self.kills > 0 and len(self.provider.calls) >= self.calls_at_least)
        )

    async def siege(self, cluster: Cluster | None, kill_s: float, restart_s: float) -> None:
        """Kills a gateway every `kill_s` seconds or so, and restarts the database every `restart_s`."""
        restart_at = time.monotonic() + restart_s
        while not self.over:
            await asyncio.sleep(self.chance.uniform(0.5, 1.5) * kill_s)
            gateway = self.chance.choice(self.gateways)
            self.repeated += await asyncio.to_thread(gateway.kill)
            self.kills += 1
            gateway.start()
            if cluster is not None and time.monotonic() > restart_at:
                mode = self.chance.choice(["fast", "immediate"])
                await asyncio.to_thread(cluster.restart, mode)
                self.restarts += 1
                restart_at = time.monotonic() + restart_s
            await gateway.ready()

    def close(self) -> None:
        """An orderly end of all."""
        for gateway in self.gateways:
            status = gateway.end()
            if status != 0:
                raise RuntimeError(f"a gateway ended with status {status}")

    def destroy(self) -> None:
        for gateway in self.gateways:
            gateway.destroy()


class Result(msgspec.Struct, kw_only=True):
    """What a run came to. Amounts in nano-dollars."""

    calls: int  # that the provider answered
    said: dict[str, int]  # what clients saw
    kills: int
    repeated: int  # settled lines that were settled again
    restarts: int  # of the database
    samples: int
    lost: int  # rows of calls that a killed gateway did not settle
    estimated: int  # rows with estimated tokens, those included
    overruns: int  # samples with more spent and leased than the cap
    worst: str
    over_cap: int  # the provider's count beyond a cap, at the end, of the worst budget
    false_refusals: list[str]
    expired: int  # leases seen beyond their expiry
    leased: int  # left when all had ended
    mischarged: int  # between what budgets say is spent and the ledger's rows, before anything was reconciled
    missing: int  # calls of the provider's that the ledger does not have
    whole_difference: int  # over the calls that ended well, before anything was reconciled
    difference: int  # of all, after the provider's account was read in


async def besieged(
    folder: Path,
    url: str,
    *,
    gateways: int,
    clients: int,
    per_second: float,
    seconds: float,
    kill_s: float,
    restart_s: float = 1e9,
    cluster: Cluster | None = None,
    calls_at_least: int = 0,
) -> Result:
    """One run, until time is up and the provider had that many calls.

    Raises RuntimeError where a gateway does not start or end as it should.
    """
    chance = random.Random(1)
    provider = Provider(chance)
    caps = caps_for(per_second * seconds * MEAN_NANO)
    async with provider.running():
        bank = Bank(folder, url, gateways, caps, provider)
        try:
            await bank.open()
            bank.until, bank.calls_at_least = time.monotonic() + seconds, calls_at_least
            async with asyncio.TaskGroup() as group:
                group.create_task(bank.clients.run(clients, per_second))
                group.create_task(bank.siege(cluster, kill_s, restart_s))
            await asyncio.to_thread(bank.close)
        finally:
            bank.destroy()
            bank.sampler.stop()
    return _counted(bank)


def _counted(bank: Bank) -> Result:
    """The ledger against the provider's books, before and after those are read in."""
    provider, store = bank.provider, Store(bank.url)
    rows = [row for row in store.last(10_000_000) if row.backend]
    whole = {r.call_id: r for r in rows if r.outcome is Outcome.OK and not r.usage.estimated}
    off = sum(abs((r.cost_nano or 0) - provider.calls[id].nano) for id, r in whole.items())
    missing = len(provider.calls.keys() - {row.call_id for row in rows})
    leased, charged = bank.sampler.leased(), bank.sampler.charged()
    bank.sampler.close()
    booked = Counter[str]()
    for row in rows:
        booked[row.key_id] += row.cost_nano or 0
    mischarged = sum(abs(n - sum(booked[key] for key in keys_of(name))) for name, n in charged.items())
    provider.write_account(bank.folder / "account.csv")
    words = ["prices", "reconcile", str(bank.folder / "account.csv"), "--complete", "rented"]
    words += ["--config", str(bank.gateways[0].path)]
    subprocess.run(
        [sys.executable, "-c", "from gateway.cli.main import main; main()", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        timeout=300,
    )
    (sums,) = store.sums([])
    store.close()
    sampler, clients = bank.sampler, bank.clients
    over = [sum(provider.spent[key] for key in keys_of(name)) - cap for name, cap in sampler.caps.items()]
    return Result(
        calls=len(provider.calls),
        said=dict(clients.said),
        kills=bank.kills,
        repeated=bank.repeated,
        restarts=bank.restarts,
        samples=sampler.samples,
        lost=sum(row.outcome is Outcome.LOST for row in rows),
        estimated=sum(row.usage.estimated for row in rows),
        overruns=sampler.overruns,
        worst=sampler.worst,
        over_cap=max(0, *over),
        false_refusals=clients.false_refusals,
        expired=sampler.expired,
        leased=leased,
        mischarged=mischarged,
        missing=missing,
        whole_difference=off,
        difference=abs((sums.cost_nano or 0) - provider.spent[""]),
    )


POLICY: dict[str, Any] = {
    "name": "bank",
    "version": 1,
    "routes": [{"name": "all", "match": {}, "targets": [{"backend": "rented"}]}],
}


def caps_for(expected_nano: float) -> dict[str, int]:
    """Budget -> cap: for all, which holds; for each half and each key, of which some run dry in mid-run."""
    least = 50 * held_nano(LONGEST_TEXT + 200)  # so that one request is a small part of each
    caps = {"all": expected_nano * 3, "left": expected_nano * 0.3, "right": expected_nano * 0.8}
    for n in range(KEYS):
        caps[f"k{n}"] = expected_nano / KEYS * (0.4 + 0.4 * (n % 4))
    return {name: max(least, int(cap)) for name, cap in caps.items()}


def held_nano(nbytes: int) -> int:
    """The most that is held for a request of so many bytes."""
    return int(nbytes / 1.5 * RATES["input"] + MOST_TOKENS * RATES["reasoning"]) + 1


def keys_of(budget: str) -> list[str]:
    keys = [f"k{n}" for n in range(KEYS)]
    halves = {"all": keys, "left": keys[: KEYS // 2], "right": keys[KEYS // 2 :]}
    return halves.get(budget, [budget])


def configuration(url: str, provider: int, caps: dict[str, int]) -> dict[str, Any]:
    scopes = {"all": {}, "left": {"team": "left"}, "right": {"team": "right"}}
    return {
        "policy": "policy.yaml",
        "database": url,
        "zones": {"home": {"ceiling": "restricted", "local": True}},
        "backends": {
            "rented": {
                "kind": "openai",
                "zone": "home",
                "url": f"http://127.0.0.1:{provider}/v1",
                "models": ["m"],
                "price_as": "standin",
            }
        },
        "keys": [
            {
                "id": f"k{n}",
                "sha256": hash_key(f"sk-bank-k{n}"),
                "team": "left" if n < KEYS // 2 else "right",
            }
            for n in range(KEYS)
        ],
        "prices": {"standin/m": {**PRICES, "factors": {"flex": "0.5"}}},
        "budgets": [
            {"id": name, "usd": f"{cap}e-9", "per": "total", **scopes.get(name, {"key": name})}
            for name, cap in caps.items()
        ],
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def own_folder() -> Iterator[Path]:
    """One that PostgreSQL's user may enter."""
    with tempfile.TemporaryDirectory(prefix="headgate-bank-") as name:
        Path(name).chmod(0o755)
        yield Path(name)

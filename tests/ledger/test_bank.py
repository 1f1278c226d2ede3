"""The bank test in short: see `tests/support/bank.py`. `make bench-bank` runs it for five minutes."""

import asyncio

import pytest

from tests.support.bank import Cluster, Result, besieged, own_folder

BINARIES = Cluster.binaries()
CALLS = 60


def check(result: Result) -> None:
    """Nothing is over its cap, lost, doubled, refused without need or left behind; to the nano-dollar."""
    assert result.overruns == 0, result.worst
    assert result.mischarged == 0
    assert result.missing == 0
    assert result.whole_difference == 0
    assert result.difference == 0
    assert result.false_refusals == []
    assert result.expired == 0
    assert result.leased == 0
    assert result.kills > 0
    assert result.repeated > 0
    assert result.calls >= CALLS
    assert result.samples > 20


@pytest.mark.skipif(BINARIES is None, reason="PostgreSQL's initdb is not installed")
def test_two_gateways_on_postgresql() -> None:
    """Killed in turn, with the database restarted in between and clients that hang up."""
    assert BINARIES is not None
    with own_folder() as folder:
        cluster = Cluster(folder, BINARIES)
        try:
            run = besieged(
                folder,
                cluster.url,
                gateways=2,
                clients=32,
                per_second=30,
                seconds=6,
                kill_s=1.0,
                restart_s=0.0,
                cluster=cluster,
                calls_at_least=CALLS,
            )
            result = asyncio.run(run)
        finally:
            cluster.stop()
    check(result)
    assert result.restarts > 0


def test_one_gateway_on_sqlite() -> None:
    """The same with a file for a database."""
    with own_folder() as folder:
        url = f"sqlite:///{folder}/bank.db"
        run = besieged(
            folder, url, gateways=1, clients=32, per_second=30, seconds=4, kill_s=1.5, calls_at_least=CALLS
        )
        check(asyncio.run(run))

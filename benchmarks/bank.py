"""Money under siege: gateways killed, the database restarted, clients that hang up; to the nano-dollar.

Run: `make bench-bank`; `ARGS="--seconds 30"` makes it shorter than the five minutes on PostgreSQL and one on
SQLite. PostgreSQL is a server of the run's own, since it is restarted; where `initdb` is not installed that
part is left out. `tests/support/bank.py` says what is real and how it is counted.

    bank_overruns           samples of the database in which more was spent and leased than a budget's cap
    bank_difference_nano    between the ledger and the provider's own count, once that was read in
    bank_whole_difference_nano  the same over the calls that ended well, before it was
    bank_mischarged_nano    between what budgets say is spent and the ledger's rows, before it was
    bank_missing            calls of the provider's that the ledger does not have
    bank_false_refusals     while a tenth of the budget or more was neither spent nor held
    bank_expired            leases seen beyond their expiry
    bank_leased_nano        still leased when all had ended in order
    bank_over_cap_nano      that the provider counted beyond a cap: cut-off calls that were estimated too low

Ends with status 1 when one of these but the last is not 0.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
from pathlib import Path

import msgspec

from tests.support.bank import Cluster, Result, besieged, own_folder

OUT = Path(__file__).parent / "out" / "bank.json"
CLIENTS, PER_SECOND = 64, 40.0
MUST_BE_ZERO = (
    *("bank_overruns", "bank_difference_nano", "bank_whole_difference_nano", "bank_mischarged_nano"),
    *("bank_missing", "bank_false_refusals", "bank_expired", "bank_leased_nano"),
)


def on_postgresql(seconds: float, per_second: float) -> Result | None:
    binaries = Cluster.binaries()
    if binaries is None:
        print("PostgreSQL's initdb is not installed: that part is left out")
        return None
    with own_folder() as folder:
        cluster = Cluster(folder, binaries)
        try:
            run = besieged(
                folder,
                cluster.url,
                gateways=4,
                clients=CLIENTS,
                per_second=per_second,
                seconds=seconds,
                kill_s=6.0,
                restart_s=25.0,
                cluster=cluster,
            )
            return asyncio.run(run)
        finally:
            cluster.stop()


def on_sqlite(seconds: float, per_second: float) -> Result:
    with own_folder() as folder:
        url = f"sqlite:///{folder}/bank.db"
        run = besieged(
            folder, url, gateways=1, clients=CLIENTS, per_second=per_second, seconds=seconds, kill_s=10.0
        )
        return asyncio.run(run)


def figures_of(result: Result) -> dict[str, float]:
    return {
        "bank_overruns": result.overruns,
        "bank_difference_nano": result.difference,
        "bank_whole_difference_nano": result.whole_difference,
        "bank_mischarged_nano": result.mischarged,
        "bank_missing": result.missing,
        "bank_false_refusals": len(result.false_refusals),
        "bank_expired": result.expired,
        "bank_leased_nano": result.leased,
        "bank_over_cap_nano": result.over_cap,
        "bank_calls": result.calls,
        "bank_kills": result.kills,
        "bank_restarts": result.restarts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="The bank's suite.")
    parser.add_argument("--seconds", type=float, default=300.0, help="on PostgreSQL; a fifth of it on SQLite")
    parser.add_argument("--per-second", type=float, default=PER_SECOND, help="requests")
    parser.add_argument("--sqlite-only", action="store_true")
    asked = parser.parse_args()
    results = {
        "postgresql": None if asked.sqlite_only else on_postgresql(asked.seconds, asked.per_second),
        "sqlite": on_sqlite(asked.seconds / 5, asked.per_second),
    }
    figures: dict[str, float] = {}
    for name, result in results.items():
        if result is not None:
            print(name, msgspec.json.format(msgspec.json.encode(result)).decode())
            prefix = "" if name == "postgresql" else "sqlite_"
            figures |= {f"{prefix}{figure}": value for figure, value in figures_of(result).items()}
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": sys.version.split()[0]}
    line = json.dumps({"suite": "bank", "figures": figures, "machine": machine})
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(line + "\n")
    print(line)
    wrong = [name for name in figures if name.removeprefix("sqlite_") in MUST_BE_ZERO and figures[name]]
    if wrong:
        sys.exit(f"not 0: {', '.join(wrong)}")


if __name__ == "__main__":
    main()

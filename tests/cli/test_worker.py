"""`headgate worker`: what it needs is said before it takes a job, and an orderly end is one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.api.test_fine_tuning import BACKENDS, POLICY
from tests.support.stack import ADMIN_KEY, configuration, write_config

HEADGATE = Path(sys.executable).parent / "headgate"


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    document = configuration("http://127.0.0.1:9", "http://127.0.0.1:9") | {"backends": BACKENDS}
    rest = {name: value for name, value in os.environ.items() if name != "HEADGATE_ADMIN_KEY"}
    return subprocess.Popen(
        [HEADGATE, "worker", "--config", write_config(folder, document, POLICY)],
        env=rest | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_worker_without_a_key_says_so(tmp_path: Path) -> None:
    """Hours of training would end in a release that is refused."""
    out, error = start(tmp_path).communicate(timeout=60)
    assert "set HEADGATE_ADMIN_KEY" in " ".join(error.split())
    assert out == ""


def test_a_worker_ends_when_it_is_told_to(tmp_path: Path) -> None:
    """SIGTERM: status 0, and nothing to complain of."""
    worker = start(tmp_path, HEADGATE_ADMIN_KEY=ADMIN_KEY)
    assert worker.stdout is not None
    assert "takes jobs; adapters are released at http://127.0.0.1:4000" in worker.stdout.readline()
    worker.send_signal(signal.SIGTERM)
    _, error = worker.communicate(timeout=60)
    assert (worker.returncode, error) == (0, "")

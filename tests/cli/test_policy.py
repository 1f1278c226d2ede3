"""`headgate policy verify` as a process: what it proves, and what it says of names."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLE = Path(__file__).parents[2] / "deploy" / "example"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("headgate.yaml", "policy.yaml"):
        (tmp_path / name).write_text((EXAMPLE / name).read_text())
    return tmp_path


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    code = "from gateway.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "policy", "verify", "--config", str(folder / "headgate.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def change(path: Path, key: str, value: object) -> None:
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), key: value}))


def test_it_says_that_names_are_not_covered(folder: Path) -> None:
    """With no recogniser switched on, the proof is followed by what no detector looks for."""
    ended = verify(folder)
    assert ended.returncode == 0
    assert "names and addresses are not covered" in ended.stdout


def test_a_policy_that_requires_names_needs_a_recogniser(folder: Path) -> None:
    """Refused while it is off; with it on, the measured recall and precision are shown."""
    change(folder / "policy.yaml", "requires", ["names"])
    refused = verify(folder)
    assert refused.returncode == 2
    assert 'requires[0]: no detector "names" is switched on; there are: structured' in refused.stderr
    change(folder / "headgate.yaml", "privacy", {"recogniser": {"kind": "bundled"}})
    taken = verify(folder)
    assert taken.returncode == 0
    assert "bundled; recall/precision by character held-out locales: person 0." in taken.stdout


def test_it_says_what_has_no_price(folder: Path) -> None:
    """A rented model that nobody lists is no leak, and no secret either."""
    assert "no price is known" not in verify(folder).stdout
    for name in ("headgate.yaml", "policy.yaml"):
        path = folder / name
        path.write_text(path.read_text().replace("gpt-4o-mini", "gpt-nobody-lists"))
    change(folder / "headgate.yaml", "prices", {})
    ended = verify(folder)
    assert ended.returncode == 0, ended.stderr
    assert "openai/gpt-nobody-lists: no price is known" in ended.stdout

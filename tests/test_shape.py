"""The architecture holds: layers, sizes, and what a serving process never loads."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.backends.cloud_providers import PROVIDERS
from gateway.settings import LitellmSettings

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "finetune", "router_policies", "adapters")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
# The marks are put together here, so that this file does not hold them.
UNFINISHED = re.compile(
    r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")) + r")\b"
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_finished_and_of_one_thing(path: Path) -> None:
    """No module over 500 lines, none with a promise in place of code, each with a docstring."""
    text = path.read_text()
    assert text.count("\n") <= 500
    assert not UNFINISHED.search(text)
    assert not text or text.startswith('"""')


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    linter = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [linter, "--no-cache"], cwd=root, capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and their contracts, to plant violations in."""
    root = tmp_path_factory.mktemp("copy")
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, root / package, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
        )
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


@pytest.mark.parametrize(
    ("module", "planted"),
    [
        ("router_policies/decide.py", "import httpx"),
        ("router_policies/types.py", "import gateway.types"),
        ("adapters/store.py", "import torch"),
        ("adapters/store.py", "import finetune.dataset"),
        ("gateway/ledger/store.py", "import gateway.pipeline"),
        ("gateway/pipeline.py", "import litellm"),
        ("gateway/app.py", "import finetune.train"),
        ("finetune/dataset.py", "import gateway.errors"),
    ],
)
def test_a_planted_violation_fails(copy: Path, module: str, planted: str) -> None:
    """Each contract can fail: an import against the grain is found."""
    path = copy / module
    original = path.read_text()
    docstring_end = original.index('"""', 3) + 3
    try:
        path.write_text(f"{original[:docstring_end]}\n\n{planted}\n{original[docstring_end:]}")
        found = lint(copy)
    finally:
        path.write_text(original)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "BROKEN" in found.stdout


def test_the_contracts_hold(copy: Path) -> None:
    """The same run on the code as it is passes, so the failures above are the planted lines'."""
    found = lint(copy)
    assert found.returncode == 0, found.stdout + found.stderr


def test_serving_loads_neither_torch_nor_litellm() -> None:
    """Importing the whole gateway loads no training library, and litellm only where it is configured."""
    heavy = ("torch", "transformers", "peft", "bitsandbytes", "litellm", "vllm")
    code = f"import sys, gateway.app, gateway.cli.main; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert found.stdout.strip() == "[]"


def test_configurable_providers_are_the_proved_ones() -> None:
    """The configuration offers exactly the providers that were seen to go through the one door."""
    annotation = LitellmSettings.model_fields["provider"].annotation
    assert set(getattr(annotation, "__args__", ())) == set(PROVIDERS)

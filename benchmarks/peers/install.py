"""Where peers come from: pip into a virtual environment each, npm, Debian. What is there already is kept."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

HOME = Path(os.environ.get("HEADGATE_BENCH_HOME", Path.home() / ".cache" / "headgate-bench"))
TIMEOUT_S = 900


class NotInstalled(Exception):
    """Its registry or its tool said no."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask which registry for; each `pip` set has a virtual environment of its own."""

    pip: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()
    apt: str = ""  # package and program


def binaries(name: str) -> Path:
    return HOME / f"venv-{name}" / "bin"


def node_modules() -> Path:
    return HOME / "npm" / "node_modules"


def install(name: str, source: Source) -> None:
    """Raises NotInstalled."""
    HOME.mkdir(parents=True, exist_ok=True)
    if source.pip:
        _once(binaries(name).parent, source.pip, lambda: _pip(name, source.pip))
    if source.npm:
        _once(node_modules().parent, source.npm, lambda: _npm(source.npm))
    if source.apt and not shutil.which(source.apt):
        _run("apt-get", "update", "-q")
        _run("apt-get", "install", "-y", "-q", source.apt)


def _once(folder: Path, wanted: tuple[str, ...], action: Callable[[], None]) -> None:
    """Runs `action` unless `folder` says that just this was installed there to the end."""
    note = folder / ".installed"
    text = "\n".join(wanted)
    if not note.exists() or note.read_text() != text:
        action()
        note.write_text(text)


def _pip(name: str, wanted: tuple[str, ...]) -> None:
    _run(sys.executable, "-m", "venv", str(binaries(name).parent))
    _run(str(binaries(name) / "pip"), "install", "-q", *wanted)


def _npm(wanted: tuple[str, ...]) -> None:
    node_modules().mkdir(parents=True, exist_ok=True)
    _run("npm", "install", "--silent", "--prefix", str(node_modules().parent), *wanted)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)
    except FileNotFoundError as error:
        raise NotInstalled(f"there is no {command[0]} here") from error
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{command[0]} took over {TIMEOUT_S} s") from error
    except subprocess.CalledProcessError as error:
        words = (error.stderr or error.stdout or "").strip().splitlines()[-1:]
        raise NotInstalled(f"{' '.join(command[:3])}…: {''.join(words)}") from error

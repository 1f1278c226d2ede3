"""Where artifacts are kept: `<root>/<name>/<digest12>/` with three files, never changed once they are there.

Nothing is believed: what comes in is copied first and then judged as it was copied, and what is read is
digested again. Only the three known files are ever copied, so a pickle cannot slip in beside the weights.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from adapters.errors import ArtifactRefused, ArtifactTampered, UnknownRelease
from adapters.lora_rules import weight_faults
from adapters.manifest import (
    MANIFEST_FILE,
    WEIGHT_FILES,
    Manifest,
    combined_digest,
    digest_files,
)
from adapters.names import is_name, split_release

FILES = (MANIFEST_FILE, *WEIGHT_FILES)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
DEFAULT_MAX_RANK = 16  # vLLM's own default of --max-lora-rank


class ArtifactStore:
    """Artifacts below one folder, which the replicas see under the same path.

    `max_rank` is the highest rank that every replica serves (`--max-lora-rank`).
    """

    def __init__(self, root: Path, *, max_rank: int = DEFAULT_MAX_RANK) -> None:
        self._root, self._max_rank = root.resolve(), max_rank

    def put(self, source: Path) -> Manifest:
        """Take in the adapter in `source` and return its manifest; ArtifactRefused says all that is wrong.

        Atomic: the artifact appears as a whole or not at all. The same adapter again is no change, and the
        manifest that came first stays.
        """
        problems = tuple(_source_faults(source))
        if problems:
            raise ArtifactRefused(str(source), problems)
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".incoming-") as incoming:
            return self._take_in(source, Path(incoming) / "artifact")

    def _take_in(self, source: Path, copy: Path) -> Manifest:
        copy.mkdir()
        for name in FILES:
            _copy_durably(source / name, copy / name)
        manifest, problems = _judge(copy, self._max_rank)
        if manifest is None or problems:
            raise ArtifactRefused(str(source), problems)
        home = self._home(manifest.release)
        home.parent.mkdir(exist_ok=True)
        try:
            copy.rename(home)
        except OSError:
            if not home.is_dir():
                raise
            return self.get(manifest.release)  # it is here already, perhaps since a moment ago
        return manifest

    def get(self, release: str) -> Manifest:
        """The manifest, after its files have been digested again.

        Raises UnknownRelease, or ArtifactTampered when anything is no longer what was stored.
        """
        home = self.path(release)
        added = tuple(_added(home))
        if added:
            raise ArtifactTampered(release, added)
        manifest, problems = _judge(home, self._max_rank)
        if manifest is None or problems:
            raise ArtifactTampered(release, problems)
        if manifest.release != release:
            raise ArtifactTampered(release, [f"the files are those of {manifest.release}"])
        return manifest

    def export(self, release: str, target: Path) -> Manifest:
        """Copy a release, verified, into a new folder that PEFT loads as it is; the manifest lies beside.

        Raises UnknownRelease, ArtifactTampered, or FileExistsError when `target` is there.
        """
        manifest, home = self.get(release), self.path(release)
        target.mkdir(parents=True)
        for name in FILES:
            _copy_durably(home / name, target / name)
        if digest_files(target, WEIGHT_FILES) != manifest.files:
            raise ArtifactTampered(release, ["its files changed while they were copied"])
        return manifest

    def path(self, release: str) -> Path:
        """The absolute folder of a release. UnknownRelease when there is none."""
        home = self._home(release)
        if not home.is_dir():
            raise UnknownRelease(release)
        return home

    def list(self) -> tuple[str, ...]:
        """The releases that are here, by name and digest; none of them is verified."""
        homes = self._root.glob("*/*") if self._root.is_dir() else ()
        return tuple(sorted(f"{home.parent.name}@{home.name}" for home in homes if is_name(home.parent.name)))

    def _home(self, release: str) -> Path:
        name, digest = split_release(release)  # no separator and no leading dot gets through
        return self._root / name / digest


def _source_faults(source: Path) -> Iterator[str]:
    """What is wrong with a folder before any file in it is opened."""
    if source.is_symlink() or not source.is_dir():
        yield "it is not a folder"
        return
    for path in sorted(source.rglob("*")):
        if path.is_symlink():
            yield f"{path.name} is a symbolic link"
        elif path.suffix.lower() in PICKLES:
            yield f"{path.name} is a pickle, which can run code when it is loaded"
    for name in FILES:
        if not (source / name).is_file():
            yield f"{name} is missing"


def _added(home: Path) -> Iterator[str]:
    """What was put into an artifact's folder later. vLLM would read some files if they were there."""
    for path in (home.parent, home, *home.iterdir()):
        if path.is_symlink():
            yield f"{path.name} is a symbolic link"
        elif path.parent == home and path.name not in FILES:
            yield f"{path.name} does not belong to it"


def _judge(folder: Path, max_rank: int) -> tuple[Manifest | None, tuple[str, ...]]:
    """The manifest in `folder` and all that is wrong with it and its files."""
    try:
        manifest = msgspec.json.decode((folder / MANIFEST_FILE).read_bytes(), type=Manifest)
        files = digest_files(folder, WEIGHT_FILES)
    except (msgspec.MsgspecError, UnicodeDecodeError, OSError) as error:
        return None, (f"cannot be read: {error}",)
    identity = tuple(_identity_faults(manifest, files))
    # Files that are not those of the manifest say nothing of the adapter: their contents are not judged.
    return manifest, identity or weight_faults(folder, manifest.lora, max_rank)


def _identity_faults(manifest: Manifest, files: dict[str, str]) -> Iterator[str]:
    if not is_name(manifest.name):
        yield f"{manifest.name!r} cannot be an adapter's name"
    for name in sorted(files.keys() | manifest.files.keys()):
        if files.get(name) != manifest.files.get(name):
            yield f"{name} has not the digest that the manifest gives it"
    if manifest.digest != combined_digest(manifest.files, manifest.base.revision):
        yield "the manifest's digest is not that of its files and base"
    if not manifest.probes:
        yield "it has no probes, so no replica could be shown to serve it"


def _copy_durably(source: Path, target: Path) -> None:
    """Copy one file without following links, and have it on disk before the folder gets its final name."""
    shutil.copyfile(source, target, follow_symlinks=False)
    with target.open("rb") as file:
        os.fsync(file.fileno())

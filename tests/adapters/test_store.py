"""The artifact store takes in whole, honest, servable adapters, and notices when one is changed later."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save_file

from adapters.errors import ArtifactRefused, ArtifactTampered, UnknownRelease
from adapters.manifest import MANIFEST_FILE, WEIGHT_FILES
from adapters.store import ArtifactStore
from tests.support.artifacts import CONFIG, make_artifact, tensors, write_manifest

CONFIG_FILE, TENSOR_FILE = WEIGHT_FILES
Plant = Callable[[Path], object]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_artifact(tmp_path / "source")


def flip_bit(folder: Path) -> None:
    content = bytearray((folder / TENSOR_FILE).read_bytes())
    content[-1] ^= 1
    (folder / TENSOR_FILE).write_bytes(content)


def truncate(folder: Path) -> None:
    content = (folder / TENSOR_FILE).read_bytes()
    (folder / TENSOR_FILE).write_bytes(content[: len(content) // 2])


def configured(**changes: Any) -> Plant:
    """Another configuration, with a manifest that fits it: only the rules can object."""

    def plant(folder: Path) -> None:
        (folder / CONFIG_FILE).write_text(json.dumps({**CONFIG, **changes}))
        write_manifest(folder)

    return plant


def weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Plant:
    """Other tensors, with a manifest that fits them."""

    def plant(folder: Path) -> None:
        save_file(change(tensors()), folder / TENSOR_FILE)
        write_manifest(folder)

    return plant


def sealed(plant: Plant) -> Plant:
    """A fault that was there before the manifest was written."""

    def both(folder: Path) -> None:
        plant(folder)
        write_manifest(folder)

    return both


def renamed(name: str) -> str:
    return name.replace("q_proj", "query")


def as_link(name: str) -> Plant:
    def plant(folder: Path) -> None:
        real = folder.parent / f"elsewhere-{name}"
        (folder / name).rename(real)
        (folder / name).symlink_to(real)

    return plant


FAULTS: dict[str, tuple[Plant, str]] = {
    "flipped bit": (flip_bit, f"{TENSOR_FILE} has not the digest"),
    "truncated": (truncate, f"{TENSOR_FILE} has not the digest"),
    "truncated before the manifest": (sealed(truncate), "cannot be read"),
    "other configuration": (
        lambda folder: (folder / CONFIG_FILE).write_text(json.dumps({**CONFIG, "lora_alpha": 16})),
        f"{CONFIG_FILE} has not the digest",
    ),
    "no weights": (lambda folder: (folder / TENSOR_FILE).unlink(), f"{TENSOR_FILE} is missing"),
    "no manifest": (lambda folder: (folder / MANIFEST_FILE).unlink(), f"{MANIFEST_FILE} is missing"),
    "manifest is not JSON": (lambda folder: (folder / MANIFEST_FILE).write_text("{"), "cannot be read"),
    "manifest with an unknown field": (
        lambda folder: (folder / MANIFEST_FILE).write_text(
            json.dumps({**json.loads((folder / MANIFEST_FILE).read_text()), "path": "/etc"})
        ),
        "unknown field",
    ),
    "digest of other files": (lambda folder: write_manifest(folder, digest="0" * 64), "digest is not that"),
    "a name that leaves the store": (lambda folder: write_manifest(folder, name="../up"), "cannot be an"),
    "a name that ends in a newline": (lambda folder: write_manifest(folder, name="desk\n"), "cannot be an"),
    "no probes": (lambda folder: write_manifest(folder, probes=()), "no probes"),
    "pickle": (lambda folder: (folder / "adapter_model.bin").write_bytes(b"\x80\x04."), "is a pickle"),
    "pickle below": (
        lambda folder: ((folder / "old").mkdir(), (folder / "old" / "state.PT").write_bytes(b"\x80")),
        "is a pickle",
    ),
    "linked weights": (as_link(TENSOR_FILE), "symbolic link"),
    "linked manifest": (as_link(MANIFEST_FILE), "symbolic link"),
    "DoRA": (configured(use_dora=True), "use_dora"),
    "saved modules": (configured(modules_to_save=["lm_head"]), "modules_to_save"),
    "bias": (configured(bias="lora_only"), "bias"),
    "LoRA bias": (configured(lora_bias=True), "lora_bias"),
    "rank pattern": (configured(rank_pattern={"q_proj": 2}), "rank_pattern"),
    "alpha pattern": (configured(alpha_pattern={"q_proj": 2}), "alpha_pattern"),
    "added tokens": (configured(trainable_token_indices=[7]), "trainable_token_indices"),
    "PiSSA": (configured(init_lora_weights="pissa"), "init_lora_weights"),
    "not LoRA": (configured(peft_type="IA3"), "peft_type"),
    "rank over the limit": (configured(r=32), "rank 32 is not between"),
    "rank is no number": (configured(r="4"), "rank '4' is not between"),
    "other scaling than evaluated": (configured(lora_alpha=64), "alpha is 64"),
    "other scaling rule than evaluated": (configured(use_rslora=False), "rslora is False"),
    "other modules than evaluated": (configured(target_modules=["q_proj"]), "target_modules is"),
    "configuration is a list": (
        sealed(lambda f: (f / CONFIG_FILE).write_text("[]")),
        "does not hold an object",
    ),
    "no tensors": (weights(lambda old: {}), "there are no tensors"),
    "renamed module": (
        weights(lambda old: {renamed(k): v for k, v in old.items()}),
        "none of target_modules",
    ),
    "renamed prefix": (
        weights(lambda old: {k.removeprefix("base_model."): v for k, v in old.items()}),
        "is not a LoRA weight",
    ),
    "half a pair": (weights(lambda old: dict(list(old.items())[1:])), "lacks A"),
    "tensors of another rank": (weights(lambda old: {k: v[:3] for k, v in old.items()}), "lacks A"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(fault: str, store: ArtifactStore, source: Path) -> None:
    """Each planted fault keeps the folder out, is named, and leaves nothing behind in the store."""
    plant, reason = FAULTS[fault]
    plant(source)
    with pytest.raises(ArtifactRefused) as refused:
        store.put(source)
    assert reason in str(refused.value)
    assert store.list() == ()
    assert not list((source.parent / "store").glob("*"))


def test_takes_in_and_gives_back(store: ArtifactStore, source: Path) -> None:
    """What was put is found by its release name, under its own folder, with the same manifest and bytes."""
    manifest = store.put(source)
    assert store.list() == (manifest.release,)
    assert store.get(manifest.release) == manifest
    home = store.path(manifest.release)
    assert (home.parent.name, home.name) == ("desk", manifest.digest[:12])
    assert all((home / name).read_bytes() == (source / name).read_bytes() for name in WEIGHT_FILES)


def test_copies_only_known_files(store: ArtifactStore, source: Path) -> None:
    """A model card beside the weights is no reason to refuse, and does not get in."""
    (source / "README.md").write_text("a model card")
    home = store.path(store.put(source).release)
    assert {path.name for path in home.iterdir()} == {MANIFEST_FILE, *WEIGHT_FILES}


def test_same_adapter_again_is_no_change(store: ArtifactStore, source: Path) -> None:
    """Equal bytes are one artifact; the manifest that came first stays, whatever the second one claims."""
    first = store.put(source)
    write_manifest(source, created_at="2030-01-01T00:00:00+00:00")
    assert store.put(source) == first
    assert store.list() == (first.release,)


def test_other_bytes_are_another_release(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    """Two trainings under one name live side by side."""
    releases = {store.put(source).release, store.put(make_artifact(tmp_path / "two", seed=1)).release}
    assert len(releases) == 2
    assert set(store.list()) == releases


TAMPERING: dict[str, tuple[Plant, str]] = {
    "flipped bit": (flip_bit, "digest"),
    "truncated": (truncate, "digest"),
    "linked weights": (as_link(TENSOR_FILE), "symbolic link"),
    "file added": (lambda home: (home / "tokenizer.json").write_text("{}"), "does not belong"),
    "another adapter": (
        lambda home: (
            save_file(tensors(9), home / TENSOR_FILE),
            write_manifest(home),
        ),
        "the files are those of",
    ),
}


@pytest.mark.parametrize("how", TAMPERING)
def test_notices_tampering_on_read(how: str, store: ArtifactStore, source: Path) -> None:
    """Every read digests the files again, so what was changed in the store is not handed to a replica."""
    release = store.put(source).release
    plant, reason = TAMPERING[how]
    plant(store.path(release))
    with pytest.raises(ArtifactTampered, match=reason):
        store.get(release)


def test_linked_folder_is_noticed(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    """A release's folder that is a link to somewhere else is not followed."""
    release = store.put(source).release
    home = store.path(release)
    home.rename(tmp_path / "moved")
    home.symlink_to(tmp_path / "moved")
    with pytest.raises(ArtifactTampered, match="symbolic link"):
        store.get(release)


@pytest.mark.parametrize(
    "release",
    ["desk", "desk@", "../desk@" + "0" * 12, "desk@../../../etc", "desk@" + "0" * 12, "a/b@" + "0" * 12],
)
def test_unknown_release(release: str, store: ArtifactStore, source: Path) -> None:
    """Only names of releases that are here lead anywhere."""
    store.put(source)
    with pytest.raises(UnknownRelease):
        store.get(release)


def test_rank_limit_is_the_replicas(source: Path, tmp_path: Path) -> None:
    """An adapter that these replicas could not load is refused, though others could."""
    with pytest.raises(ArtifactRefused, match="not between 1 and 2"):
        ArtifactStore(tmp_path / "store", max_rank=2).put(source)


def test_every_fault_at_once(store: ArtifactStore, source: Path) -> None:
    """All that is wrong is told in one go."""
    configured(use_dora=True, bias="all", r=64)(source)
    with pytest.raises(ArtifactRefused) as refused:
        store.put(source)
    assert len(refused.value.problems) >= 3


def test_export_is_what_was_stored(store: ArtifactStore, source: Path, tmp_path: Path) -> None:
    """The exported folder holds the very bytes, can be taken in again, and is never mixed."""
    manifest = store.put(source)
    target = tmp_path / "out" / "desk"
    assert store.export(manifest.release, target) == manifest
    assert {file.name for file in target.iterdir()} == {"manifest.json", *WEIGHT_FILES}
    assert ArtifactStore(tmp_path / "elsewhere").put(target).release == manifest.release
    with pytest.raises(FileExistsError):
        store.export(manifest.release, target)
    flip_bit(store.path(manifest.release))
    with pytest.raises(ArtifactTampered):
        store.export(manifest.release, tmp_path / "again")
    assert not (tmp_path / "again").exists()

"""Find a base model and say exactly which one it is. No torch: the gateway's side uses it too."""

import hashlib
import re
from pathlib import Path

from huggingface_hub import snapshot_download

from adapters.manifest import BaseRevision, combined_digest, digest_files
from finetune.job import BUNDLED_BASES

# Weights only as safetensors: a pickle can run code when it is loaded.
NEEDED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
REVISION_FILES = re.compile(r"config\.json|.*\.safetensors(\.index\.json)?")
TOKENIZER_FILES = re.compile(r"tokenizer.*|vocab\..*|merges\.txt|special_tokens_map\.json|added_tokens\.json")


class BaseNotFound(ValueError):
    """Neither a folder, nor a bundled base, nor a model that the hub (or its cache) has."""


def find_base(name: str) -> tuple[Path, str]:
    """The folder that holds a base, and the name to call it by, which is never a path of this machine."""
    if (Path(name) / "config.json").is_file():
        return Path(name), Path(name).resolve().name
    if (BUNDLED_BASES / name / "config.json").is_file():
        return BUNDLED_BASES / name, name
    try:
        return Path(snapshot_download(name, allow_patterns=NEEDED)), name
    except (OSError, ValueError) as error:  # no network, no such model, not a model's name
        raise BaseNotFound(f"base model {name!r} not found: {error}") from error


def describe_base(folder: Path, name: str, template: str, dtype: str) -> BaseRevision:
    """The identity of a base from its files. FileNotFoundError if it has no weights or no tokenizer."""
    return BaseRevision(
        name=name,
        revision=_digest(folder, REVISION_FILES),
        tokenizer_sha256=_digest(folder, TOKENIZER_FILES),
        template_sha256=hashlib.sha256(template.encode()).hexdigest(),
        dtype=dtype,
    )


def _digest(folder: Path, pattern: re.Pattern[str]) -> str:
    names = tuple(path.name for path in folder.iterdir() if pattern.fullmatch(path.name))
    if not names:
        raise FileNotFoundError(f"no file in {folder} matches {pattern.pattern}")
    return combined_digest(digest_files(folder, names))

"""The process behind `preflight.learn_from`: `python -m finetune.curate.tokenizing BASE ROWS.jsonl`.

Imports transformers, so nothing that serves imports this.
"""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
from transformers import AutoTokenizer

from finetune.base import BaseNotFound, find_base
from finetune.curate.preflight import preflight
from finetune.dataset import read_rows


def main() -> None:
    """One Preflight as JSON on stdout; status 1 with the reason on stderr."""
    base, data = sys.argv[1], Path(sys.argv[2])
    out, sys.stdout = sys.stdout, sys.stderr  # libraries print; stdout is for the result
    try:
        folder, name = find_base(base)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = read_rows(data, minimum=1)
    except (BaseNotFound, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    config, generation = (_json(folder / file) for file in ("config.json", "generation_config.json"))
    longest = int(config.get("max_position_embeddings") or tokenizer.model_max_length)
    configured = generation.get("eos_token_id", config.get("eos_token_id"))
    several = configured if isinstance(configured, list) else [configured]
    # The ids at which vLLM ends an answer: the tokenizer's and all of the generation config's.
    stops = frozenset(token for token in (*several, tokenizer.eos_token_id) if token is not None)
    out.write(msgspec.json.encode(preflight(name, rows, tokenizer, stops, longest)).decode())


def _json(path: Path) -> dict[str, Any]:
    """Read as it stands: the library's own classes for these files bring torch, which takes seconds."""
    return dict(json.loads(path.read_text())) if path.is_file() else {}


if __name__ == "__main__":
    main()

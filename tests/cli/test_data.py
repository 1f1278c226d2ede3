"""`headgate data …` and `headgate runs …`: exit codes, tables and JSON, on real files and the real base."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app
from gateway.errors import ConfigError
from tests.finetune.curate.test_checks import SOUND
from tests.finetune.samples import chat


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.jsonl", SOUND)


def written(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*words: object) -> tuple[int, str]:
    """Exit code, or 2 with the words of the error, and the output."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, ConfigError):
        return 2, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_sound_data_is_fit(rows: Path) -> None:
    """Exit 0, with rows and labels."""
    code, said = run("data", "check", rows)
    assert code == 0
    assert "transfer" in said


def test_faults_are_listed_and_warnings_count_when_asked(rows: Path, tmp_path: Path) -> None:
    """Exit 1 for errors, for warnings only with --strict; as JSON every finding with its lines."""
    warned = written(tmp_path / "warned.jsonl", [*SOUND, SOUND[0]])
    assert run("data", "check", warned)[0] == 0
    assert run("data", "check", warned, "--strict")[0] == 1
    broken = written(tmp_path / "broken.jsonl", [*SOUND, {"messages": []}, chat("x", "y", weight=2)])
    code, said = run("data", "check", broken, "--json")
    assert code == 1
    assert [(each["check"], each["lines"], each["path"]) for each in json.loads(said)["findings"]] == [
        ("schema", [25], "$.messages"),
        ("schema", [26], "$.messages[1].weight"),
    ]
    code, said = run("data", "check", rows, "--validation", rows, "--json")
    assert code == 1
    assert {each["check"] for each in json.loads(said)["findings"]} == {"overlap"}
    assert run("data", "check", tmp_path / "none.jsonl")[0] == 2


def test_rows_of_preferences(tmp_path: Path) -> None:
    """Checked by their own rules, and what is preferred as any other rows."""
    pairs = [
        {
            "input": {"messages": row["messages"][:1]},
            "preferred_output": row["messages"][1:],
            "non_preferred_output": [{"role": "assistant", "content": "no"}],
        }
        for row in SOUND
    ]
    path = written(tmp_path / "pairs.jsonl", pairs)
    assert run("data", "check", path, "--preferences", "--strict")[0] == 0
    assert run("data", "check", path)[0] == 1
    path = written(path, [*pairs, pairs[0] | {"non_preferred_output": pairs[0]["preferred_output"]}])
    code, said = run("data", "check", path, "--preferences", "--json")
    assert code == 1
    assert [each["path"] for each in json.loads(said)["findings"]] == ["$.non_preferred_output"]


@pytest.mark.train
def test_tokens_by_the_bases_own_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: what is learned of each row, and an answer that would be cut off."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    long = written(
        tmp_path / "long.jsonl", [*SOUND, chat("word " * 600, "card"), chat("say it", "word " * 1100)]
    )
    code, said = run("data", "check", long, "--base", "sluice-4m", "--json")
    assert code == 1
    report = json.loads(said)
    cut = [each for each in report["findings"] if each["check"] == "tokens"]
    assert [each["lines"] for each in cut] == [[26]]
    assert "the base takes 1024: the answer would be cut off" in cut[0]["cause"]
    assert report["tokens"]["rows"] == 25
    code, said = run("data", "show", long, "--base", "sluice-4m", "--json")
    assert code == 0
    shown = json.loads(said)["preflight"]
    assert shown["learned"] == ["card<|end|>"]
    assert shown["rendered"].endswith("<|assistant|>card<|end|>")
    assert shown["rows"][0]["eos"]


def test_build_and_split_make_versions(rows: Path, tmp_path: Path) -> None:
    """From JSONL and from a table; the version can be shown, and is proved when it is."""
    written(rows, [*SOUND, SOUND[0]])
    code, said = run("data", "build", rows, "--name", "desk", "-o", tmp_path / "sets", "--json")
    assert code == 0
    made = json.loads(said)
    assert made["version"]["dropped"] == [{"rule": "duplicate", "lines": [25]}]
    assert run("data", "show", made["folder"])[0] == 0
    (Path(made["folder"]) / "train.jsonl").write_text("")
    code, said = run("data", "show", made["folder"])
    assert code == 2
    assert "is no longer what the version was made of" in said
    table = tmp_path / "t.csv"
    pairs = [[message["content"] for message in row["messages"]] for row in SOUND]
    table.write_text("text,queue\n" + "".join(f'"{asked}",{queue}\n' for asked, queue in pairs))
    words = ("data", "build", table, "--question", "text", "--answer", "queue", "-o", tmp_path / "sets")
    assert run(*words)[0] == 0
    assert not list((tmp_path / "sets").glob(".*"))
    code, said = run("data", "split", rows, "--share", "0.25", "-o", tmp_path / "sets", "--json")
    assert (code, json.loads(said)["version"]["train_rows"]) == (0, 18)


@pytest.mark.parametrize("command", ["check", "build", "split", "show"])
def test_help_has_an_example(command: str) -> None:
    """Each command shows how it is used."""
    assert f"headgate data {command}" in " ".join(run("data", command, "--help")[1].split())


def test_runs(trained: dict[str, Path]) -> None:
    """Every adapter that was trained, one of them, and two side by side."""
    root = trained["v1"].parents[1]
    code, said = run("runs", "list", "--runs", root, "--json")
    assert code == 0
    assert {each["run"] for each in json.loads(said)} >= {trained["v1"].name, trained["v2"].name}
    assert run("runs", "list", "--runs", root)[0] == 0
    code, said = run("runs", "show", trained["v1"])
    assert code == 0
    assert "sluice-4m" in said
    code, said = run("runs", "compare", trained["v1"], trained["v2"], "--json")
    compared = json.loads(said)
    assert not compared["same_held_out_rows"]
    assert "data sha256" in compared["differing"]
    assert "epochs" not in compared["differing"]
    assert run("runs", "show", "queues@", "--runs", root)[0] == 2
    assert run("runs", "show", "nothing@", "--runs", root)[0] == 2

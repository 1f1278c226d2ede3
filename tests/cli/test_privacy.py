"""`headgate privacy scan` as a process: what it prints, what it hides, how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = "hello\nmy card is 4111 1111 1111 1111,\nmail jane@example.com\n"
RULES = """
dictionaries:
  - {name: project, class: restricted, terms: [Blue Heron]}
patterns:
  - {name: ticket, class: internal, pattern: 'HG-\\d{4}', matches: [HG-1234]}
"""


def scan(*arguments: str, text: str | bytes = TEXT) -> subprocess.CompletedProcess[str]:
    """The command's end; `text` is its standard input."""
    data = text.encode() if isinstance(text, str) else text
    code = "from gateway.cli.main import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", code, "privacy", "scan", *arguments],
        input=data,
        capture_output=True,
        timeout=60,
    )
    return subprocess.CompletedProcess(
        ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode()
    )


def test_for_people() -> None:
    """Type, place, class, confidence, the value but for its ends hidden; a summary; what is not covered."""
    ended = scan("-")
    assert ended.returncode == 1
    card, mail, summary, names = ended.stdout.splitlines()
    assert card.split()[:5] == ["2:12", "payment_card", "restricted", "17-36", "0.90"]
    assert card.endswith("4••• •••• •••• •••1")
    assert mail.split()[:3] == ["3:6", "email", "confidential"]
    assert "jane" not in ended.stdout
    assert summary == "2 found: 1 payment_card, 1 email. Class: restricted."
    assert names.startswith("Names and street addresses are not covered")


def test_names() -> None:
    """`--names` starts the bundled recogniser, tells what it finds and how much that is known to be."""
    ended = scan("-", "--names", text="My name is Johannes Brandt.")
    person, _, figures = ended.stdout.splitlines()
    assert person.split()[:4] == ["1:12", "person", "confidential", "11-26"]
    assert figures.startswith("names and addresses: bundled; recall/precision by character")


def test_show() -> None:
    """`--show` prints the values, without control characters that would move the cursor."""
    assert "4111 1111 1111 1111" in scan("-", "--show").stdout
    assert "\x1b" not in scan("-", "--show", text="pwd=\x1b[2Jab12cd;").stdout


def test_for_machines() -> None:
    """One JSON object for each line, places counted in that line; nothing else on standard output."""
    ended = scan("-", "--json")
    rows = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.returncode == 1
    assert [row["line"] for row in rows] == [1, 2, 3]
    assert rows[0]["findings"] == []
    assert rows[1]["findings"] == [
        {"type": "payment_card", "start": 11, "end": 30, "confidence": 0.9, "class": "restricted"}
    ]
    assert rows[2]["findings"][0]["type"] == "email"


def test_nothing_found(tmp_path: Path) -> None:
    """A clean file ends with 0, in both forms."""
    (tmp_path / "clean.txt").write_text("nothing here\n")
    assert scan(str(tmp_path / "clean.txt")).returncode == 0
    assert scan(str(tmp_path / "clean.txt"), "--json").stdout == '{"line":1,"findings":[]}\n'
    assert scan("-", "--json", text="").stdout == ""


def test_rules_and_configuration(tmp_path: Path) -> None:
    """One's own rules, and the classes that a configuration gives to kinds."""
    (tmp_path / "rules.yaml").write_text(RULES)
    ended = scan(
        "-", "--json", "--rules", str(tmp_path / "rules.yaml"), text="blue heron, HG-1234, a@b.example"
    )
    [row] = map(json.loads, ended.stdout.splitlines())
    assert [(f["type"], f["class"]) for f in row["findings"]] == [
        ("project", "restricted"),
        ("ticket", "internal"),
        ("email", "confidential"),
    ]
    (tmp_path / "bad.yaml").write_text(RULES.replace("HG-", ".*"))
    ended = scan("-", "--rules", str(tmp_path / "bad.yaml"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "ticket: is over-broad" in ended.stderr


@pytest.mark.parametrize(("text", "why"), [(b"a\x00b", "binary data"), (b"caf\xe9", "at byte 3; convert it")])
def test_what_is_no_text(text: bytes, why: str) -> None:
    """Said on standard error, with 2 and what to do."""
    ended = scan("-", text=text)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert why in ended.stderr


def test_utf_16_and_a_missing_file() -> None:
    """A byte order mark is heeded; a file that is not there is named."""
    assert scan("-", text=TEXT.encode("utf-16")).returncode == 1
    ended = scan("/nowhere/at.all")
    assert ended.returncode == 2
    assert "/nowhere/at.all: No such file or directory" in ended.stderr

"""`/v1/files` by the OpenAI SDK and at the wire: streamed to disk, limited, each team's own."""

import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from finetune.jobs.files import Incoming
from gateway.api.uploads import receive
from gateway.errors import TooLarge
from tests.support.openai_schema import assert_valid
from tests.support.stack import FLOOR_KEY, KEY, Stack, running_stack
from tests.support.waiting import wait_until

ROWS = b"".join(
    json.dumps(
        {"messages": [{"role": "user", "content": f"q {n}"}, {"role": "assistant", "content": "a"}]}
    ).encode()
    + b"\n"
    for n in range(12)
)
BOUNDARY = "b0undary"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def stack(home: Path) -> Iterator[Stack]:
    with running_stack(home) as running:
        yield running


@pytest.fixture
def disk(stack: Stack, home: Path) -> Path:
    """Where the gateway keeps its files."""
    folder = home / "var" / "files"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stack.url, api_key=KEY, max_retries=0, timeout=20) as sdk:
        yield sdk


def post(stack: Stack, body: Any, key: str = KEY, **headers: str) -> httpx.Response:
    given = {"authorization": f"Bearer {key}", "content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{stack.url}/files", content=body, headers=given, timeout=20)


def part(name: str, content: bytes, filename: str = "") -> bytes:
    file = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def test_the_life_of_a_file(client: openai.OpenAI) -> None:
    """Uploaded, found, listed, read back byte for byte, deleted; every answer in OpenAI's schema."""
    made = client.files.create(file=("rows.jsonl", ROWS), purpose="fine-tune")
    assert (made.bytes, made.filename, made.status) == (len(ROWS), "rows.jsonl", "processed")
    raw = client.files.with_raw_response.retrieve(made.id)
    assert_valid(raw.http_response.json(), "OpenAIFile")
    listed = client.files.with_raw_response.list(purpose="fine-tune")
    assert_valid(listed.http_response.json(), "ListFilesResponse")
    assert made.id in [file.id for file in client.files.list()]
    assert client.files.content(made.id).content == ROWS
    gone = client.files.with_raw_response.delete(made.id)
    assert_valid(gone.http_response.json(), "DeleteFileResponse")
    for ask in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(openai.NotFoundError, match="No such File object"):
            ask(made.id)


def test_pages(client: openai.OpenAI) -> None:
    """The SDK walks all pages by itself."""
    made = [client.files.create(file=("r.jsonl", ROWS), purpose="fine-tune").id for _ in range(5)]
    walked = [file.id for file in client.files.list(limit=2, order="asc")]
    assert [id for id in walked if id in made] == made
    assert_valid(client.files.with_raw_response.list(after=walked[-1], order="asc").http_response.json(),
                 "ListFilesResponse")  # fmt: skip


def test_a_file_can_expire(client: openai.OpenAI) -> None:
    """`expires_after` is kept and shown."""
    made = client.files.create(
        file=("r.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == made.created_at + 3600
    with pytest.raises(openai.BadRequestError, match=r"expires_after\.seconds"):
        client.files.create(
            file=("r.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 9}
        )


@pytest.mark.parametrize(
    ("name", "content", "purpose", "said"),
    [
        ("rows.txt", ROWS, "fine-tune", "Must be .jsonl"),
        ("rows.jsonl", b"", "fine-tune", "is empty"),
        ("rows.jsonl", ROWS, "batch", "purpose 'batch' is not supported"),
        ("rows.jsonl", ROWS, "assistants", "purpose 'assistants' is not supported"),
    ],
)
def test_what_is_refused(
    name: str, content: bytes, purpose: Any, said: str, client: openai.OpenAI, disk: Path
) -> None:
    """Clearly, with the parameter, and nothing stays on disk."""
    before = set(disk.iterdir())
    with pytest.raises(openai.BadRequestError, match=said):
        client.files.create(file=(name, content), purpose=purpose)
    assert set(disk.iterdir()) == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "breaks off"),
        (b"no form at all", "cannot be read"),
        (part("file", ROWS, "a.jsonl"), "breaks off"),
        (part("purpose", b"fine-tune") + END, "'file' is a required property"),
        (part("file", ROWS, "a.jsonl") + END, "'purpose' is a required property"),
        (part("file", ROWS, "a.jsonl") * 2 + END, "more than one file"),
        (part("purpose", b"x" * 5000) + END, "too long"),
        (b"".join(part(f"f{n}", b"x") for n in range(20)) + END, "more than 16 fields"),
    ],
)
def test_broken_forms(body: bytes, said: str, stack: Stack, disk: Path) -> None:
    """400 in OpenAI's envelope for whatever is no form, and nothing stays on disk."""
    before = set(disk.iterdir())
    answer = post(stack, body)
    assert answer.status_code == 400, answer.text
    assert_valid(answer.json(), "ErrorResponse")
    assert said in answer.json()["error"]["message"]
    assert set(disk.iterdir()) == before


def test_a_file_name_is_only_a_name(stack: Stack) -> None:
    """Folders and control characters are left out."""
    body = part("file", ROWS, "../../etc/a\x01.jsonl") + part("purpose", b"fine-tune") + END
    assert post(stack, body).json()["filename"] == "a.jsonl"


def test_larger_than_any_other_body(client: openai.OpenAI, disk: Path) -> None:
    """40 MiB, more than a request to the API or the hot path may hold, go through to the disk."""
    row = b'{"messages": [{"role": "user", "content": "' + b"x" * 1000 + b'"}]}\n'
    content = row * (40 * 2**20 // len(row))
    made = client.files.create(file=("large.jsonl", content), purpose="fine-tune")
    assert made.bytes == len(content)
    assert (disk / made.id).stat().st_size == len(content)


def test_the_limit(tmp_path: Path) -> None:
    """413 as soon as a file goes over what its team has left, while it comes; 403 once nothing is left."""
    with running_stack(tmp_path, changes={"finetune": {"team_gib": 2 / 1024}}) as stack:
        body = part("file", b"x" * 3 * 2**20, "a.jsonl") + part("purpose", b"fine-tune") + END
        answer = post(stack, body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (413, "file")
        assert "larger than 2,097,152 bytes" in answer.json()["error"]["message"]
        assert list((tmp_path / "var" / "files").iterdir()) == []
        body = part("file", b"x" * 2 * 2**20, "a.jsonl") + part("purpose", b"fine-tune") + END
        assert post(stack, body).status_code == 200
        full = post(stack, body)
        assert (full.status_code, full.json()["error"]["code"]) == (403, "file_quota_exceeded")
        assert post(stack, body, key=FLOOR_KEY).status_code == 200  # another team's is its own


@pytest.mark.parametrize("size", [0, 1])
async def test_a_file_of_512_mib_is_let_in_and_no_larger_one(size: int, tmp_path: Path) -> None:
    """The limit itself, without writing half a gigabyte: the file on disk is one that forgets."""

    class Forgetful(Incoming):
        def write(self, data: bytes) -> None:
            self.bytes += len(data)

    async def body() -> AsyncIterator[bytes]:
        yield part("file", b"", "a.jsonl")[:-2]
        for _ in range(512):
            yield b"x" * 2**20
        yield b"x" * size + b"\r\n" + END

    with Forgetful(tmp_path) as incoming:
        received = receive(f"multipart/form-data; boundary={BOUNDARY}", body(), incoming)
        if size:
            with pytest.raises(TooLarge, match="536,870,912 bytes"):
                await received
        else:
            assert (await received).filename == "a.jsonl"
            assert incoming.bytes == 512 * 2**20


def test_a_slow_upload_is_waited_for_and_a_stalled_one_is_not(tmp_path: Path) -> None:
    """The time limit of other bodies is one between two parts of a file."""
    parts = [part("purpose", b"fine-tune"), part("file", ROWS, "a.jsonl")[:-2], *[ROWS] * 4, b"\r\n" + END]

    def paced(pauses: list[float]) -> Iterator[bytes]:
        for piece, pause_s in zip(parts, pauses, strict=True):
            time.sleep(pause_s)
            yield piece

    with running_stack(tmp_path, changes={"limits": {"body_timeout_s": 1}}) as stack:
        slow = post(stack, paced([0.4] * len(parts)))
        assert slow.status_code == 200, slow.text
        assert slow.json()["bytes"] == 5 * len(ROWS)
        with pytest.raises(httpx.TransportError):  # the connection is closed
            post(stack, paced([0, 0, 2.5, 0, 0, 0, 0]))
        files = tmp_path / "var" / "files"
        wait_until(lambda: [path.name for path in files.iterdir()] == [slow.json()["id"]])


def test_only_keys_upload_and_only_their_own(client: openai.OpenAI, stack: Stack, disk: Path) -> None:
    """No key: 401 and nothing on disk. Another team: as if the file were not there."""
    before = set(disk.iterdir())
    body = part("file", ROWS, "a.jsonl") + part("purpose", b"fine-tune") + END
    assert post(stack, body, key="sk-unknown").status_code == 401
    assert set(disk.iterdir()) == before
    made = client.files.create(file=("r.jsonl", ROWS), purpose="fine-tune")
    with openai.OpenAI(base_url=stack.url, api_key=FLOOR_KEY, max_retries=0) as other:
        assert made.id not in [file.id for file in other.files.list()]
        for ask in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(made.id)
    assert client.files.retrieve(made.id).id == made.id

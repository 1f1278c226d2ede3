"""SIGTERM to a real `headgate serve`: what is under way ends well, and nothing is answered by half."""

import signal
import socket
from pathlib import Path

import msgspec

from gateway.backends.fake_calls import Behaviour
from tests.cli.test_workers import (
    FakeProvider,
    fake,  # noqa: F401 - the stand-in provider, a fixture
    refused,
    start,
    wait_for,
)
from tests.support.stack import KEY

WORDS = " ".join(["word"] * 40)


def request(*, stream: bool) -> bytes:
    body = msgspec.json.encode(
        {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hello"}]}
    )
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def everything(connection: socket.socket, so_far: bytes = b"") -> bytes:
    """Until the gateway closes. ConnectionResetError counts as closed: nothing more can come."""
    try:
        while data := connection.recv(65536):
            so_far += data
    except ConnectionResetError:
        pass
    return so_far


def test_a_stop_in_the_middle_of_all(tmp_path: Path, fake: FakeProvider) -> None:  # noqa: F811
    """A whole answer and a stream under way, and kept connections that ask right at the signal."""
    fake.script(*[Behaviour(reply="hello")] * 4)
    process = start(tmp_path, fake, workers=1)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().split("/v1")[0].rpartition(":")[2])
        wait_for(lambda: not refused(f"http://127.0.0.1:{port}"))
        kept = [socket.create_connection(("127.0.0.1", port), timeout=30) for _ in range(6)]
        for connection in kept[:4]:
            connection.sendall(request(stream=False))
            answered = b""
            while not answered.endswith(b"}"):
                answered += connection.recv(65536)
        whole, streaming = kept[4:]
        fake.script(Behaviour(reply=WORDS, chunk_delay=0.05), Behaviour(reply=WORDS, latency=1.0))
        streaming.sendall(request(stream=True))
        begun = streaming.recv(65536)
        assert begun.startswith(b"HTTP/1.1 200 ")
        whole.sendall(request(stream=False))
        kept[0].sendall(request(stream=False))
        process.send_signal(signal.SIGTERM)
        for connection in kept[1:4]:
            connection.sendall(request(stream=False))
        assert b"data: [DONE]" in everything(streaming, begun)
        assert everything(whole).startswith(b"HTTP/1.1 200 ")
        for connection in kept[:4]:
            said = everything(connection)
            assert said == b"" or (said.startswith(b"HTTP/1.1 200 ") and said.endswith(b"}"))
        assert process.wait(30) == 0, (tmp_path / "log").read_text()
        assert "Traceback" not in (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.communicate()

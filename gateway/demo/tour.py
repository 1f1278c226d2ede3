"""One request of each kind: where the policy sends it, and why. Each says what has to come of it."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from finetune.dataset import Row
from gateway.demo.client import Answer, Client
from gateway.demo.config import OWNED, RENTED, TASK
from gateway.demo.rented import CHAT, EMBEDDING
from gateway.demo.rows import messages

CARD = "4111 1111 1111 1111"  # the card companies' own test number; it must not leave this machine
RESTRICTED = {"x-headgate-privacy": "restricted"}
LOOK_UP: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "find_book",
        "parameters": {
            "type": "object",
            "properties": {"title": {"type": "string"}},
            "required": ["title"],
        },
    },
}


class Stop(msgspec.Struct, frozen=True):
    """A request, and what has to come of it: the HTTP status, and the backend that answers."""

    title: str
    send: Callable[[], Awaitable[Answer]]
    backend: str
    status: int = 200

    def as_expected(self, answer: Answer) -> bool:
        return (answer.status, answer.backend) == (self.status, self.backend)


def stops(app: Client, people: Client, row: Row) -> list[Stop]:
    """`row` is a row of the task; `people` has a key whose requests are confidential at least."""
    return [
        Stop(f"{TASK}: a task", lambda: app.chat(TASK, messages(row)), RENTED),
        Stop(
            "… header restricted",
            lambda: app.chat(TASK, messages(row), extra_headers=RESTRICTED),
            OWNED,
        ),
        Stop(
            "… with a tool",
            lambda: app.chat(TASK, messages(row), tools=[LOOK_UP], tool_choice="required"),
            RENTED,
        ),
        Stop(f"{CHAT}, streamed", lambda: app.stream(CHAT, said("Name three uses of a lock.")), RENTED),
        Stop(
            "… with a card number",
            lambda: app.chat(CHAT, said(f"Why was card {CARD} charged twice?")),
            OWNED,
        ),
        Stop(
            "… confidential key",
            lambda: people.chat(CHAT, said("Draft a reply to the applicant.")),
            OWNED,
        ),
        Stop("embedding", lambda: app.embed(EMBEDDING, "opening hours"), RENTED),
        Stop("… of a card number", lambda: app.embed(EMBEDDING, f"card {CARD}"), "", 403),
        Stop("gpt-9, unknown", lambda: app.chat("gpt-9", said("Hello")), "", 404),
    ]


def said(text: str) -> list[dict[str, Any]]:
    """A chat of one message."""
    return [{"role": "user", "content": text}]

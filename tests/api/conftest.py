"""Two gateways as they ship, on one database, and what drives their admin API."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.stack import ADMIN_KEY, KEY, Stack, running_stack


class Admin:
    """The admin API of one gateway, by one key."""

    def __init__(self, stack: Stack, key: str = ADMIN_KEY) -> None:
        self.stack, self.key = stack, key
        self.http = httpx.Client(base_url=stack.server.url, timeout=30)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        given = {"authorization": f"Bearer {self.key}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.request(method, f"/admin{path}", json=body, headers=given)

    def made(self, path: str, body: Any, **headers: str) -> Any:
        """The answer to a POST that has to be carried out."""
        answer = self("POST", path, body, **headers)
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def as_role(self, role: str) -> "Admin":
        """The same API by a new key of that role."""
        self("POST", "/teams", {"id": "people"})
        made = self.made("/keys", {"id": f"the-{role}", "team": "people", "role": role})
        return Admin(self.stack, made["key"])

    def ask(self, key: str = KEY, model: str = "gpt-4o-mini", content: str = "hello") -> httpx.Response:
        """A client's request."""
        body = {"model": model, "messages": [{"role": "user", "content": content}]}
        return self.http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"})


def code_of(answer: httpx.Response) -> Any:
    """The error's code."""
    return answer.json()["error"]["code"]


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Admin]:
    with running_stack(tmp_path) as stack:
        yield Admin(stack)


@pytest.fixture
def beside(admin: Admin, tmp_path: Path) -> Iterator[Admin]:
    """Another gateway, on the same database."""
    folder = tmp_path / "beside"
    folder.mkdir()
    with running_stack(folder, changes={"database": f"sqlite:///{tmp_path}/var/headgate.db"}) as stack:
        yield Admin(stack)

"""`/admin/teams`, `/admin/projects` and `/admin/keys` on running gateways: what a change does to clients."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.api.conftest import Admin, code_of
from tests.support.stack import ADMIN_KEY, KEY
from tests.support.waiting import until

FOLLOWED_S = 2.0  # the time in which all processes follow a change


@pytest.fixture(autouse=True)
def _team(admin: Admin) -> None:
    admin.made("/teams", {"id": "search", "privacy_floor": "internal", "tags": ["web"]})
    admin.made("/projects", {"id": "ranking", "team": "search"})


def new_key(admin: Admin, **terms: Any) -> str:
    return str(admin.made("/keys", {"id": "app", "team": "search", **terms})["key"])


def test_a_key_is_shown_once_and_kept_as_its_hash(admin: Admin, tmp_path: Path) -> None:
    """The secret works at once, and stands neither in the database's files nor in any other answer."""
    secret = new_key(admin, project="ranking")
    assert secret.startswith("hg_")
    assert len(secret) == 46
    assert admin.ask(secret).status_code == 200
    shown = admin("GET", "/keys/app").json()
    assert shown["prefix"] == secret[:10]
    for text in (str(shown), admin("GET", "/keys").text, admin("GET", "/audit").text):
        assert secret not in text
        assert "sha256" not in text.replace('"sha256":"***"', "")
    assert not any(secret.encode() in path.read_bytes() for path in (tmp_path / "var").glob("headgate.db*"))


async def test_all_processes_follow_within_two_seconds(admin: Admin, beside: Admin) -> None:
    """A key that one gateway made lets clients in at another one; disabled here it is refused there."""
    secret, begun = new_key(admin), time.monotonic()
    await until(lambda: beside.ask(secret).status_code == 200, FOLLOWED_S)
    terms = {"team": "search", "disabled": True}
    assert admin("PUT", "/keys/app", terms).status_code == 200
    assert admin.ask(secret).status_code == 401
    await until(lambda: beside.ask(secret).status_code == 401, FOLLOWED_S)
    assert time.monotonic() - begun < 2 * FOLLOWED_S


def test_floors_and_tags_of_key_and_team(admin: Admin) -> None:
    """A request has the class of the highest floor, and the tags of key, project and team."""
    secret = new_key(admin, tags=["batch"], privacy_floor="confidential")
    answer = admin.ask(secret)
    assert answer.headers["x-headgate-privacy-class"] == "confidential"
    (row,) = admin.stack.rows()
    assert (row.key_id, row.team, set(row.tags)) == ("app", "search", {"web", "batch"})
    admin("PUT", "/keys/app", {"team": "search"})
    assert admin.ask(secret).headers["x-headgate-privacy-class"] == "internal"


def test_allow_lists(admin: Admin) -> None:
    """Other models and other routes than those of the key are refused, with OpenAI's envelope."""
    secret = new_key(admin, models=["gpt-4o*"])
    assert admin.ask(secret, "gpt-4o-mini").status_code == 200
    refused = admin.ask(secret, "o3")
    assert (refused.status_code, code_of(refused)) == (403, "model_not_allowed")
    admin("PUT", "/keys/app", {"team": "search", "routes": ["private-stays-home"]})
    refused = admin.ask(secret)
    assert (refused.status_code, code_of(refused)) == (403, "route_not_allowed")
    admin("PUT", "/keys/app", {"team": "search", "routes": ["rented"]})
    assert admin.ask(secret).status_code == 200


def test_rotation_overlaps(admin: Admin) -> None:
    """Until its time the old secret is good beside the new one; without an overlap it ends at once."""
    first = new_key(admin)
    second = admin.made("/keys/app/rotate", {"overlap_s": 600})["key"]
    assert [admin.ask(key).status_code for key in (first, second)] == [200, 200]
    assert admin("GET", "/keys/app").json()["former_until"] > time.time() + 500
    third = admin.made("/keys/app/rotate", {"overlap_s": 0})["key"]
    assert [admin.ask(key).status_code for key in (first, second, third)] == [200, 401, 200]


def test_an_expired_key(admin: Admin) -> None:
    """A key ends at its time, and the client is told so."""
    secret = new_key(admin, expires_at=int(time.time()) - 1)
    assert code_of(admin.ask(secret)) == "key_expired"


def test_a_disabled_team_closes_its_keys(admin: Admin) -> None:
    """As long as a team or a project is disabled, none of its keys is admitted."""
    secret = new_key(admin, project="ranking")
    admin("PUT", "/teams/search", {"disabled": True})
    assert admin.ask(secret).status_code == 401
    admin("PUT", "/teams/search", {})
    assert admin.ask(secret).status_code == 200
    admin("PUT", "/projects/ranking", {"team": "search", "disabled": True})
    assert admin.ask(secret).status_code == 401


def test_keys_of_the_file_stay(admin: Admin) -> None:
    """They are listed as such, cannot be changed here, and no key of the database takes their names."""
    listed = {key["id"]: key["origin"] for key in admin("GET", "/keys").json()["data"]}
    assert listed == {"client": "file", "operator": "file", "private": "file"}
    assert code_of(admin("DELETE", "/keys/client")) == "key_of_file"
    assert code_of(admin("POST", "/keys", {"id": "client", "team": "search"})) == "already_exists"
    assert admin.ask(KEY).status_code == admin("GET", "/keys").status_code == 200
    assert admin.key == ADMIN_KEY


def test_pages(admin: Admin) -> None:
    """Pages of any size hold all keys, each once, by id; a filter holds over pages."""
    for number in range(5):
        admin.made("/keys", {"id": f"k{number}", "team": "search"})
    for limit in (1, 3, 200):
        ids, after, more = [], "", True
        while more:
            page = admin("GET", f"/keys?limit={limit}&after={after}").json()
            ids += [key["id"] for key in page["data"]]
            after, more = page["last_id"], page["has_more"]
        assert ids == ["client", "k0", "k1", "k2", "k3", "k4", "operator", "private"]
    assert [k["id"] for k in admin("GET", "/keys?team=legal").json()["data"]] == ["private"]


def test_once(admin: Admin) -> None:
    """A POST that is sent again with its Idempotency-Key is carried out once; its secret is not repeated."""
    body = {"id": "app", "team": "search"}
    first = admin.made("/keys", body, idempotency_key="one")
    again = admin.made("/keys", body, idempotency_key="one")
    assert again == first | {"key": None}
    assert admin.ask(first["key"]).status_code == 200
    other = admin("POST", "/keys", {"id": "b", "team": "search"}, idempotency_key="one")
    assert (other.status_code, code_of(other)) == (409, "idempotency_key_reused")
    assert admin("POST", "/keys", {"id": "c", "team": "none"}, idempotency_key="two").status_code == 400
    assert admin("POST", "/keys", body, idempotency_key="three").status_code == 409


def test_etags(admin: Admin) -> None:
    """A change that names an older version is refused, and names the newer one."""
    old = admin("GET", "/teams/search").headers["etag"]
    assert admin("PUT", "/teams/search", {"name": "Search"}, if_match=old).status_code == 200
    late = admin("PUT", "/teams/search", {"name": "Suche"}, if_match=old)
    assert (late.status_code, code_of(late)) == (412, "precondition_failed")
    assert admin("DELETE", "/teams/search", if_match=old).status_code == 409  # it has a project
    assert admin("GET", "/teams/search").json()["name"] == "Search"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"id": "app", "team": "nobody"}, "team"),
        ({"id": "app", "team": "search", "project": "other"}, "project"),
        ({"id": "app", "team": "search", "privacy_floor": "secret"}, "privacy_floor"),
        ({"id": "App!", "team": "search"}, "id"),
        ({"id": "app", "team": "search", "admin": True}, "admin"),
    ],
)
def test_refused(admin: Admin, body: dict[str, Any], param: str) -> None:
    """What is wrong is named, in OpenAI's envelope, and leaves nothing behind."""
    answer = admin("POST", "/keys", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert admin("GET", "/keys/app").status_code == 404


def test_in_use(admin: Admin) -> None:
    """What has keys is not deleted."""
    new_key(admin, project="ranking")
    assert code_of(admin("DELETE", "/projects/ranking")) == "project_in_use"
    assert code_of(admin("DELETE", "/teams/search")) == "team_in_use"
    for path in ("/keys/app", "/projects/ranking", "/teams/search"):
        assert admin("DELETE", path).json()["deleted"] is True
    assert admin("GET", "/teams/search").status_code == 404


def test_a_large_body(admin: Admin) -> None:
    """More than 8 MiB is refused before it is read."""
    answer = admin("POST", "/teams", {"id": "x", "name": "x" * 9_000_000})
    assert answer.status_code == 413


def test_limits_of_a_key_and_of_its_team(admin: Admin) -> None:
    """They hold as soon as they are made, and are gone when they are taken away."""
    secret = new_key(admin, limits={"requests_per_minute": 2})
    assert [admin.ask(secret).status_code for _ in range(3)] == [200, 200, 429]
    admin("PUT", "/keys/app", {"team": "search"})
    assert admin.ask(secret).status_code == 200
    admin("PUT", "/teams/search", {"limits": {"tokens_per_minute": 1}})
    assert code_of(admin.ask(secret)) == "rate_limit_exceeded"
    refused = admin("PUT", "/keys/app", {"team": "search", "limits": {"requests": 2}})
    assert refused.status_code == 400

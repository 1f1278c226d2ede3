"""The life of a policy on running gateways: draft, proof, cases, activation, roll-out, the way back."""

import threading
from collections import Counter
from typing import Any

import httpx
import pytest

from tests.api.conftest import Admin, code_of
from tests.api.test_keys import FOLLOWED_S
from tests.support.stack import KEY, POLICY
from tests.support.waiting import until

CASES: list[Any] = [
    {
        "name": "private stays home",
        "given": {"model": "gpt-4o", "privacy": "confidential"},
        "expect": {"route": "private-stays-home", "backends": ["home"]},
    }
]
UNSAFE: dict[str, Any] = {
    "name": "tests",
    "version": 9,
    "routes": [{"name": "all", "targets": [{"backend": "rented"}]}],
}


def version(number: int, **changes: Any) -> dict[str, Any]:
    return {**POLICY, "version": number, **changes}


def drafted(admin: Admin, number: int, cases: Any = ()) -> str:
    made = admin.made("/policies", {"document": version(number), "cases": list(cases)})
    assert made["state"] == "draft"
    return str(made["id"])


def decider(admin: Admin) -> str:
    """By which policy a request is decided now."""
    return admin.ask().headers["x-headgate-policy"]


async def test_from_draft_to_active_and_back(admin: Admin, beside: Admin) -> None:
    """Each step moves the state; both gateways decide by the version in force, and by the file's again."""
    label = drafted(admin, 2, CASES)
    assert admin.made(f"/policies/{label}/verify", None)["state"] == "verified"
    assert admin.made(f"/policies/{label}/test", None)["state"] == "tested"
    assert decider(admin) == "tests@1"
    rollout = admin.made(f"/policies/{label}/activate", {}, x_headgate_reason="trial of two")
    assert (rollout["active"], decider(admin)) == ("tests@2", "tests@2")
    await until(lambda: decider(beside) == "tests@2", FOLLOWED_S)
    assert admin("GET", f"/policies/{label}").json()["in_force"] == "active"
    newest = admin("GET", "/audit?limit=1").json()["data"][0]
    assert (newest["actor"], newest["reason"], newest["action"]) == (
        "operator",
        "trial of two",
        "rollout.activate",
    )
    admin.made("/rollout/rollback", None)
    assert decider(admin) == "tests@1"
    await until(lambda: decider(beside) == "tests@1", FOLLOWED_S)
    assert code_of(admin("POST", "/rollout/rollback")) == "no_previous"


def test_an_unsafe_policy_is_refused(admin: Admin) -> None:
    """The leak is named with its path, and what decided before still does."""
    label = admin.made("/policies", {"document": UNSAFE})["id"]
    for step in ("verify", "test", "activate"):
        refused = admin("POST", f"/policies/{label}/{step}", {})
        assert (refused.status_code, code_of(refused)) == (400, "policy_refused")
        assert 'route "all"' in refused.json()["error"]["message"]
    assert admin("GET", f"/policies/{label}").json()["state"] == "draft"
    assert decider(admin) == "tests@1"


def test_failing_cases_hold_a_policy_back(admin: Admin) -> None:
    """Activation runs the cases, and says which one came out otherwise."""
    wrong = [{**CASES[0], "expect": {"backends": ["rented"]}}]
    label = drafted(admin, 3, wrong)
    refused = admin("POST", f"/policies/{label}/activate", {})
    assert (refused.status_code, code_of(refused)) == (400, "policy_tests_failed")
    assert "private stays home" in refused.json()["error"]["message"]
    assert decider(admin) == "tests@1"


def test_a_version_never_changes(admin: Admin) -> None:
    """A name@version is given once, and not to what the configuration has."""
    drafted(admin, 2)
    other = version(2, routes=POLICY["routes"][:1])
    assert code_of(admin("POST", "/policies", {"document": other})) == "already_exists"
    assert code_of(admin("POST", "/policies", {"document": version(1)})) == "already_exists"
    assert admin("PUT", "/policies/tests@2", {"document": other}).status_code == 405


def test_a_share_of_the_requests(admin: Admin) -> None:
    """At 30 % each request is decided by one of the two whole; by key, all requests of a key by the same."""
    label = drafted(admin, 2)
    admin.made(f"/policies/{label}/activate", {"percent": 30})
    seen = Counter(decider(admin) for _ in range(200))
    assert seen.keys() == {"tests@1", "tests@2"}
    assert 30 <= seen["tests@2"] <= 95
    admin.made(f"/policies/{label}/activate", {"percent": 30, "by": "key"})
    assert len({decider(admin) for _ in range(30)}) == 1
    admin.made("/rollout/rollback", None)
    assert {decider(admin) for _ in range(30)} == {"tests@1"}


def test_two_who_activate(admin: Admin) -> None:
    """The one who looked at an older roll-out is refused."""
    first, second = drafted(admin, 2), drafted(admin, 3)
    etag = admin("GET", "/rollout").headers["etag"]
    assert admin("POST", f"/policies/{first}/activate", {}, if_match=etag).status_code == 200
    late = admin("POST", f"/policies/{second}/activate", {}, if_match=etag)
    assert (late.status_code, decider(admin)) == (412, "tests@2")


def test_diff(admin: Admin) -> None:
    """What a version changes, against what is in force or another one."""
    label = drafted(admin, 2)
    lines = admin("GET", f"/policies/{label}/diff").json()["diff"]
    assert "-version: 1" in lines
    assert "+version: 2" in lines
    assert admin("GET", f"/policies/{label}/diff?against={label}").json()["diff"] == []
    assert admin("GET", f"/policies/{label}/diff?against=none@1").status_code == 404


def test_activation_under_traffic(admin: Admin) -> None:
    """While versions with other targets come and go, no request fails and none is decided by half of one."""
    away = version(
        2,
        routes=[
            POLICY["routes"][0],
            {"name": "second", "targets": [{"backend": "home", "model": "home-model"}]},
        ],
    )
    admin.made("/policies", {"document": away})
    belongs = {"tests@1": "rented", "tests@2": "second"}
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def ask() -> None:
        with httpx.Client() as http:
            body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
            while not stop.is_set():
                url, key = f"{admin.stack.url}/chat/completions", {"authorization": f"Bearer {KEY}"}
                answers.append(http.post(url, json=body, headers=key))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    for _ in range(8):
        admin.made("/policies/tests@2/activate", {})
        admin.made("/rollout/rollback", None)
    stop.set()
    for client in clients:
        client.join()
    assert len(answers) > 50
    assert {a.status_code for a in answers} == {200}
    seen = {(a.headers["x-headgate-policy"], a.headers["x-headgate-route"]) for a in answers}
    assert seen == set(belongs.items())


def test_explain(admin: Admin) -> None:
    """Routes with what of them does not hold, targets with what rules them out; nobody is called."""
    label = drafted(admin, 2)
    question = {
        "body": {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "IBAN DE89 3704 0044 0532 0130 00"}],
        }
    }
    for id in (label, "tests@1"):
        told = admin.made(f"/policies/{id}/explain", question)
        assert (told["policy"], told["classified"]) == (id, "restricted")
        assert [(r["route"], r["taken"]) for r in told["routes"]] == [
            ("private-stays-home", True),
            ("rented", False),
        ]
        assert told["routes"][1]["unmet"] == ["class restricted is outside its range"]
        assert told["candidates"] == ["home"]
        assert "DE89" not in str(told)
    assert not admin.stack.home.calls
    assert not admin.stack.rented.calls
    assert admin.stack.rows() == []


@pytest.mark.parametrize(
    "document", [{}, {"name": "x"}, {"name": "x", "version": "1"}, {"name": "a/b", "version": 1}]
)
def test_no_name_no_draft(admin: Admin, document: dict[str, Any]) -> None:
    """What has no name and version cannot be kept."""
    assert admin("POST", "/policies", {"document": document}).status_code == 400


def test_the_schema_of_policies(admin: Admin) -> None:
    """Editors and other programs get it from the gateway, and so may a viewer."""
    schema = admin.as_role("viewer")("GET", "/policies/schema").json()
    assert schema["$defs"]["Route"]["properties"]["shadow"]
    assert "restricted" in str(schema["$defs"]["ClassRange"])


def test_an_explanation_has_costs(admin: Admin) -> None:
    """Each candidate says what it may cost; one whose price nobody knows says so."""
    body = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
    told = admin.made("/policies/tests@1/explain", {"body": body, "task": "sort"})
    (target,) = told["targets"]
    assert (target["place"], target["expected_ms"]) == ("first choice", None)
    assert target["expected_nano"] > 0
    other = admin.made("/policies/tests@1/explain", {"body": {**body, "model": "nobodys-model"}})
    assert other["targets"][0]["expected_nano"] is None

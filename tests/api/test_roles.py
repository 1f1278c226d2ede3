"""Who may do what below `/admin`."""

import pytest

from tests.api.conftest import Admin, code_of
from tests.support.stack import KEY


def test_a_client_key_may_nothing(admin: Admin) -> None:
    """A key without a role is refused everywhere below /admin; nobody at all is told to bring a key."""
    client = Admin(admin.stack, KEY)
    assert code_of(client("GET", "/teams")) == "admin_only"
    assert Admin(admin.stack, "hg_unknown")("GET", "/teams").status_code == 401


def test_a_viewer_changes_nothing(admin: Admin) -> None:
    """Each route that is not GET refuses a viewer, explain aside; the log stays as it is."""
    viewer = admin.as_role("viewer")
    before = admin("GET", "/audit").json()
    tried = 0
    for path, methods in admin("GET", "/openapi.json").json()["paths"].items():
        for method in set(methods) - {"get"}:
            if path.startswith("/admin/") and not path.endswith("/explain"):
                answer = viewer(
                    method.upper(), path.removeprefix("/admin").replace("{", "").replace("}", ""), {}
                )
                assert answer.status_code in (400, 403), (method, path, answer.text)
                tried += 1
    assert tried >= 19
    assert admin("GET", "/audit").json() == before


@pytest.mark.parametrize(
    "path",
    ["/keys", "/policies", "/audit", "/privacy/dictionaries", "/privacy/patterns", "/adapters", "/status"],
)
def test_finance_sees_costs_and_no_more(admin: Admin, path: str) -> None:
    """Finance reads reports and who they are booked to, and nothing that could hold content."""
    finance = admin.as_role("finance")
    admin.ask(content="my secret is plum")
    assert admin.stack.rows()
    report = finance("GET", "/reports/chargeback?by=team&period=7d")
    assert report.status_code == 200
    assert "support" in report.text
    assert "plum" not in report.text
    assert finance("GET", "/teams").status_code == 200
    assert code_of(finance("GET", path)) == "role_lacks_right"
    assert finance("POST", "/teams", {"id": "x"}).status_code == 403


def test_an_operator_deals_in_no_keys_with_roles(admin: Admin) -> None:
    """An operator makes and changes client keys, but neither makes nor touches one with a role."""
    operator = admin.as_role("operator")
    viewer = admin.as_role("viewer")
    operator.made("/keys", {"id": "app", "team": "people"})
    for method, path, body in (
        ("POST", "/keys", {"id": "boss", "team": "people", "role": "owner"}),
        ("PUT", "/keys/app", {"team": "people", "role": "viewer"}),
        ("PUT", "/keys/the-viewer", {"team": "people"}),
        ("POST", "/keys/the-viewer/rotate", {}),
        ("DELETE", "/keys/the-viewer", None),
    ):
        answer = operator(method, path, body)
        assert (answer.status_code, code_of(answer)) == (403, "owner_only")
    assert viewer("GET", "/keys/the-viewer").json()["role"] == "viewer"

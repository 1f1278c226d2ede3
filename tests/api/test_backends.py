"""Zones and backends are read by API, and changed in the file only."""

from tests.api.conftest import Admin, code_of


def test_what_the_file_says(admin: Admin) -> None:
    """Every backend stands in a zone that lists it; nothing of a key is shown."""
    backends = admin("GET", "/backends").json()
    zones = {zone["id"]: zone for zone in admin("GET", "/zones").json()}
    assert {"rented", "home"} <= {each["id"] for each in backends}
    for each in backends:
        assert each["id"] in zones[each["zone"]]["backends"]
        assert admin("GET", f"/backends/{each['id']}").json() == each
        assert not each["down"]
        assert "key" not in " ".join(each)
    assert any(zone["local"] for zone in zones.values())
    assert admin("GET", f"/zones/{backends[0]['zone']}").json() == zones[backends[0]["zone"]]


def test_what_is_not_there(admin: Admin) -> None:
    for path in ("/backends/none", "/zones/none"):
        assert admin("GET", path).status_code == 404
    assert admin("PUT", "/backends/none", {}).status_code == 405


def test_a_role_is_needed(admin: Admin) -> None:
    stranger = Admin(admin.stack, "sk-nobody")
    assert stranger("GET", "/zones").status_code == 401
    assert code_of(stranger("GET", "/backends"))

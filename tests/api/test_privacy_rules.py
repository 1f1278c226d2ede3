"""`/admin/privacy`: rules of admins are checked, kept, logged without their terms, and followed by all."""

from typing import Any

import pytest

from tests.api.conftest import Admin, code_of
from tests.api.test_keys import FOLLOWED_S
from tests.support.stack import KEY
from tests.support.waiting import until

TERMS: dict[str, Any] = {"privacy": "restricted", "terms": ["Projekt Pflaume"]}
TICKET: dict[str, Any] = {
    "privacy": "confidential",
    "pattern": r"TICKET-\d{4,8}",
    "matches": ["TICKET-12345"],
}


def class_of(admin: Admin, content: str, key: str = KEY) -> str:
    """How a client's request is classed."""
    return admin.ask(key, "home-model", content).headers["x-headgate-privacy-class"]


def test_dictionaries(admin: Admin) -> None:
    """Created, replaced under an ETag and deleted; the list and the log hold no term."""
    created = admin("PUT", "/privacy/dictionaries/codenames", TERMS)
    assert (created.status_code, created.json()["count"]) == (200, 1)
    assert admin("GET", "/privacy/dictionaries/codenames").json()["terms"] == TERMS["terms"]
    longer = {**TERMS, "terms": ["Projekt Pflaume", "Mirabelle"]}
    etag = created.headers["etag"]
    assert admin("PUT", "/privacy/dictionaries/codenames", longer, if_match=etag).json()["count"] == 2
    assert admin("PUT", "/privacy/dictionaries/codenames", TERMS, if_match=etag).status_code == 412
    for path in ("/privacy/dictionaries", "/audit"):
        text = admin("GET", path).text
        assert "codenames" in text
        assert "Pflaume" not in text
    assert admin("DELETE", "/privacy/dictionaries/codenames").status_code == 200
    assert admin("GET", "/privacy/dictionaries/codenames").status_code == 404


async def test_all_processes_classify_by_them(admin: Admin, beside: Admin) -> None:
    """A rule made at one gateway raises the class at both, and no longer does when it is deleted."""
    said = "What of projekt  PFLAUME, and TICKET-4711?"
    assert class_of(admin, said) == "public"
    admin("PUT", "/privacy/patterns/ticket", TICKET)
    assert class_of(admin, said) == "confidential"
    admin("PUT", "/privacy/dictionaries/codenames", TERMS)
    assert class_of(admin, said) == "restricted"
    assert set(admin.stack.rows()[-1].findings) == {"ticket", "codenames"}
    await until(lambda: class_of(beside, said) == "restricted", FOLLOWED_S)
    admin("DELETE", "/privacy/dictionaries/codenames")
    admin("DELETE", "/privacy/patterns/ticket")
    assert class_of(admin, said) == "public"
    await until(lambda: class_of(beside, said) == "public", FOLLOWED_S)


def test_a_rule_of_one_team(admin: Admin) -> None:
    """It raises the class of that team's requests and of nobody else's; a rule for all raises both."""
    admin.made("/teams", {"id": "legal"})
    key = admin.made("/keys", {"id": "app", "team": "legal"})["key"]
    admin("PUT", "/privacy/dictionaries/codenames", {**TERMS, "team": "legal"})
    admin("PUT", "/privacy/patterns/ticket", TICKET)
    assert class_of(admin, "Projekt Pflaume", key) == "restricted"
    assert class_of(admin, "Projekt Pflaume") == "public"
    assert class_of(admin, "TICKET-4711", key) == class_of(admin, "TICKET-4711") == "confidential"


@pytest.mark.parametrize(
    "pattern", ["(", "(?=x)", "a*", r"(a)\1", "(((a{1000}){1000}){1000})", "e", "[a-z]+"]
)
def test_patterns_that_are_refused(admin: Admin, pattern: str) -> None:
    """What RE2 cannot run in linear time, and what would match ordinary text, is turned down."""
    refused = admin("PUT", "/privacy/patterns/ticket", {**TICKET, "pattern": pattern, "matches": ["aa"]})
    assert (refused.status_code, code_of(refused)) == (400, "rule_refused")


def test_what_else_is_refused(admin: Admin) -> None:
    """An unknown team or class, an example that is missed, a name that another kind of rule has."""
    assert code_of(admin("PUT", "/privacy/patterns/ticket", {**TICKET, "team": "none"})) == "team_not_found"
    wrong = {**TICKET, "privacy": "secret"}
    assert code_of(admin("PUT", "/privacy/patterns/ticket", wrong)) == "unknown_privacy_class"
    missed = {**TICKET, "matches": ["ticket 1"]}
    assert code_of(admin("PUT", "/privacy/patterns/ticket", missed)) == "rule_refused"
    admin("PUT", "/privacy/patterns/ticket", TICKET)
    assert admin("PUT", "/privacy/dictionaries/ticket", TERMS).status_code == 409

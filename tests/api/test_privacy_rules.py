"""`/admin/privacy`: dictionaries and patterns are kept, checked and logged without their terms."""

from typing import Any

import pytest

from tests.api.conftest import Admin, code_of

TERMS: dict[str, Any] = {"privacy": "restricted", "terms": ["Projekt Pflaume"]}


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


@pytest.mark.parametrize("regex", ["(", "(?=x)", "a*", r"(a)\1", "(((a{1000}){1000}){1000})"])
def test_patterns_that_are_refused(admin: Admin, regex: str) -> None:
    """What RE2 cannot run in linear time, and what would match every request, is not taken."""
    refused = admin("PUT", "/privacy/patterns/ticket", {"privacy": "internal", "regex": regex})
    assert (refused.status_code, code_of(refused)) == (400, "pattern_refused")


def test_patterns(admin: Admin) -> None:
    """A pattern for one team, of a class of the scale, is kept as it was given."""
    pattern = {"privacy": "internal", "regex": r"TICKET-\d{4,8}", "team": "support"}
    assert code_of(admin("PUT", "/privacy/patterns/ticket", pattern)) == "team_not_found"
    admin.made("/teams", {"id": "support"})
    assert admin("PUT", "/privacy/patterns/ticket", pattern).status_code == 200
    assert admin("GET", "/privacy/patterns?team=support").json()["data"][0]["regex"] == pattern["regex"]
    wrong = {**pattern, "privacy": "secret"}
    assert code_of(admin("PUT", "/privacy/patterns/ticket", wrong)) == "unknown_privacy_class"

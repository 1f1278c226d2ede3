"""The admin API is as its OpenAPI description says, whatever is sent to it."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import checks
from schemathesis.specs.openapi import checks as openapi_checks

from tests.api.conftest import Admin

CHECKS = (
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_schema_conformance,
)
EXAMPLES = 12  # for each operation
ALL = list(HealthCheck)


def test_nothing_breaks_it(admin: Admin) -> None:
    """No answer of 5xx and none that breaks its schema, for generated requests to every operation."""
    admin.made("/teams", {"id": "t"})
    schema = schemathesis.openapi.from_dict(admin("GET", "/openapi.json").json())
    tried: list[str] = []
    for found in schema.include(path_regex="^/admin").get_all_operations():
        operation = found.ok()
        tried.append(operation.label)
        _try(operation, admin)
    assert len(tried) >= 30


def _try(operation: Any, admin: Admin) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, suppress_health_check=ALL
    )
    def ask(case: Any) -> None:
        headers = {"authorization": f"Bearer {admin.key}"}
        case.call_and_validate(base_url=admin.stack.server.url, headers=headers, checks=CHECKS)

    ask()

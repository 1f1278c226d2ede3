"""Sequences of admin calls, each made with what earlier ones gave: the links that the description implies."""

from typing import Any

import schemathesis
from hypothesis import settings

from tests.api.conftest import Admin
from tests.api.test_description import ALL, CHECKS

SEQUENCES, STEPS = 15, 8


def test_no_sequence_breaks_it(admin: Admin) -> None:
    """What is made can be read, changed, tried and deleted in any order: no 5xx, and no schema broken."""
    schema = schemathesis.openapi.from_dict(admin("GET", "/openapi.json").json())
    schema = schema.include(path_regex="^/admin")
    assert schema.analysis.inject_links() >= 40
    answers: list[int] = []

    class Sequences(schema.as_state_machine()):  # type: ignore[misc] # made at run time
        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            headers = {"authorization": f"Bearer {admin.key}"}
            return {"base_url": admin.stack.server.url, "headers": headers}

        def validate_response(
            self, response: Any, case: Any, additional_checks: Any = (), **more: Any
        ) -> None:
            answers.append(response.status_code)
            case.validate_response(response, checks=CHECKS)

    Sequences.run(
        settings=settings(
            max_examples=SEQUENCES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=ALL,
        )
    )
    assert sum(200 <= status < 300 for status in answers) >= len(answers) / 10  # not all are turned away

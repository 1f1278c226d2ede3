"""The published JSON Schema of policies, so that editors complete and check them.

It is made from the parts that `parse` reads by, and says less than that: what ties keys together, and what
only a catalog knows, is told by `parse`, `compile_policy` and `verify`.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from .privacy import DEFAULT_SCALE, Scale
from .schema import PolicyDocument
from .words import CLASS_FORMAT

NULL = {"type": "null"}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _Quiet(GenerateJsonSchema):
    """Defaults are left out anyway, so nobody need hear that some cannot be written."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - as pydantic has it


def policy_schema(scale: Scale = DEFAULT_SCALE) -> dict[str, Any]:
    """A JSON Schema (2020-12) whose privacy classes are those of `scale`."""
    made = PolicyDocument.model_json_schema(schema_generator=_Quiet)
    schema: dict[str, Any] = _with_classes(made, [privacy.label for privacy in scale])
    route = schema["$defs"]["Route"]
    route["oneOf"] = [{"required": ["targets"]}, {"required": ["deny"]}]
    item = schema["$defs"]["Item"]
    item["oneOf"] = [{"required": ["backend"]}, {"required": ["group"]}]
    return {"$schema": DIALECT, "title": "Headgate policy", **schema}


def _with_classes(node: Any, labels: list[str]) -> Any:
    """`node` with the labels where a class may stand, and without defaults: JSON has no word for some."""
    if isinstance(node, list):
        return [_with_classes(item, labels) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("format") == CLASS_FORMAT:
        return {"type": "string", "enum": labels}
    made = {key: _with_classes(value, labels) for key, value in node.items() if key != "default"}
    others = [other for other in made.get("anyOf", ()) if other != NULL]
    if len(others) == 1:  # what is absent by default is never written as nothing
        return {key: value for key, value in made.items() if key != "anyOf"} | others[0]
    return made

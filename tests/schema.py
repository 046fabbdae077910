"""The public JSON Schema, for tests: every report of the suite is validated against it."""

from __future__ import annotations

import functools
import json
from typing import Any

from jsonschema import Draft202012Validator

from composecli.report.json_v1 import schema_text


@functools.cache
def validator(definition: str | None = None) -> Draft202012Validator:
    """Validate a whole report, or one definition of the schema by its name."""
    schema = json.loads(schema_text())
    if definition is not None:
        schema = {"$ref": f"#/$defs/{definition}", "$defs": schema["$defs"]}
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def parse_report(text: str) -> Any:
    """Return the report as data.

    Raises:
        jsonschema.ValidationError: it does not follow the schema.
    """
    data = json.loads(text)
    validator().validate(data)
    return data

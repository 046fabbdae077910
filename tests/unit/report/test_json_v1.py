"""JSON reports: every key is in the schema, whatever the internal classes are called."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any, get_args

import pytest
from jsonschema import ValidationError

from composecli.core.bridge import Step
from composecli.report.json_v1 import as_json, render, schema_text
from tests.schema import validator
from tests.unit.report.reports import CHECK, INSPECT, REPORTS, STEPS


@pytest.mark.parametrize("name", REPORTS)
def test_every_key_of_a_full_report_is_in_the_schema(name: str) -> None:
    validator().validate(as_json(REPORTS[name]))


@pytest.mark.parametrize("name", REPORTS)
def test_no_key_can_be_added_or_left_out_at_any_depth(name: str) -> None:
    data = as_json(REPORTS[name])
    objects = [item for item in _objects(data) if item is not data.get("provenance")]
    assert objects
    for item in objects:
        item["new"] = 1
        _refuse(data)
        del item["new"]
        for key in tuple(item):
            value = item.pop(key)
            _refuse(data)
            item[key] = value
    validator().validate(data)


def _objects(data: Any) -> list[dict[str, Any]]:
    if isinstance(data, list):
        return [found for item in data for found in _objects(item)]
    if isinstance(data, dict):
        return [data, *(found for item in data.values() for found in _objects(item))]
    return []


def _refuse(data: Any) -> None:
    with pytest.raises(ValidationError):
        validator().validate(data)


def test_every_kind_of_bridge_step_keeps_its_type_and_its_fields() -> None:
    assert {type(step) for step in STEPS} == set(get_args(Step))
    for step in STEPS:
        data = step.as_data()
        fields = json.loads(json.dumps(dataclasses.asdict(step)))
        assert data == {"type": type(step).__name__, **fields}
        validator("step").validate(data)


def test_a_step_that_the_schema_does_not_know_is_refused() -> None:
    with pytest.raises(ValidationError):
        validator("step").validate({"type": "Permute", "axes": [0, 2, 1]})


@pytest.mark.parametrize(
    ("held", "shown"), [(None, None), ('{"seed": 7}', {"seed": 7}), ("no JSON", "no JSON")]
)
def test_a_provenance_is_shown_as_the_file_holds_it(held: str | None, shown: object) -> None:
    report = dataclasses.replace(INSPECT, provenance=held)
    assert as_json(report)["provenance"] == shown
    validator().validate(as_json(report))


def test_a_report_is_one_object_and_a_newline() -> None:
    file = io.StringIO()
    render(CHECK, file)
    assert file.getvalue().endswith("}\n")
    assert json.loads(file.getvalue()) == as_json(CHECK)


def test_the_schema_is_valid_and_lists_every_object_in_full() -> None:
    validator()
    for name, definition in json.loads(schema_text())["$defs"].items():
        if definition.get("type") == "object":
            assert definition["additionalProperties"] is False, name
            assert set(definition["required"]) == set(definition["properties"]), name

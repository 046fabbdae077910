"""JSON reports: every key of a full report is in the schema, whatever the internal classes are called."""

from __future__ import annotations

import dataclasses
import io
import json
from typing import Any, get_args

import pytest
from jsonschema import ValidationError

from composecli.commands.results import (
    CheckReport,
    InspectReport,
    JoinReport,
    ModelReport,
    PortRow,
    ProblemReport,
    Report,
    SeamReport,
    Written,
)
from composecli.core.blueprint import Merge, Mode
from composecli.core.bridge import Cast, Flatten, Linear, Squeeze, Step, as_data
from composecli.core.contract import Contract, Evidence, EvidenceKind, Port
from composecli.core.dims import Fixed, Free, Unknown
from composecli.core.errors import Problem
from composecli.core.facts import ArgumentFact, ModelFacts, Setting
from composecli.core.findings import Finding, Fix, Side, Verdict
from composecli.core.pytree import Argument, Call, TensorSpec
from composecli.core.rules import Rule
from composecli.report.json_v1 import as_json, render, schema_text
from composecli.workers.protocol import Check, LayerRow, Sandbox
from tests.schema import validator

STEPS: tuple[Step, ...] = (Cast("int64"), Flatten(1), Squeeze(2), Linear(1, 5, 3))
CALL = Call((Argument(TensorSpec("float32", (2, 5))),))
CONTRACT = Contract(
    (
        Port("input", (0,), "float32", (Free("N"), Fixed(5))),
        Port("mask", (1,), "float", None, optional=True),
    ),
    (Port("output 0", (), "float32", (Free("N"), Unknown("its size depends on values"))),),
    CALL,
    TensorSpec("float32", (2, 3)),
    (Evidence(EvidenceKind.PROBED, "cpu"),),
)
FINDING = Finding(
    Rule.SIZE_DIFFERS,
    "feature width differs",
    (Side("a.pt", "output 0", "float32", ("N", "5")), Side("b.pt", "input")),
    1,
    ("a note",),
    Fix("composecli join a.pt b.pt", ("adds a layer",), STEPS),
)
MODEL = ModelReport("a.pt", "TorchScript archive", CONTRACT, 6, ("a note",))
SANDBOX = Sandbox(("Landlock",), ("a memory limit",))
SEAM = SeamReport(
    "a.pt",
    "b.pt",
    (PortRow("output 0", "x", "input", "y", Verdict.BRIDGEABLE),),
    (FINDING,),
    Verdict.BRIDGEABLE,
)
CHECK = CheckReport(Mode.SEQUENTIAL, "cpu", False, (MODEL,), (SEAM,), "x", "y", False, SANDBOX)
WRITTEN = Written(
    "both.pt", 10, "0" * 64, (STEPS,), Merge.CAT, (Check("outputs", True, "equal"),), (FINDING,)
)
FACTS = ModelFacts(
    "Linear", (ArgumentFact("input", "Tensor", True),), "train", (), 18, 18, 72, ("float32",), ("cpu",),
    (("one.weight", "other.weight"),), ("a note",), (Setting("image_size", (224, 224)),), "input",
)  # fmt: skip
INSPECT = InspectReport(
    MODEL,
    FACTS,
    (LayerRow(0, "", "Linear", "", 18),),
    FINDING,
    ("holds cpu",),
    '{"version": 1}',
    10,
    False,
    SANDBOX,
)
PROBLEM = ProblemReport(
    Problem(
        Rule.NO_SUCH_FILE, "cannot read the file", "a.pt", ("a note",), ("check the path",), "trace"
    )
)
REPORTS: dict[str, Report] = {
    "check": CHECK,
    "join": JoinReport(CHECK, WRITTEN, (0,)),
    "join refused": JoinReport(CHECK, None),
    "inspect": INSPECT,
    "problem": PROBLEM,
}


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
        data = as_data(step)
        assert data == {"type": type(step).__name__, **dataclasses.asdict(step)}
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

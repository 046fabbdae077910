"""Render a report as JSON, version 1 of the public schema.

Every key is written out here, so that renaming an internal class or field cannot change the output.
A new key belongs here and in `schema_v1.json`, which `composecli schema` prints. Removing a key, or
changing its meaning, needs a `json_v2.py`. A name in backticks in a docstring below is a definition
of the schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, TypeVar

from composecli.commands.results import (
    AxisReport,
    CheckReport,
    ContractReport,
    InspectReport,
    ItemReport,
    ItemStatus,
    JoinReport,
    ModelReport,
    PortRow,
    ProblemReport,
    Report,
    SeamReport,
    SuiteReport,
    WeightsReport,
    Written,
)
from composecli.core.contract import Contract, Port
from composecli.core.errors import Problem
from composecli.core.facts import ModelFacts
from composecli.core.findings import Finding, Fix
from composecli.report.bounds import MAX_DATA_CHARS, BoundedData, is_deep
from composecli.workers.isolation import isolation_warning
from composecli.workers.protocol import Check, LayerRow, Sandbox

SCHEMA = 1
_SCHEMA_FILE = Path(__file__).with_name("schema_v1.json")

T = TypeVar("T")


def render(report: Report, file: IO[str], *, quiet: bool = False) -> None:  # noqa: ARG001
    """Write one JSON object and a newline. It is always complete: `quiet` has no effect."""
    json.dump(as_json(report), file, indent=2)
    file.write("\n")


def schema_text() -> str:
    """Return the JSON Schema (draft 2020-12) of reports and of the provenance in a joined file."""
    return _SCHEMA_FILE.read_text(encoding="utf-8")


def as_json(report: Report) -> dict[str, Any]:
    """Return the report as JSON data that follows `schema_v1.json`."""
    bounded = BoundedData()
    body = bounded.cut(_body(report))
    numbers = {"schema": SCHEMA, "exit_code": report.exit_code}
    return {**numbers, **body, "left_out": bounded.left_out}


def _body(report: Report) -> dict[str, Any]:
    """Return the keys that belong to one command."""
    match report:
        case CheckReport():
            return {"command": "check", **_check_report(report)}
        case JoinReport(check, written, bridged):
            return {
                "command": "join",
                **_check_report(check),
                "bridged_seams": list(bridged),
                "written": _optional(written, _written),
            }
        case InspectReport():
            return {"command": "inspect", **_inspect_report(report)}
        case WeightsReport():
            return {"command": "check", **_weights_report(report)}
        case SuiteReport():
            return {"command": "suite", **_suite_report(report)}
        case ProblemReport(problem):
            return {"command": None, "error": _problem(problem)}


def _check_report(report: CheckReport) -> dict[str, Any]:
    """Return the keys that `check_report` and `join_report` share."""
    return {
        "verdict": str(report.verdict),
        "warnings": report.warnings,
        "mode": str(report.mode),
        "device": report.device,
        "strict": report.strict,
        "example": report.example,
        "result": report.result,
        "models": [_model(model) for model in report.models],
        "seams": [_seam(seam) for seam in report.seams],
        "interrupted": report.interrupted,
        "isolation": _optional(report.isolation, _isolation),
    }


def _inspect_report(report: InspectReport) -> dict[str, Any]:
    """Return the keys of `inspect_report`."""
    return {
        "model": _model(report.model),
        "finding": _optional(report.finding, _finding),
        "facts": _facts(report.facts),
        "layers": [_layer(row) for row in report.layers],
        "axes": [_axis(axis) for axis in report.axes],
        "contract_file": report.contract_file,
        "portability": list(report.portability),
        "provenance": _optional(report.provenance, _parse_or_keep),
        "file_size": report.file_size,
        "interrupted": report.interrupted,
        "isolation": _optional(report.isolation, _isolation),
    }


def _weights_report(report: WeightsReport) -> dict[str, Any]:
    """Return the keys of `weights_report`."""
    notes: list[str] = []
    parameters = size = None
    if report.facts is not None:
        notes = list(report.facts.notes)
        parameters, size = report.facts.parameters, report.facts.size
    return {
        "model": report.model,
        "fits": report.misfit is None,
        "misfit": _optional(report.misfit, _problem),
        "parameters": parameters,
        "size": size,
        "notes": notes,
        "isolation": _optional(report.isolation, _isolation),
    }


def _suite_report(report: SuiteReport) -> dict[str, Any]:
    """Return the keys of `suite_report`."""
    counts = {status.replace(" ", "_"): report.count(status) for status in ItemStatus}
    return {
        "path": report.path,
        "changed_since": report.changed_since,
        "counts": counts,
        "items": [_item(item) for item in report.items],
        "interrupted": report.interrupted,
        "isolation": _optional(report.isolation, _isolation),
    }


def _item(item: ItemReport) -> dict[str, Any]:
    """Return `item`. Only one of the details is there."""
    check = weights = contract = None
    match item.detail:
        case CheckReport():
            check = _check_report(item.detail)
            # The same for all items: it is in the report itself.
            del check["isolation"], check["interrupted"]
        case WeightsReport():
            weights = _weights_report(item.detail)
            del weights["isolation"]
        case ContractReport():
            contract = _contract_report(item.detail)
    return {
        "name": item.name,
        "kind": str(item.kind),
        "line": item.line,
        "models": list(item.models),
        "expected": str(item.expected),
        "outcome": _optional(item.outcome, str),
        "status": str(item.status),
        "problem": _optional(item.problem, _problem),
        "check": check,
        "weights": weights,
        "contract": contract,
    }


def _contract_report(report: ContractReport) -> dict[str, Any]:
    """Return `item_contract`."""
    return {
        "model": _model(report.model),
        "expected": report.expected,
        "finding": _optional(report.finding, _finding),
    }


def _axis(axis: AxisReport) -> dict[str, Any]:
    """Return `axis_fate`."""
    inputs = [{"input": name, "axis": number} for name, number in axis.inputs]
    outputs = [
        {"output": name, "fate": str(fate.fate), "axis": fate.axis} for name, fate in axis.fates
    ]
    return {"dim": axis.dim, "inputs": inputs, "outputs": outputs, "reason": axis.reason}


def _model(model: ModelReport) -> dict[str, Any]:
    """Return `model`."""
    return {
        "name": model.name,
        "kind": model.kind,
        "contract": _optional(model.contract, _contract),
        "probes": model.probes,
        "notes": list(model.notes),
    }


def _contract(contract: Contract) -> dict[str, Any]:
    """Return `contract`."""
    return {
        "text": str(contract),
        "inputs": _ports(contract.general.inputs),
        "outputs": _ports(contract.general.outputs),
        "where": [str(relation) for relation in contract.general.where],
        "unknown": list(contract.unknown_dims),
        "example": str(contract.example),
        "evidence": [{"kind": str(item.kind), "detail": item.detail} for item in contract.evidence],
    }


def _ports(ports: Iterable[Port]) -> list[dict[str, Any]]:
    """Return a list of `port`."""
    return [
        {
            "name": port.name,
            "dtype": port.dtype,
            "dims": _dims(port),
            "optional": port.optional,
        }
        for port in ports
    ]


def _dims(port: Port) -> list[str] | None:
    """Return the text of each dim, `*` among them; None for any rank."""
    if port.dims is None:
        return None
    return list(port.axis_texts)


def _seam(seam: SeamReport) -> dict[str, Any]:
    """Return `seam`."""
    return {
        "producer": seam.producer,
        "consumer": seam.consumer,
        "verdict": str(seam.verdict),
        "holds": str(seam.fit.holds),
        "when": list(seam.fit.when),
        "fits_at": _optional(seam.fit.fits_at, dict),
        "fails_at": _optional(seam.fit.fails_at, dict),
        "ports": [_port_row(row) for row in seam.rows],
        "findings": [_finding(finding) for finding in seam.findings],
    }


def _port_row(row: PortRow) -> dict[str, Any]:
    """Return `port_row`."""
    return {
        "gives": row.gives,
        "given": row.given,
        "takes": row.takes,
        "taken": row.taken,
        "verdict": str(row.verdict),
    }


def _finding(finding: Finding) -> dict[str, Any]:
    """Return `finding`."""
    return {
        "code": finding.code,
        "rule": finding.rule.slug,
        "severity": str(finding.severity),
        "title": finding.title,
        "sides": [
            {"model": side.model, "port": side.port, "text": side.text} for side in finding.sides
        ],
        "axis": finding.axis,
        "notes": list(finding.notes),
        "fix": _optional(finding.fix, _fix),
        "other_fixes": [_fix(fix) for fix in finding.other_fixes],
        "help": list(finding.help),
        "op": _optional(finding.place, lambda place: place.op),
        "submodule": _optional(finding.place, lambda place: place.submodule),
    }


def _fix(fix: Fix) -> dict[str, Any]:
    """Return `fix`."""
    return {
        "command": fix.command,
        "effect": list(fix.effect),
        "bridge": [step.as_data() for step in fix.bridge],
    }


def _written(written: Written) -> dict[str, Any]:
    """Return `written`."""
    return {
        "path": written.path,
        "size": written.size,
        "sha256": written.sha256,
        "bridges": [[step.as_data() for step in bridge] for bridge in written.bridges],
        "merge": _optional(written.merge, str),
        "checks": [_verification(check) for check in written.checks],
        "notes": [_finding(note) for note in written.notes],
    }


def _verification(check: Check) -> dict[str, Any]:
    """Return one of the `checks` of `written`."""
    return {"name": check.name, "passed": check.passed, "detail": check.detail}


def _facts(facts: ModelFacts) -> dict[str, Any]:
    """Return `facts`, without the layers, which the report has as a table."""
    return {
        "class_name": facts.class_name,
        "arguments": [
            {"name": argument.name, "type_name": argument.type_name, "required": argument.required}
            for argument in facts.arguments
        ],
        "training": facts.training,
        "parameters": facts.parameters,
        "trainable": facts.trainable,
        "size": facts.size,
        "dtypes": list(facts.dtypes),
        "devices": list(facts.devices),
        "shared": [list(names) for names in facts.shared],
        "notes": list(facts.notes),
        "settings": [
            {"name": setting.name, "values": list(setting.values)} for setting in facts.settings
        ],
        "main_input": facts.main_input,
    }


def _layer(row: LayerRow) -> dict[str, Any]:
    """Return `layer`."""
    return {
        "depth": row.depth,
        "name": row.name,
        "class_name": row.class_name,
        "output": row.output,
        "parameters": row.parameters,
    }


def _isolation(sandbox: Sandbox) -> dict[str, Any]:
    """Return `isolation`; None if no sandbox was asked for."""
    return {
        "had": [str(measure) for measure in sandbox.applied],
        "missing": list(sandbox.unavailable),
        "cached": sandbox.unused,
        "warning": _optional(isolation_warning(sandbox), _problem),
    }


def _problem(problem: Problem) -> dict[str, Any]:
    """Return `problem`. The commands to run instead come first in `help`."""
    commands = [remedy.text for remedy in problem.remedies]
    return {
        "code": problem.code,
        "title": problem.title,
        "where": problem.where,
        "notes": list(problem.notes),
        "help": [*commands, *problem.help],
        "trace": problem.trace,
    }


def _optional(value: T | None, convert: Callable[[T], Any]) -> Any:
    """Return the value as data, or null."""
    if value is None:
        return None
    return convert(value)


def _parse_or_keep(text: str) -> Any:
    """Return the provenance as data, or as it is if it is not JSON: a file may contain anything."""
    if len(text) > MAX_DATA_CHARS:
        return text
    try:
        data = json.loads(text)
        # Python reads NaN and Infinity, which are not JSON.
        json.dumps(data, allow_nan=False)
    except (ValueError, RecursionError):
        return text
    if is_deep(data):
        return text
    return data

"""The report as JSON: the whole of stdout, versioned, with the exit code inside."""

from __future__ import annotations

import json
from typing import IO, Any

from composecli.codec import encode
from composecli.contract import Contract
from composecli.findings import Finding
from composecli.protocol import Confined
from composecli.results import CheckReport, InspectReport, JoinReport, ModelReport, ProblemReport, Report, SeamReport

SCHEMA = 1


def render(report: Report, file: IO[str]) -> None:
    """Print one JSON object. Its keys change only together with `schema`."""
    data = {"schema": SCHEMA, "exit_code": report.exit_code, **_body(report)}
    json.dump(data, file, indent=2)
    file.write("\n")


def _body(report: Report) -> dict[str, Any]:
    match report:
        case CheckReport():
            return {"command": "check", **_check(report)}
        case JoinReport(check, written):
            body = {"command": "join", **_check(check), "bridged_seams": list(report.bridged), "written": None}
            if written is not None:
                body["written"] = _untyped({**encode(written), "notes": [_finding(note) for note in written.notes]})
            return body
        case InspectReport():
            return {"command": "inspect", **_inspect(report)}
        case ProblemReport(problem):
            return {"command": None, "error": _untyped(encode(problem))}


def _check(report: CheckReport) -> dict[str, Any]:
    return {
        "verdict": str(report.verdict),
        "mode": str(report.mode),
        "device": report.device,
        "strict": report.strict,
        "example": report.example,
        "result": report.result,
        "models": [_model(model) for model in report.models],
        "seams": [_seam(seam) for seam in report.seams],
        "interrupted": report.interrupted,
        "isolation": _isolation(report.isolation),
    }


def _model(model: ModelReport) -> dict[str, Any]:
    return {
        "name": model.name,
        "kind": model.kind,
        "contract": _contract(model.contract) if model.contract is not None else None,
        "probes": model.probes,
        "notes": list(model.notes),
    }


def _contract(contract: Contract) -> dict[str, Any]:
    def ports(found: Any) -> list[dict[str, Any]]:
        return [
            {
                "name": port.name,
                "dtype": port.dtype,
                "dims": None if port.dims is None else [str(dim) for dim in port.dims],
                "optional": port.optional,
            }
            for port in found
        ]

    return {
        "text": str(contract),
        "inputs": ports(contract.inputs),
        "outputs": ports(contract.outputs),
        "unknown": list(contract.open_dims),
        "example": str(contract.example),
        "evidence": [{"kind": str(evidence.kind), "detail": evidence.detail} for evidence in contract.evidence],
    }


def _seam(seam: SeamReport) -> dict[str, Any]:
    return {
        "producer": seam.producer,
        "consumer": seam.consumer,
        "verdict": str(seam.verdict),
        "ports": [_untyped(encode(row)) for row in seam.rows],
        "findings": [_finding(finding) for finding in seam.findings],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    fix = finding.fix
    return {
        "code": finding.code,
        "rule": finding.rule.slug,
        "severity": str(finding.severity),
        "title": finding.title,
        "sides": [{"model": s.model, "port": s.port, "text": s.text} for s in finding.sides],
        "axis": finding.axis,
        "notes": list(finding.notes),
        "fix": None
        if fix is None
        else {"command": fix.command, "effect": list(fix.effect), "bridge": encode(fix.bridge)},
    }


def _inspect(report: InspectReport) -> dict[str, Any]:
    facts = _untyped(encode(report.facts))
    return {
        "model": _model(report.model),
        "finding": _finding(report.finding) if report.finding is not None else None,
        "facts": {key: value for key, value in facts.items() if key != "layers"},
        "layers": [_untyped(encode(row)) for row in report.layers],
        "portability": list(report.portability),
        "provenance": _parsed(report.provenance),
        "file_size": report.file_size,
        "interrupted": report.interrupted,
        "isolation": _isolation(report.isolation),
    }


def _isolation(confined: Confined | None) -> Any:
    return {"had": list(confined.had), "missing": list(confined.missing)} if confined is not None else None


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text) if text is not None else None
    except ValueError:
        return text


def _untyped(data: Any) -> Any:
    """Plain data without the class names that the worker's codec adds, but for bridge steps, which need theirs."""
    if isinstance(data, list):
        return [_untyped(item) for item in data]
    if isinstance(data, dict):
        step = data.get("type") in ("Cast", "Flatten", "Squeeze", "Linear")
        return {key: _untyped(value) for key, value in data.items() if key != "type" or step}
    return data

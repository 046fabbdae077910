"""Seam reports: each port of one model next to the port of the other, with the findings."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

from composecli.commands.results import PortRow, SeamReport
from composecli.core.contract import Contract, Port
from composecli.core.findings import Finding, Verdict, verdict_of
from composecli.core.fit import Fit

Findings = tuple[Finding, ...]
Ports = tuple[Port, ...]
Rows = tuple[PortRow, ...]
_NOT_KNOWN = Port("?", (), "?", ())


def seam_report(
    producer: str, consumer: str, rows: Rows, findings: Findings, fit: Fit | None = None
) -> SeamReport:
    """Return the report of a seam, whose verdict follows from its findings.

    A row that is compatible by itself stays so if there are others. Every other row shows the
    verdict of the seam.
    """
    verdict = verdict_of(findings)
    marked = list[PortRow]()
    for row in rows:
        if row.verdict is Verdict.COMPATIBLE and len(rows) > 1:
            marked.append(row)
        else:
            marked.append(replace(row, verdict=verdict))
    fit = fit or Fit()
    return SeamReport(producer, consumer, tuple(marked), findings, verdict, fit)


def port_rows(
    outputs: Ports | None,
    contract: Contract | None,
    compared: list[Findings] | None = None,
) -> Rows:
    """Return one row for each output with the input that is next to it, in order.

    Outputs or a contract that are not known make one row that says so. `compared` holds the
    findings of each pair; the verdict of a pair that was not compared is unknown.
    """
    inputs: Ports = (_NOT_KNOWN,)
    if contract is not None:
        inputs = contract.inputs
    if outputs is None:
        outputs = (_NOT_KNOWN,)
    verdicts = [verdict_of(findings) for findings in compared or ()]
    rows = list[PortRow]()
    for number, (output, input_port) in enumerate(zip_longest(outputs, inputs)):
        verdict = Verdict.UNKNOWN
        if number < len(verdicts):
            verdict = verdicts[number]
        rows.append(port_row(output, input_port, verdict))
    return tuple(rows)


def port_row(left: Port | None, right: Port | None, verdict: Verdict) -> PortRow:
    """Return the row of two ports; the side of a missing port is empty."""
    left_name, left_text = _name(left), _text(left)
    right_name, right_text = _name(right), _text(right)
    return PortRow(left_name, left_text, right_name, right_text, verdict)


def _name(port: Port | None) -> str:
    if port is None:
        return ""
    return port.name


def _text(port: Port | None) -> str:
    """Return the type of a port as a row shows it."""
    if port is None:
        return ""
    if port is _NOT_KNOWN:
        return "not known"
    return str(port)

"""Seam reports: each port of one model next to the port of the other, with the findings."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

from composecli.commands.results import PortRow, SeamReport
from composecli.core.contract import Contract, Port, texts_with_relations
from composecli.core.findings import Finding, Verdict, verdict_of
from composecli.core.fit import Fit
from composecli.core.relations import Where
from composecli.core.rules import Rule, Severity

Findings = tuple[Finding, ...]
Ports = tuple[Port, ...]
Rows = tuple[PortRow, ...]
# The name and the type of a port.
PortText = tuple[str, str]
_MISSING: PortText = ("", "")
_NOT_KNOWN: list[PortText] = [("?", "not known")]


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
    where: Where = (),
) -> Rows:
    """Return one row for each output with the input that is next to it, in order.

    Outputs or a contract that are not known make one row that says so. `compared` holds the
    findings of each pair; the verdict of a pair that was not compared is unknown. `where` are the
    relations between the symbols of the outputs.
    """
    given, taken = _NOT_KNOWN, _NOT_KNOWN
    if outputs is not None:
        given = port_texts(outputs, where)
    if contract is not None:
        taken = port_texts(contract.inputs, contract.where)
    verdicts = [verdict_of(findings) for findings in compared or ()]
    rows = list[PortRow]()
    for number, (left, right) in enumerate(zip_longest(given, taken, fillvalue=_MISSING)):
        verdict = Verdict.UNKNOWN
        if number < len(verdicts):
            verdict = verdicts[number]
        rows.append(PortRow(*left, *right, verdict))
    return tuple(rows)


def port_texts(ports: Ports, where: Where) -> list[PortText]:
    """Return each port as a row shows it, the relations of its dims included."""
    texts = texts_with_relations(ports, where)
    return [(port.name, text) for port, text in zip(ports, texts, strict=True)]


def as_unknown(findings: Findings, reason: str) -> Findings:
    """Return the findings, those about the example as doubts about other sizes."""
    title = "cannot decide: it fails at the example, and other sizes may fit"
    undecided = list[Finding]()
    for finding in findings:
        known = finding
        if finding.severity is Severity.ERROR:
            notes = (f"at the example: {finding.title}", *finding.notes, reason)
            known = Finding(Rule.SIZES_NOT_KNOWN, title, finding.sides, notes=notes)
        undecided.append(known)
    return tuple(undecided)

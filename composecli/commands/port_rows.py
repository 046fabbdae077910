"""Rows: each port of a seam beside the port that it meets, for the table."""

from __future__ import annotations

from dataclasses import replace
from itertools import zip_longest

from composecli.commands.results import PortRow
from composecli.core.contract import Contract, Port
from composecli.core.findings import Finding, Verdict, verdict_of

Rows = tuple[PortRow, ...]
_NOT_KNOWN = Port("?", (), "?", ())


def port_rows(
    outputs: tuple[Port, ...] | None,
    contract: Contract | None,
    compared: list[tuple[Finding, ...]] | None = None,
) -> Rows:
    """Outputs beside inputs, in order. A side that is not known is one row that says so; `compared` has what was found
    of each pair."""
    gives = (_NOT_KNOWN,) if outputs is None else outputs
    takes = (_NOT_KNOWN,) if contract is None else contract.inputs
    rows = list[PortRow]()
    for number, (given, taken) in enumerate(zip_longest(gives, takes)):
        known = compared is not None and number < len(compared)
        verdict = (
            verdict_of(compared[number]) if compared is not None and known else Verdict.UNKNOWN
        )
        rows.append(PortRow(_name(given), _text(given), _name(taken), _text(taken), verdict))
    return tuple(rows)


def _name(port: Port | None) -> str:
    return port.name if port is not None else ""


def _text(port: Port | None) -> str:
    if port is None:
        return ""
    return "not known" if port is _NOT_KNOWN else str(port)


def marked(rows: Rows, verdict: Verdict) -> Rows:
    """The rows with the seam's verdict where it is theirs: all of them, but those that are fine by themselves."""
    return tuple(
        row
        if row.verdict is Verdict.COMPATIBLE and len(rows) > 1
        else replace(row, verdict=verdict)
        for row in rows
    )

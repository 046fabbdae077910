"""Seam reports: which port is next to which, and which verdict each row shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from composecli.commands.results import PortRow
from composecli.commands.seam_report import port_rows, seam_report
from composecli.core.contract import Contract
from composecli.core.findings import Finding, Verdict
from composecli.core.pytree import Call
from composecli.core.relations import parse_where
from composecli.core.rules import Rule
from tests.parsing import port, spec

DIFFERS = Finding(Rule.SIZE_DIFFERS, "feature width differs")
NOTE = Finding(Rule.FITS_ONLY_AT_SOME_SIZES, "compatible when H>=32")


def contract(*inputs: str) -> Contract:
    """A contract with inputs x0, x1 and so on."""
    ports = tuple(port(text, f"x{number}") for number, text in enumerate(inputs))
    return Contract(ports, (), Call(()), spec("float32[1]"), ())


def row(verdict: Verdict) -> PortRow:
    """A row with this verdict of its own."""
    return PortRow("y", "float32[N]", "input", "float32[N]", verdict)


def test_outputs_and_inputs_are_paired_in_order() -> None:
    outputs = (port("float32[N, 5]", "a"), port("int64[N]", "b"))
    rows = port_rows(outputs, contract("float32[N, 5]"), [()])
    assert rows == (
        PortRow("a", "float32[N, 5]", "x0", "float32[N, 5]", Verdict.COMPATIBLE),
        PortRow("b", "int64[N]", "", "", Verdict.UNKNOWN),
    )


def test_a_relation_is_shown_with_the_first_port_that_completes_it() -> None:
    related = replace(contract("float32[N, T]", "float32[N, S]"), where=parse_where("T<=S"))
    outputs = (port("float32[H//8, W]", "a"), port("float32[H*W]", "b"))
    rows = port_rows(outputs, related, where=parse_where("H*W % 64 == 0 and N<=3"))
    assert [row.given for row in rows] == ["float32[H//8, W] where H*W % 64 == 0", "float32[H*W]"]
    assert [row.taken for row in rows] == ["float32[N, T]", "float32[N, S] where T<=S"]


def test_a_side_that_is_not_known_is_one_row() -> None:
    (unknown_output,) = port_rows(None, contract("float32[N]"))
    assert (unknown_output.gives, unknown_output.given) == ("?", "not known")
    (unknown_input,) = port_rows((port("float32[N]", "y"),), None)
    assert (unknown_input.takes, unknown_input.taken) == ("?", "not known")


def test_a_pair_has_the_verdict_of_its_findings() -> None:
    outputs = (port("float32[5]", "a"), port("float32[5]", "b"), port("float32[5]", "c"))
    rows = port_rows(outputs, contract("float32[3]", "float32[5]", "float32[5]"), [(DIFFERS,), ()])
    verdicts = [row.verdict for row in rows]
    assert verdicts == [Verdict.INCOMPATIBLE, Verdict.COMPATIBLE, Verdict.UNKNOWN]


@pytest.mark.parametrize(
    ("findings", "verdict"),
    [((), Verdict.COMPATIBLE), ((NOTE,), Verdict.COMPATIBLE), ((DIFFERS,), Verdict.INCOMPATIBLE)],
)
def test_the_verdict_follows_from_the_findings(
    findings: tuple[Finding, ...], verdict: Verdict
) -> None:
    report = seam_report("a.pt", "b.pt", (row(Verdict.UNKNOWN),), findings)
    assert report.verdict is verdict
    assert [row.verdict for row in report.rows] == [verdict]


def test_of_several_rows_the_compatible_ones_stay_so() -> None:
    rows = (row(Verdict.COMPATIBLE), row(Verdict.UNKNOWN), row(Verdict.INCOMPATIBLE))
    report = seam_report("a.pt", "b.pt", rows, (DIFFERS,))
    incompatible = Verdict.INCOMPATIBLE
    assert [row.verdict for row in report.rows] == [
        Verdict.COMPATIBLE,
        incompatible,
        incompatible,
    ]


def test_a_single_row_shows_the_verdict_of_the_seam() -> None:
    report = seam_report("a.pt", "b.pt", (row(Verdict.COMPATIBLE),), (DIFFERS,))
    assert report.rows[0].verdict is Verdict.INCOMPATIBLE
